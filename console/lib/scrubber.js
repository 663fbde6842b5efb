// The waveform of a recording as a slider: where one is, where speech is, and a way to any moment.

import { fill, h, icon, set } from "./dom.js";
import { clock, spoken } from "./time.js";
import { gain, paint, parseWaveform, shownPart } from "./waveform.js";
import { saidAt, timeline } from "./words.js";

const MOST_ZOOM = 64;
/** Less than this is not worth enlarging, in seconds. */
const SHORTEST_PART = 10;
const KEYS = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, PageDown: -60, PageUp: 60 };

/**
 * @param {{seek: (time: number) => void, toggle: () => void}} to
 */
export function scrubber({ seek, toggle }) {
  // Two pictures of the same, so that nothing is drawn anew while it plays: the second one is cut at the position.
  const rest = /** @type {HTMLCanvasElement} */ (h("canvas"));
  const played = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "played" }));
  const tip = h("div", { class: "tip number", hidden: true });
  const element = h("div", { class: "wave", role: "slider", tabindex: "0", aria: { label: "Position in the recording", valuemin: 0, valuenow: 0 } }, rest, played, h("div", { class: "playhead" }), tip);
  const smaller = h("button", { class: "button quiet square", type: "button", aria: { label: "Show more of the recording" }, title: "Show more of the recording", onclick: () => enlarge(0.5) }, "−");
  const larger = h("button", { class: "button quiet square", type: "button", aria: { label: "Enlarge the waveform" }, title: "Enlarge the waveform", onclick: () => enlarge(2) }, icon("plus"));
  const zoom = h("span", { class: "row zoom" }, smaller, larger);

  let duration = 0;
  let time = 0;
  let level = 1;
  let part = [0, 0];
  let scale = 1;
  /** @type {import("./waveform.js").Waveform | null} */
  let waveform = null;
  /** @type {import("./words.js").Utterance[]} */
  let utterances = [];
  let line = timeline([]);
  let said = "";
  let frame = 0;

  function draw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      const colour = (/** @type {string} */ name) => getComputedStyle(element).getPropertyValue(name);
      const picture = { waveform, from: part[0], to: part[1], spans: line, scale };
      paint(rest, { ...picture, bar: colour("--wave"), speech: colour("--wave-speech") });
      paint(played, { ...picture, bar: colour("--wave-played"), speech: "transparent" });
    });
  }
  /** Shows the part around a time, if it is not shown already. @param {boolean} [always] */
  function look(always = false) {
    if (!always && time >= part[0] && time <= part[1]) return;
    part = shownPart(duration, level, time);
    set(smaller, { disabled: level <= 1 });
    set(larger, { disabled: level >= MOST_ZOOM || duration / level <= SHORTEST_PART });
    draw();
  }
  /** @param {number} factor */
  function enlarge(factor) {
    level = Math.min(MOST_ZOOM, Math.max(1, level * factor));
    look(true);
    show();
  }
  function show() {
    look();
    const share = part[1] > part[0] ? (time - part[0]) / (part[1] - part[0]) : 0;
    element.style.setProperty("--at", String(Math.min(1, Math.max(0, share))));
    const words = saidAt(utterances, line, time);
    const text = [spoken(time), words].filter(Boolean).join(", ");
    if (text === said) return;
    said = text;
    set(element, { aria: { valuenow: Math.round(time), valuemax: Math.round(duration), valuetext: text } });
  }
  /** @param {PointerEvent} event */
  function timeAt(event) {
    const box = element.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    return part[0] + share * (part[1] - part[0]);
  }

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    seek(timeAt(event));
  });
  element.addEventListener("pointermove", (event) => {
    const at = timeAt(event);
    if (element.hasPointerCapture(event.pointerId)) seek(at);
    const words = saidAt(utterances, line, at);
    fill(tip, [clock(at), words].filter(Boolean).join("  "));
    tip.hidden = false;
    tip.style.setProperty("--at", String((at - part[0]) / Math.max(0.001, part[1] - part[0])));
  });
  element.addEventListener("pointerleave", () => (tip.hidden = true));
  element.addEventListener("keydown", (event) => {
    const jump = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
    if (event.key === "Home") seek(0);
    else if (event.key === "End") seek(duration);
    else if (event.key === " ") toggle();
    else if (jump !== undefined) seek(time + jump);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(element);
  // Colours of a canvas do not follow the scheme by themselves.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme"] });

  return {
    element,
    zoom,
    /** @param {import("./words.js").Utterance[]} next */
    speech(next) {
      utterances = next;
      line = timeline(next);
      said = "";
      draw();
    },
    /** @param {ArrayBuffer | null} bytes of GetWaveform; null for none */
    waveform(bytes) {
      waveform = bytes && parseWaveform(bytes);
      scale = waveform ? gain(waveform) : 1;
      draw();
    },
    /** @param {number} now @param {number} length of the recording, both in seconds */
    show(now, length) {
      time = now;
      if (length !== duration) {
        duration = length;
        look(true);
      }
      show();
    },
  };
}
