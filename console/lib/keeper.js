// Audio of the microphone, in memory and in IndexedDB, until the server has stored it.

import { Timeline } from "./timeline.js";

const DATABASE = "dalston.live";
const TAKES = "takes";
const AUDIO = "audio";
const FINALS = "finals";
const STORES = [TAKES, AUDIO, FINALS];
/** The most that one piece in memory and one record of the database hold. */
const PIECE = 32_000;
/** Most audio of one take that is kept: 4½ hours at 16 kHz, while the server takes none. */
export const BOUND = 500_000_000;

/**
 * @typedef {{id: string, rate: number, startedAt: number, options: Record<string, any>, sessions: {id: string, base: number, isLinked: boolean}[],
 *   progress: import("./timeline.js").Progress, gaps: {at: number, seconds: number, why: string}[], end: number,
 *   dropped: number, asked: number | null, isSent: boolean}} Saved
 */

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const result = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
const completed = (transaction) => new Promise((resolve, reject) => {
  transaction.oncomplete = () => resolve();
  transaction.onabort = () => reject(transaction.error ?? new Error("the transaction was aborted"));
});

const lockName = (/** @type {string} */ id) => `${DATABASE}.${id}`;
/** All records of a take, from a position or number on, up to another one. */
const range = (/** @type {string} */ id, from = 0, to = Infinity) => IDBKeyRange.bound([id, from], [id, to], false, true);

/** The takes of this browser. */
export class Keeper {
  /** @param {IDBDatabase | null} database null: memory only */
  constructor(database) {
    this.database = database;
  }

  /** Opens the database; where the browser refuses it, takes last as long as their page. */
  static async open() {
    try {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => {
        request.result.createObjectStore(TAKES, { keyPath: "id" });
        request.result.createObjectStore(AUDIO);
        request.result.createObjectStore(FINALS);
      };
      return new Keeper(await result(request));
    } catch {
      return new Keeper(null);
    }
  }

  /**
   * Begins a take.
   * @param {number} rate samples a second  @param {Record<string, any>} options
   */
  async create(rate, options) {
    const take = new Take(this.database, {
      id: crypto.randomUUID(), rate, options, startedAt: Date.now(), sessions: [], gaps: [], end: 0, dropped: 0,
      progress: new Timeline(rate).saved(), asked: null, isSent: false,
    });
    await take.lock();
    return take;
  }

  /**
   * Takes that earlier pages have left, the oldest first; those that another tab is busy with are left out.
   * @returns {Promise<{saved: Saved, start: number, end: number}[]>} with the positions of the audio that is kept
   */
  async found() {
    if (this.database === null || !navigator.locks) return [];
    const held = new Set(((await navigator.locks.query()).held ?? []).map((lock) => lock.name));
    const transaction = this.database.transaction(STORES);
    /** @type {Saved[]} */
    const all = await result(transaction.objectStore(TAKES).getAll());
    const audio = transaction.objectStore(AUDIO);
    const found = await Promise.all(all.filter(({ id }) => !held.has(lockName(id))).map(async (saved) => {
      const [first, last] = await Promise.all([result(audio.getKey(range(saved.id))), result(audio.openCursor(range(saved.id), "prev"))]);
      const end = last ? /** @type {any} */ (last.key)[1] + last.value.length : saved.end;
      return { saved, start: first ? /** @type {any} */ (first)[1] : end, end };
    }));
    return found.sort((a, b) => a.saved.startedAt - b.saved.startedAt);
  }

  /**
   * Takes over what an earlier page has left; null if another tab did, or has removed it.
   * @param {string} id
   */
  async resume(id) {
    if (this.database === null) return null;
    const lock = new Lock();
    if (!(await lock.acquire(lockName(id)))) return null;
    const transaction = this.database.transaction(STORES);
    const [saved, keys, values, finals] = await Promise.all([
      result(transaction.objectStore(TAKES).get(id)),
      result(transaction.objectStore(AUDIO).getAllKeys(range(id))),
      result(transaction.objectStore(AUDIO).getAll(range(id))),
      result(transaction.objectStore(FINALS).getAll(range(id))),
    ]);
    if (saved === undefined) return lock.release(), null;
    const records = keys.map((key, index) => ({ position: /** @type {any} */ (key)[1], bytes: values[index] }));
    return new Take(this.database, saved, { lock, records, finals });
  }
}

/** A take belongs to one page at a time. The browser releases the lock of a page that is gone. */
class Lock {
  #release = () => {};

  /** @param {string} name @returns {Promise<boolean>} */
  acquire(name) {
    return new Promise((resolve, reject) => {
      navigator.locks.request(name, { ifAvailable: true }, (lock) => {
        resolve(lock !== null);
        return lock && new Promise((release) => (this.#release = () => release(undefined)));
      }).catch(reject);
    });
  }

  release() {
    this.#release();
  }
}

/** One recording: 16-bit mono audio from byte `start` on to byte `end`, and what is known of it. */
export class Take {
  /** @type {{position: number, data: Uint8Array, length: number}[]} */
  #pieces = [];
  #database;
  #lock;
  #isWriting = false;
  #isChanged = true;
  #written = 0;
  #discarded = 0;
  /** @type {[number, import("./timeline.js").Final | null][]} */
  #finalsToWrite = [];
  /** Called once, when the database takes no more: from then on the take lasts as long as its page. */
  onforgetful = () => {};
  bound = BOUND;

  /**
   * @param {IDBDatabase | null} database
   * @param {Saved} saved
   * @param {{lock: Lock, records: {position: number, bytes: Uint8Array}[], finals: import("./timeline.js").Final[]}} [left]
   */
  constructor(database, saved, left) {
    this.#database = database;
    this.#lock = left?.lock ?? new Lock();
    this.id = saved.id;
    this.rate = saved.rate;
    this.startedAt = saved.startedAt;
    this.options = saved.options;
    this.sessions = saved.sessions;
    this.gaps = saved.gaps;
    /** Where a session begins that was asked for and may have begun without an answer. */
    this.asked = saved.asked;
    /** Whether the server has ended the last session and has yet to store it. */
    this.isSent = saved.isSent;
    /** Bytes that had to be dropped although the server had not stored them. */
    this.dropped = saved.dropped;
    this.timeline = new Timeline(saved.rate, saved.progress);
    this.finals = left?.finals ?? [];
    const records = left?.records ?? [];
    this.start = this.end = records[0]?.position ?? saved.end;
    for (const { position, bytes } of records) if (position === this.end) this.#remember(bytes);
    this.#written = this.end;
    this.#discarded = this.start;
  }

  async lock() {
    await this.#lock.acquire(lockName(this.id));
  }

  get isLasting() {
    return this.#database !== null;
  }

  /** Seconds that were recorded. */
  get seconds() {
    return this.timeline.seconds(this.end);
  }

  /** Seconds that the server has not received yet. */
  get unsent() {
    return Math.max(0, this.seconds - Math.max(this.timeline.received, this.timeline.seconds(this.start)));
  }

  get storesAudio() {
    return this.options.store_audio === true;
  }

  /** @param {Uint8Array} bytes */
  append(bytes) {
    this.#remember(bytes);
    while (this.end - this.start > this.bound) {
      const position = this.start + this.#pieces[0].length;
      this.dropped += position - Math.max(this.start, Math.min(position, this.timeline.position(this.timeline.received)));
      this.#forget(position);
    }
    this.#write();
  }

  /** @param {Uint8Array} bytes */
  #remember(bytes) {
    for (let done = 0; done < bytes.length;) {
      let piece = this.#pieces.at(-1);
      if (piece === undefined || piece.length === PIECE) {
        piece = { position: this.end, data: new Uint8Array(PIECE), length: 0 };
        this.#pieces.push(piece);
      }
      const part = bytes.subarray(done, done + PIECE - piece.length);
      piece.data.set(part, piece.length);
      piece.length += part.length;
      done += part.length;
      this.end += part.length;
    }
  }

  /**
   * The audio from a position on, as much of it as lies together; nothing at the end.
   * @param {number} position between `start` and `end`
   */
  read(position) {
    if (position < this.start || position > this.end) throw new RangeError(`byte ${position} is not kept`);
    const index = this.#indexOf(position);
    const piece = this.#pieces[index];
    return piece ? piece.data.subarray(position - piece.position, piece.length) : new Uint8Array(0);
  }

  /** The piece that holds a position, by halving. @param {number} position */
  #indexOf(position) {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const { position: from, length } = this.#pieces[middle];
      if (from + length <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Lets go of the audio that will not be sent again. */
  letGo() {
    const position = this.timeline.safeUntil(this.storesAudio);
    const first = this.#pieces[0];
    if (first && first.position + first.length <= position) this.#forget(position);
    this.timeline.discardBefore(this.start);
    this.save();
  }

  /** Forgets whole pieces before a position. @param {number} position */
  #forget(position) {
    const index = this.#indexOf(Math.min(position, this.end));
    this.#pieces.splice(0, index);
    this.start = this.#pieces[0]?.position ?? this.end;
  }

  /** @param {import("./timeline.js").Final} final */
  addFinal(final) {
    final.number = (this.finals.at(-1)?.number ?? -1) + 1;
    this.finals.push(final);
    this.#finalsToWrite.push([final.number, final]);
    this.save();
  }

  /**
   * Removes the finals that the current session sends again, and returns them.
   * @param {number} seconds where it begins
   */
  removeFinals(seconds) {
    const removed = this.finals.filter((final) => final.start > seconds - 0.0005);
    this.finals = this.finals.filter((final) => !removed.includes(final));
    for (const { number } of removed) this.#finalsToWrite.push([number, null]);
    return removed;
  }

  /** Writes what has changed, soon. */
  save() {
    this.#isChanged = true;
    this.#write();
  }

  /** @returns {Saved} */
  #saved() {
    const { id, rate, startedAt, options, sessions, gaps, asked, isSent, end, dropped } = this;
    return { id, rate, startedAt, options, sessions, gaps, asked, isSent, end, dropped, progress: this.timeline.saved() };
  }

  /** One transaction after the other, each with all that has come meanwhile. */
  async #write() {
    if (this.#isWriting || this.#database === null) return;
    this.#isWriting = true;
    try {
      while (this.#database && (this.#isChanged || this.#written < this.end)) await this.#writeOnce(this.#database);
    } catch {
      // The disk is full, or the browser has closed the database.
      this.#database = null;
      this.onforgetful();
    } finally {
      this.#isWriting = false;
    }
  }

  /** @param {IDBDatabase} database */
  async #writeOnce(database) {
    const transaction = database.transaction(STORES, "readwrite");
    const audio = transaction.objectStore(AUDIO);
    const finals = transaction.objectStore(FINALS);
    this.#isChanged = false;
    this.#written = Math.max(this.#written, this.start);
    while (this.#written < this.end) {
      const bytes = this.read(this.#written).slice();
      audio.put(bytes, [this.id, this.#written]);
      this.#written += bytes.length;
    }
    // A record is no longer than a piece: those before this position end before `start`.
    if (this.start - PIECE > this.#discarded) {
      audio.delete(range(this.id, 0, this.start - PIECE));
      this.#discarded = this.start - PIECE;
    }
    for (const [number, final] of this.#finalsToWrite.splice(0)) {
      if (final === null) finals.delete([this.id, number]);
      else finals.put(final, [this.id, number]);
    }
    transaction.objectStore(TAKES).put(this.#saved());
    await completed(transaction);
  }

  /** Removes the take from the browser. */
  async remove() {
    const database = this.#database;
    this.#database = null;
    if (database) {
      const transaction = database.transaction(STORES, "readwrite");
      transaction.objectStore(TAKES).delete(this.id);
      transaction.objectStore(AUDIO).delete(range(this.id));
      transaction.objectStore(FINALS).delete(range(this.id));
      await completed(transaction);
    }
    this.release();
  }

  /** Leaves the take to the next page that looks for it. */
  release() {
    this.#lock.release();
  }

  /** The audio that is kept, as a WAV file. */
  wav() {
    const parts = this.#pieces.map(({ data, length }) => data.subarray(0, length));
    return new Blob([header(this.end - this.start, this.rate), ...(/** @type {any[]} */ (parts))], { type: "audio/wav" });
  }
}

/** The header of a WAV file of 16-bit mono audio. @param {number} bytes @param {number} rate */
function header(bytes, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (/** @type {number} */ at, /** @type {string} */ word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  return view;
}
