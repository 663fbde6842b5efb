// The record of a session: its fields under their names, and what its state means.

import { h } from "./dom.js";
import { hrefOf } from "./session.js";
import { clock, fullTime, shortTime, spoken } from "./time.js";

/** @typedef {import("./session.js").Session} Session */

/** What the end of a session means for what is stored; empty where it needs no words. @param {Session} session */
export function meaning(session) {
  if (session.status === "interrupted") {
    return "Interrupted: the connection was lost, or a timeout or a stop of the server ended the session. All audio that the service had received is transcribed and, where it was asked for, stored.";
  }
  if (session.status === "error") {
    return "Error: the session was refused or failed. What was recognised before it is stored, where that was asked for.";
  }
  return "";
}

/** Why there is no audio to play; empty if there is. @param {Session} session */
export function withoutAudio(session) {
  if (session.audio_url) return "";
  if (!session.store_audio) return "No audio is stored: this session did not ask for it (store_audio).";
  if (session.status === "active") return "The audio is stored as it arrives, and can be played when the session has ended.";
  return "The audio is not completely stored yet.";
}

/** Why there is no text; empty if there is. @param {Session} session */
export function withoutText(session) {
  if (session.transcript_url) return "";
  if (!session.store_transcript) return "No transcript is stored: this session did not ask for it (store_transcript). Its client received the text.";
  return "The transcript is not completely stored yet.";
}

/** What a sentence calls the format of the audio. @param {Session} session */
export function formatOf(session) {
  if (session.source === "upload") return "a file of this format";
  const names = { pcm_s16le: "16-bit PCM", pcm_f32le: "32-bit float PCM", mulaw: "µ-law audio", alaw: "A-law audio" };
  const name = names[/** @type {keyof typeof names} */ (session.encoding)] ?? session.encoding;
  return `${name} at ${session.sample_rate / 1000} kHz in a WAV file`;
}

const GROUPS = {
  Session: ["id", "source", "status", "error", "started_at", "ended_at", "language", "model"],
  Audio: ["audio_duration_seconds", "encoding", "sample_rate", "channels", "store_audio", "audio_url", "audio_uri"],
  Transcript: ["utterance_count", "segment_count", "word_count", "store_transcript", "transcript_version", "transcript_count", "transcript_url", "transcript_uri"],
  Chain: ["previous_session_id", "next_session_id", "resume_from_seconds"],
  Enhancement: ["enhance_on_end", "enhancement_job_id", "enhancement_status", "enhancement_step", "enhancement_progress"],
  Process: ["worker_id", "client_ip"],
};

/** All fields of the record; those that this page does not know come last. @param {Session} session */
export function record(session) {
  const known = new Set(Object.values(GROUPS).flat());
  const others = Object.keys(session).filter((name) => !known.has(name));
  return Object.entries({ ...GROUPS, Other: others }).map(([title, names]) => {
    const present = names.filter((name) => session[name] !== undefined);
    return present.length > 0 && h("div", { class: "group" }, h("h3", null, title),
      h("dl", { class: "fields" }, present.map((name) => [h("dt", { class: "mono" }, name), h("dd", null, valueOf(name, session[name]))])));
  });
}

/** @param {string} name @param {any} value @returns {import("./dom.js").Child} */
function valueOf(name, value) {
  if (name.endsWith("_at")) return h("time", { datetime: value, title: value }, fullTime(value));
  if (name.endsWith("_session_id")) return h("a", { class: "mono", href: hrefOf(value) }, value);
  if (name === "audio_duration_seconds") return h("span", { title: spoken(value) }, `${value} (${clock(value)})`);
  if (name === "enhancement_progress") return `${Math.round(value * 100)} %`;
  if (/_(id|uri|url|ip)$|^id$/.test(name)) return h("span", { class: "mono" }, value);
  return String(value);
}

/** When a session was, as its heading. @param {Session} session */
export const titleOf = (session) => shortTime(session.started_at);
