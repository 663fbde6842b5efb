// The microphone: what stands in its way, the choice of a device, and its sound in chunks without holes.

export const RATE = 16_000;
/** A microphone that is muted for less than this is not worth a word. */
const MUTED_MS = 3_000;
/** More time than this between two chunks means that the computer slept. */
const SLEPT_MS = 3_000;
const REOPEN_MS = 2_000;

/** @typedef {"insecure" | "unsupported" | "missing" | "denied" | "busy" | "failed"} Obstacle */

/** @type {Record<Obstacle, [string, string]>} what is the matter, and what to do */
export const OBSTACLES = {
  insecure: ["Browsers give the microphone to secure pages only", "Open this page by https://, or as localhost on the machine itself."],
  unsupported: ["This browser cannot record", "Use a current version of Chrome, Edge, Firefox or Safari."],
  missing: ["There is no microphone", "Connect one, or enable it in the settings of the system. This page notices it by itself."],
  denied: ["This page may not use the microphone", "Allow it in the browser: press the sign beside the address, then Microphone. If it is allowed there, allow it for the browser in the settings of the system."],
  busy: ["The microphone is used by another program", "End the call or program that uses it, then start again."],
  failed: ["The microphone does not start", "Choose another one, or connect it again."],
};

/** What stands in the way, found without asking for anything; null if nothing does. @returns {Promise<Obstacle | null>} */
export async function obstacle() {
  if (!isSecureContext) return "insecure";
  if (!navigator.mediaDevices?.getUserMedia || typeof AudioWorkletNode === "undefined" || !navigator.locks) return "unsupported";
  if ((await permission())?.state === "denied") return "denied";
  return (await microphones()).length === 0 ? "missing" : null;
}

/** Calls back when devices or the permission have changed. @param {() => void} changed */
export async function onChange(changed) {
  navigator.mediaDevices?.addEventListener("devicechange", changed);
  (await permission())?.addEventListener("change", changed);
}

async function permission() {
  try {
    return await navigator.permissions.query({ name: /** @type {any} */ ("microphone") });
  } catch {
    // Not every browser tells; asking for the microphone does.
    return null;
  }
}

/** The microphones; they have names once the page may use one. */
export async function microphones() {
  const all = await navigator.mediaDevices.enumerateDevices();
  return all.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId !== "communications");
}

/** @param {unknown} error of getUserMedia @returns {Obstacle} */
function obstacleOf(error) {
  const name = error instanceof DOMException ? error.name : "";
  if (name === "NotAllowedError" || name === "SecurityError") return "denied";
  if (name === "NotFoundError" || name === "OverconstrainedError") return "missing";
  return name === "NotReadableError" || name === "AbortError" ? "busy" : "failed";
}

/** Why a recording cannot begin. */
export class MicrophoneError extends Error {
  /** @param {Obstacle} kind */
  constructor(kind) {
    super(OBSTACLES[kind][0]);
    this.kind = kind;
  }
}

/**
 * @typedef {{deviceId: string, echoCancellation: boolean, noiseSuppression: boolean, autoGainControl: boolean}} Choice
 * @typedef {{
 *   chunk: (pcm: Uint8Array, peak: number) => void,
 *   slept: (seconds: number) => void,
 *   trouble: (what: "gone" | "muted" | null) => void,
 * }} Listener `trouble`: silence takes the place of the sound, until null
 */

/** Records until `stop`. While its device is gone or muted it records silence. */
export class Microphone {
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AudioWorkletNode | null} */
  #collector = null;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  #at = 0;
  #muted = 0;
  #reopening = 0;
  #isStopping = false;
  #finished = () => {};

  #isBound;

  /** @param {Choice} choice @param {Listener} to @param {number} [rate] samples a second, of a take that goes on */
  constructor(choice, to, rate) {
    this.choice = choice;
    this.to = to;
    this.#isBound = rate !== undefined;
    /** Samples a second, once it has started. */
    this.rate = rate ?? RATE;
  }

  /** The name of the device. */
  get name() {
    return this.#stream?.getAudioTracks()[0]?.label ?? "";
  }

  /** Asks for the microphone and begins to record; throws a MicrophoneError. */
  async start() {
    const stream = await this.#open();
    try {
      await this.#listen(new AudioContext({ sampleRate: this.rate }), stream).catch((error) => {
        // Not every browser converts the rate of a microphone.
        if (!(error instanceof DOMException) || error.name !== "NotSupportedError" || this.#isBound) throw error;
        return this.#listen(new AudioContext(), stream);
      });
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      await this.#context?.close();
      throw error instanceof DOMException ? new MicrophoneError("failed") : error;
    }
  }

  /** @param {AudioContext} context @param {MediaStream} stream */
  async #listen(context, stream) {
    await this.#context?.close();
    this.#context = context;
    this.rate = context.sampleRate;
    await context.audioWorklet.addModule(new URL("collector.js", import.meta.url).href);
    const collector = new AudioWorkletNode(context, "collector", { channelCount: 1, channelCountMode: "explicit" });
    this.#collector = collector;
    this.#use(stream);
    collector.port.onmessage = ({ data }) => this.#collected(data);
    // It is silent, but what leads nowhere is not computed in every browser.
    collector.connect(context.destination);
    context.onstatechange = () => {
      if (!this.#isStopping && context.state !== "running") context.resume().catch(() => {});
    };
    await context.resume();
  }

  /** @param {boolean} [exactly] this device and no other */
  async #open(exactly = false) {
    const { deviceId, ...processing } = this.choice;
    const device = deviceId ? { deviceId: exactly ? { exact: deviceId } : { ideal: deviceId } } : {};
    try {
      return await navigator.mediaDevices.getUserMedia({ audio: { ...device, ...processing, channelCount: 1 } });
    } catch (error) {
      throw new MicrophoneError(obstacleOf(error));
    }
  }

  /** @param {MediaStream} stream */
  #use(stream) {
    const [track] = stream.getAudioTracks();
    const context = /** @type {AudioContext} */ (this.#context);
    this.#source?.disconnect();
    this.#stream = stream;
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(/** @type {AudioWorkletNode} */ (this.#collector));
    // The device of the first time is the one to wait for when it is gone.
    this.choice = { ...this.choice, deviceId: track.getSettings().deviceId ?? this.choice.deviceId };
    track.onended = () => this.#gone();
    track.onmute = () => {
      this.#muted = setTimeout(() => this.to.trouble("muted"), MUTED_MS);
    };
    track.onunmute = () => {
      clearTimeout(this.#muted);
      this.to.trouble(null);
    };
    if (track.muted) track.onmute(new Event("mute"));
  }

  #gone() {
    if (this.#isStopping) return;
    clearTimeout(this.#muted);
    this.#source?.disconnect();
    this.#source = null;
    this.to.trouble("gone");
    this.#reopening = setInterval(() => this.#reopen(true), REOPEN_MS);
  }

  /** Takes the device again when it is back. @param {boolean} exactly */
  async #reopen(exactly) {
    try {
      const stream = await this.#open(exactly);
      clearInterval(this.#reopening);
      if (this.#isStopping || this.#source) return stream.getTracks().forEach((track) => track.stop());
      this.#use(stream);
      this.to.trouble(null);
    } catch {
      // It is still gone.
    }
  }

  /** Goes on with another device. @param {string} deviceId */
  async use(deviceId) {
    this.choice = { ...this.choice, deviceId };
    const stream = await this.#open(true);
    clearInterval(this.#reopening);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#use(stream);
    this.to.trouble(null);
  }

  /** @param {{pcm: ArrayBuffer, peak: number, at: number, last?: boolean}} chunk */
  #collected({ pcm, peak, at, last }) {
    const pause = this.#at ? at - this.#at : 0;
    this.#at = at;
    if (pause > SLEPT_MS) this.to.slept(pause / 1000);
    if (pcm.byteLength > 0) this.to.chunk(new Uint8Array(pcm), peak);
    if (last) this.#finished();
  }

  /** Ends the recording, after its last sample was delivered. */
  async stop() {
    this.#isStopping = true;
    clearTimeout(this.#muted);
    clearInterval(this.#reopening);
    const finished = new Promise((resolve) => (this.#finished = () => resolve(undefined)));
    this.#collector?.port.postMessage("finish");
    // A context that the system has suspended delivers nothing more.
    await Promise.race([finished, new Promise((resolve) => setTimeout(resolve, 1000))]);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    await this.#context?.close();
  }
}
