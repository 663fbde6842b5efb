// The differences between two transcripts of one recording, window by window. Pure.
//
// A window is a stretch of time that neither transcript speaks across, so that words of different windows need no comparison:
// the cost grows with the length of the recording and not with its square.

import { pieces, textOf } from "./words.js";

/**
 * @typedef {import("./words.js").Utterance} Utterance
 * @typedef {{gap: string, text: string, plain: string, start: number, end: number, utterance: number}} Token
 *   `gap`: what stands between it and the word before
 * @typedef {{from: number, to: number, a: [number, number], b: [number, number]}} Window first and end of its tokens
 * @typedef {{same: boolean, a: [number, number], b: [number, number]}} Stretch
 */

/** Windows become about this long, in seconds. */
const WINDOW_SECONDS = 30;
/** A window without a pause is cut at a word that both transcripts have at nearly the same time. */
const ANCHOR_SECONDS = 0.5;
/** More comparisons than this are never made at once. */
const MOST_CELLS = 1_000_000;

/** A word as it is compared: without case and punctuation, unless it is nothing else.
 * @param {string} text */
const plainOf = (text) => {
  const known = text.normalize("NFKC").toLowerCase();
  return known.replace(/[^\p{L}\p{N}]+/gu, "") || known;
};

/**
 * The words of a transcript in their order. Those of an utterance without times share its time by their length.
 * @param {Utterance[]} utterances
 * @returns {Token[]}
 */
export function tokens(utterances) {
  /** @type {Token[]} */
  const found = [];
  for (const [position, utterance] of utterances.entries()) {
    const spoken = utterance.words?.length ? utterance : { ...utterance, words: timed(utterance) };
    let gap = " ";
    for (const piece of pieces(spoken)) {
      if (typeof piece === "string") {
        gap = piece;
        continue;
      }
      const { start, end, ...word } = spoken.words[piece];
      const text = textOf(word).trim();
      found.push({ gap, text, plain: plainOf(text), start, end, utterance: position });
      gap = "";
    }
    if (gap.trim() && found.at(-1)?.utterance === position) found[found.length - 1].text += gap.trimEnd();
  }
  return found;
}

/** @param {Utterance} utterance */
function timed({ text, start, end }) {
  const perCharacter = (end - start) / Math.max(1, text.length);
  return [...text.matchAll(/\S+/gu)].map((match) => ({
    text: match[0], start: start + match.index * perCharacter, end: start + (match.index + match[0].length) * perCharacter, confidence: 1,
  }));
}

/**
 * Divides two transcripts into windows.
 * @param {Token[]} a
 * @param {Token[]} b
 * @returns {Window[]}
 */
export function windows(a, b) {
  /** @type {Window[]} */
  const found = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    const from = Math.min(a[i]?.start ?? Infinity, b[j]?.start ?? Infinity);
    const [nextI, nextJ] = cut(a, b, i, j, from + WINDOW_SECONDS);
    const to = Math.max(a[nextI - 1]?.end ?? 0, b[nextJ - 1]?.end ?? 0, from);
    found.push({ from, to, a: [i, nextI], b: [j, nextJ] });
    [i, j] = [nextI, nextJ];
  }
  return found;
}

/**
 * Where a window that begins at words `i` and `j` ends: at `time` or later, between utterances of both if it can be.
 * @param {Token[]} a @param {Token[]} b @param {number} i @param {number} j @param {number} time
 * @returns {[number, number]} beyond at least one word
 */
function cut(a, b, i, j, time) {
  const hard = /** @type {[number, number]} */ ([firstFrom(a, i, time), firstFrom(b, j, time)]);
  let [m, n] = hard;
  /** @type {[number, number] | null} */
  let anchor = null;
  while (m < a.length || n < b.length) {
    const start = Math.min(a[m]?.start ?? Infinity, b[n]?.start ?? Infinity);
    if (start > time + WINDOW_SECONDS) break;
    if (isApart(a, m, start) && isApart(b, n, start)) return [m, n];
    anchor ??= isAnchor(a, b, m, n) ? [m, n] : null;
    if ((a[m]?.start ?? Infinity) <= (b[n]?.start ?? Infinity)) m += 1;
    else n += 1;
  }
  if (anchor === null && m >= a.length && n >= b.length) return [m, n];
  const end = anchor ?? hard;
  // A word may be longer than a window.
  return end[0] > i || end[1] > j ? end : [m, n];
}

/** Whether an utterance ends before word `at` and before `time`.
 * @param {Token[]} list @param {number} at @param {number} time */
const isApart = (list, at, time) =>
  at === 0 || (list[at - 1].end <= time && list[at - 1].utterance !== list[at]?.utterance);

/** Whether both have the same two words here.
 * @param {Token[]} a @param {Token[]} b @param {number} m @param {number} n */
const isAnchor = (a, b, m, n) =>
  [0, 1].every((k) => a[m + k] && b[n + k] && a[m + k].plain === b[n + k].plain && Math.abs(a[m + k].start - b[n + k].start) < ANCHOR_SECONDS);

/** The first word from `at` on whose middle is not before `time`.
 * @param {Token[]} list @param {number} at @param {number} time */
function firstFrom(list, at, time) {
  let found = at;
  while (found < list.length && (list[found].start + list[found].end) / 2 < time) found += 1;
  return found;
}

/**
 * What is the same in a window and what is not, by the longest sequence of words that both have.
 * @param {Token[]} a
 * @param {Token[]} b
 * @param {Window} window
 * @param {"text" | "plain"} by what of a word is compared
 * @returns {Stretch[]} in their order; two neighbours are never of the same kind
 */
export function compare(a, b, window, by) {
  let [i, m] = window.a;
  let [j, n] = window.b;
  /** @type {Stretch[]} */
  const found = [];
  const add = (/** @type {boolean} */ same, /** @type {number} */ toI, /** @type {number} */ toJ) => {
    const last = found.at(-1);
    if (toI === i && toJ === j) return;
    if (last?.same === same) {
      last.a[1] = toI;
      last.b[1] = toJ;
    } else found.push({ same, a: [i, toI], b: [j, toJ] });
    [i, j] = [toI, toJ];
  };
  const isSame = (/** @type {number} */ x, /** @type {number} */ y) => a[x][by] === b[y][by];
  let same = 0;
  while (i + same < m && j + same < n && isSame(i + same, j + same)) same += 1;
  add(true, i + same, j + same);
  let tail = 0;
  while (m - tail > i && n - tail > j && isSame(m - 1 - tail, n - 1 - tail)) tail += 1;
  [m, n] = [m - tail, n - tail];
  const width = n - j + 1;
  if ((m - i + 1) * width <= MOST_CELLS) {
    const [i0, j0] = [i, j];
    const lengths = longest(i0, m, j0, n, isSame);
    while (i < m && j < n) {
      const at = (i - i0) * width + (j - j0);
      if (isSame(i, j)) add(true, i + 1, j + 1);
      else if (lengths[at + width] >= lengths[at + 1]) add(false, i + 1, j);
      else add(false, i, j + 1);
    }
  }
  add(false, m, n);
  add(true, m + tail, n + tail);
  return found;
}

/** For every pair of positions, how many words the rests have in common.
 * @param {number} i @param {number} m @param {number} j @param {number} n
 * @param {(x: number, y: number) => boolean} isSame */
function longest(i, m, j, n, isSame) {
  const width = n - j + 1;
  const lengths = new Uint16Array((m - i + 1) * width);
  for (let x = m - 1; x >= i; x -= 1) {
    for (let y = n - 1; y >= j; y -= 1) {
      const at = (x - i) * width + (y - j);
      lengths[at] = isSame(x, y) ? lengths[at + width + 1] + 1 : Math.max(lengths[at + width], lengths[at + 1]);
    }
  }
  return lengths;
}

/**
 * How many words of each side are in no common stretch.
 * @param {Stretch[]} stretches
 * @returns {{changes: number, removed: number, added: number}} `removed`: only in the first, `added`: only in the second
 */
export function counts(stretches) {
  const changes = stretches.filter((each) => !each.same);
  const total = (/** @type {"a" | "b"} */ side) => changes.reduce((sum, each) => sum + each[side][1] - each[side][0], 0);
  return { changes: changes.length, removed: total("a"), added: total("b") };
}
