// Files on their way to the service: two at a time, with progress, and sent again where a connection is lost.
//
// The service answers a file with its job as soon as it has all of it. The same file with the same fields, sent again
// within ten minutes, gets the same job, so a file whose answer was lost may be sent again.

import { backOff } from "./api.js";

const PATH = "/v1/audio/transcriptions";
/** HTTP/1.1 has six connections, and the page needs some for itself. */
const AT_ONCE = 2;
const ATTEMPTS = 5;

/**
 * @typedef {{id: string, file: File, fields: [string, string][], state: "waiting" | "sending" | "pausing" | "sent" | "failed",
 *   sent: number, rate: number, attempts: number, until: number, message: string, job: any, stop: (() => void) | null}} Sending
 */

/** The fields of a request, from what the form has.
 * @param {{model: string, language: string, terms: string, keep: boolean}} options @returns {[string, string][]} */
export function fieldsOf({ model, language, terms, keep }) {
  const words = terms.split(/[,\n]/).map((each) => each.trim()).filter(Boolean);
  return [
    ...(model ? [/** @type {[string, string]} */ (["model", model])] : []),
    ...(language ? [/** @type {[string, string]} */ (["language", language])] : []),
    ...words.map((each) => /** @type {[string, string]} */ (["keywords[]", each])),
    ["store", String(keep)],
  ];
}

/** What a refused file means, as a sentence, and whether it may be sent again by itself.
 * @param {number} status @param {any} body
 * @returns {{message: string, isPassing: boolean}} */
export function refusalOf(status, body) {
  const told = String(body?.error?.message ?? body?.message ?? "").replace(/\d{7,} bytes/, (bytes) => `${Math.round(parseInt(bytes, 10) / 2 ** 20)} MiB`);
  const said = told ? told[0].toUpperCase() + told.slice(1).replace(/\.?$/, ".") : "";
  if (status === 0) return { message: "The connection was lost.", isPassing: true };
  if (status === 401) return { message: "Your login has ended. Log in in another tab, then send it again.", isPassing: false };
  if (status === 403) return { message: said || "Your key does not allow uploads.", isPassing: false };
  if (status === 413) return { message: said || "The file is larger than the service takes.", isPassing: false };
  if (status === 429 && body?.error?.code === "insufficient_quota") return { message: said, isPassing: false };
  if (status === 429) return { message: said || "The service asks for a pause.", isPassing: true };
  if (status >= 502 || status === 408) return { message: said || "The service does not take files at the moment.", isPassing: true };
  return { message: said || `The service answered ${status}.`, isPassing: false };
}

/** The files of a page. */
export class Uploads {
  /** @param {(sending: Sending) => void} changed called at every change of a file */
  constructor(changed) {
    /** @type {Sending[]} */
    this.all = [];
    this.changed = changed;
    this.count = 0;
  }

  /** Whether leaving the page would lose something. */
  get isBusy() {
    return this.all.some((each) => ["waiting", "sending", "pausing"].includes(each.state));
  }

  /** @param {Iterable<File>} files @param {[string, string][]} fields */
  add(files, fields) {
    for (const file of files) {
      this.count += 1;
      this.all.push({ id: `file-${this.count}`, file, fields, state: "waiting", sent: 0, rate: 0, attempts: 0, until: 0, message: "", job: null, stop: null });
    }
    this.next();
  }

  /** @param {Sending} sending */
  remove(sending) {
    this.all = this.all.filter((each) => each !== sending);
    sending.stop?.();
    this.changed(sending);
    this.next();
  }

  /** @param {Sending} sending */
  again(sending) {
    Object.assign(sending, { state: "waiting", attempts: 0, message: "" });
    this.next();
  }

  next() {
    const open = AT_ONCE - this.all.filter((each) => each.state === "sending").length;
    for (const each of this.all.filter(({ state }) => state === "waiting").slice(0, Math.max(0, open))) this.send(each);
    for (const each of this.all) this.changed(each);
  }

  /** @param {Sending} sending */
  send(sending) {
    const form = new FormData();
    for (const [name, value] of sending.fields) form.append(name, value);
    // Behind the fields, which the service checks before it has all of the file.
    form.append("file", sending.file, sending.file.name);
    // `fetch` does not tell how much was sent.
    const call = new XMLHttpRequest();
    const begun = performance.now();
    Object.assign(sending, { state: "sending", sent: 0, rate: 0, attempts: sending.attempts + 1, stop: () => call.abort() });
    call.upload.addEventListener("progress", (event) => {
      sending.sent = event.total ? event.loaded / event.total : 0;
      sending.rate = event.loaded / Math.max(0.1, (performance.now() - begun) / 1000);
      this.changed(sending);
    });
    call.addEventListener("loadend", () => this.all.includes(sending) && this.ended(sending, call));
    call.open("POST", PATH);
    call.setRequestHeader("prefer", "respond-async");
    call.responseType = "json";
    call.send(form);
  }

  /** @param {Sending} sending @param {XMLHttpRequest} call */
  ended(sending, call) {
    sending.stop = null;
    if (call.status === 202 && call.response?.id) {
      Object.assign(sending, { state: "sent", sent: 1, job: call.response });
      return this.next();
    }
    const { message, isPassing } = refusalOf(call.status, call.response);
    if (!isPassing || sending.attempts >= ATTEMPTS) {
      Object.assign(sending, { state: "failed", message });
      return this.next();
    }
    const wait = Number(call.getResponseHeader("retry-after")) * 1000 || Math.max(1000, backOff(sending.attempts));
    const timer = setTimeout(() => ((sending.state = "waiting"), this.next()), wait);
    Object.assign(sending, { state: "pausing", message, until: Date.now() + wait, stop: () => clearTimeout(timer) });
    this.next();
  }
}
