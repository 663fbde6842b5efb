// The WebSocket of a take: sends its audio, receives its text, and continues in another session when a connection is lost.

import { asProblem } from "./api.js";
import { backOff, loss, lossOfClose, lossOfRequest, REPLACED } from "./losses.js";

const PATH = "/v1/audio/transcriptions/stream";
/** Without a message for this long the connection is dead: the server acknowledges every 5 s. */
const SILENCE_MS = 20_000;
/** The same once the network has changed. */
const DOUBT_MS = 7_000;
const CLOSING_MS = 5_000;
/** Bytes that wait in the browser. More would delay the "end" and the notice that a connection is dead. */
const AHEAD = 256_000;
const PUMP_MS = 50;

/**
 * @typedef {import("./losses.js").Loss} Loss
 * @typedef {import("./timeline.js").Final} Final
 * @typedef {{name: "connecting" | "live" | "lost" | "ended", loss: Loss | null, since: number}} State
 * @typedef {{
 *   state: (state: State) => void,
 *   session: (id: string) => void,
 *   final: (final: Final, replaced: Final[]) => void,
 *   withdrawn: (finals: Final[]) => void,
 *   partial: (text: string) => void,
 *   acknowledged: () => void,
 *   warning: (warning: Record<string, string>) => void,
 * }} Listener `final`: finals of an earlier session that it takes the place of; `withdrawn`: those that nothing replaces
 */

/** Sends one take, in as many sessions as it needs. */
export class LiveStream {
  /** @type {WebSocket | null} */
  #socket = null;
  #hasBegun = false;
  #isComplete = false;
  #isEndSent = false;
  #hasEnded = false;
  #hasProgressed = false;
  /** The current session cannot be continued: a new one takes the rest. */
  #isOrphan = false;
  /** Where a session begins that an earlier page may have begun without noting its id. @type {number | null} */
  #left;
  /** Where the session begins that is asked for. */
  #asked = 0;
  #sent = 0;
  #heardAt = 0;
  #patience = SILENCE_MS;
  #lostSince = 0;
  /** Finals of earlier sessions that the current one sends again. @type {Final[]} */
  #repeated = [];
  #wake = () => {};
  #close = (/** @type {Loss | null} */ _) => {};
  #pump = 0;
  /** Whether the server has said that all audio is stored. */
  isStored = false;

  /**
   * @param {import("./keeper.js").Take} take
   * @param {() => Promise<string | null>} token one for each connection; null where the server asks for none
   * @param {Listener} to
   */
  constructor(take, token, to) {
    this.take = take;
    this.token = token;
    this.to = to;
    // Of attempts without an answer only one of an earlier page counts: it may have sent audio before it was closed.
    this.#left = take.asked;
  }

  /**
   * Runs until the last session has ended. Returns null, or the loss after which no session can go on.
   * @returns {Promise<Loss | null>}
   */
  async run() {
    const listening = new AbortController();
    addEventListener("online", () => this.#doubt(), { signal: listening.signal });
    addEventListener("offline", () => this.#doubt(), { signal: listening.signal });
    try {
      for (let attempt = 0; ; attempt += 1) {
        const lost = await this.#session();
        if (lost === null || lost.isFinal) return lost;
        if (this.#hasProgressed) attempt = 0;
        this.#hasProgressed = false;
        this.#lostSince ||= Date.now();
        this.#tell("lost", navigator.onLine ? lost : loss("offline"));
        await this.#pause(Math.max(backOff(attempt), lost.retryAfter * 1000));
      }
    } finally {
      listening.abort();
    }
  }

  /** Call it after more audio was appended to the take. */
  pushed() {
    this.#check();
    this.#send();
  }

  /** No more audio will come: sends the rest, then ends the session. */
  complete() {
    this.#isComplete = true;
    this.#send();
  }

  /** Tries to connect at once. */
  retry() {
    this.#wake();
  }

  /** @param {State["name"]} name @param {Loss | null} [lost] */
  #tell(name, lost = null) {
    this.to.state({ name, loss: lost, since: this.#lostSince });
  }

  #doubt() {
    this.#patience = DOUBT_MS;
    if (navigator.onLine) this.#wake();
  }

  /** @param {number} milliseconds @returns {Promise<void>} */
  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
  }

  /**
   * One connection. Returns null after `session.end`.
   * @returns {Promise<Loss | null>}
   */
  async #session() {
    this.#tell(this.#lostSince ? "lost" : "connecting", this.#lostSince && navigator.onLine ? loss("lost") : null);
    let token;
    try {
      token = await this.token();
    } catch (error) {
      return lossOfRequest(asProblem(error));
    }
    const lost = await this.#connected(this.#address(token));
    return lost === null || this.#hasBegun ? lost : this.#afterRefusal(lost);
  }

  /** @param {string | null} token */
  #address(token) {
    const { take } = this;
    const url = new URL(PATH, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const query = { ...take.options, sample_rate: take.rate, word_timestamps: true, acks: true };
    for (const [name, value] of Object.entries(query)) if (value !== "" && value !== false) url.searchParams.set(name, String(value));
    if (token !== null) url.searchParams.set("token", token);
    const previous = take.sessions.at(-1);
    const position = take.timeline.resumePoint(take.start, take.storesAudio);
    this.#asked = position;
    take.asked = this.#left ?? position;
    if (previous && !this.#isOrphan) {
      url.searchParams.set("resume_session_id", previous.id);
      url.searchParams.set("resume_from_seconds", take.timeline.seconds(position - take.timeline.base).toFixed(6));
    }
    take.save();
    return url;
  }

  /** @param {URL} url @returns {Promise<Loss | null>} */
  #connected(url) {
    return new Promise((resolve) => {
      const socket = new WebSocket(url);
      /** @type {import("./losses.js").StreamError | null} */
      let error = null;
      this.#socket = socket;
      this.#hasBegun = this.#isEndSent = false;
      this.#heardAt = Date.now();
      this.#patience = SILENCE_MS;
      const timer = setInterval(() => this.#check(), 1000);
      this.#close = (lost) => {
        clearInterval(timer);
        clearTimeout(this.#pump);
        socket.onmessage = socket.onclose = null;
        socket.close();
        this.#socket = null;
        this.#close = () => {};
        this.to.partial("");
        resolve(lost);
      };
      socket.onclose = ({ code }) => this.#close(this.#hasEnded ? null : lossOfClose(code, error));
      socket.onmessage = ({ data }) => {
        this.#heardAt = Date.now();
        this.#patience = SILENCE_MS;
        const message = JSON.parse(data);
        if (message.type === "error") error = message;
        else this.#receive(message);
      };
    });
  }

  /** Gives a connection up on which nothing comes. Timers of hidden pages are slow, so arriving audio checks it as well. */
  #check() {
    if (this.#socket && Date.now() - this.#heardAt > (this.#hasEnded ? CLOSING_MS : this.#patience)) {
      this.#close(this.#hasEnded ? null : loss("silent"));
    }
  }

  /**
   * What it means for the next attempt that a session did not begin.
   * @param {Loss} lost
   * @returns {Loss}
   */
  #afterRefusal(lost) {
    const { take } = this;
    const mayContinue = take.sessions.length > 0 && !this.#isOrphan;
    if (mayContinue && REPLACED.has(lost.reason)) {
      this.#isOrphan = true;
      return loss("lost");
    }
    if (mayContinue && lost.reason === "session_resumed" && this.#left !== null && lost.resumedBy) {
      this.#begin(lost.resumedBy, this.#left, true);
      return loss("lost");
    }
    return lost;
  }

  /** @param {any} message */
  #receive(message) {
    const { take } = this;
    switch (message.type) {
      case "session.begin":
        return this.#begun(message);
      case "transcript.partial":
        return this.to.partial(message.text);
      case "vad.speech_start":
        return this.to.partial("");
      case "transcript.final":
        return this.#final(message);
      case "audio.ack":
        if (message.received_seconds > 0) this.#hasProgressed = true;
        take.timeline.acknowledge(message);
        take.letGo();
        this.#withdraw(take.timeline.processed);
        return this.to.acknowledged();
      case "warning":
        if (message.code === "speech_suppressed") this.to.partial("");
        return this.to.warning(message);
      case "session.end":
        this.#hasEnded = true;
        this.isStored = Boolean(message.audio_uri);
        this.#withdraw(Infinity);
        return this.#tell("ended");
      default:
        // Types that are unknown are ignored.
    }
  }

  /** @param {any} message */
  #begun(message) {
    const { take } = this;
    const resumed = message.resume_from_seconds;
    const position = resumed === undefined ? this.#asked : take.timeline.base + take.timeline.position(resumed);
    this.#begin(message.session_id, position, resumed !== undefined);
    this.#hasBegun = true;
    this.#lostSince = 0;
    this.#sent = position;
    this.#tell("live");
    this.#send();
  }

  /** @param {string} id @param {number} position @param {boolean} isLinked whether it continues the one before */
  #begin(id, position, isLinked) {
    const { take } = this;
    const seconds = take.timeline.seconds(position);
    take.timeline.begin(position);
    take.sessions.push({ id, base: position, isLinked });
    take.asked = this.#left = null;
    this.#isOrphan = false;
    this.#repeated.push(...take.removeFinals(seconds));
    take.save();
    this.to.session(id);
  }

  /** @param {any} message */
  #final(message) {
    const final = this.take.timeline.final(message);
    const replaced = this.#repeated.filter(({ start, end }) => (start + end) / 2 < final.end);
    this.#repeated = this.#repeated.filter((each) => !replaced.includes(each));
    this.#hasProgressed = true;
    this.take.addFinal(final);
    this.to.partial("");
    this.to.final(final, replaced);
  }

  /** Finals that the current session has passed without sending them again. @param {number} seconds */
  #withdraw(seconds) {
    const gone = this.#repeated.filter(({ end }) => end <= seconds);
    if (gone.length === 0) return;
    this.#repeated = this.#repeated.filter((each) => !gone.includes(each));
    this.to.withdrawn(gone);
  }

  /** Sends what the connection takes. */
  #send() {
    const { take } = this;
    const socket = this.#socket;
    if (!socket || !this.#hasBegun || this.#isEndSent || socket.readyState !== WebSocket.OPEN) return;
    // Audio that was dropped before it was sent cannot be part of this session.
    if (this.#sent < take.start) return this.#close(loss("lost"));
    while (this.#sent < take.end) {
      if (socket.bufferedAmount > AHEAD) {
        clearTimeout(this.#pump);
        this.#pump = setTimeout(() => this.#send(), PUMP_MS);
        return;
      }
      const bytes = take.read(this.#sent);
      socket.send(bytes);
      this.#sent += bytes.length;
    }
    if (this.#isComplete) {
      socket.send(JSON.stringify({ type: "end" }));
      this.#isEndSent = true;
    }
  }
}
