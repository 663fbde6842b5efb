// The text of a session that is running, as it is spoken.

import { asProblem, backOff, get, pause, Problem, request } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { clock, counted } from "./time.js";
import { lines } from "./watch.js";

/** The service sends a heartbeat every 15 s. */
const DEAD_MS = 35_000;
/** For a service that cannot stream utterances. */
const POLL_MS = 2000;
const HOPELESS = ["session_not_found", "permission_denied", "unauthenticated", "transcript_not_stored"];

/**
 * @typedef {import("./words.js").Utterance} Utterance
 * @typedef {{final: (utterance: Utterance) => void, partial: (text: string) => void, ended: () => void,
 *   problem: (error: unknown) => void, signal: AbortSignal}} Listener
 */

/**
 * Follows the text of a session while the page is seen: a browser has six connections for all of its pages, so one that
 * nobody looks at holds none. Every final is told once, in its order.
 * @param {string} path of the session
 * @param {Listener} to
 */
export async function followText(path, to) {
  let [next, failures, polls] = [0, 0, false];
  const final = (/** @type {Utterance} */ utterance) => {
    if ((utterance.index ?? next) < next) return;
    next = (utterance.index ?? next) + 1;
    failures = 0;
    to.final(utterance);
  };
  while (!to.signal.aborted) {
    try {
      await seen(to.signal);
      const isEnded = polls ? await poll(path, next, final, to.signal) : await stream(path, next, { ...to, final });
      if (isEnded) return to.ended();
    } catch (error) {
      if (to.signal.aborted) return;
      const problem = asProblem(error);
      to.partial("");
      if (!polls && (problem.status === 501 || (problem.status === 404 && problem.reason === "PATH_NOT_FOUND"))) polls = true;
      else if (problem.status === 404 || problem.status === 403 || HOPELESS.includes(problem.reason)) return to.problem(problem);
      else if (document.visibilityState === "visible") {
        if (failures > 0) to.problem(problem);
        await pause(problem.retryAfter * 1000 || backOff(failures++), to.signal).catch(() => {});
      }
    }
  }
}

/** Waits until the page is seen. @param {AbortSignal} signal @returns {Promise<void>} */
function seen(signal) {
  if (document.visibilityState === "visible") return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(), { once: true, signal });
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** @param {string} path @param {number} offset @param {Listener} to @returns {Promise<boolean>} whether the session has ended */
async function stream(path, offset, to) {
  const stopped = new AbortController();
  const stop = () => stopped.abort();
  const signal = AbortSignal.any([to.signal, stopped.signal]);
  document.addEventListener("visibilitychange", stop, { once: true, signal });
  let timer = setTimeout(stop, DEAD_MS);
  try {
    const response = await request(`${path}/utterances:watch?offset=${offset}`, { signal });
    for await (const line of lines(response.body)) {
      clearTimeout(timer);
      timer = setTimeout(stop, DEAD_MS);
      const message = JSON.parse(line);
      if (message.type === "utterance") to.final(message.utterance);
      if (message.type === "partial") to.partial(message.partial.text);
      if (message.type === "ended") return true;
      if (message.type === "error") throw new Problem({ status: 503, message: message.message, reason: message.code });
    }
    return false;
  } finally {
    clearTimeout(timer);
    stop();
  }
}

/** @param {string} path @param {number} offset @param {(utterance: Utterance) => void} final @param {AbortSignal} signal */
async function poll(path, offset, final, signal) {
  const page = await get(`${path}/utterances?offset=${offset}&limit=1000`, { signal });
  page.utterances.forEach(final);
  if (page.has_more) await pause(POLL_MS, signal);
  return !page.has_more;
}

/**
 * The view of it. New finals are announced; the partial is not, because it changes with every word.
 */
export function liveText() {
  const log = h("div", { class: "text", role: "log", aria: { label: "Text so far", live: "polite" } });
  const partial = h("p", { class: "utterance partial", aria: { hidden: true }, hidden: true }, h("span", { class: "at number" }, icon("audio")), h("span", { class: "said", dir: "auto" }));
  const quiet = h("span", { class: "soft small" });
  const fault = h("div");
  const waiting = h("p", { class: "soft" }, "Nobody has spoken yet. Text appears here as it is recognised.");
  const element = h("div", { class: "transcript live" }, fault, waiting, log, partial);
  let lastEnd = 0;
  return {
    element,
    quiet,
    /** @param {Utterance} utterance */
    final(utterance) {
      const wasAtEnd = isAtEnd();
      lastEnd = Math.max(lastEnd, utterance.end);
      fill(fault);
      waiting.hidden = partial.hidden = true;
      log.append(h("p", { class: "utterance" }, h("span", { class: "at number" }, clock(utterance.start)), h("span", { class: "said", dir: "auto", lang: utterance.language || null }, utterance.text)));
      if (wasAtEnd) scrollTo({ top: document.body.scrollHeight });
    },
    /** @param {string} text */
    partial(text) {
      const wasAtEnd = isAtEnd();
      partial.hidden = text === "";
      waiting.hidden ||= text !== "";
      fill(partial.children[1], text);
      if (wasAtEnd) scrollTo({ top: document.body.scrollHeight });
    },
    /** Says for how long nothing was said. @param {number} heard seconds of audio that the service has */
    heard(heard) {
      const silent = Math.floor(heard - lastEnd);
      const isSpeaking = !partial.hidden;
      fill(quiet, isSpeaking ? "Speech now" : silent >= 3 ? `No speech for ${counted(silent, "second")}` : "");
    },
    /** @param {import("./dom.js").Child} note */
    problem: (note) => fill(fault, note),
  };
}

/** Whether one reads the newest text, so that the page may move on with it. */
const isAtEnd = () => {
  const height = document.documentElement.scrollHeight;
  return height > innerHeight && scrollY + innerHeight >= height - 80;
};
