// The REST contract: requests, and errors as what happened, what is safe, and what to do next.

import { learnClock } from "./time.js";

const RETRIES = 3;
/** @type {Record<number, string>} */
const SAFE = {
  0: "What is shown stays. Recordings that run are not affected by this page.",
  429: "Nothing is lost: the service asks for a pause.",
  500: "What is stored stays stored.",
};

/** An error for people. */
export class Problem extends Error {
  /**
   * @param {{status: number, message: string, reason?: string, safe?: string, next?: string, retryAfter?: number}} fields
   */
  constructor({ status, message, reason = "", safe = "", next = "", retryAfter = 0 }) {
    super(message);
    this.status = status;
    /** `reason` of google.rpc.ErrorInfo, such as SESSION_ACTIVE. */
    this.reason = reason;
    /** What has not been harmed. */
    this.safe = safe;
    /** What to do about it. */
    this.next = next;
    /** Seconds that the service asks to wait. */
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** @param {string} text */
const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1).replace(/\.?$/, ".") : "");

/** @param {number} status @param {string} reason */
function nextStep(status, reason) {
  if (status === 0) return "Check the network connection; the page tries again by itself.";
  if (status === 403) return "Log in with a key that has the scope for this.";
  if (status === 404) return "It may have been deleted meanwhile.";
  if (reason === "SESSION_ACTIVE") return "End the session first, or wait for its end.";
  if (status === 429) return "The page tries again by itself.";
  if (status === 501) return "This server does not offer it.";
  if (status >= 500) return "The page tries again by itself. The status page and the server's log say more.";
  return "";
}

/**
 * What a response that is no success says.
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
export async function problemOf(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // A proxy in front answers with a page of its own.
  }
  const info = (body?.details ?? []).find((/** @type {any} */ each) => String(each["@type"]).endsWith("ErrorInfo"));
  const reason = info?.reason ?? "";
  return new Problem({
    status: response.status,
    message: sentence(body?.message ?? `The service answered ${response.status}`),
    reason,
    safe: SAFE[response.status >= 500 ? 500 : response.status] ?? "",
    next: nextStep(response.status, reason),
    retryAfter: Number(response.headers.get("retry-after")) || 0,
  });
}

/** @param {unknown} error */
export function asProblem(error) {
  if (error instanceof Problem) return error;
  const message = error instanceof TypeError ? "The service cannot be reached." : sentence(String(error));
  return new Problem({ status: 0, message, safe: SAFE[0], next: nextStep(0, "") });
}

/** The login page, which leads back here. */
export function toLogin() {
  if (location.pathname.endsWith("/login.html")) return;
  const here = location.pathname.split("/").pop() + location.search + location.hash;
  location.replace(`login.html?next=${encodeURIComponent(here)}`);
}

/**
 * One request; other statuses than 2xx are Problems. 401 leads to the login page.
 * @param {string} path
 * @param {RequestInit & {stay?: boolean}} [options] `stay`: a 401 is only a Problem
 */
export async function request(path, { stay = false, ...options } = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw asProblem(error);
  }
  learnClock(response);
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.status === 401 && !stay) toLogin();
  throw problem;
}

/**
 * Reads JSON. What may pass is tried again with a growing pause, or with the one that the service asks for.
 * @param {string} path
 * @param {{signal?: AbortSignal, retries?: number, stay?: boolean}} [options]
 * @returns {Promise<any>}
 */
export async function get(path, { signal, retries = RETRIES, stay = false } = {}) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await (await request(path, { signal, stay })).json();
    } catch (error) {
      if (signal?.aborted || !(error instanceof Problem) || !error.isPassing || attempt >= retries) throw error;
      await pause(error.retryAfter * 1000 || backOff(attempt), signal);
    }
  }
}

/**
 * Sends a request that changes something, once: a retry might do it twice.
 * @param {"POST" | "DELETE"} method
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<any>}
 */
export async function send(method, path, body) {
  const headers = body === undefined ? undefined : { "content-type": "application/json" };
  const response = await request(path, { method, headers, body: body && JSON.stringify(body) });
  return response.json();
}

/** Milliseconds before attempt `attempt` + 1: 0.5 to 30 s, with jitter.
 * @param {number} attempt
 * @param {number} [first] */
export const backOff = (attempt, first = 500) => Math.min(30_000, first * 2 ** attempt) * (0.5 + Math.random() / 2);

/** @param {number} milliseconds @param {AbortSignal} [signal] @returns {Promise<void>} */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
