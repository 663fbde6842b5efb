// The status page: what an operator leaves open, and reads at three in the morning.

import { get } from "./lib/api.js";
import { fill, h, icon, keyed, set } from "./lib/dom.js";
import { degradationLevel, degradationText, figures, isLate, silence, troubles } from "./lib/health.js";
import { announce, frame, problemNote } from "./lib/page.js";
import { poll } from "./lib/poll.js";
import { draw, kept, range, sparkline } from "./lib/sparkline.js";
import { ago, counted, fullTime, now, shortTime } from "./lib/time.js";

/** @typedef {import("./lib/health.js").Status} Status */

const EVERY_MS = 5000;
/** An answer that is older is said to be old. */
const STALE_MS = 15_000;

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const updated = h("span", { class: "chip push", hidden: true });
const stale = h("div", { class: "stale", hidden: true });
const verdict = h("section", { class: "card verdict", aria: { label: "Verdict" } });
const tiles = h("section", { class: "tiles", aria: { label: "Figures" } });
const table = h("tbody");
const processes = h("section", { aria: { labelledby: "processes" }, hidden: true },
  h("div", { class: "section" }, h("h2", { id: "processes" }, "Servers and workers"), h("span", { class: "soft small" })),
  h("div", { class: "card rows" }, h("table", { class: "table number" },
    h("thead", null, h("tr", null, ["Process", "State", "Work", "Queue delay", "Finals, p95", "Lease", "Started", "What is wrong"].map((name) => h("th", { scope: "col" }, name)))), table)));

/** What is shown now. @type {{status: Status, at: number} | null} */
let shown = null;
/** @type {{problem: import("./lib/api.js").Problem, since: number, next: number} | null} */
let failing = null;
let said = "";

/** `0.42 s`, `1.8 s`, `12 s`: as many digits as matter.
 * @param {number} value */
const seconds = (value) => `${value < 0.995 ? value.toFixed(2) : value < 9.95 ? value.toFixed(1) : value.toFixed(0)} s`;
/** @param {number} value */
const whole = (value) => Math.round(value).toLocaleString("en");
/** @param {number} value */
const percent = (value) => `${Math.round(value * 100)} %`;

/** @param {number} value */
function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 999.5 && at < units.length - 1; at += 1) value /= 1000;
  return `${at && value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${units[at]}`;
}

/**
 * The tiles: the figure of the line, how it is written, and a line of words below it.
 * @type {{title: string, read: (f: any) => number | null, say: (v: number) => string, top: (f: any) => number,
 *   unit?: (f: any) => string, words: (f: any) => string, isTight?: (f: any) => boolean, all?: boolean}[]}
 */
const TILES = [
  { title: "Live streams", read: (f) => f.streams, say: whole, top: (f) => Math.min(f.places || 5, 5), all: true,
    unit: (f) => (f.places ? `of ${whole(f.places)}` : ""), isTight: (f) => f.places > 0 && f.streams >= f.places,
    words: (f) => (f.places ? counted(f.places - f.streams, "place") + " free" : "of your tenant") },
  { title: "Queue delay", read: (f) => f.queueDelay, say: seconds, top: (f) => Math.min(f.maxQueueDelay ?? 1, 1),
    isTight: (f) => f.maxQueueDelay !== null && f.queueDelay > f.maxQueueDelay,
    words: (f) => `New sessions are refused above ${seconds(f.maxQueueDelay ?? 0)}` },
  { title: "Finals, p95", read: (f) => f.finals, say: seconds, top: () => 1,
    words: (f) => (f.finals === null ? "No final in the last five minutes" : `${counted(f.finalsCount, "final")} in the last five minutes`) },
  { title: "Partials, p95", read: (f) => f.partials, say: seconds, top: () => 1, isTight: (f) => f.suppressed >= 0.5,
    words: (f) => (f.suppressed > 0.005 ? `${percent(f.suppressed)} of passes left out, for want of time` : f.partials === null ? "No partial in the last five minutes" : "None left out") },
  { title: "Jobs", read: (f) => f.runningJobs, say: whole, top: () => 2, all: true, unit: () => "running",
    isTight: (f) => f.queuedJobs > 0 && f.workers === 0 && f.servers > 0,
    words: (f) => (f.queuedJobs ? `${whole(f.queuedJobs)} queued${f.oldestQueued ? `, the oldest ${ago(f.oldestQueued)}` : ""}` : "None queued") },
  { title: "Waiting for storage", read: (f) => f.unstored, say: whole, top: () => 5, all: true,
    unit: (f) => (f.unstored === 1 ? "session" : "sessions"),
    words: (f) => [f.oldestUnstored && `The oldest ended ${ago(f.oldestUnstored)}`, f.maxSpool && `Spool: ${bytes(f.spool)} of ${bytes(f.maxSpool)}`].filter(Boolean).join(". ") || "Nothing waits" },
];

/** @type {Map<string, {element: HTMLElement, value: HTMLElement, words: HTMLElement, history: HTMLElement, line: SVGSVGElement, samples: import("./lib/sparkline.js").Sample[]}>} */
const drawn = new Map();

/** @param {typeof TILES[0]} tile */
function tileOf(tile) {
  let known = drawn.get(tile.title);
  if (!known) {
    const [value, words, history] = [h("p", { class: "value" }), h("p", { class: "more-words" }), h("p", { class: "unseen" })];
    const line = sparkline();
    known = { element: h("div", { class: "card tile" }, h("h3", null, tile.title), value, words, history, line), value, words, history, line, samples: [] };
    drawn.set(tile.title, known);
    tiles.append(known.element);
  }
  return known;
}

/** @param {Status} status */
function showTiles(status) {
  const f = figures(status);
  for (const tile of TILES) {
    if (status.view === "tenant" && !tile.all) continue;
    const { element, value, words, history, line, samples } = tileOf(tile);
    const read = tile.read(f);
    const next = kept(samples, { at: Date.now(), value: read });
    /** @type {any} */ (drawn.get(tile.title)).samples = next;
    fill(value, read === null ? "–" : tile.say(read), read !== null && tile.unit && h("small", null, tile.unit(f)));
    fill(words, read === null && tile.all ? "Unknown while Postgres does not answer" : tile.words(f));
    fill(history, range(next, tile.say));
    draw(line, next, tile.top(f));
    element.classList.toggle("warn", Boolean(tile.isTight?.(f)));
  }
}

/** @param {Status} status */
function showVerdict(status) {
  const all = troubles(status);
  const f = figures(status);
  const level = all[0]?.level ?? "good";
  verdict.className = `card verdict ${level}`;
  const parts = [counted(f.streams ?? 0, "live stream"), f.servers && counted(f.servers, "server"), f.workers && counted(f.workers, "worker")].filter(Boolean);
  const [first, ...rest] = all;
  const title = first ? first.what : "All is well.";
  const quiet = status.view === "tenant" ? `${parts[0]} of your tenant. Servers and workers are shown to the operator only.` : `${parts.join(", ")}.`;
  fill(verdict, h("span", { class: "sign" }, icon(level === "good" ? "check" : level === "warn" ? "warn" : "cross")),
    h("div", null, h("h2", null, title), h("p", { class: "soft" }, first ? [since(first.since), first.effect] : quiet),
      rest.length > 0 && h("ul", { class: "troubles" }, rest.map((each) => h("li", { class: each.level }, icon("warn"), h("p", null, h("b", null, each.what), " ", h("span", { class: "soft" }, since(each.since), each.effect)))))));
  const words = first ? `${title} ${rest.length ? `${counted(rest.length, "more problem")}.` : ""}` : title;
  if (words !== said && (said || first)) announce(words);
  said = words;
  document.title = `${first ? `(${all.length}) ` : ""}Status · Dalston`;
}

/** No answer is neither good nor bad: the last verdict must not look like the present one. */
function showUnknown() {
  verdict.className = "card verdict warn";
  fill(verdict, h("span", { class: "sign" }, icon("warn")),
    h("div", null, h("h2", null, "The state is unknown."), h("p", { class: "soft" }, `The service does not answer this page. Its last answer was: ${said}`)));
  document.title = "(?) Status · Dalston";
}

/** @param {number | null} time */
function since(time) {
  if (time === null) return "";
  return [h("time", { datetime: new Date(time).toISOString(), title: fullTime(time) }, `For ${ago(time).replace(" ago", "")}, since ${shortTime(time)}`), ". "];
}

const STATES = { starting: ["", "clock", "Starting"], ready: ["good", "check", "Ready"], draining: ["warn", "exit", "Draining"] };

/** @param {Status} status @param {any} each */
function stateChip(status, each) {
  const [kind, sign, word] = !each.lease_valid ? ["bad", "cross", "No lease"]
    : isLate(status, each) ? ["bad", "cross", `Silent for ${seconds(silence(status, each) / 1000)}`]
    : STATES[each.state] ?? ["", "dot", each.state];
  return h("span", { class: `chip ${kind}` }, icon(/** @type {any} */ (sign), "sign"), word);
}

/** @param {Status} status @param {any} each */
function cells(status, each) {
  const { server, worker } = each;
  const [used, places, noun] = server ? [server.sessions, server.max_sessions, "stream"] : worker ? [worker.jobs, worker.max_jobs, "job"] : [];
  const expires = each.lease_expires_at && (Date.parse(each.lease_expires_at) - Date.parse(status.checked_at)) / 1000;
  const started = each.started_at;
  return [
    ["", h("div", { class: "process" }, h("b", null, each.kind === "server" ? "Server" : "Worker", each.id === status.answered_by && h("span", { class: "soft small" }, " · answered")), h("span", { class: "mono small soft" }, each.id))],
    ["State", stateChip(status, each)],
    ["Work", noun && h("div", null, h("span", { class: "nowrap" }, `${whole(used)} of ${counted(places, noun)}`), h("progress", { class: "meter", value: used, max: Math.max(1, places), aria: { label: `${used} of ${counted(places, noun)}` } }))],
    ["Queue delay", server && h("span", { class: "nowrap" }, seconds(server.queue_delay_seconds))],
    ["Finals, p95", server && (server.finals?.p95_seconds === undefined ? h("span", { class: "soft" }, "None yet") : h("span", { class: "nowrap" }, seconds(server.finals.p95_seconds)))],
    ["Lease", each.lease_valid && expires ? h("span", { class: "nowrap" }, `${Math.max(0, Math.round(expires))} s left`) : h("span", { class: "soft" }, "Ended")],
    ["Started", started && h("div", null, h("time", { class: "nowrap", datetime: started, title: fullTime(started) }, ago(started)), h("span", { class: "second nowrap" }, each.version && `Version ${each.version}`))],
    ["What is wrong", (each.degradations ?? []).length ? h("div", { class: "chips" }, each.degradations.map((/** @type {any} */ one) => h("span", { class: `chip ${degradationLevel(one.name)}`, title: one.since ? `Since ${fullTime(one.since)}` : null }, icon("warn", "sign"), degradationText(one.name).replace(/\.$/, "")))) : h("span", { class: "soft" }, "Nothing")],
  ];
}

/** @param {Status} status */
function showProcesses(status) {
  processes.hidden = status.view === "tenant";
  const all = status.processes ?? [];
  fill(/** @type {Element} */ (processes.querySelector(".soft")), all.length ? "A process that was killed is listed for ten minutes." : "");
  keyed(table, all, (each) => each.id, () => h("tr"), (row, each) => {
    fill(row, cells(status, each).map(([name, content]) => h("td", { class: name ? null : "whole", data: name ? { name } : {} }, content)));
  });
}

function showAge() {
  const at = shown?.at ?? 0;
  const age = Date.now() - at;
  const isStale = Boolean(shown) && (failing !== null || age > STALE_MS);
  main.classList.toggle("is-stale", isStale);
  set(updated, { hidden: !shown });
  const [kind, sign, word] = isStale ? ["warn", "warn", `Stale: ${Math.round(age / 1000)} s old`] : ["good", "dot", age < 1500 ? "Updated now" : `Updated ${Math.round(age / 1000)} s ago`];
  updated.className = `chip push number ${kind}`;
  fill(updated, icon(/** @type {any} */ (sign), "sign"), word);
  stale.hidden = !failing;
  if (failing) {
    const { problem, since: begun, next } = failing;
    const wait = Math.max(0, Math.ceil((next - Date.now()) / 1000));
    const text = [shown ? ` The figures below are of ${shortTime(now() - age)}.` : "", problem.isPassing ? ` Next try in ${wait} s.` : ""].join("");
    const note = problemNote(problem, problem.isPassing ? () => polling.now() : undefined, begun);
    note.querySelector("div")?.append(text);
    fill(stale, note);
  }
}

/** @param {import("./lib/api.js").Problem} problem */
function refuse(problem) {
  stale.hidden = tiles.hidden = processes.hidden = updated.hidden = true;
  verdict.hidden = false;
  verdict.className = "card";
  fill(verdict, h("div", { class: "empty" }, icon("status"), h("h2", null, "This key may not read the status"), h("p", null, `${problem.message} ${problem.next}`)));
}

/** @param {Status} status */
function show(status) {
  const wasFailing = failing !== null;
  failing = null;
  verdict.hidden = false;
  shown = { status, at: Date.now() };
  showVerdict(status);
  showTiles(status);
  showProcesses(status);
  showAge();
  if (wasFailing) announce("The service answers again.");
}

frame("status");
main.querySelector(".head")?.append(updated, h("p", null, "How the service is now. Figures are read every five seconds while this page is visible."));
fill(verdict, h("span", { class: "sign" }), h("div", { class: "stack tight" }, h("h2", null, "Reading the status"), h("span", { class: "ghost" })));
main.append(stale, verdict, tiles, processes);
const polling = poll({
  read: (signal) => get("/v1/status", { signal, retries: 0 }),
  show,
  every: () => EVERY_MS,
  fail: (problem, begun, next) => {
    if (problem.status === 403) return refuse(problem);
    if (!failing) announce(`${problem.message} ${shown ? "The figures are old." : ""}`);
    verdict.hidden = !shown;
    if (shown) showUnknown();
    failing = { problem, since: begun, next };
    showAge();
  },
});
setInterval(showAge, 1000);
