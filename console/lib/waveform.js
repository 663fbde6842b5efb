// Waveforms as GetWaveform sends them, and how they are drawn. Pure, but for `paint`.

/**
 * A waveform in memory.
 * @typedef {object} Waveform
 * @property {number} perSecond pairs for each second of audio
 * @property {Int8Array} pairs the least and the greatest sample of each stretch, full scale 127
 */

const HEADER_BYTES = 24;
const FULL_SCALE = 127;

/**
 * Reads a file in the binary "waveform data" format: version 2, 8 bits, one channel.
 * @param {ArrayBuffer} bytes
 * @returns {Waveform}
 * @throws {RangeError} the bytes are not such a file
 */
export function parseWaveform(bytes) {
  if (bytes.byteLength < HEADER_BYTES) throw new RangeError("The waveform is shorter than its header.");
  const view = new DataView(bytes);
  const [version, flags, rate, frames] = [0, 4, 8, 12].map((at) => view.getInt32(at, true));
  const length = view.getUint32(16, true);
  if (version !== 2 || flags !== 1 || view.getInt32(20, true) !== 1 || rate <= 0 || frames <= 0) {
    throw new RangeError("The waveform has a format that this page does not know.");
  }
  const pairs = Math.min(length, Math.floor((bytes.byteLength - HEADER_BYTES) / 2));
  return { perSecond: rate / frames, pairs: new Int8Array(bytes, HEADER_BYTES, pairs * 2) };
}

/**
 * The extremes for each of `count` columns of the time from `from` to `to`, in seconds.
 * @param {Waveform} waveform
 * @param {number} from
 * @param {number} to
 * @param {number} count
 * @returns {Float32Array} the least and the greatest of each column, -1 to 1; 0 where there is no audio
 */
export function columns(waveform, from, to, count) {
  const { pairs, perSecond } = waveform;
  const found = new Float32Array(count * 2);
  const step = ((to - from) * perSecond) / count;
  for (let column = 0; column < count; column += 1) {
    const first = Math.max(0, Math.floor(from * perSecond + column * step));
    const end = Math.min(pairs.length / 2, Math.max(first + 1, Math.ceil(from * perSecond + (column + 1) * step)));
    let least = 0;
    let greatest = 0;
    for (let at = first; at < end; at += 1) {
      least = Math.min(least, pairs[at * 2]);
      greatest = Math.max(greatest, pairs[at * 2 + 1]);
    }
    found[column * 2] = least / FULL_SCALE;
    found[column * 2 + 1] = greatest / FULL_SCALE;
  }
  return found;
}

/**
 * The factor that lets quiet speech fill the picture. A click or a cough is cut off rather than everything else made small.
 * @param {Waveform} waveform
 * @returns {number} 1 to 16
 */
export function gain(waveform) {
  const sorted = waveform.pairs.map(Math.abs).sort();
  const loud = sorted[Math.floor(sorted.length * 0.995)] || 1;
  return Math.min(16, Math.max(1, (0.9 * FULL_SCALE) / Math.abs(loud)));
}

/**
 * The part of a recording that is shown when it is enlarged.
 * @param {number} duration of the recording, in seconds
 * @param {number} zoom how many times it is enlarged, 1 for all of it
 * @param {number} centre the second that is to be in the middle
 * @returns {[number, number]} its first and its last second
 */
export function shownPart(duration, zoom, centre) {
  const length = duration / zoom;
  const from = Math.min(Math.max(0, centre - length / 2), duration - length);
  return [from, from + length];
}

/**
 * Draws bars at the pixels of the device.
 * @param {HTMLCanvasElement} canvas
 * @param {{waveform: Waveform | null, from: number, to: number, spans: import("./words.js").Timeline, scale: number,
 *   bar: string, speech: string}} picture `spans`: the utterances; `bar` and `speech`: colours
 */
export function paint(canvas, picture) {
  const ratio = globalThis.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, width, height);
  const { waveform, from, to, spans, scale } = picture;
  const perSecond = width / Math.max(0.001, to - from);
  context.fillStyle = picture.speech;
  for (const [at, start] of spans.starts.entries()) {
    if (spans.ends[at] < from || start > to) continue;
    context.fillRect((start - from) * perSecond, 0, Math.max(1, (spans.ends[at] - start) * perSecond), height);
  }
  context.fillStyle = picture.bar;
  if (waveform === null) {
    context.fillRect(0, Math.round(height / 2), width, Math.max(1, ratio));
    return;
  }
  const step = Math.max(1, Math.round(3 * ratio));
  const bar = Math.max(1, Math.round(2 * ratio));
  const extremes = columns(waveform, from, to, Math.max(1, Math.floor(width / step)));
  for (let column = 0; column < extremes.length / 2; column += 1) {
    const high = Math.max(extremes[column * 2 + 1], -extremes[column * 2]) * scale;
    const size = Math.max(ratio, Math.min(1, high) * (height - 2 * ratio));
    context.fillRect(column * step, (height - size) / 2, bar, size);
  }
}
