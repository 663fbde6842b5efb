// Changes of sessions, by one stream for all tabs. A browser has six connections to a host for all of them together, so one
// tab holds the stream and tells the others; when it closes, another one goes on where it stopped.

import { asProblem, backOff, pause, Problem, request, toLogin } from "./api.js";

const NAME = "dalston.sessions";
const PATH = "/v1/realtime/sessions:watch";
/** The service sends a heartbeat every 15 s. Without any message for this long the stream is dead. */
const DEAD_MS = 35_000;
const FIRST_PAUSE_MS = 1000;

/**
 * @typedef {{state: "live" | "reconnecting" | "refused", since: number, message?: string}} Connection
 * @typedef {{type: string, session?: any, resume_token?: string}} Message
 */

/**
 * Follows the sessions until `signal` aborts.
 * @param {{
 *   changed: (session: any) => void,
 *   deleted: (id: string) => void,
 *   reset: () => void,
 *   connection: (connection: Connection) => void,
 *   signal: AbortSignal,
 * }} to `reset`: changes were missed, so that everything on the page must be read anew
 */
export function watchSessions(to) {
  const channel = new BroadcastChannel(NAME);
  const state = { token: "", /** @type {Connection} */ connection: { state: "reconnecting", since: Date.now() }, leads: false };

  /** @param {{message?: Message, reset?: boolean, connection?: Connection, hello?: boolean}} news */
  const hear = (news) => {
    if (news.hello && state.leads) channel.postMessage({ connection: state.connection });
    if (news.connection) to.connection((state.connection = news.connection));
    if (news.reset) to.reset();
    if (news.message?.resume_token) state.token = news.message.resume_token;
    if (news.message?.type === "changed") to.changed(news.message.session);
    if (news.message?.type === "deleted") to.deleted(news.message.session.id);
  };
  const tell = (/** @type {any} */ news) => {
    hear(news);
    channel.postMessage(news);
  };

  channel.onmessage = ({ data }) => hear(data);
  channel.postMessage({ hello: true });
  to.signal.addEventListener("abort", () => channel.close(), { once: true });
  navigator.locks.request(NAME, { signal: to.signal }, () => {
    state.leads = true;
    return lead(state, tell, to.signal);
  }).catch(() => {
    // Aborted: the page is closed.
  });
}

/** Keeps a stream open.
 * @param {{token: string, connection: Connection}} state
 * @param {(news: any) => void} tell
 * @param {AbortSignal} signal */
async function lead(state, tell, signal) {
  let failures = 0;
  while (!signal.aborted) {
    let problem;
    try {
      await stream(state.token, tell, signal, () => {
        failures = 0;
        tell({ connection: { state: "live", since: Date.now() } });
      });
      problem = new Problem({ status: 0, message: "The stream of changes has ended." });
    } catch (error) {
      problem = asProblem(error);
    }
    if (signal.aborted) return;
    if (problem.status === 401 || problem.reason === "unauthenticated") return toLogin();
    const isRefused = problem.status === 403 || problem.reason === "permission_denied";
    const since = state.connection.state === "live" ? Date.now() : state.connection.since;
    tell({ connection: { state: isRefused ? "refused" : "reconnecting", since, message: problem.message } });
    if (isRefused) return;
    await pause(problem.retryAfter * 1000 || backOff(failures++, FIRST_PAUSE_MS), signal).catch(() => {});
  }
}

/**
 * One stream, to its end.
 * @param {string} token
 * @param {(news: any) => void} tell
 * @param {AbortSignal} signal
 * @param {() => void} opened
 */
async function stream(token, tell, signal, opened) {
  const dead = new AbortController();
  const stop = () => dead.abort();
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, DEAD_MS);
  let isSnapshot = false;
  try {
    const query = token ? `?resume_token=${encodeURIComponent(token)}` : "";
    const response = await request(PATH + query, { signal: dead.signal });
    for await (const line of lines(response.body)) {
      clearTimeout(timer);
      timer = setTimeout(stop, DEAD_MS);
      /** @type {any} */
      const message = JSON.parse(line);
      if (message.type === "error") throw new Problem({ status: 503, message: message.message, reason: message.code });
      if (message.type === "snapshot") isSnapshot = true;
      else tell({ message });
      if (message.type === "ready") {
        // Without a token, or with one that is too old, pages have missed changes: they read themselves anew.
        if (isSnapshot || !token) tell({ reset: true });
        opened();
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    dead.abort();
  }
}

/**
 * The lines of a body as they arrive.
 * @param {ReadableStream<Uint8Array> | null} body
 */
export async function* lines(body) {
  if (body === null) return;
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) if (part.trim()) yield part;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
