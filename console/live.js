import { Captions } from "./lib/captions.js";
import { fill, h, icon, set } from "./lib/dom.js";
import { BOUND, Keeper } from "./lib/keeper.js";
import { login, may } from "./lib/login.js";
import { Meter } from "./lib/meter.js";
import { MicrophoneError, OBSTACLES, obstacle, onChange } from "./lib/microphone.js";
import { announce, complain, dialog, frame, problemNote, shortcut } from "./lib/page.js";
import { Recording, settle } from "./lib/recording.js";
import { Setup } from "./lib/setup.js";
import { clock, counted, shortTime, spoken } from "./lib/time.js";

/** @typedef {import("./lib/keeper.js").Take} Take */

const SECOND = 1000;
/** From this share of the bound on the page says what it will drop. */
const NEARLY_FULL = 0.9;
/** @type {Record<string, (seconds: number) => string>} */
const GAPS = {
  slept: (seconds) => `Nothing was recorded for ${spoken(seconds)}: the computer slept, or the browser stopped the page.`,
  gone: () => "The microphone was disconnected: silence takes its place.",
  muted: () => "The microphone was muted: silence takes its place.",
  reloaded: (seconds) => `Nothing was recorded for ${spoken(seconds)}: the page was closed.`,
};
/** Warnings of the server that last: while they do, they are shown. @type {Record<string, string>} */
const WARNINGS = {
  processing_lag: "The server is behind: the recording is complete, its text is late.",
  persistence_degraded: "The server cannot reach its store now. It keeps the recording, and so does this browser.",
};

frame("live");
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
/** What stands in the way, and what earlier pages have left. */
const notes = h("div", { class: "notes" });
/** What has become of the recording on the stage. */
const results = h("div", { class: "notes" });
const RESULTS = new Set(["ended", "failed"]);
const setup = new Setup();
const captions = new Captions();
const canvas = /** @type {any} */ (h("canvas", { role: "meter", aria: { label: "Level", valuemin: 0, valuemax: 100, valuenow: 0 } }));
const meter = new Meter(canvas);
const button = h("button", { class: "record", type: "button", onclick: () => toggle() });
const time = h("div", { class: "time", role: "timer", aria: { label: "Recorded" } }, "0:00");
const chip = h("span", { class: "chip" });
const detail = h("p");
const again = h("button", { class: "button", type: "button", hidden: true, onclick: () => recording?.retry() }, "Try now");
const stage = h("section", { class: "card stage", aria: { label: "Recorder" } },
  h("div", { class: "top" }, button, time, h("div", { class: "said" }, chip, detail), again), canvas, results);
main.append(notes, h("div", { class: "recorder" }, stage, captions.element, setup.element));

/** @type {Keeper} */
let keeper;
/** @type {Recording | null} */
let recording = null;
/** What the stage shows. @type {"idle" | "starting" | "recording" | "sending"} */
let phase = "idle";
/** @type {import("./lib/live.js").State} */
let connection = { name: "connecting", loss: null, since: 0 };
let isBlocked = true;
/** @type {"gone" | "muted" | null} */
let trouble = null;
/** Notes of the stage by their names. @type {Map<string, HTMLElement>} */
const noted = new Map();
/** @type {any} */
let wakeLock = null;

/**
 * Shows a note until it is replaced or taken away.
 * @param {string} name
 * @param {{kind?: string, title: string, text?: string | HTMLElement, actions?: HTMLElement[]} | null} what
 */
function note(name, what) {
  const old = noted.get(name);
  if (what === null) {
    old?.remove();
    noted.delete(name);
    return;
  }
  const { kind = "", title, text = "", actions = [] } = what;
  const element = h("section", { class: `note ${kind}`, aria: { label: title }, data: { name } }, icon(kind === "good" ? "check" : kind ? "warn" : "info"),
    h("div", null, h("b", null, title), " ", text, actions.length > 0 && h("div", { class: "actions" }, actions)));
  if (old) old.replaceWith(element);
  else (RESULTS.has(name) ? results : notes).append(element);
  noted.set(name, element);
}

/** @param {string} title @param {() => void} onclick @param {string} [more] */
const action = (title, onclick, more = "") => h("button", { class: `button ${more}`, type: "button", onclick }, title);

/** @param {Take} take */
const download = (take) => action("Save as WAV", () => {
  const address = URL.createObjectURL(take.wav());
  h("a", { href: address, download: `recording-${new Date(take.startedAt).toISOString().slice(0, 19).replaceAll(":", "")}.wav` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60 * SECOND);
});

/** `14 s`, `2:05`. @param {number} seconds */
const amount = (seconds) => (seconds < 60 ? `${Math.ceil(seconds)} s` : clock(seconds));
/** @param {number} seconds */
const areKept = (seconds) => `${amount(seconds)} ${Math.ceil(seconds) === 1 ? "is" : "are"} kept here`;

/** The words for what happens now: [kind, sign, word, detail]. @returns {[string, string, string, string]} */
function words() {
  const unsent = recording?.take?.unsent ?? 0;
  const { loss: lost, name } = connection;
  if (phase === "idle") return isBlocked ? ["", "cross", "Not available", ""] : ["", "dot", "Ready", "Press the button, or R, to start."];
  if (phase === "starting") return ["", "clock", "Starting", "Allow the microphone if the browser asks."];
  if (name === "lost") {
    return ["warn", "cut", lost?.message ?? "Connection lost", `${lost?.next ? `${lost.next} ` : ""}Nothing is lost: ${areKept(unsent)}.`];
  }
  if (phase === "sending") return ["live", "clock", "Finishing", unsent > 0 ? `${areKept(unsent)} and not sent yet.` : "The last words are recognised."];
  if (name === "connecting") return ["", "clock", "Connecting", "Speak already: everything is recorded."];
  if (trouble === "gone") return ["warn", "warn", "Microphone gone", "Silence is recorded, so that times stay true. Connect it again, or choose another one."];
  if (trouble === "muted") return ["warn", "warn", "Microphone muted", "Silence is recorded. The system or a switch of the device has muted it."];
  return ["bad", "dot", "Recording", meter.hint || recording?.microphone || ""];
}

function show() {
  const [kind, sign, word, text] = words();
  const isRecording = recording?.isRecording ?? false;
  if (chip.dataset.word !== word) {
    fill(chip, icon(/** @type {any} */ (sign), "sign"), word);
    chip.dataset.word = word;
    if (phase !== "idle") announce(`${word}. ${text}`);
  }
  chip.className = `chip ${kind}`;
  fill(detail, text);
  fill(time, clock(recording?.take?.seconds ?? 0));
  again.hidden = connection.name !== "lost" || phase === "idle";
  stage.classList.toggle("recording", isRecording);
  stage.classList.toggle("troubled", isRecording && (trouble !== null || connection.name === "lost"));
  set(button, { aria: { label: isRecording ? "Stop recording" : "Start recording" }, title: isRecording ? "Stop recording (R)" : "Start recording (R)" });
  button.disabled = isBlocked || (phase !== "idle" && phase !== "recording");
  setup.lock(phase !== "idle");
  document.title = isRecording ? `● ${clock(recording?.take?.seconds ?? 0)} · Dalston` : "Live · Dalston";
}

/** Looks for what stands in the way of a recording, before anything is asked. */
async function look() {
  const found = may(await login().catch(() => ({ authentication: false, tenant: "", scopes: [] })), "realtime") ? await obstacle() : "scope";
  isBlocked = found !== null;
  const [title, text] = found === "scope" ? ["This login may not record.", "Log in with a key that has the scope realtime."]
    : found ? [`${OBSTACLES[found][0]}.`, OBSTACLES[found][1]] : ["", ""];
  note("obstacle", found ? { kind: "warn", title, text } : null);
  await setup.readDevices();
  show();
}

/** @returns {import("./lib/recording.js").Listener} */
function listener() {
  return {
    state: (state) => ((connection = state), show()),
    session: (id) => set(stage, { data: { session: id } }),
    final: (final, replaced) => captions.add(final, replaced),
    withdrawn: (finals) => captions.remove(finals),
    partial: (text) => captions.partial(text),
    acknowledged: show,
    warning: ({ code, state }) => {
      if (code in WARNINGS) note(code, state === "end" ? null : { kind: "warn", title: WARNINGS[code] });
    },
    level: (peak) => (meter.push(peak), watchSize(), show()),
    gap: (gap) => captions.mark(GAPS[gap.why](gap.seconds), gap.at),
    trouble: (what) => ((trouble = what), show()),
  };
}

/** Says what will be dropped when more is kept than there is room for. */
function watchSize() {
  const take = recording?.take;
  if (!take || take.end - take.start < NEARLY_FULL * BOUND) return;
  const minutes = Math.max(0, Math.floor((BOUND - (take.end - take.start)) / (120 * take.rate)));
  const text = take.dropped > 0 ? `The oldest ${amount(take.timeline.seconds(take.dropped))} had to be dropped; the rest is kept.`
    : `In ${counted(minutes, "minute")} the oldest audio that the server has not received is dropped, unless the connection is back.`;
  if (noted.get("full")?.dataset.text === text) return;
  note("full", { kind: "bad", title: "This page has hardly any room left.", text, actions: [download(take)] });
  set(/** @type {HTMLElement} */ (noted.get("full")), { data: { text } });
}

function toggle() {
  if (phase === "recording") stop().catch(complain);
  else if (phase === "idle" && !isBlocked) start().catch(failed);
}

/** @param {Take} [left] a take of an earlier page that goes on */
async function start(left) {
  begin("starting");
  navigator.storage?.persist?.().catch(() => {});
  if (left) replay(left);
  else captions.clear();
  const current = new Recording(listener());
  recording = current;
  await current.start(setup.microphone, (rate) => keeper.create(rate, setup.options), left);
  phase = "recording";
  if (left) leftOut(left);
  wakeLock = await navigator.wakeLock?.request("screen").catch(() => null);
  attend(current).catch(complain);
  setup.readDevices();
  show();
}

/** Marks what was not recorded before a take went on. @param {Take} take */
function leftOut(take) {
  const gap = { at: take.seconds, seconds: (Date.now() - take.startedAt) / SECOND - take.seconds, why: "reloaded" };
  take.gaps.push(gap);
  captions.mark(GAPS.reloaded(gap.seconds), gap.at);
}

/** @param {typeof phase} to */
function begin(to) {
  for (const name of ["ended", "failed", "full", ...Object.keys(WARNINGS)]) note(name, null);
  meter.clear();
  trouble = null;
  connection = { name: "connecting", loss: null, since: 0 };
  phase = to;
  show();
}

/** @param {unknown} error */
function failed(error) {
  phase = "idle";
  recording = null;
  if (error instanceof MicrophoneError) {
    const [title, text] = OBSTACLES[error.kind];
    note("failed", { kind: "warn", title: `${title}.`, text });
    announce(`${title}. ${text}`);
  } else {
    complain(error);
  }
  show();
}

async function stop() {
  phase = "sending";
  show();
  await recording?.stop();
  await wakeLock?.release();
  show();
}

/** Follows a recording to its end. @param {Recording} current */
async function attend(current) {
  const take = /** @type {Take} */ (current.take);
  take.onforgetful = () => note("memory", { kind: "warn", title: "This browser stores nothing for this page.", text: "Audio that is not sent yet is lost when the page is closed." });
  if (!take.isLasting) take.onforgetful();
  const lost = await current.ended();
  captions.partial("");
  await wakeLock?.release();
  phase = "idle";
  if (lost) refused(lost, take);
  else ended(take, settle(take, current.isStored));
  show();
}

/** @param {import("./lib/losses.js").Loss} lost @param {Take} take */
function refused(lost, take) {
  const kept = amount(take.timeline.seconds(take.end - take.start));
  const dismiss = action("Discard it", async () => {
    await take.remove();
    note("failed", null);
  });
  take.release();
  note("failed", { kind: "bad", title: `${lost.message}.`, text: `${lost.next} The last ${kept} are kept here.`, actions: [download(take), dismiss] });
  announce(lost.message);
}

/** @param {Take} take @param {Promise<void>} storing */
function ended(take, storing) {
  const stores = take.options.store_audio || take.options.store_transcript;
  const ids = [...new Set(take.sessions.map(({ id }) => id))];
  const isWhole = take.dropped === 0 && take.sessions.slice(1).every(({ isLinked }) => isLinked);
  const links = stores ? ids.map((id, index) => h("a", { class: `button ${index === ids.length - 1 ? "primary" : ""}`, href: `session.html?id=${id}` },
    ids.length === 1 ? "Open the session" : isWhole && index === ids.length - 1 ? "Open the recording" : `Part ${index + 1}`)).reverse() : [];
  const chain = ids.length === 1 ? "" : isWhole ? ` It is a chain of ${ids.length} sessions without a gap, because the connection was lost.`
    : ` It has ${ids.length} parts that are recordings of their own, because a session could not be continued.`;
  const copy = action("Copy the text", () => navigator.clipboard.writeText(captions.text).then(() => announce("Copied"), complain));
  const text = h("span", null, "The server has all of it, and is storing it.", chain);
  note("ended", { kind: "good", title: `${clock(take.seconds)} recorded.`, text, actions: [...links, copy] });
  set(/** @type {HTMLElement} */ (noted.get("ended")), { data: { sessions: ids.join(" ") } });
  announce(`${clock(take.seconds)} recorded`);
  storing.then(() => fill(text, stores ? `The server has stored it.${chain}` : "Nothing was stored, as you chose."), complain);
}

/** Shows the text that a take has. @param {Take} take */
function replay(take) {
  captions.clear();
  for (const final of take.finals) captions.add(final);
  for (const gap of take.gaps) captions.mark(GAPS[gap.why](gap.seconds), gap.at);
}

/** Shows what earlier pages have left. */
async function showFound() {
  for (const { saved, start: from, end } of await keeper.found()) {
    const name = `found-${saved.id}`;
    const seconds = (/** @type {number} */ bytes) => bytes / 2 / saved.rate;
    const unsent = Math.max(0, seconds(end) - Math.max(saved.progress.received, seconds(from)));
    const took = (/** @type {(take: Take) => void} */ use) => async () => {
      const take = await keeper.resume(saved.id);
      note(name, null);
      if (take) use(take);
      else announce("Another tab has taken it over.");
    };
    if (saved.isSent) {
      took((take) => settle(take, false).catch(complain))();
      continue;
    }
    const text = unsent < 0.05 ? `All of its ${clock(seconds(end))} are sent; it was not ended.` : `${clock(seconds(end))} were recorded; ${areKept(unsent)} and not sent yet.`;
    note(name, { kind: "warn", title: `A recording of ${shortTime(saved.startedAt)} was not finished.`, text, actions: [
      action("Finish it", unlessBusy(took((take) => finish(take))), "primary"),
      action("Continue recording", unlessBusy(took((take) => start(take).catch(failed)))),
      action("Save as WAV", took((take) => (download(take).click(), take.release(), showFound()))),
      action("Discard", () => discard(saved.startedAt, unsent, took((take) => take.remove())), "quiet danger"),
    ] });
  }
}

/** @param {() => void} act */
const unlessBusy = (act) => () => (phase === "idle" ? act() : announce("End the recording that runs first."));

/** @param {number} startedAt @param {number} unsent @param {() => void} act */
async function discard(startedAt, unsent, act) {
  const answer = await dialog("Discard what is kept?", [h("p", null, `Of the recording of ${shortTime(startedAt)}, ${areKept(unsent)} only. What the server has stored stays there.`)],
    [h("button", { class: "button", value: "" }, "Keep it"), h("button", { class: "button danger", value: "discard" }, "Discard")]);
  if (answer) act();
}

/** @param {Take} take */
function finish(take) {
  begin("sending");
  replay(take);
  recording = new Recording(listener());
  recording.finish(take);
  attend(recording).catch(complain);
  show();
}

async function open() {
  shortcut("r", "Start or stop recording", toggle);
  setup.ondevice = (id) => {
    if (recording?.isRecording) recording.use(id).catch(complain);
  };
  addEventListener("beforeunload", (event) => {
    if (phase !== "idle") event.preventDefault();
  });
  setInterval(show, SECOND);
  keeper = await Keeper.open();
  await onChange(look);
  const who = await login().catch(() => null);
  await Promise.all([look(), showFound(), who && may(who, "realtime") && setup.readModels().catch((error) => notes.append(problemNote(error)))]);
}

open();
