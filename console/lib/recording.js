// One recording of the page: a take, the microphone that fills it, and the stream that sends it.

import { get, Problem, request } from "./api.js";
import { LiveStream } from "./live.js";
import { login } from "./login.js";
import { Microphone } from "./microphone.js";

const ASK_MS = 10_000;
const STORED_MS = 3_000;

/**
 * @typedef {import("./keeper.js").Take} Take
 * @typedef {import("./live.js").Listener & {
 *   level: (peak: number) => void,
 *   gap: (gap: {at: number, seconds: number, why: string}) => void,
 *   trouble: (what: "gone" | "muted" | null) => void,
 * }} Listener
 */

/** A token for one connection; null where the service asks for none. */
async function token() {
  const { authentication } = await login();
  if (!authentication) return null;
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: "{}", signal: AbortSignal.timeout(ASK_MS) };
  // A login that is over must not take the page away from a recording.
  return (await (await request("/v1/realtime/tokens", { ...options, stay: true })).json()).token;
}

export class Recording {
  /** @type {Microphone | null} */
  #microphone = null;
  /** @type {LiveStream | null} */
  #stream = null;
  /** @type {Promise<import("./losses.js").Loss | null> | null} */
  #running = null;

  /** @param {Listener} to */
  constructor(to) {
    this.to = to;
    /** @type {Take | null} */
    this.take = null;
  }

  /** The name of the microphone that records now; "" if none does. */
  get microphone() {
    return this.#microphone?.name ?? "";
  }

  get isRecording() {
    return this.#microphone !== null;
  }

  /**
   * Begins to record into a new take, or goes on with one that an earlier page has left; throws a MicrophoneError.
   * @param {import("./microphone.js").Choice} choice
   * @param {(rate: number) => Promise<Take>} make
   * @param {Take} [left]
   */
  async start(choice, make, left) {
    /** @type {[Uint8Array, number][]} */
    const early = [];
    const microphone = new Microphone(choice, {
      chunk: (pcm, peak) => (this.take ? this.#collected(pcm, peak) : early.push([pcm, peak])),
      slept: (seconds) => this.#pause(seconds, "slept"),
      trouble: (what) => this.#troubled(what),
    }, left?.rate);
    await microphone.start();
    this.#microphone = microphone;
    try {
      this.take = left ?? (await make(microphone.rate));
    } catch (error) {
      await this.stop();
      throw error;
    }
    for (const [pcm, peak] of early) this.#collected(pcm, peak);
    this.#send(this.take);
  }

  /** Sends what is left of a take, and ends it. @param {Take} take */
  finish(take) {
    this.take = take;
    this.#send(take).complete();
  }

  /** @param {Take} take */
  #send(take) {
    this.#stream = new LiveStream(take, token, this.to);
    this.#running = this.#stream.run();
    return this.#stream;
  }

  /** @param {Uint8Array} pcm @param {number} peak */
  #collected(pcm, peak) {
    this.take?.append(pcm);
    this.#stream?.pushed();
    this.to.level(peak);
  }

  /** @param {"gone" | "muted" | null} what */
  #troubled(what) {
    if (what) this.#pause(0, what);
    this.to.trouble(what);
  }

  /** Something that a reader of the text should know. @param {number} seconds @param {string} why */
  #pause(seconds, why) {
    if (this.take) this.#note({ at: this.take.seconds, seconds, why });
  }

  /** @param {{at: number, seconds: number, why: string}} gap */
  #note(gap) {
    this.take?.gaps.push(gap);
    this.take?.save();
    this.to.gap(gap);
  }

  /** Goes on with another microphone. @param {string} id */
  async use(id) {
    await this.#microphone?.use(id);
  }

  /** Whether the server has said that all audio is stored. */
  get isStored() {
    return this.#stream?.isStored ?? false;
  }

  /** Tries to connect at once. */
  retry() {
    this.#stream?.retry();
  }

  /** Stops recording. What is not sent yet is sent by the stream. */
  async stop() {
    const microphone = this.#microphone;
    await microphone?.stop();
    this.#microphone = null;
    this.#stream?.complete();
  }

  /** Waits until the last session has ended. Returns the loss after which none can go on, or null. */
  async ended() {
    const lost = await this.#running;
    if (lost) await this.stop();
    return lost ?? null;
  }
}

/**
 * Waits until the server has stored a take that it has received; then the browser forgets it.
 * @param {Take} take
 * @param {boolean} isStored whether the server has said so already
 */
export async function settle(take, isStored) {
  const id = take.sessions.at(-1)?.id ?? "";
  take.isSent = true;
  take.save();
  while (!isStored && take.storesAudio) {
    isStored = await isAudioStored(id);
    if (!isStored) await new Promise((resolve) => setTimeout(resolve, STORED_MS));
  }
  await take.remove();
}

/** @param {string} id */
async function isAudioStored(id) {
  try {
    return Boolean((await get(`/v1/realtime/sessions/${id}`, { stay: true })).audio_uri);
  } catch (error) {
    // A session that somebody has deleted will never be stored; a login that may not read cannot know.
    return error instanceof Problem && (error.status === 404 || error.status === 403);
  }
}
