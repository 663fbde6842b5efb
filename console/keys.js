// The keys page: who may call, and which browsers are logged in.

import { get, send } from "./lib/api.js";
import { fill, h, icon, keyed } from "./lib/dom.js";
import { login, may } from "./lib/login.js";
import { complain, dialog, frame, problemNote, shortcut, toast } from "./lib/page.js";
import { newKeyDialog } from "./lib/new-key.js";
import { poll } from "./lib/poll.js";
import { ago, counted, fullTime, now, shortTime } from "./lib/time.js";

/** @typedef {Record<string, any>} Key the message `Key` */

const EVERY_MS = 8000;
const PAGE = 50;

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const trouble = h("div", { class: "stale" });
const table = h("tbody");
const more = h("div", { class: "more", hidden: true });
/** @type {Map<string, Key>} */
const keys = new Map();
/** Keys whose logins are shown, and the logins; null while they are read. @type {Map<string, any[] | null>} */
const opened = new Map();
/** @type {string | undefined} */
let cursor;
let isFirst = true;
/** @type {import("./lib/login.js").Login} */
let who;

/** `active`, `revoked` or `expired`.
 * @param {Key} key */
export function stateOf(key, at = now()) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && Date.parse(key.expires_at) <= at ? "expired" : "active";
}

/** @param {Key} key */
function stateChip(key) {
  const [kind, sign, word] = { active: ["good", "check", "Active"], revoked: ["bad", "cross", "Revoked"], expired: ["", "clock", "Expired"] }[stateOf(key)];
  return h("span", { class: `chip ${kind}`, title: key.revoked_at ? fullTime(key.revoked_at) : null }, icon(/** @type {any} */ (sign), "sign"), word);
}

/** @param {string | undefined} time @param {string} otherwise */
function when(time, otherwise) {
  if (!time) return h("span", { class: "soft" }, otherwise);
  const isPast = Date.parse(time) <= now();
  return h("time", { class: "nowrap", datetime: time, title: fullTime(time) }, isPast ? ago(time) : shortTime(time));
}

/** @param {Key} key */
function term(key) {
  if (stateOf(key) === "revoked") return when(key.revoked_at, "");
  if (!key.expires_at) return "Never expires";
  return [stateOf(key) === "active" ? "Until " : "", when(key.expires_at, "")];
}

/** @param {Key} key */
const maker = (key) => (key.created_by ? keys.get(key.created_by)?.name ?? key.created_by : "the operator");

/** @param {Key} key */
function cells(key) {
  const isActive = stateOf(key) === "active";
  const isOwn = key.id === who.key?.id;
  const open = h("button", { class: "button quiet", type: "button", aria: { expanded: opened.has(key.id), label: `Logins of ${key.name}` }, onclick: () => toggle(key) }, "Logins");
  const revoke = h("button", { class: "button quiet danger", type: "button", aria: { label: `Revoke ${key.name}` }, onclick: () => revokeKey(key).catch(complain) }, "Revoke");
  return [
    h("td", { class: "whole name" }, h("div", null, h("b", null, key.name), isOwn && h("span", { class: "soft small" }, " · yours now"), h("span", { class: "second mono" }, `${key.prefix}…`))),
    h("td", { data: { name: "Status" } }, h("div", null, stateChip(key), h("span", { class: "second" }, term(key)))),
    h("td", { data: { name: "Allows" } }, h("div", { class: "scopes" }, key.scopes.map((/** @type {string} */ scope) => h("span", { class: "scope" }, scope)))),
    h("td", { data: { name: "Created" } }, h("div", null, when(key.created_at, ""), h("span", { class: "second" }, `by ${maker(key)}`))),
    h("td", { data: { name: "Last used" } }, when(key.last_used_at, "Never")),
    h("td", { class: "whole" }, isActive && h("div", { class: "actions" }, open, revoke)),
  ];
}

/** What a browser calls itself, in a few words; the whole text is its title.
 * @param {string} agent */
export function browserOf(agent) {
  const found = [["Edg", "Edge"], ["OPR", "Opera"], ["Firefox", "Firefox"], ["Chrome", "Chrome"], ["Safari", "Safari"]].find(([token]) => agent.includes(`${token}/`));
  const on = [["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac OS X", "macOS"], ["Linux", "Linux"]].find(([token]) => agent.includes(token));
  if (!found) return agent.slice(0, 60) || "An unnamed browser";
  return on ? `${found[1]} on ${on[1]}` : found[1];
}

/** @param {Key} key */
function loginsCell(key) {
  const logins = opened.get(key.id);
  const content = logins === null || logins === undefined ? h("span", { class: "ghost" })
    : logins.length === 0 ? h("p", { class: "soft small" }, "No browser is logged in with this key.")
    : h("ul", null, logins.map((each) => {
      const isOwn = each.id === who.id;
      const name = browserOf(each.user_agent ?? "");
      const end = h("button", { class: "button quiet danger", type: "button", aria: { label: `${isOwn ? "Log out here" : "End"}: the login of ${name}` }, onclick: () => revokeLogin(key, each).catch(complain) }, isOwn ? "Log out here" : "End");
      return h("li", null, h("div", { title: each.user_agent }, name, isOwn && h("span", { class: "soft small" }, " · this browser"), h("span", { class: "second" }, "Logged in ", when(each.created_at, ""), ", last used ", when(each.last_used_at, "never"), ", until ", when(each.expires_at, "it is ended"))), end);
    }));
  return h("td", { class: "whole nested", colspan: "6" }, h("div", { class: "logins" }, content));
}

function draw() {
  const sorted = [...keys.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  const rows = sorted.flatMap((key) => (opened.has(key.id) ? [{ key, isLogins: false }, { key, isLogins: true }] : [{ key, isLogins: false }]));
  keyed(table, rows, (row) => row.key.id + (row.isLogins ? ".logins" : ""), (row) => h("tr", { class: row.isLogins ? "logins-row" : null }), (element, row) => {
    element.classList.toggle("ended", stateOf(row.key) !== "active");
    const state = JSON.stringify([row.key, opened.get(row.key.id), maker(row.key), opened.has(row.key.id), Math.floor(now() / 30_000)]);
    if (/** @type {any} */ (element).drawn === state) return;
    const hadFocus = element.contains(document.activeElement) && /** @type {HTMLElement} */ (document.activeElement).getAttribute("aria-label");
    /** @type {any} */ (element).drawn = state;
    fill(element, row.isLogins ? loginsCell(row.key) : cells(row.key));
    if (hadFocus) [...element.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === hadFocus)?.focus();
  });
  more.hidden = !cursor;
}

/** @param {Key} key */
async function toggle(key) {
  if (opened.delete(key.id)) return draw();
  opened.set(key.id, null);
  draw();
  await readLogins(key);
}

/** @param {Key} key */
async function readLogins(key) {
  try {
    const { logins } = await get(`/v1/keys/${key.id}/logins`);
    if (opened.has(key.id)) opened.set(key.id, logins);
  } catch (error) {
    opened.delete(key.id);
    complain(error);
  }
  draw();
}

/** @param {Key} key */
async function revokeKey(key) {
  const logins = await get(`/v1/keys/${key.id}/logins`).then((answer) => answer.logins.length, () => null);
  const made = [...keys.values()].filter((each) => each.created_by === key.id && stateOf(each) === "active");
  const line = (/** @type {import("./lib/dom.js").Child[]} */ ...words) => h("li", null, icon("right"), h("span", null, words));
  const choice = await dialog(`Revoke “${key.name}”?`, [
    h("p", null, "Programs that use it are refused everywhere within 5 seconds. It cannot be undone."),
    h("ul", { class: "plain" },
      line("Live sessions and watches that were begun with it end within 10 seconds. What they have recorded stays stored."),
      line(logins === null ? "The logins of browsers with this key end." : logins === 0 ? "No browser is logged in with it." : `${counted(logins, "login")} of browsers ${logins === 1 ? "ends" : "end"}.`),
      made.length > 0 && line(`Keys that it made stay valid: ${made.map((each) => each.name).join(", ")}.`),
      key.id === who.key?.id && line(h("b", null, "You are logged in with this key, and will be logged out."))),
  ], [h("button", { class: "button", value: "" }, "Keep it"), h("button", { class: "button danger", value: "revoke" }, "Revoke the key")]);
  if (choice !== "revoke") return;
  const revoked = await send("DELETE", `/v1/keys/${key.id}`);
  keys.set(key.id, revoked);
  opened.delete(key.id);
  draw();
  toast(`“${key.name}” is revoked.`);
}

/** @param {Key} key @param {any} each */
async function revokeLogin(key, each) {
  const isOwn = each.id === who.id;
  if (isOwn) {
    const choice = await dialog("Log out here?", [h("p", null, "It is the login of this browser. To come back, you need the key again.")],
      [h("button", { class: "button", value: "" }, "Stay"), h("button", { class: "button danger", value: "end" }, "Log out")]);
    if (choice !== "end") return;
  }
  await send("DELETE", `/v1/keys/${key.id}/logins/${each.id}`);
  if (isOwn) return location.assign("login.html");
  toast(`The login of ${browserOf(each.user_agent ?? "")} has ended.`);
  await readLogins(key);
}

async function readMore() {
  const answer = await get(`/v1/keys?limit=${PAGE}&cursor=${encodeURIComponent(cursor ?? "")}`);
  for (const key of answer.keys) keys.set(key.id, key);
  cursor = answer.next_cursor;
  draw();
}

function start() {
  const make = h("button", { class: "button primary push", type: "button", onclick: create }, icon("plus"), "New key");
  main.querySelector(".head")?.append(make, h("p", null, "Programs call the service with keys, and browsers log in with them. Each key belongs to ", who.tenant || "your tenant", "."));
  shortcut("n", "Make a key", create);
  fill(more, h("button", { class: "button", type: "button", onclick: () => readMore().catch(complain) }, "Show older keys"));
  fill(table, [1, 2, 3].map(() => h("tr", { class: "loading" }, [1, 2, 3, 4, 5, 6].map(() => h("td", null, h("span", { class: "ghost" }))))));
  main.append(trouble, h("div", { class: "card rows" }, h("table", { class: "table" },
    h("thead", null, h("tr", null, ["Name", "Status", "Allows", "Created", "Last used"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")))), table), more));
  const polling = poll({
    read: (signal) => get(`/v1/keys?limit=${PAGE}`, { signal, retries: 0 }),
    show: (answer) => {
      fill(trouble);
      for (const key of answer.keys) keys.set(key.id, key);
      if (isFirst) {
        cursor = answer.next_cursor;
        fill(table);
      }
      isFirst = false;
      draw();
    },
    every: () => EVERY_MS,
    fail: (problem, since) => fill(trouble, problemNote(problem, problem.isPassing ? () => polling.now() : undefined, since)),
  });
}

function create() {
  newKeyDialog(who.key?.expires_at, (key) => {
    keys.set(key.id, key);
    draw();
  });
}

/** @param {string} title @param {import("./lib/dom.js").Child[]} words */
function instead(title, ...words) {
  main.append(h("div", { class: "card empty" }, icon("keys"), h("h2", null, title), h("p", null, words)));
}

frame("keys");
login().then((found) => {
  who = found;
  if (!who.authentication) instead("This service runs without keys", "Who reaches it may use all of it, so there are none to manage. To ask for keys, start it with ", h("code", null, "DALSTON_AUTH=keys"), ".");
  else if (!may(who, "admin")) instead("This key may not manage keys", "It needs the scope ", h("code", null, "admin"), `; “${who.key?.name ?? "it"}” allows ${who.scopes.join(", ")}. Log in with another key to see this page.`);
  else start();
}).catch((error) => main.append(problemNote(error, () => location.reload())));
