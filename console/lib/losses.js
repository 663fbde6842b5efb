// Why a connection ended, in words, and whether the next one may go on. No I/O.

/**
 * @typedef {{reason: string, message: string, next: string, isFinal: boolean, retryAfter: number, resumedBy: string}} Loss
 * @typedef {{code: string, message: string, retry_after_seconds?: string, resumed_by?: string}} StreamError
 */

/** Reasons that pass: [what happened, what to do]. @type {Record<string, [string, string]>} */
const PASSING = {
  lost: ["Connection lost", ""],
  silent: ["The server has not answered for 20 seconds", ""],
  offline: ["This device is offline", ""],
  unauthenticated: ["You are logged out", "Log in again in another tab; this page then goes on by itself."],
  server_shutdown: ["The server is restarting", ""],
  session_active: ["The server still waits for the earlier connection", ""],
  too_many_sessions: ["The limit of sessions that run at once is reached", "End another one, or wait."],
  rate_limited: ["The server asks for a pause", ""],
  no_capacity: ["The server is full", ""],
  unavailable: ["The server is unavailable", ""],
  session_timeout: ["The session has reached its longest duration", "Another one continues it."],
  internal: ["The server has failed", ""],
};

/** Reasons that end a recording. @type {Record<string, [string, string]>} */
const FINAL = {
  permission_denied: ["This login may not record", "Log in with a key that has the scope realtime."],
  storage_quota_exceeded: ["The storage quota is reached", "Delete sessions, or record without storing."],
  session_ended: ["Somebody has ended this session", "Begin a new recording if you want to go on."],
  session_resumed: ["Another page continues this recording", "What is kept here can be saved as a file."],
};

/** Reasons for which a session cannot be continued, so that a new one takes the rest. */
export const REPLACED = new Set(["session_not_found", "invalid_parameters"]);

/**
 * @param {string} reason
 * @param {Partial<StreamError>} [error]
 * @returns {Loss}
 */
export function loss(reason, error = {}) {
  const isFinal = !(reason in PASSING);
  const [message, next] = PASSING[reason] ?? FINAL[reason] ?? [`The server has refused the recording: ${error.message || reason}`, ""];
  return { reason, message, next, isFinal, retryAfter: Number(error.retry_after_seconds) || 0, resumedBy: error.resumed_by ?? "" };
}

/**
 * @param {number} code of the close event
 * @param {StreamError | null} error the message before it
 */
export function lossOfClose(code, error) {
  if (error) return loss(error.code, error);
  return loss({ 1012: "server_shutdown", 4001: "unauthenticated", 4003: "permission_denied", 4503: "unavailable" }[code] ?? "lost");
}

/** @param {import("./api.js").Problem} problem of the request for a token */
export function lossOfRequest(problem) {
  const reason = { 401: "unauthenticated", 403: "permission_denied", 429: "rate_limited" }[problem.status];
  if (reason) return loss(reason, { retry_after_seconds: String(problem.retryAfter) });
  if (problem.isPassing) return loss(problem.status ? "unavailable" : "lost", { retry_after_seconds: String(problem.retryAfter) });
  return loss("refused", { message: problem.message });
}

/** Milliseconds before the next attempt: 0.5 to 10 s, with jitter. @param {number} attempt from 0 on */
export const backOff = (attempt) => Math.min(10_000, 500 * 2 ** Math.min(attempt, 8)) * (0.5 + Math.random() / 2);
