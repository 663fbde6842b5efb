// Asks for the same thing again and again while somebody can see the page: one request at a time, never a connection kept.

import { asProblem, backOff, Problem } from "./api.js";

/** An answer that takes longer is none. */
const DEADLINE_MS = 15_000;

/**
 * Calls `read` at once and then `every()` milliseconds after each answer. It pauses while the page is hidden, and after a
 * failure it tries again with a growing pause, or with the one that the service asks for.
 * @template T
 * @param {{read: (signal: AbortSignal) => Promise<T>, show: (answer: T) => void, every: () => number,
 *   fail: (problem: Problem, since: number, next: number) => void}} way
 *   `fail` gets the times, by this machine's clock, of the last good answer and of the next try: Infinity where none follows,
 *   because the same request would fail again
 * @returns {{now: () => void}} `now` asks at once, as after an action
 */
export function poll({ read, show, every, fail }) {
  let failures = 0;
  let good = Date.now();
  let timer = 0;
  /** @type {AbortController | null} */
  let asking = null;

  async function ask() {
    clearTimeout(timer);
    asking?.abort();
    const mine = new AbortController();
    asking = mine;
    const deadline = setTimeout(() => mine.abort("late"), DEADLINE_MS);
    let wait;
    try {
      const answer = await read(mine.signal);
      if (asking !== mine) return;
      failures = 0;
      good = Date.now();
      show(answer);
      wait = every();
    } catch (error) {
      if (asking !== mine) return;
      const problem = mine.signal.aborted ? late() : asProblem(error);
      if (problem.status === 401) return; // The login page is on its way.
      failures += 1;
      if (!problem.isPassing) return fail(problem, good, Infinity);
      wait = problem.retryAfter * 1000 || Math.max(2000, backOff(failures));
      fail(problem, good, Date.now() + wait);
    } finally {
      clearTimeout(deadline);
      if (asking === mine) asking = null;
    }
    if (!document.hidden) timer = setTimeout(ask, wait);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) ask();
  });
  ask();
  return { now: ask };
}

const late = () => new Problem({ status: 0, message: "The service has not answered for 15 seconds.", next: "The page tries again by itself." });
