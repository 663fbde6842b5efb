// The text of a recording: every word is in the page, so that the browser finds, selects and reads all of it, and every word
// is a way to its moment.

import { fill, h, icon, set } from "./dom.js";
import { clock } from "./time.js";
import { DOUBTFUL, pause, pieces, slices, spokenAt, timeline } from "./words.js";

/**
 * @typedef {import("./words.js").Utterance} Utterance
 * @typedef {HTMLElement & {at?: number}} Spoken an element that knows the number of its word
 */

/**
 * One utterance: its time, and a span for each of its words.
 * @param {Utterance} utterance
 * @param {number} position its number
 * @param {number} first the number of its first word
 */
export function paragraph(utterance, position, first) {
  const text = h("span", { class: "said", dir: "auto", lang: utterance.language || null });
  for (const piece of pieces(utterance)) {
    if (typeof piece === "string") text.append(piece);
    else text.append(wordOf(utterance, piece, first));
  }
  const time = h("button", { class: "at number", type: "button", tabindex: "-1", aria: { label: `Play from ${clock(utterance.start)}` } }, clock(utterance.start));
  const element = /** @type {Spoken} */ (h("p", { class: "utterance" }, time, text));
  element.at = position;
  return element;
}

/** @param {Utterance} utterance @param {number} piece @param {number} first */
function wordOf(utterance, piece, first) {
  const word = /** @type {import("./words.js").Word[]} */ (utterance.words)[piece];
  const span = /** @type {Spoken} */ (document.createElement("span"));
  span.append(word.word ?? word.text ?? "");
  span.at = first + piece;
  if (word.confidence < DOUBTFUL) {
    span.className = "doubtful";
    span.title = `Confidence ${Math.round(word.confidence * 100)} %`;
  }
  return span;
}

/**
 * @param {{play: (time: number) => void, toggle: () => void}} to
 */
export function transcript({ play, toggle }) {
  const text = h("div", { class: "text", role: "group", aria: { label: "Words of the transcript" } });
  const back = h("button", { class: "button back", type: "button", hidden: true, onclick: () => reveal() }, icon("audio"), "Back to now");
  const following = h("input", { type: "checkbox", role: "switch", onchange: () => following.checked && reveal() });
  const follow = h("label", { class: "check" }, following, "Follow");
  const element = h("div", { class: "transcript" }, text, back);

  /** @type {Utterance[]} */
  let utterances = [];
  /** @type {Spoken[]} by the number of a word, or of an utterance where words have no times */
  let spots = [];
  let line = timeline([]);
  let now = -1;
  /** @type {Spoken | null} the word that Tab comes to */
  let stop = null;
  let run = 0;

  /** Builds the text in slices; a later call ends an earlier one. @param {Utterance[]} next */
  async function show(next) {
    run += 1;
    const mine = run;
    const hasWords = next.some((each) => each.words?.length);
    utterances = next;
    spots = [];
    now = -1;
    stop = null;
    fill(text);
    line = timeline(hasWords ? next.flatMap((each) => (each.words?.length ? each.words : [each])) : next);
    for (const [from, end] of slices(next)) {
      const slice = document.createDocumentFragment();
      for (let at = from; at < end; at += 1) {
        const element = paragraph(next[at], at, spots.length);
        slice.append(element);
        const words = /** @type {Spoken[]} */ ([...element.children[1].children]);
        if (words.length > 0) spots.push(...words);
        else spots.push(whole(element, spots.length));
      }
      text.append(slice);
      if (stop === null && spots.length > 0) rove(spots[0], false);
      await pause();
      if (mine !== run) return;
    }
  }

  /** An utterance without words is one spot. @param {Element} element @param {number} at */
  function whole(element, at) {
    const spot = /** @type {Spoken} */ (element.children[1]);
    spot.at = at;
    return spot;
  }

  /** Makes a word the one that Tab comes to. Only it is a button: a screen reader reads the rest as text.
   * @param {Spoken} word @param {boolean} focus */
  function rove(word, focus) {
    if (stop !== null) set(stop, { tabindex: null, role: null, aria: { description: null } });
    stop = word;
    set(word, { tabindex: "0", role: "button", aria: { description: word.title || null } });
    if (focus) word.focus();
  }

  /** @param {EventTarget | null} target @returns {Spoken | null} */
  function spotOf(target) {
    const found = /** @type {Element | null} */ (target)?.closest?.(".said > span, .said");
    const spot = /** @type {Spoken | null} */ (found);
    return spot?.at === undefined ? null : spot;
  }

  text.addEventListener("click", (event) => {
    const target = /** @type {Element} */ (event.target);
    const utterance = /** @type {Spoken | null} */ (target.closest(".utterance"));
    if (utterance && target.closest(".at")) play(utterances[utterance.at ?? 0].start);
    // Who drags over text selects it.
    else if (getSelection()?.isCollapsed !== false) {
      const spot = spotOf(target);
      if (spot === null) return;
      rove(spot, false);
      play(line.starts[/** @type {number} */ (spot.at)]);
    }
  });
  text.addEventListener("keydown", (event) => {
    const spot = spotOf(event.target);
    if (spot === null) return;
    const to = target(spot, event.key);
    if (event.key === "Enter") play(line.starts[/** @type {number} */ (spot.at)]);
    else if (event.key === " ") toggle();
    else if (to !== null) rove(to, true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** Where a key leads from a word. @param {Spoken} spot @param {string} key @returns {Spoken | null} */
  function target(spot, key) {
    const at = /** @type {number} */ (spot.at);
    const onward = getComputedStyle(spot).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const other = (/** @type {"nextElementSibling" | "previousElementSibling"} */ way) => {
      const element = spot.closest(".utterance")?.[way]?.querySelector(".said");
      return /** @type {Spoken | null} */ (element?.firstElementChild ?? element ?? null);
    };
    if (key === "ArrowLeft" || key === "ArrowRight") return spots[at + (key === onward ? 1 : -1)] ?? null;
    if (key === "ArrowDown") return other("nextElementSibling");
    if (key === "ArrowUp") return other("previousElementSibling");
    if (key === "Home") return spots[0];
    return key === "End" ? spots[spots.length - 1] : null;
  }

  /** Brings the word that is spoken to where it can be read. */
  function reveal() {
    spots[now]?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  const seen = new IntersectionObserver(([entry]) => {
    const isSeen = entry.isIntersecting;
    if (!isSeen && following.checked) reveal();
    back.hidden = isSeen || following.checked;
  }, { rootMargin: "-160px 0px -40px 0px" });

  return {
    element,
    follow,
    show,
    /** Marks the word that is spoken. @param {number} time */
    at(time) {
      const next = spokenAt(line, time);
      if (next === now || (next < 0 && time > 0 && now < 0)) return;
      seen.disconnect();
      spots[now]?.classList.remove("now");
      now = next;
      const spot = spots[now];
      back.hidden = true;
      if (!spot) return;
      spot.classList.add("now");
      seen.observe(spot);
    },
    /** Whether any word has a time. @param {Utterance[]} list */
    hasTimes: (list) => list.length === 0 || list.some((each) => each.words?.length),
  };
}
