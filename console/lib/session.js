// A session as a person reads it: its state, what is stored, and its place in a chain.

import { h, icon } from "./dom.js";
import { clock } from "./time.js";

/** @typedef {Record<string, any>} Session the fields of `dalston.v1.Session` */
/** @typedef {{kind: string, sign: any, word: string, means: string}} State */

/** @type {Record<string, State>} */
const STATES = {
  active: { kind: "live", sign: "dot", word: "Running", means: "Audio is being received" },
  completed: { kind: "good", sign: "check", word: "Completed", means: "The client ended it" },
  interrupted: { kind: "warn", sign: "cut", word: "Interrupted", means: "A disconnect, a timeout or a stop of the server ended it" },
  error: { kind: "bad", sign: "cross", word: "Error", means: "It was refused or failed" },
};
/** @type {Record<string, State>} */
const ENHANCEMENTS = {
  queued: { kind: "", sign: "clock", word: "Queued", means: "The batch job waits for a worker" },
  running: { kind: "live", sign: "dot", word: "Running", means: "A worker transcribes the recording again" },
  completed: { kind: "good", sign: "spark", word: "Enhanced", means: "A worker has transcribed the recording again" },
  failed: { kind: "bad", sign: "cross", word: "Failed", means: "The batch job has failed" },
  canceled: { kind: "", sign: "cross", word: "Canceled", means: "The batch job was canceled" },
};

/** @param {State | undefined} state @param {string} fallback @param {string} [more] */
function chip(state, fallback, more = "") {
  const { kind, sign, word, means } = state ?? { kind: "", sign: "info", word: fallback, means: "" };
  return h("span", { class: `chip ${kind}`, title: means }, icon(sign, "sign"), word + more);
}

/** The status as a sign and a word.
 * @param {Session} session */
export const statusChip = (session) => chip(STATES[session.status], session.status);

/** What the status means, in a sentence.
 * @param {Session} session */
export const statusMeaning = (session) => STATES[session.status]?.means ?? "";

/** The newest batch job as a sign and a word; null if there is none.
 * @param {Session} session */
export function enhancementChip(session) {
  const status = session.enhancement_status;
  if (!status) return null;
  const share = status === "running" && session.enhancement_progress ? ` ${Math.floor(session.enhancement_progress * 100)} %` : "";
  return chip(ENHANCEMENTS[status], status, share);
}

/** `0:07`; of a running session that has received nothing, too.
 * @param {Session} session */
export const length = (session) => clock(session.audio_duration_seconds ?? 0);

/** What is stored, as two signs with words for screen readers.
 * @param {Session} session */
export function storedSigns(session) {
  const audio = part("audio", "Audio", session.store_audio, session.audio_url, session.status);
  const text = part("text", "Transcript", session.store_transcript, session.transcript_url, session.status);
  return audio || text ? h("span", { class: "stored" }, audio, text) : h("span", { class: "soft" }, "Nothing");
}

/** @param {"audio" | "text"} sign @param {string} name @param {boolean} wanted @param {string | undefined} url @param {string} status */
function part(sign, name, wanted, url, status) {
  if (!wanted) return null;
  const state = url ? "stored" : status === "active" ? "is being recorded" : "not stored yet";
  return h("span", { class: url ? "part" : "part pending", title: `${name} ${state}` }, icon(sign), h("span", { class: "unseen" }, `${name} ${state}. `));
}

/** The page of a session.
 * @param {string} id */
export const hrefOf = (id) => `session.html?id=${encodeURIComponent(id)}`;

/** The first and last digits of an id: those between say the time.
 * @param {string} id */
export const shortId = (id) => id.replace(/^sess_(.{4}).*(.{6})$/, "$1…$2");

/** The id in what somebody pasted: an id, digits alone, or an address that has it. "" for anything else.
 * @param {string} text */
export function idIn(text) {
  const found = /(?:sess_)?([0-9a-f]{32})(?![0-9a-f])/i.exec(text.replace(/([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})/i, "$1$2$3$4$5"));
  return found ? `sess_${found[1].toLowerCase()}` : "";
}
