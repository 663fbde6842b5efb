// The player of a recording: the browser's audio element with controls of our own, which say in words what they do.

import { asProblem, pause, problemOf, request } from "./api.js";
import { fill, h, icon, set } from "./dom.js";
import { announce } from "./page.js";
import { scrubber } from "./scrubber.js";
import { clock } from "./time.js";

const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2];
const STEP_SECONDS = 5;
const NETWORK_ERROR = 2;
const VOLUME = "dalston.volume";
/** A waveform of many hours may take the service longer than one request. */
const WAVEFORM_TRIES = 5;
const WAVEFORM_PAUSE_MS = 5000;

/**
 * @typedef {{src: string, waveform: string, duration: number, kind: string, utterances: import("./words.js").Utterance[]}} Recording
 *   `kind`: what a sentence calls its format; `utterances`: to say and to shade where speech is
 */

/**
 * @param {{onTime: (time: number, isPlaying: boolean) => void}} to called at every frame while it plays, and after a seek
 */
export function player({ onTime }) {
  const audio = /** @type {HTMLAudioElement} */ (h("audio", { preload: "metadata" }));
  const bar = scrubber({ seek: (time) => seek(time), toggle: () => toggle() });
  const fault = h("div", { role: "alert" });
  const play = h("button", { class: "button primary square play", type: "button", onclick: () => toggle() });
  const time = h("span", { class: "number time" });
  const volume = volumeOf(audio);
  const speed = h("select", { aria: { label: "Speed" }, onchange: () => (audio.playbackRate = Number(speed.value)) },
    SPEEDS.map((each) => h("option", { value: each, selected: each === 1 }, `${each}×`)));
  const element = h("section", { class: "card player", aria: { label: "Player" } }, bar.element,
    h("div", { class: "row controls" },
      step(-STEP_SECONDS, () => seek(audio.currentTime - STEP_SECONDS)), play, step(STEP_SECONDS, () => seek(audio.currentTime + STEP_SECONDS)),
      time, h("span", { class: "push row" }, bar.zoom, speed, volume)),
    fault, audio);

  /** @type {Recording | null} */
  let recording = null;
  let frame = 0;
  let hasRetried = false;
  /** A seek before the length is known: it is done when it is. */
  let wanted = 0;
  let drawing = new AbortController();
  let stopAt = Infinity;

  const duration = () => (Number.isFinite(audio.duration) ? audio.duration : (recording?.duration ?? 0));
  const now = () => (audio.readyState > 0 ? audio.currentTime : wanted);

  function show() {
    const isPlaying = !audio.paused && !audio.ended;
    fill(time, clock(now()), " / ", clock(duration()));
    bar.show(now(), duration());
    onTime(now(), isPlaying);
  }
  function follow() {
    cancelAnimationFrame(frame);
    if (now() >= stopAt) {
      stopAt = Infinity;
      audio.pause();
    }
    show();
    if (!audio.paused && !audio.ended) frame = requestAnimationFrame(follow);
  }
  function showState() {
    const isPlaying = !audio.paused && !audio.ended;
    const name = isPlaying ? "Pause" : "Play";
    fill(play, icon(isPlaying ? "pause" : "play"));
    set(play, { aria: { label: name }, title: `${name} (Space)` });
    follow();
  }
  /** @param {number} to seconds */
  function seek(to) {
    const target = Math.min(Math.max(0, to), Math.max(0, duration()));
    wanted = target;
    stopAt = Infinity;
    if (audio.readyState > 0) audio.currentTime = target;
    show();
  }
  function toggle() {
    stopAt = Infinity;
    if (audio.paused) start();
    else audio.pause();
  }
  function start() {
    audio.play().catch((error) => {
      // A failed source has its own event, and a pause before the first sample is no failure.
      if (error.name === "NotAllowedError") announce("The browser asks for a press on Play first.");
    });
  }

  async function onError() {
    if (recording === null || !audio.getAttribute("src")) return;
    const { src, kind } = recording;
    const at = now();
    if (audio.error?.code === NETWORK_ERROR && !hasRetried) {
      hasRetried = true;
      restart(at);
      return;
    }
    const said = await reasonOf(src);
    const sentence = said ?? (audio.error?.code === NETWORK_ERROR || at > 0
      ? `The audio ended at ${clock(at)}: the rest could not be read.`
      : `This browser cannot play ${kind}. The recording itself is complete.`);
    fill(fault, h("div", { class: "note warn" }, icon("warn"), h("div", null, sentence, at > 0 && said ? ` It ended at ${clock(at)}.` : ""),
      h("a", { class: "button", href: src, download: true }, icon("download"), "Download"),
      h("button", { class: "button", type: "button", onclick: () => restart(at) }, "Try again")));
    showState();
  }
  /** Draws the waveform. A recording without one is played all the same.
   * @param {string} path @param {AbortSignal} signal */
  async function draw(path, signal) {
    bar.waveform(null);
    for (let tries = 0; tries < WAVEFORM_TRIES; tries += 1) {
      try {
        return bar.waveform(await (await request(path, { signal })).arrayBuffer());
      } catch (error) {
        const problem = asProblem(error);
        if (signal.aborted || !(problem.isPassing || problem.status === 409) || problem.status === 501) return;
      }
      await pause(WAVEFORM_PAUSE_MS, signal).catch(() => {});
    }
  }
  /** Reads the source anew and goes on where it was.
   * @param {number} at */
  function restart(at) {
    fill(fault);
    wanted = at;
    audio.load();
    start();
  }

  for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, showState);
  for (const event of ["seeked", "durationchange"]) audio.addEventListener(event, show);
  audio.addEventListener("loadedmetadata", () => wanted > 0 && seek(wanted));
  audio.addEventListener("playing", () => (hasRetried = false));
  audio.addEventListener("error", onError);
  // Another document must not keep the sound: a page that comes back from the cache is paused.
  addEventListener("pagehide", () => audio.pause());
  showState();

  return {
    element,
    /** Loads a recording; the one before is stopped. @param {Recording} next */
    load(next) {
      const isOther = recording?.src !== next.src;
      recording = next;
      bar.speech(next.utterances);
      if (isOther) {
        fill(fault);
        wanted = 0;
        audio.src = next.src;
        drawing.abort();
        drawing = new AbortController();
        draw(next.waveform, drawing.signal);
      }
      show();
    },
    /** @param {import("./words.js").Utterance[]} utterances */
    speech: (utterances) => bar.speech(utterances),
    /** Stops for good, as when the recording is deleted. */
    stop() {
      recording = null;
      drawing.abort();
      audio.pause();
      audio.removeAttribute("src");
      audio.load();
    },
    seek,
    toggle,
    /** Plays from a time on. @param {number} from @param {number} [until] */
    play(from, until = Infinity) {
      seek(from);
      stopAt = until;
      start();
    },
    /** @param {number} seconds */
    skip: (seconds) => seek(now() + seconds),
  };
}

/** @param {number} seconds @param {() => void} onclick */
function step(seconds, onclick) {
  const label = seconds < 0 ? `Back ${-seconds} s` : `Forward ${seconds} s`;
  return h("button", { class: "button quiet", type: "button", aria: { label }, title: label, onclick },
    seconds < 0 && icon("left"), h("span", { class: "number" }, `${Math.abs(seconds)} s`), seconds > 0 && icon("right"));
}

/** A slider for the volume, which the browser remembers. @param {HTMLAudioElement} audio */
function volumeOf(audio) {
  try {
    audio.volume = Number(localStorage.getItem(VOLUME) ?? 1);
  } catch {
    // Nothing is remembered in this window.
  }
  const range = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: audio.volume, aria: { label: "Volume" }, oninput: () => {
    audio.volume = Number(range.value);
    try {
      localStorage.setItem(VOLUME, range.value);
    } catch {
      // It lasts as long as the page.
    }
  } });
  return h("label", { class: "row volume" }, icon("volume"), range);
}

/** What the service says about an audio that cannot be played; null if it gives it. @param {string} src */
async function reasonOf(src) {
  try {
    const response = await fetch(src, { headers: { range: "bytes=0-0" }, cache: "no-store" });
    await response.body?.cancel();
    return response.ok ? null : (await problemOf(await fetch(src, { cache: "no-store" }))).message;
  } catch {
    return "The service cannot be reached; the audio goes on when it can.";
  }
}
