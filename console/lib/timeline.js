// One time axis for all sessions of a take, and the point from which the next session continues it. No I/O.

/** Seconds of audio kept behind what the server has stored and recognised: longer than the longest utterance (28 s). */
export const SLACK = 30;

/**
 * What must outlive the page: seconds of the take, except `base`.
 * @typedef {{base: number, received: number, stored: number, processed: number, ends: number[]}} Progress
 * @typedef {{text: string, start: number, end: number, number: number}} Final
 */

/** Positions are bytes of the take's 16-bit mono audio; times are seconds from its first byte. */
export class Timeline {
  /** @param {number} rate samples a second  @param {Progress} [saved] */
  constructor(rate, saved) {
    this.rate = rate;
    /** The byte at which the current session begins. */
    this.base = saved?.base ?? 0;
    /** What the server has received, stored and recognised. */
    this.received = saved?.received ?? 0;
    this.stored = saved?.stored ?? 0;
    this.processed = saved?.processed ?? 0;
    /** Where the finals end that the page has shown, in their order. */
    this.ends = [...(saved?.ends ?? [])];
  }

  /** @returns {Progress} */
  saved() {
    const { base, received, stored, processed, ends } = this;
    return { base, received, stored, processed, ends: [...ends] };
  }

  /** @param {number} position */
  seconds(position) {
    return position / 2 / this.rate;
  }

  /** @param {number} seconds */
  position(seconds) {
    return 2 * Math.round(seconds * this.rate);
  }

  /**
   * A session begins at a position. What earlier ones received beyond it is not part of the recording.
   * @param {number} position
   */
  begin(position) {
    const offset = this.seconds(position);
    this.base = position;
    this.received = offset;
    this.stored = Math.min(this.stored, offset);
    this.processed = Math.min(this.processed, offset);
    this.ends = this.ends.filter((end) => end <= offset + 0.0005);
  }

  /**
   * Notes a final of the current session.
   * @param {{text: string, start: number, end: number}} message in the session's time
   * @returns {Final} in the take's time
   */
  final(message) {
    const offset = this.seconds(this.base);
    const final = { text: message.text, start: offset + message.start, end: offset + message.end, number: 0 };
    this.ends.push(final.end);
    return final;
  }

  /** @param {{received_seconds: number, stored_seconds: number, processed_seconds: number}} ack */
  acknowledge(ack) {
    const offset = this.seconds(this.base);
    this.received = Math.max(this.received, offset + ack.received_seconds);
    this.processed = Math.max(this.processed, offset + ack.processed_seconds);
    if (ack.stored_seconds > 0) this.stored = Math.max(this.stored, offset + ack.stored_seconds);
  }

  /**
   * The position before which no audio will have to be sent again.
   * @param {boolean} storesAudio
   */
  safeUntil(storesAudio) {
    const done = storesAudio ? Math.min(this.stored, this.processed) : this.processed;
    return this.position(Math.max(0, done - SLACK));
  }

  /**
   * Where the next session begins: the end of the last final that the page has shown, so that none is missing and no
   * word is cut. A session that stores audio goes back to the end of the last final that is stored, so that the
   * recording has no gap. Never before the current session, which is then replaced, nor before the audio that is kept.
   * @param {number} keptFrom position  @param {boolean} storesAudio
   */
  resumePoint(keptFrom, storesAudio) {
    const least = Math.max(keptFrom, this.base);
    const limit = storesAudio ? this.stored : Infinity;
    const ends = this.ends.filter((end) => end <= limit);
    return Math.max(least, ends.length ? this.position(ends[ends.length - 1]) : 0);
  }

  /**
   * Forgets ends at which no session can begin any more.
   * @param {number} position
   */
  discardBefore(position) {
    const seconds = this.seconds(position);
    this.ends = this.ends.filter((end, index) => end >= seconds || index === this.ends.length - 1);
  }
}
