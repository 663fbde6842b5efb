// The words of a transcript as one list, and which of them is spoken at a time. Pure.

/**
 * @typedef {{word?: string, text?: string, start: number, end: number, confidence: number}} Word
 * @typedef {{index?: number, start: number, end: number, text: string, confidence?: number, language?: string,
 *   words?: Word[]}} Utterance
 */

/** Below this confidence a word is marked. */
export const DOUBTFUL = 0.5;
/** For how long after its end, in seconds, a word stays the one that is spoken while no other begins. */
const LINGERS = 0.4;

/** @param {Word} word */
export const textOf = (word) => word.word ?? word.text ?? "";

/**
 * The text of an utterance in pieces: its words, and what stands between them. The text decides, because languages
 * differ in what stands between words.
 * @param {Utterance} utterance
 * @returns {(string | number)[]} a number is the position of a word in `utterance.words`
 */
export function pieces(utterance) {
  const { text } = utterance;
  const words = utterance.words ?? [];
  /** @type {(string | number)[]} */
  const found = [];
  let at = 0;
  for (const [position, word] of words.entries()) {
    const spoken = textOf(word).trim();
    const begin = spoken === "" ? -1 : text.indexOf(spoken, at);
    // A text that was changed after its words were: the words are shown, as far as they are.
    if (begin < 0) return apart(words);
    if (begin > at) found.push(text.slice(at, begin));
    found.push(position);
    at = begin + spoken.length;
  }
  if (at < text.length) found.push(text.slice(at));
  return found;
}

/** @param {Word[]} words @returns {(string | number)[]} */
const apart = (words) => words.flatMap((_, position) => (position > 0 ? [" ", position] : [position]));

/**
 * When each word begins and ends.
 * @typedef {object} Timeline
 * @property {Float64Array} starts in seconds, never falling
 * @property {Float64Array} ends
 */

/**
 * The timeline of anything with a begin and an end.
 * @param {{start: number, end: number}[]} spans
 * @returns {Timeline}
 */
export function timeline(spans) {
  const starts = new Float64Array(spans.length);
  const ends = new Float64Array(spans.length);
  let latest = 0;
  for (const [at, span] of spans.entries()) {
    latest = Math.max(latest, span.start);
    starts[at] = latest;
    ends[at] = Math.max(latest, span.end);
  }
  return { starts, ends };
}

/**
 * The last one that has begun at a time, by binary search.
 * @param {Float64Array} starts never falling
 * @param {number} time
 * @returns {number} -1 before the first
 */
export function begunAt(starts, time) {
  let low = 0;
  let high = starts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (starts[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/**
 * The one that is spoken at a time.
 * @param {Timeline} line
 * @param {number} time in seconds
 * @returns {number} -1 in silence
 */
export function spokenAt(line, time) {
  // A seek to the begin of a word may land a sample before it.
  const at = begunAt(line.starts, time + 0.001);
  return at >= 0 && time <= line.ends[at] + LINGERS ? at : -1;
}

/**
 * Cuts a list of utterances into slices of about so many words, each for one task of the page.
 * @param {Utterance[]} utterances
 * @param {number} most words in a slice, unless one utterance has more
 * @returns {[number, number][]} first and end of each slice
 */
export function slices(utterances, most = 5000) {
  /** @type {[number, number][]} */
  const found = [];
  let first = 0;
  let words = 0;
  for (const [at, utterance] of utterances.entries()) {
    const count = utterance.words?.length || 1;
    if (at > first && words + count > most) {
      found.push([first, at]);
      first = at;
      words = 0;
    }
    words += count;
  }
  if (first < utterances.length) found.push([first, utterances.length]);
  return found;
}

/**
 * Lets the page answer to input before the next slice.
 * @returns {Promise<void>}
 */
export const pause = () => new Promise((resolve) => setTimeout(resolve));

/**
 * What a slider or a caption says of a moment: the begin of what is spoken then.
 * @param {Utterance[]} utterances
 * @param {Timeline} line of the utterances
 * @param {number} time
 * @returns {string} empty in silence
 */
export function saidAt(utterances, line, time) {
  const at = spokenAt(line, time);
  return at < 0 ? "" : utterances[at].text.split(/\s+/u).slice(0, 6).join(" ").slice(0, 80);
}
