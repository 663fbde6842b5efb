// The list of sessions: pages by cursor, filters in the address, changes in place.

import { asProblem, backOff, get, pause, Problem, send } from "./lib/api.js";
import { fill, h, icon, set } from "./lib/dom.js";
import { filterFields, filtersOf, hasFilters, matches, queryOf, searchOf } from "./lib/filters.js";
import { login, may } from "./lib/login.js";
import { announce, connectionChip, dialog, frame, linkTo, problemNote, shortcut, toast } from "./lib/page.js";
import { hrefOf, idIn, length } from "./lib/session.js";
import { sessionTable, whatGoes } from "./lib/sessionrows.js";
import { counted, inUtc, shortTime, spoken, useUtc } from "./lib/time.js";
import { watchSessions } from "./lib/watch.js";

const PAGE = 50;
const API = "/v1/realtime/sessions";
const SETTLE_MS = 1500;
const LEAVE_MS = 400;

/** @typedef {import("./lib/session.js").Session} Session */

const state = {
  filters: filtersOf(location.search),
  /** The cursors of the pages up to this one; none on the first. @type {string[]} */
  cursors: [],
  /** @type {Session[] | null} null until the first answer */
  sessions: null,
  pagination: { total: 0, total_is_exact: true, next_cursor: "" },
  /** Sessions that are newer than the page. @type {Map<string, Session>} */
  waiting: new Map(),
  /** Sessions that are deleted and whose rows still stand. @type {Set<string>} */
  gone: new Set(),
  /** @type {Set<string>} */
  ticked: new Set(),
  lastTick: "",
  paused: false,
};

frame("sessions");
const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const problems = h("div", { class: "stack tight" });
const above = h("div");
const list = h("div");
const pager = h("nav", { class: "pager", aria: { label: "Pages of the list" } });
const fields = filterFields((filters) => open(filters, []));
/** @type {ReturnType<typeof sessionTable>} */
let table;
let loading = new AbortController();

start().catch((error) => fill(problems, problemNote(error)));

async function start() {
  const id = idIn(new URLSearchParams(location.search).get("id") ?? "");
  if (id) return location.replace(hrefOf(id));
  state.cursors = history.state?.cursors ?? [];
  const who = await login().catch(() => null);
  table = sessionTable({ mayDelete: who !== null && may(who, "sessions:write"), isTicked: (each) => state.ticked.has(each), tick, tickAll, remove: (session) => remove([session]) });
  const utc = h("input", { type: "checkbox", checked: inUtc(), onchange: () => (useUtc(utc.checked), open(state.filters, [])) });
  const switchUtc = h("label", { class: "check small soft" }, utc, "Times in UTC");
  fields.show(state.filters);
  main.append(h("div", { class: "toolbar" }, h("div", { class: "filters", role: "group", aria: { label: "Filters" } }, fields.elements), goTo()), problems, h("div", { class: "above" }, above, switchUtc), list, pager);
  fill(list, h("div", { class: "card" }, table.element));
  table.showGhosts();
  // A pointer that leaves for the button of the new sessions finds it there.
  for (const each of [table.body, above]) each.addEventListener("pointerleave", () => setTimeout(settle, LEAVE_MS));
  table.body.addEventListener("focusout", () => setTimeout(settle));
  addEventListener("scroll", settle, { passive: true });
  addEventListener("popstate", () => {
    state.filters = filtersOf(location.search);
    state.cursors = history.state?.cursors ?? [];
    fields.show(state.filters);
    load();
  });
  keyboard();
  load();
  follow();
}

function follow() {
  const connection = connectionChip({ toggle: (paused) => ((state.paused = paused), paused || load()) });
  watchSessions({
    signal: new AbortController().signal,
    connection,
    reset: () => state.paused || load(),
    changed: (session) => state.paused || changed(session),
    deleted: (id) => state.paused || deleted(id),
  });
}

/** Another page of the list, which Back leaves again.
 * @param {typeof state.filters} filters @param {string[]} cursors */
function open(filters, cursors) {
  Object.assign(state, { filters, cursors });
  history.pushState({ cursors }, "", location.pathname + searchOf(filters));
  fields.show(filters);
  state.ticked.clear();
  load(true);
}

/** Reads this page anew, for as long as it takes; what is shown stays meanwhile. @param {boolean} [moved] */
async function load(moved = false) {
  loading.abort();
  const { signal } = (loading = new AbortController());
  set(table.element, { aria: { busy: "true" } });
  let failedSince = 0;
  for (let attempt = 0; ; attempt += 1) {
    try {
      const page = await get(`${API}?${queryOf(state.filters, state.cursors.at(-1) ?? "", PAGE)}`, { signal, retries: 0 });
      fill(problems);
      return showPage(page, moved);
    } catch (error) {
      if (signal.aborted) return;
      const problem = asProblem(error);
      failedSince ||= Date.now();
      fill(problems, problemNote(problem, () => load(moved), failedSince));
      set(table.element, { aria: { busy: null } });
      if (attempt === 0) announce(problem.message);
      if (!problem.isPassing) return;
      await pause(problem.retryAfter * 1000 || backOff(attempt, 1000), signal).catch(() => {});
      if (signal.aborted) return;
    }
  }
}

/** @param {{sessions?: Session[], pagination: typeof state.pagination}} page @param {boolean} moved */
function showPage({ sessions = [], pagination }, moved) {
  Object.assign(state, { sessions, pagination });
  const ids = new Set(sessions.map((session) => session.id));
  for (const id of [...state.waiting.keys()]) if (ids.has(id) || !state.cursors.length) state.waiting.delete(id);
  for (const id of [...state.ticked]) if (!ids.has(id)) state.ticked.delete(id);
  state.gone.clear();
  show();
  if (moved) {
    scrollTo({ top: 0 });
    announce(`${counted(sessions.length, "session")} on page ${state.cursors.length + 1}`);
  }
}

function show() {
  const sessions = state.sessions ?? [];
  if (sessions.length) {
    if (!table.element.isConnected) fill(list, h("div", { class: "card" }, table.element));
    table.show(sessions);
  } else if (state.sessions) fill(list, empty());
  showAbove();
  showPager();
}

function showAbove() {
  if (state.ticked.size) {
    const chosen = (state.sessions ?? []).filter((session) => state.ticked.has(session.id));
    fill(above, h("div", { class: "row ticked-bar" }, h("b", null, `${counted(chosen.length, "session")} ticked`),
      h("button", { class: "button quiet push", type: "button", onclick: () => tickAll(false) }, "Untick"),
      h("button", { class: "button quiet danger", type: "button", onclick: () => remove(chosen) }, icon("trash"), "Delete")));
  } else if (state.waiting.size) {
    const press = (/** @type {MouseEvent} */ event) => {
      if (state.cursors.length) return open(state.filters, []);
      const newest = insertWaiting();
      scrollTo({ top: 0 });
      // By keyboard: the button that had the focus is gone.
      if (event.detail === 0) focusRow(newest);
    };
    fill(above, h("button", { class: "button", type: "button", onclick: press }, icon("plus"), counted(state.waiting.size, "new session")));
  } else fill(above, h("span", { class: "soft small number" }, range()));
}

/** Which sessions of how many are shown, in words. */
function range() {
  const { pagination: { total, total_is_exact: exact, next_cursor: next }, cursors } = state;
  const count = state.sessions?.length ?? 0;
  if (!count) return "";
  const first = cursors.length * PAGE + 1;
  const of = exact === false ? "more than 10,000" : Math.max(total, count).toLocaleString("en");
  return !cursors.length && !next ? counted(count, "session") : `${first.toLocaleString("en")} to ${(first + count - 1).toLocaleString("en")} of ${of}`;
}

function showPager() {
  const { pagination: { next_cursor: next }, cursors } = state;
  const turn = (/** @type {string} */ word, /** @type {any} */ sign, /** @type {string[] | null} */ to) =>
    h("button", { class: "button", type: "button", aria: { disabled: to ? null : "true" }, onclick: () => to && open(state.filters, to) }, sign === "left" && icon("left"), word, sign === "right" && icon("right"));
  const isAlone = !cursors.length && !next;
  const focused = pager.contains(document.activeElement) ? [...pager.children].indexOf(/** @type {any} */ (document.activeElement)) : -1;
  fill(pager, isAlone ? null : [turn("Newer", "left", cursors.length ? cursors.slice(0, -1) : null), turn("Older", "right", next ? [...cursors, next] : null), h("span", { class: "number small" }, range())]);
  if (focused >= 0) /** @type {HTMLElement | undefined} */ (pager.children[focused])?.focus();
}

function empty() {
  if (hasFilters(state.filters) || state.cursors.length) {
    return h("div", { class: "card empty" }, icon("search"), h("h2", null, "No session matches"),
      h("p", null, "None of the sessions is of these days and of this kind."),
      h("button", { class: "button", type: "button", onclick: () => open(filtersOf(""), []) }, "Show all sessions"));
  }
  const socket = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/audio/transcriptions/stream?store_audio=true&store_transcript=true`;
  return h("div", { class: "card empty" }, icon("audio"), h("h2", null, "No sessions yet"),
    h("p", null, "A session is what one client streams, with its audio and its text. It appears here as soon as it begins."),
    linkTo("live", "Transcribe with the microphone"),
    h("div", { class: "samples" }, h("p", { class: "small" }, "From a terminal:"),
      h("code", null, "dalston transcribe speech.wav --store"), h("code", null, `wscat -c "${socket}"`)));
}

/** Whether rows may move: nobody points at one, works in one, or reads further down. */
const isCalm = () => !table.body.matches(":hover") && !above.matches(":hover") && !table.body.contains(document.activeElement) && !state.ticked.size && scrollY < 40;

/** @param {Session} session */
function changed(session) {
  const sessions = state.sessions;
  if (!sessions) return;
  const at = sessions.findIndex((each) => each.id === session.id);
  if (at >= 0) {
    sessions[at] = session;
    table.show(sessions);
  } else if (state.waiting.has(session.id) || isNew(session, sessions)) {
    if (matches(state.filters, session)) state.waiting.set(session.id, session);
    else state.waiting.delete(session.id);
    if (!state.cursors.length && isCalm()) insertWaiting();
    else showAbove();
  }
}

/** Whether it belongs above the first page. @param {Session} session @param {Session[]} sessions */
function isNew(session, sessions) {
  if (!matches(state.filters, session)) return false;
  // On later pages the newest session is not known: those that run are told of.
  if (state.cursors.length) return session.status === "active" && session.started_at > sessions[0]?.started_at;
  return !sessions.length || session.started_at >= sessions[0].started_at;
}

function insertWaiting() {
  const fresh = [...state.waiting.values()].sort((a, b) => (a.started_at < b.started_at ? 1 : -1));
  state.waiting.clear();
  const sessions = [...fresh, ...(state.sessions ?? [])];
  state.pagination.total += fresh.length;
  // The page stays a page: the last ones are on the next, which the server's cursor of this page does not know.
  state.sessions = sessions;
  show();
  for (const session of fresh) table.row(session.id)?.classList.add("fresh");
  if (sessions.length > PAGE) load();
  return sessions[0].id;
}

/** @param {string} id */
function deleted(id) {
  state.waiting.delete(id);
  const row = table.row(id);
  showAbove();
  if (!row || state.gone.has(id)) return;
  row.classList.add("gone");
  state.gone.add(id);
  setTimeout(settle, SETTLE_MS);
}

/** Does what waited for the pointer to leave. */
function settle() {
  if (!isCalm()) return;
  if (state.gone.size) {
    takeOut([...state.gone]);
    state.gone.clear();
  }
  if (state.waiting.size && !state.cursors.length) insertWaiting();
}

/** @param {string[]} ids */
function takeOut(ids) {
  const gone = new Set(ids);
  const before = state.sessions?.length ?? 0;
  state.sessions = (state.sessions ?? []).filter((session) => !gone.has(session.id));
  state.pagination.total -= before - state.sessions.length;
  for (const id of ids) state.ticked.delete(id);
  show();
  if (!state.sessions.length) load();
}

/** @param {string} id @param {boolean} ticked @param {boolean} range */
function tick(id, ticked, range) {
  const ids = (state.sessions ?? []).map((session) => session.id);
  const [from, to] = [ids.indexOf(state.lastTick), ids.indexOf(id)].sort((a, b) => a - b);
  const chosen = range && from >= 0 ? ids.slice(from, to + 1) : [id];
  for (const each of chosen) ticked ? state.ticked.add(each) : state.ticked.delete(each);
  state.lastTick = id;
  show();
}

/** @param {boolean} ticked */
function tickAll(ticked) {
  state.ticked = new Set(ticked ? (state.sessions ?? []).map((session) => session.id) : []);
  show();
  settle();
}

/** Asks, deletes, and says what could not be deleted. @param {Session[]} sessions */
async function remove(sessions) {
  const [one] = sessions;
  const title = sessions.length === 1 ? "Delete this session?" : `Delete ${sessions.length} sessions?`;
  const total = sessions.reduce((sum, session) => sum + session.audio_duration_seconds, 0);
  const what = sessions.length === 1
    ? [h("b", null, `Session of ${shortTime(one.started_at)}`), `, ${length(one)} long. `, h("span", { class: "mono soft small" }, one.id)]
    : [h("b", null, `${sessions.length} sessions`), `, ${spoken(total)} in all.`];
  const answer = await dialog(title, [h("div", { class: "stack tight" }, h("p", null, what), h("p", null, `${whatGoes(sessions)} This cannot be undone.`))],
    [h("button", { class: "button", value: "cancel" }, "Keep"), h("button", { class: "button danger", value: "delete" }, "Delete")]);
  if (answer !== "delete") return;
  for (const session of sessions) table.row(session.id)?.classList.add("gone");
  const next = nextAfter(sessions);
  /** @type {string[]} */ const done = [];
  /** @type {Map<string, Problem>} */ const refused = new Map();
  for (const session of sessions) {
    try {
      await send("DELETE", `${API}/${session.id}`);
      done.push(session.id);
    } catch (error) {
      const problem = asProblem(error);
      // Somebody else was faster.
      if (problem.status === 404) done.push(session.id);
      else refused.set(session.id, problem);
    }
  }
  for (const id of refused.keys()) table.row(id)?.classList.remove("gone");
  takeOut(done);
  if (done.length) toast(`${counted(done.length, "session")} deleted`);
  if (refused.size) explain(sessions, refused);
  focusRow(refused.size ? [...refused.keys()][0] : next);
}

/** @param {Session[]} sessions @param {Map<string, Problem>} refused */
function explain(sessions, refused) {
  const close = h("button", { class: "button quiet square", type: "button", aria: { label: "Close this message" }, onclick: () => note.remove() }, icon("cross"));
  const lines = sessions.filter((session) => refused.has(session.id)).map((session) => {
    const problem = /** @type {Problem} */ (refused.get(session.id));
    return h("p", null, h("b", null, `The session of ${shortTime(session.started_at)} was not deleted. `), problem.message, " ", problem.next);
  });
  const note = h("div", { class: "note warn" }, icon("warn"), h("div", { class: "stack tight" }, lines), close);
  problems.append(note);
  announce(lines.map((line) => line.textContent).join(" "));
}

/** The row after the last of these, or else the one before. @param {Session[]} sessions */
function nextAfter(sessions) {
  const ids = (state.sessions ?? []).map((session) => session.id);
  const chosen = new Set(sessions.map((session) => session.id));
  const last = Math.max(...sessions.map((session) => ids.indexOf(session.id)));
  return [...ids.slice(last + 1), ...ids.slice(0, last).reverse()].find((id) => !chosen.has(id)) ?? "";
}

/** @param {string} id */
function focusRow(id) {
  const target = table.row(id)?.querySelector("a.open") ?? main;
  /** @type {HTMLElement} */ (target).focus();
}

function goTo() {
  const wrong = h("span", { class: "wrong", id: "goto-wrong" });
  const input = h("input", { type: "text", placeholder: "sess_…", autocomplete: "off", spellcheck: "false", aria: { describedby: "goto-wrong" } });
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const id = idIn(input.value);
    const fault = id ? await get(`${API}/${id}`, { retries: 1 }).then(() => "", (error) => (error.status === 404 ? "There is no session with this id." : asProblem(error).message)) : "An id is sess_ and 32 hexadecimal digits.";
    fill(wrong, fault);
    set(input, { aria: { invalid: fault ? "true" : null } });
    if (fault) announce(fault);
    else location.assign(hrefOf(id));
  };
  shortcut("/", "Go to a session by its id", () => input.focus());
  return h("form", { class: "goto", onsubmit: submit }, h("label", { class: "field" }, "Go to session", input, wrong), h("button", { class: "button" }, "Go"));
}

function keyboard() {
  const rows = () => [...table.body.querySelectorAll("a.open")];
  const at = () => rows().findIndex((link) => link.closest("tr")?.contains(document.activeElement));
  const step = (/** @type {number} */ by) => /** @type {HTMLElement | undefined} */ (rows()[Math.min(rows().length - 1, Math.max(0, at() + by))])?.focus();
  const press = (/** @type {string} */ what) => /** @type {HTMLElement | null} */ (document.activeElement?.closest("tr")?.querySelector(what) ?? null)?.click();
  shortcut("j", "Next session", () => step(1));
  shortcut("k", "Previous session", () => step(-1));
  shortcut("Enter", "Open the session in focus");
  shortcut("x", "Tick the session in focus", () => press(".tick input"));
  shortcut("Delete", "Delete the ticked sessions, or the one in focus", () => {
    const chosen = (state.sessions ?? []).filter((session) => state.ticked.has(session.id));
    if (chosen.length) remove(chosen);
    else press(".remove");
  });
}
