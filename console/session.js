// One session: its record, its audio, its text, and what can be done with them.

import { asProblem, get, pause, Problem, send } from "./lib/api.js";
import { fill, h, icon } from "./lib/dom.js";
import { downloads } from "./lib/downloads.js";
import { followText, liveText } from "./lib/livetext.js";
import { login, may } from "./lib/login.js";
import { complain, connectionChip, dialog, frame, problemNote, shortcut, toast } from "./lib/page.js";
import { player } from "./lib/player.js";
import { formatOf, meaning, record, titleOf, withoutAudio, withoutText } from "./lib/record.js";
import { idIn, statusChip } from "./lib/session.js";
import { clock, counted, spoken } from "./lib/time.js";
import { transcript } from "./lib/transcript.js";
import { enhance, enhancement, versionList } from "./lib/versions.js";
import { watchSessions } from "./lib/watch.js";

/** @typedef {import("./lib/record.js").Session} Session */

const NOT_YET_MS = 2000;
const TIP = "dalston.tip.words";
const query = new URLSearchParams(location.search);
const id = idIn(query.get("id") ?? "");
const path = `/v1/realtime/sessions/${encodeURIComponent(id)}`;
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const isWide = matchMedia("(min-width: 1081px)").matches;

/** @type {Session} */
let session;
let mayWrite = false;
let linked = query.get("linked") === "true";
/** 0: the current version. */
let version = Number(query.get("version")) || 0;
/** @type {{utterances: import("./lib/words.js").Utterance[], duration: number, version: number} | null} */
let text = null;
/** What of the recording is on the page, so that only what has changed is read again. */
const shown = { text: "", versions: "", live: false };
/** The moment that the address names. */
let wanted = Number(/^#t=([\d.]+)$/.exec(location.hash)?.[1]) || 0;
let isGone = false;
let loading = new AbortController();
const living = new AbortController();

const words = transcript({ play: playFrom, toggle: () => sound.toggle() });
const sound = player({ onTime: (time) => words.at(time) });
const spokenNow = liveText();
const save = downloads({ path, state: () => ({ linked, version }) });
const head = h("div", { class: "head" });
const facts = h("div", { class: "row facts-line" });
const actions = h("div", { class: "row push" });
const notes = h("div", { class: "stack tight notes" });
const chain = h("div", { class: "card chain", hidden: true });
const silence = h("div", { class: "note", hidden: true });
const body = h("section", { class: "card body", aria: { labelledby: "text-title" } });
const fields = h("div");
const list = h("section", { class: "card padded", hidden: true, aria: { labelledby: "versions-title" } });
/** @type {ReturnType<typeof versionList>} */
let versions;
/** @type {ReturnType<typeof enhancement>} */
let job;

frame("sessions");
document.title = "Session · Dalston";
begin();

async function begin() {
  if (!id) return nothing("There is no session of this id", "A session id is sess_ and 32 hexadecimal digits.");
  fill(main, head, h("div", { class: "card padded stack" }, h("span", { class: "ghost" }), h("span", { class: "ghost" })));
  fill(head, h("h1", null, "Session"));
  try {
    const [who, found] = await Promise.all([login(), get(path)]);
    mayWrite = may(who, "sessions:write");
    build();
    await show(found);
    watch();
  } catch (error) {
    if (asProblem(error).status === 404) nothing("There is no such session", "It never was, it was deleted, or it belongs to another tenant.");
    else fill(main, head, problemNote(error, begin));
  }
}

/** @param {string} title @param {string} why */
function nothing(title, why) {
  isGone = true;
  living.abort();
  loading.abort();
  sound.stop();
  fill(main, h("div", { class: "card empty" }, icon("audio"), h("h1", null, title), h("p", null, why), h("a", { class: "button primary", href: "./" }, "All sessions")));
}

function build() {
  versions = versionList({ path, id, mayWrite, choose: (number) => turn(linked, number), changed: refresh });
  job = enhancement({ path, mayWrite, changed: refresh });
  fill(list, h("h2", { id: "versions-title" }, "Versions"), versions.element);
  const details = h("details", { class: "card", open: isWide }, h("summary", null, h("h2", null, "Record")), fields);
  fill(main, head, notes, chain, sound.element, silence, h("div", { class: "columns" },
    h("aside", { class: "stack", aria: { label: "Downloads, versions and record" } }, save.element, job.element, list, details), body));
  for (const [key, what, action] of /** @type {[string, string, () => void][]} */ ([
    ["k", "Play or pause", () => sound.toggle()],
    ["j", "Back 5 seconds", () => sound.skip(-5)],
    ["l", "Forward 5 seconds", () => sound.skip(5)],
    ["f", "Follow the spoken word", () => /** @type {HTMLElement} */ (words.follow.firstElementChild).click()],
  ])) shortcut(key, what, action);
}

/** @param {Session} next */
async function show(next) {
  if (isGone) return;
  session = next;
  document.title = `${titleOf(session)} · Dalston`;
  showHead();
  showChain();
  fill(fields, record(session));
  job.show(session);
  save.show(session);
  const isGrowing = !session.transcript_url && session.store_transcript && (session.status === "active" || ["queued", "running"].includes(session.enhancement_status));
  if (isGrowing || session.status === "active") showLive();
  showAudio();
  if (!isGrowing && session.status !== "active") await Promise.all([showText(), showVersions()]);
}

async function refresh() {
  try {
    if (!isGone) await show(await get(path));
  } catch (error) {
    if (asProblem(error).status === 404) nothing("This session was deleted", "Its audio and its transcripts are deleted with it.");
    else complain(error);
  }
}

function showHead() {
  const { status, source, word_count: count, audio_duration_seconds: seconds, language, model } = session;
  const isFile = source === "upload";
  keep(head, status, () => fill(head, h("nav", { class: "crumb", aria: { label: "Where this is" } }, h("a", { href: "./" }, "Sessions"), icon("right"), h("span", { class: "soft" }, isFile ? "Uploaded file" : "Live session")),
    h("h1", null, titleOf(session)), statusChip(session), actions, facts));
  // A session that runs cannot be deleted.
  keep(actions, `${status} ${Boolean(session.audio_url)}`, () => fill(actions, mayWrite && (status === "active"
    ? action("cross", "End", end)
    : [session.audio_url && action("spark", "Enhance", again), action("trash", "Delete", remove, "quiet danger")])));
  const copy = h("button", { class: "button quiet id mono", type: "button", title: "Copy the id", onclick: copyId }, id, icon("copy"), h("span", { class: "unseen" }, "Copy the id"));
  const known = [h("span", { class: "number", title: spoken(seconds) }, clock(seconds)), counted(count, "word"), language, model, isFile && "Uploaded file"];
  if (!facts.hasChildNodes()) facts.append(copy, h("span", { class: "row" }));
  fill(/** @type {Element} */ (facts.lastElementChild), known.filter(Boolean).map((fact) => h("span", { class: "fact" }, fact)));
  const said = meaning(session);
  keep(notes, said + session.error, () => fill(notes, (said || session.error) && h("div", { class: `note ${status === "error" ? "bad" : "warn"}` }, icon(status === "error" ? "cross" : "cut"),
    h("div", null, session.error && h("b", null, sentence(session.error)), " ", said))));
}

/** Builds a part anew only when what it depends on is other than before, so that the focus in it stays.
 * @param {HTMLElement} part @param {string} key @param {() => void} make */
function keep(part, key, make) {
  if (part.dataset.of === key) return;
  part.dataset.of = key;
  make();
}

/** @param {string} text */
const sentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/\.?$/, ".");

/** @param {any} sign @param {string} word @param {() => void} onclick @param {string} kind */
const action = (sign, word, onclick, kind = "") => h("button", { class: `button ${kind}`, type: "button", onclick }, icon(sign), word);

async function copyId() {
  try {
    await navigator.clipboard.writeText(id);
    toast("The id is copied.");
  } catch {
    toast("The browser refuses to copy here; select the id instead.", "bad");
  }
}

function showChain() {
  const { previous_session_id: earlier, next_session_id: later, resume_from_seconds: from } = session;
  chain.hidden = !earlier && !later;
  if (chain.hidden || chain.dataset.of === `${earlier} ${later} ${linked}`) return;
  chain.dataset.of = `${earlier} ${later} ${linked}`;
  const whole = h("input", { type: "checkbox", role: "switch", checked: linked, onchange: () => turn(whole.checked, 0) });
  const to = (/** @type {string} */ other) => `session.html?id=${other}${linked ? "&linked=true" : ""}`;
  fill(chain, icon("chain"), h("div", { class: "why" }, earlier
    ? ["This session continues an earlier one", from !== undefined && `, from ${clock(from)} of it on`, "."]
    : "A later session continues this one."),
  earlier && h("label", { class: "check" }, whole, "As one recording"),
  h("span", { class: "row push" },
    earlier && h("a", { class: "button", href: to(earlier) }, icon("left"), "Earlier"),
    later && h("a", { class: "button", href: to(later) }, "Later", icon("right"))));
}

/** Chooses what of the recording is shown, and keeps it in the address.
 * @param {boolean} isLinked @param {number} number 0 for the current version */
function turn(isLinked, number) {
  [linked, version] = [isLinked, number];
  for (const [name, value] of [["linked", linked ? "true" : ""], ["version", version || ""]]) {
    if (value) query.set(String(name), String(value));
    else query.delete(String(name));
  }
  history.replaceState(null, "", `?${query}`);
  show(session);
}

const parameters = () => {
  const chosen = new URLSearchParams({ ...(linked ? { linked: "true" } : {}), ...(version ? { version: String(version) } : {}) });
  return String(chosen) && `?${chosen}`;
};

function showAudio() {
  const why = withoutAudio(session);
  sound.element.hidden = Boolean(why);
  silence.hidden = !why;
  keep(silence, why, () => fill(silence, icon("audio"), h("div", null, why)));
  if (why) return;
  const suffix = linked ? "?linked=true" : "";
  sound.load({ src: `${path}/audio${suffix}`, waveform: `${path}/waveform${suffix}`, duration: text?.duration ?? session.audio_duration_seconds, kind: formatOf(session), utterances: text?.utterances ?? [] });
  if (wanted) sound.seek(wanted);
  wanted = 0;
}

/** @param {number} time */
function playFrom(time) {
  if (sound.element.hidden) return;
  sound.play(time);
  rememberTip();
}

async function showText() {
  const key = `${parameters()} ${session.transcript_version} ${session.transcript_url}`;
  if (shown.text === key && !shown.live) return;
  shown.text = key;
  shown.live = false;
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const why = withoutText(session);
  if (why && !session.store_transcript) return empty(why, "store_transcript");
  const isLate = !session.transcript_url && session.source === "live" && session.audio_duration_seconds > 0 && !linked;
  if (isLate) return fill(body, title(), h("p", { class: "inside soft" }, "The transcript is being stored."));
  if (text === null) fill(body, title(), h("div", { class: "stack waiting" }, Array.from({ length: 6 }, () => h("span", { class: "ghost" }))));
  try {
    const found = await read(signal);
    if (signal.aborted) return;
    text = found;
    showAudio();
    save.show(session);
    if (found.utterances.length === 0) return empty("No speech was found in this recording.", "");
    fill(body, title(), tip(), words.element);
    await words.show(found.utterances);
  } catch (error) {
    if (signal.aborted) return;
    shown.text = "";
    fill(body, title(), h("div", { class: "inside" }, problemNote(error, () => showText())));
  }
}

/** Reads the transcript. One that is still being stored is waited for. @param {AbortSignal} signal */
async function read(signal) {
  while (true) {
    try {
      return await get(`${path}/transcript${parameters()}`, { signal });
    } catch (error) {
      const isLate = error instanceof Problem && error.reason === "SESSION_ACTIVE" && !linked;
      if (!isLate) throw error;
      fill(body, title(), h("p", { class: "inside soft" }, error.message));
      await pause(NOT_YET_MS, signal);
    }
  }
}

function title() {
  const number = text?.version ?? (version || session.transcript_version);
  return h("div", { class: "row bar" }, h("h2", { id: "text-title" }, session.status === "active" ? "Live text" : "Transcript"),
    session.transcript_count > 1 && number && h("span", { class: "chip" }, `Version ${number}`),
    linked && h("span", { class: "chip live" }, icon("chain", "sign"), "Joined"),
    session.status === "active" ? [spokenNow.quiet] : !sound.element.hidden && h("span", { class: "push" }, words.follow));
}

/** What a click does, said once; and that the words have no times, where it is so. */
function tip() {
  if (sound.element.hidden) return null;
  if (!words.hasTimes(text?.utterances ?? [])) return h("p", { class: "tip-line soft small" }, "The words have no times, because word_timestamps was off: a click plays the utterance.");
  const isKnown = localStorage.getItem(TIP) !== null;
  return !isKnown && h("p", { class: "tip-line soft small" }, "Click any word to hear it. Dotted words are those that the model was not sure of.",
    h("button", { class: "button quiet", type: "button", onclick: rememberTip }, "Got it"));
}

function rememberTip() {
  localStorage.setItem(TIP, "known");
  if (words.hasTimes(text?.utterances ?? [])) body.querySelector(".tip-line")?.remove();
}

/** @param {string} why @param {string} field */
function empty(why, field) {
  fill(body, title(), h("div", { class: "empty" }, icon("text"), h("p", null, why), field && h("code", null, `${field}=${session[field]}`)));
}

async function showVersions() {
  list.hidden = !session.transcript_url;
  const key = `${session.transcript_count} ${session.transcript_version} ${linked} ${version} ${text?.version ?? 0}`;
  if (list.hidden || shown.versions === key) return;
  try {
    const { transcripts } = await get(`${path}/transcripts`);
    shown.versions = key;
    // Of a joined recording only its live text and the versions made of all of it can be read.
    const readable = linked ? transcripts.filter((/** @type {any} */ each) => each.linked || each.version === 1) : transcripts;
    const current = linked ? 0 : transcripts.find((/** @type {any} */ each) => each.is_current)?.version ?? 1;
    versions.show(readable, version || (text?.version ?? current));
  } catch (error) {
    if (asProblem(error).status !== 409) complain(error);
  }
}

function showLive() {
  fill(body, title(), session.store_transcript ? spokenNow.element : h("p", { class: "inside soft" }, withoutText(session)));
  spokenNow.heard(session.audio_duration_seconds);
  if (shown.live || !session.store_transcript) return;
  shown.live = true;
  followText(path, {
    final: spokenNow.final,
    partial: spokenNow.partial,
    ended: refresh,
    problem: (error) => spokenNow.problem(problemNote(error)),
    signal: living.signal,
  });
}

async function end() {
  const answer = await dialog("End this session?", [h("p", null, "What was received until now is transcribed and stored. Its client is told, and the session is recorded as interrupted.")],
    [h("button", { class: "button" }, "Let it run"), h("button", { class: "button danger", value: "end" }, "End the session")]);
  if (answer !== "end") return;
  try {
    await send("POST", `${path}/end`, {});
    toast("The session ends within ten seconds.");
  } catch (error) {
    complain(error);
  }
}

async function again() {
  if (await enhance(path, session)) {
    toast("The recording is transcribed again. The live transcript stays.");
    await refresh();
  }
}

async function remove() {
  const goes = [session.store_audio && "its audio", session.store_transcript && (session.transcript_count > 1 ? `its ${session.transcript_count} versions of the transcript` : "its transcript"), "its record"].filter(Boolean);
  const answer = await dialog("Delete this session?", [
    h("p", null, `The session of ${titleOf(session)}, ${clock(session.audio_duration_seconds)} long, is deleted for good: ${goes.join(", ").replace(/, ([^,]*)$/, " and $1")}.`),
    (session.previous_session_id || session.next_session_id) && h("p", null, "The other sessions of its chain stay; the joined recording begins after it."),
  ], [h("button", { class: "button" }, "Keep it"), h("button", { class: "button danger", value: "delete" }, "Delete")]);
  if (answer !== "delete") return;
  try {
    await send("DELETE", path);
    isGone = true;
    sound.stop();
    location.assign("./");
  } catch (error) {
    complain(error);
  }
}

function watch() {
  let watching = new AbortController();
  const state = connectionChip({ toggle: (paused) => {
    watching.abort();
    if (!paused) start();
  } });
  function start() {
    watching = new AbortController();
    living.signal.addEventListener("abort", () => watching.abort(), { once: true });
    watchSessions({
      changed: (next) => next.id === id && show(next),
      deleted: (gone) => gone === id && !isGone && nothing("This session was deleted", "Its audio and its transcripts are deleted with it."),
      reset: refresh,
      connection: state,
      signal: watching.signal,
    });
  }
  start();
}
