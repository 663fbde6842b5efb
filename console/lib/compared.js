// Two versions of a transcript as one text, in which words that only one of them has are marked.

import { compare, counts, tokens, windows } from "./diff.js";
import { h, set } from "./dom.js";
import { clock } from "./time.js";
import { pause } from "./words.js";

/** Between two pauses of the page, in milliseconds. */
const TASK_MS = 30;
/** A difference is heard with what is around it. */
const BEFORE_SECONDS = 0.7;
const AFTER_SECONDS = 0.5;
/** A removed text this far, in seconds, behind the one before it is a paragraph of its own. */
const APART_SECONDS = 0.5;

/**
 * @typedef {import("./diff.js").Token} Token
 * @typedef {{words: [number, number], changes: number, removed: number, added: number}} Figures
 */

/**
 * @param {{play: (from: number, until?: number) => void, toggle: () => void, moved: (at: number, count: number) => void}} to
 */
export function comparedText({ play, toggle, moved }) {
  const element = h("div", { class: "transcript compared", role: "group", aria: { label: "Both versions as one text" } });
  /** @type {{element: HTMLElement, from: number, until: number}[]} */
  let changes = [];
  let at = -1;
  let run = 0;

  /**
   * Compares and shows, window by window, so that the page answers meanwhile.
   * @param {import("./words.js").Utterance[]} first
   * @param {import("./words.js").Utterance[]} second
   * @param {"text" | "plain"} by
   * @param {(figures: Figures, share: number) => void} progress
   */
  async function show(first, second, by, progress) {
    run += 1;
    const mine = run;
    const [a, b] = [tokens(first), tokens(second)];
    const all = windows(a, b);
    /** @type {Figures} */
    const figures = { words: [a.length, b.length], changes: 0, removed: 0, added: 0 };
    changes = [];
    at = -1;
    element.replaceChildren();
    const write = writer(element, a, b, (change) => changes.push(change));
    let begun = performance.now();
    for (const [number, window] of all.entries()) {
      const stretches = compare(a, b, window, by);
      stretches.forEach(write);
      const found = counts(stretches);
      for (const name of /** @type {const} */ (["changes", "removed", "added"])) figures[name] += found[name];
      if (performance.now() - begun < TASK_MS) continue;
      progress(figures, number / all.length);
      await pause();
      if (mine !== run) return;
      begun = performance.now();
    }
    if (changes[0]) set(changes[0].element, { tabindex: "0" });
    progress(figures, 1);
  }

  /** Goes to a difference and plays it. @param {number} next */
  function go(next) {
    if (changes.length === 0) return;
    if (changes[at]) set(changes[at].element, { tabindex: "-1", aria: { current: null } });
    at = (next + changes.length) % changes.length;
    const { element: change, from, until } = changes[at];
    set(change, { tabindex: "0", aria: { current: "true" } });
    change.scrollIntoView({ block: "center" });
    change.focus({ preventScroll: true });
    moved(at, changes.length);
    play(Math.max(0, from - BEFORE_SECONDS), until + AFTER_SECONDS);
  }

  element.addEventListener("click", ({ target }) => {
    const clicked = /** @type {Element} */ (target);
    const time = /** @type {HTMLElement | null} */ (clicked.closest("button.at"));
    const change = clicked.closest(".change");
    if (time) play(Number(time.dataset.from));
    else if (change && getSelection()?.isCollapsed !== false) go(changes.findIndex((each) => each.element === change));
  });
  element.addEventListener("keydown", (event) => {
    const change = /** @type {Element} */ (event.target).closest(".change");
    if (!change) return;
    if (event.key === "Enter") go(changes.findIndex((each) => each.element === change));
    else if (event.key === " ") toggle();
    else return;
    event.preventDefault();
  });
  return { element, show, next: () => go(at + 1), previous: () => go(at < 0 ? changes.length - 1 : at - 1) };
}

/**
 * Writes stretch after stretch into paragraphs, which are the utterances of the second transcript.
 * @param {HTMLElement} element
 * @param {Token[]} a
 * @param {Token[]} b
 * @param {(change: {element: HTMLElement, from: number, until: number}) => void} found
 */
function writer(element, a, b, found) {
  /** @type {HTMLElement | null} */
  let said = null;
  let utterance = -1;
  let end = 0;
  const paragraph = (/** @type {number} */ start) => {
    said = h("span", { class: "said", dir: "auto" });
    element.append(h("p", { class: "utterance" },
      h("button", { class: "at number", type: "button", tabindex: "-1", data: { from: start }, aria: { label: `Play from ${clock(start)}` } }, clock(start)), said));
    return said;
  };
  const text = (/** @type {Token[]} */ words) => words.map((word, at) => (at > 0 ? word.gap : "") + word.text).join("");
  const into = (/** @type {Token} */ first, /** @type {boolean} */ isSecond) => {
    if (said === null || (isSecond ? first.utterance !== utterance : first.start > end + APART_SECONDS)) paragraph(first.start);
    if (isSecond) utterance = first.utterance;
    const into = /** @type {HTMLElement} */ (said);
    if (into.hasChildNodes()) into.append(first.gap);
    return into;
  };
  return (/** @type {import("./diff.js").Stretch} */ stretch) => {
    const [gone, come] = [a.slice(...stretch.a), b.slice(...stretch.b)];
    if (stretch.same) {
      for (let from = 0; from < come.length;) {
        let to = from + 1;
        while (to < come.length && come[to].utterance === come[from].utterance) to += 1;
        into(come[from], true).append(text(come.slice(from, to)));
        from = to;
      }
    } else {
      const [first] = come.length ? come : gone;
      const change = h("span", { class: "change", role: "button", tabindex: "-1" }, gone.length > 0 && h("del", null, text(gone)), gone.length > 0 && come.length > 0 && " ", come.length > 0 && h("ins", null, text(come)));
      into(first, come.length > 0).append(change);
      const both = [...gone, ...come];
      found({ element: change, from: Math.min(...both.map((word) => word.start)), until: Math.max(...both.map((word) => word.end)) });
      if (come.length) utterance = come[come.length - 1].utterance;
    }
    end = Math.max(gone.at(-1)?.end ?? 0, come.at(-1)?.end ?? 0);
  };
}
