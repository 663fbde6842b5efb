// The text of a recording while it is spoken.

import { fill, h } from "./dom.js";
import { clock } from "./time.js";

/** @typedef {import("./timeline.js").Final} Final */

export class Captions {
  /** @type {Map<Final, HTMLElement>} */
  #lines = new Map();
  #log = h("div", { class: "lines", role: "log", aria: { label: "Transcript" } });
  #partial = h("p", { class: "line partial", aria: { hidden: "true" }, hidden: true });
  #empty = h("p", { class: "soft nothing" }, "What is said appears here.");
  #back = h("button", { class: "button back", type: "button", hidden: true, onclick: () => this.#follow() }, "Back to now");

  constructor() {
    this.scroller = h("div", { class: "scroller", tabindex: "0", role: "region", aria: { label: "Text" }, onscroll: () => this.#scrolled() },
      this.#empty, this.#log, this.#partial);
    this.element = h("section", { class: "card captions blank", aria: { label: "Captions" } }, this.scroller, this.#back);
  }

  get #isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 40;
  }

  #scrolled() {
    this.#back.hidden = this.#isAtEnd;
  }

  #follow() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Changes what is shown; keeps the newest line in sight of those who were looking at it. @param {() => void} change */
  #changing(change) {
    const wasAtEnd = this.#isAtEnd;
    change();
    this.#empty.hidden = !this.#partial.hidden || this.#log.childElementCount > 0;
    this.element.classList.toggle("blank", !this.#empty.hidden);
    if (wasAtEnd) this.#follow();
  }

  clear() {
    this.#changing(() => {
      this.#lines.clear();
      fill(this.#log);
      this.#partial.hidden = true;
    });
  }

  /**
   * Adds a final. One with the same text that it replaces stays as it is, so that nobody hears it twice.
   * @param {Final} final  @param {Final[]} [replaced]
   */
  add(final, replaced = []) {
    this.#changing(() => {
      const same = replaced.find(({ text }) => text === final.text);
      const line = (same && this.#lines.get(same)) ?? h("p", { class: "line" });
      for (const each of replaced) {
        if (each !== same) this.#lines.get(each)?.remove();
        this.#lines.delete(each);
      }
      if (!line.isConnected) {
        const time = h("span", { class: "time number" }, clock(final.start));
        line.append(time, " ", h("span", { class: "words", dir: "auto" }, final.text));
        this.#insert(line, final.start);
      }
      line.dataset.start = String(final.start);
      this.#lines.set(final, line);
    });
  }

  /** A line for something that is no speech. @param {string} text @param {number} start */
  mark(text, start) {
    this.#changing(() => {
      const line = h("p", { class: "line mark", data: { start: String(start) } }, h("span", { class: "time number" }, clock(start)), " ", h("span", null, text));
      this.#insert(line, start);
    });
  }

  /** @param {HTMLElement} line @param {number} start */
  #insert(line, start) {
    let before = null;
    for (let each = this.#log.lastElementChild; each && Number(/** @type {HTMLElement} */ (each).dataset.start) > start; each = each.previousElementSibling) before = each;
    this.#log.insertBefore(line, before);
  }

  /** @param {Final[]} finals */
  remove(finals) {
    this.#changing(() => {
      for (const final of finals) {
        this.#lines.get(final)?.remove();
        this.#lines.delete(final);
      }
    });
  }

  /** @param {string} text of the utterance in progress; "" for none */
  partial(text) {
    this.#changing(() => {
      this.#partial.hidden = text === "";
      fill(this.#partial, h("span", { class: "time" }, "…"), " ", h("span", { class: "words", dir: "auto" }, text));
    });
  }

  /** The text, a line for each final. */
  get text() {
    return [...this.#log.querySelectorAll(".words")].map((each) => each.textContent).join("\n");
  }
}
