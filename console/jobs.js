// The jobs page: files to transcribe, and the queue of batch jobs.

import { get, send } from "./lib/api.js";
import { fill, h, icon, keyed } from "./lib/dom.js";
import { dropZone } from "./lib/drop.js";
import { hasEnded, language, sign, story, title } from "./lib/job-words.js";
import { login, may } from "./lib/login.js";
import { complain, dialog, frame, problemNote, shortcut, toast } from "./lib/page.js";
import { poll } from "./lib/poll.js";
import { ago, clock, counted, fullTime, now } from "./lib/time.js";

/** @typedef {import("./lib/job-words.js").Job} Job */

const PAGE = 25;
const RUNNING_MS = 2000;
const WAITING_MS = 5000;
const IDLE_MS = 8000;
const STATUSES = [["", "Any status"], ["queued", "Queued"], ["running", "Running"], ["completed", "Completed"], ["failed", "Failed"], ["canceled", "Canceled"]];
const KINDS = [["", "Any kind"], ["upload", "Uploads"], ["enhance", "Enhancements"]];

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const trouble = h("div", { class: "stale" });
const worker = h("div", { class: "note warn", hidden: true }, icon("warn"), h("div", null, h("b", null, "No worker is running."), " Jobs stay queued, and begin as soon as one runs. Live sessions are not affected."));
const status = select("status", "Status", STATUSES);
const kind = select("kind", "Kind", KINDS);
const fresh = h("div", { class: "fresh", hidden: true }, h("button", { class: "button", type: "button", onclick: () => showFresh() }));
const table = h("tbody");
const empty = h("div", { class: "empty", hidden: true });
const pages = h("nav", { class: "more", aria: { label: "Pages of jobs" } });
const card = h("div", { class: "card rows" }, fresh, h("table", { class: "table" },
  h("thead", null, h("tr", null, ["Job", "Status", "Progress", "Model"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")))), table), empty, pages);
/** The names of files that this page has sent, until the list has them. @type {Map<string, string>} */
const names = new Map();

/** @type {Job[]} */
let shown = [];
/** @type {Job[]} */
let newest = [];
let isRead = false;
/** @type {import("./lib/login.js").Login} */
let who;
/** @type {{now: () => void}} */
let polling;

/** @param {string} id @param {string} label @param {string[][]} options */
function select(id, label, options) {
  const element = h("select", { id, onchange: () => go({ [id]: element.value, cursor: "" }) }, options.map(([value, word]) => h("option", { value }, word)));
  return h("div", { class: "field" }, h("label", { for: id }, label), element);
}

/** What the address of the page asks for; what is unknown is left out. */
export function wantedOf(search = location.search) {
  const query = new URLSearchParams(search);
  const one = (/** @type {string} */ name, /** @type {string[][]} */ known) => (known.some(([value]) => value === query.get(name)) ? query.get(name) ?? "" : "");
  return { status: one("status", STATUSES), kind: one("kind", KINDS), session_id: query.get("session_id") ?? "", cursor: query.get("cursor") ?? "" };
}

/** @param {Record<string, string>} wanted */
export const searchOf = (wanted) => {
  const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
  return query ? `?${query}` : "";
};

/** Changes the address, and reads what it asks for.
 * @param {Record<string, string>} change */
function go(change) {
  const depth = "cursor" in change && change.cursor ? (history.state?.depth ?? 0) + 1 : 0;
  history.pushState({ depth }, "", location.pathname + searchOf({ ...wantedOf(), ...change }));
  arrive();
}

function arrive() {
  const wanted = wantedOf();
  for (const [field, name] of [[status, "status"], [kind, "kind"]]) /** @type {any} */ (/** @type {HTMLElement} */ (field).querySelector("select")).value = wanted[/** @type {"status" | "kind"} */ (name)];
  isRead = false;
  shown = newest = [];
  fill(table, [1, 2, 3].map(() => h("tr", null, [1, 2, 3, 4, 5].map(() => h("td", null, h("span", { class: "ghost" }))))));
  empty.hidden = fresh.hidden = pages.hidden = true;
  polling?.now();
}

/** @param {Job} job */
const sessionOf = (job) => `session.html?id=${encodeURIComponent(job.session_id)}`;

/** @param {Job} job @returns {[string, () => import("./lib/dom.js").Child][]} */
function cells(job) {
  const [kindOf, signOf, word] = sign(job);
  const name = job.file_name || names.get(job.id);
  const isRunning = job.status === "running";
  const share = Math.round(job.progress * 100);
  return [
    ["", () => h("div", { class: "job" }, h("b", null, h("a", { href: sessionOf(job) }, title({ ...job, file_name: name }))),
      h("span", { class: "second" }, job.audio_duration_seconds > 0 && `${clock(job.audio_duration_seconds)} of audio · `, h("time", { datetime: job.created_at, title: fullTime(job.created_at) }, `created ${ago(job.created_at)}`)))],
    ["Status", () => h("span", { class: `chip ${kindOf}` }, icon(/** @type {any} */ (signOf), "sign"), word)],
    ["Progress", () => h("div", { class: "story" }, h("div", { class: "number" }, isRunning && share > 0 && `${share} % · `, story(job)),
      isRunning && h("progress", { class: "bar", max: 1, value: job.progress, aria: { label: `Progress of ${title({ ...job, file_name: name })}` } }))],
    ["Model", () => h("div", null, job.model, h("span", { class: "second nowrap" }, language(job.language), job.vocabulary.length > 0 && h("span", { title: job.vocabulary.join(", ") }, ` · ${counted(job.vocabulary.length, "term")}`)))],
    ["actions", () => h("div", { class: "actions" }, actions(job))],
  ];
}

/** @param {Job} job */
function actions(job) {
  if (!may(who, "sessions:write")) return [];
  const of = title({ ...job, file_name: job.file_name || names.get(job.id) });
  if (!hasEnded(job)) {
    if (job.cancel_requested) return [];
    return [h("button", { class: "button quiet danger", type: "button", aria: { label: `Cancel ${of}` }, onclick: () => cancel(job).catch(complain) }, "Cancel")];
  }
  if (job.status === "completed" || job.error_code === "continued") return [];
  return [
    h("button", { class: "button quiet", type: "button", aria: { label: `Retry ${of}` }, title: "Again with the same model, language and terms", onclick: () => retry(job).catch(complain) }, "Retry"),
    job.kind === "enhance" && h("a", { class: "button quiet", href: `${sessionOf(job)}#enhance`, title: "Choose model, language and terms on the page of the session" }, "Other values"),
  ];
}

/** @param {Element} row @param {Job} job */
function update(row, job) {
  const made = cells(job);
  if (row.children.length !== made.length) fill(row, made.map(([name]) => h("td", { class: name && name !== "actions" ? null : "whole", data: name && name !== "actions" ? { name } : {} })));
  // Only a cell that says something else is filled: a selection in the others stays, and so does the focus.
  const minute = Math.floor(now() / 60_000);
  const states = [[names.get(job.id), job.file_name, minute], [sign(job)], [story(job), job.progress], [job.model], [job.status, job.cancel_requested]];
  made.forEach(([, make], at) => {
    const cell = /** @type {any} */ (row.children[at]);
    const state = JSON.stringify(states[at]);
    if (cell.drawn === state) return;
    cell.drawn = state;
    const bar = cell.querySelector("progress");
    const content = make();
    const next = content instanceof Element ? content.querySelector("progress") : null;
    if (bar && next) {
      bar.value = job.progress;
      next.replaceWith(bar);
    }
    fill(cell, content);
  });
}

function draw() {
  if (!isRead) return;
  keyed(table, shown, (job) => job.id, () => h("tr"), update);
  const wanted = wantedOf();
  worker.hidden = !shown.some((job) => job.status === "queued" && job.step === "worker");
  empty.hidden = shown.length > 0;
  if (!shown.length && !empty.firstChild) drawEmpty(Boolean(wanted.status || wanted.kind || wanted.session_id || wanted.cursor));
}

/** @param {boolean} isFiltered */
function drawEmpty(isFiltered) {
  fill(empty, icon("jobs"), h("h2", null, isFiltered ? "No job is like this" : "No jobs yet"),
    h("p", null, isFiltered ? "Other jobs may exist." : "Drop a file above to have it transcribed. A recording of a session is transcribed again, more accurately, by Enhance on its page."),
    isFiltered && h("button", { class: "button", type: "button", onclick: () => go({ status: "", kind: "", session_id: "", cursor: "" }) }, "Show all jobs"));
}

/** @param {string | undefined} next */
function drawPages(next) {
  const { cursor } = wantedOf();
  const depth = history.state?.depth ?? 0;
  fill(pages,
    cursor && h("button", { class: "button", type: "button", onclick: () => (depth > 0 ? history.back() : go({ cursor: "" })) }, icon("left"), "Newer"),
    next && h("button", { class: "button", type: "button", onclick: () => go({ cursor: next }) }, "Older", icon("right")));
  pages.hidden = !cursor && !next;
}

/** Rows must not move under a pointer or away from the focus: new jobs then wait to be asked for.
 * @param {Job[]} jobs */
function take(jobs) {
  newest = jobs;
  const known = new Set(shown.map((job) => job.id));
  const added = jobs.filter((job) => !known.has(job.id) && !names.has(job.id)).length;
  const isHeld = isRead && added > 0 && (table.matches(":hover") || table.contains(document.activeElement));
  if (isHeld) {
    const read = new Map(jobs.map((job) => [job.id, job]));
    shown = shown.map((job) => read.get(job.id) ?? job);
    fill(/** @type {Element} */ (fresh.firstElementChild), `Show ${counted(added, "new job")}`);
    fresh.hidden = false;
    draw();
  } else {
    showFresh();
  }
}

function showFresh() {
  if (!isRead) fill(table);
  isRead = true;
  shown = newest;
  fresh.hidden = true;
  fill(empty);
  draw();
}

/** @param {Job} job */
async function cancel(job) {
  if (job.status === "running") {
    const choice = await dialog("Cancel this job?", [h("p", null, `It has transcribed ${Math.round(job.progress * 100)} %, which is removed. The recording and its other transcripts stay, and you can retry the job later.`)],
      [h("button", { class: "button", value: "" }, "Let it run"), h("button", { class: "button danger", value: "cancel" }, "Cancel the job")]);
    if (choice !== "cancel") return;
  }
  replace(await send("DELETE", `/v1/jobs/${job.id}`));
}

/** @param {Job} job */
async function retry(job) {
  const made = await send("POST", `/v1/jobs/${job.id}/retry`, {});
  names.set(made.id, job.file_name || names.get(job.id) || "");
  toast("A job like it is queued.");
  polling.now();
}

/** @param {Job} job */
function replace(job) {
  shown = shown.map((each) => (each.id === job.id ? job : each));
  draw();
  polling.now();
}

async function read(/** @type {AbortSignal} */ signal) {
  const asked = searchOf({ limit: String(PAGE), ...wantedOf() });
  return { asked, ...(await get(`/v1/jobs${asked}`, { signal, retries: 0 })) };
}

function every() {
  if (shown.some((job) => job.status === "running")) return RUNNING_MS;
  return shown.some((job) => job.status === "queued") ? WAITING_MS : IDLE_MS;
}

function start() {
  main.querySelector(".head")?.append(h("p", null, "Files and recordings that are transcribed as a whole: more accurate than live, and with the lowest priority."));
  const parts = [];
  if (may(who, "realtime")) {
    const { zone, list, choose } = dropZone((job, file) => {
      names.set(job.id, file.name);
      polling?.now();
    });
    shortcut("u", "Choose files to upload", choose);
    parts.push(zone, list);
  }
  if (may(who, "sessions:read")) parts.push(h("div", { class: "toolbar" }, status, kind, worker), trouble, card);
  else parts.push(h("div", { class: "card empty" }, icon("jobs"), h("h2", null, "This key may not list jobs"), h("p", null, "It needs the scope ", h("code", null, "sessions:read"), ".")));
  main.append(...parts);
  arrive();
  if (!may(who, "sessions:read")) return;
  polling = poll({
    read,
    show: ({ asked, jobs, next_cursor: next }) => {
      fill(trouble);
      // The filters may have changed while it was asked.
      if (asked !== searchOf({ limit: String(PAGE), ...wantedOf() })) return;
      take(jobs);
      drawPages(next);
    },
    every,
    fail: (problem, since) => fill(trouble, problemNote(problem, problem.isPassing ? () => polling.now() : undefined, since)),
  });
  addEventListener("popstate", arrive);
}

frame("jobs");
login().then((found) => {
  who = found;
  start();
}).catch((error) => main.append(problemNote(error, () => location.reload())));
