// What every page has: the side bar, who is logged in, the state of the connection, messages, and the help of the keyboard.

import { fill, h, icon, set } from "./dom.js";
import { login, logOut } from "./login.js";
import { asProblem } from "./api.js";
import { counted } from "./time.js";

/** The pages in their order; one that does not exist yet has no link. */
const PAGES = [
  { name: "sessions", file: "./", title: "Sessions", exists: true },
  { name: "live", file: "live.html", title: "Live", exists: true },
  { name: "jobs", file: "jobs.html", title: "Jobs", exists: true },
  { name: "keys", file: "keys.html", title: "Keys", exists: true },
  { name: "status", file: "status.html", title: "Status", exists: true },
];
const SCHEMES = { system: "System scheme", light: "Light scheme", dark: "Dark scheme" };
const SECOND = 1000;
const TOAST_MS = 8000;

/** @type {[string, string, (() => void) | null][]} */
const shortcuts = [];
const status = h("div", { class: "unseen", role: "status", aria: { live: "polite" } });
const toasts = h("div", { class: "toasts" });
const chip = h("button", { class: "chip", type: "button", hidden: true });

/**
 * Builds the frame around a page's `<main>`.
 * @param {string} name one of the names in `PAGES`, or another page's own
 */
export function frame(name) {
  const main = /** @type {HTMLElement} */ (document.querySelector("main"));
  set(main, { id: "main", tabindex: "-1" });
  const side = /** @type {HTMLElement} */ (document.querySelector("header"));
  side.className = "side";
  fill(side, brand(), h("nav", { aria: { label: "Pages" } }, h("ul", null, PAGES.filter((page) => page.exists).map((page) => link(page, name)))), foot());
  const skip = h("a", { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => (event.preventDefault(), main.focus()) }, "Skip to the content");
  document.body.prepend(skip);
  document.body.append(status, toasts);
  shortcut("?", "Show this help", showHelp);
  document.addEventListener("keydown", onKey);
}

function brand() {
  const mark = icon("audio", "mark");
  mark.classList.remove("icon");
  mark.setAttribute("viewBox", "0 0 24 24");
  mark.firstElementChild?.setAttribute("d", "M6 0h12a6 6 0 0 1 6 6v12a6 6 0 0 1-6 6H6a6 6 0 0 1-6-6V6a6 6 0 0 1 6-6zM5 10v4h2v-4zm4-3v10h2V7zm4-2v14h2V5zm4 4v6h2V9z");
  mark.firstElementChild?.setAttribute("fill-rule", "evenodd");
  return h("a", { class: "brand", href: "./" }, mark, "Dalston");
}

/** @param {typeof PAGES[0]} page @param {string} current */
function link(page, current) {
  const state = page.name === current ? "page" : null;
  return h("li", null, h("a", { href: page.file, aria: { current: state } }, icon(/** @type {any} */ (page.name)), page.title));
}

/** A button that leads to another page; null while that page does not exist.
 * @param {string} name @param {string} text */
export function linkTo(name, text) {
  const page = PAGES.find((each) => each.name === name && each.exists);
  return page ? h("a", { class: "button primary", href: page.file }, icon(/** @type {any} */ (name)), text) : null;
}

function foot() {
  const scheme = h("button", { class: "item", type: "button", onclick: () => (nextScheme(), name()) });
  const name = () => fill(scheme, icon("scheme"), h("span", null, SCHEMES[scheme_()]));
  name();
  const help = h("button", { class: "item", type: "button", onclick: showHelp }, icon("help"), h("span", null, "Keyboard"));
  const who = h("div", { class: "who", hidden: true });
  login().then((found) => {
    if (!found.authentication) return;
    const out = h("button", { class: "button quiet square push", type: "button", aria: { label: "Log out" }, title: "Log out", onclick: () => logOut().catch(complain) }, icon("exit"));
    fill(who, h("div", { class: "small" }, h("b", null, found.key?.name || "Logged in"), h("span", { class: "soft" }, found.tenant)), out);
    who.hidden = false;
  }).catch(() => {
    // The page's own requests say what is wrong.
  });
  return h("div", { class: "foot" }, h("div", { class: "connection" }, chip), scheme, help, who);
}

/** @returns {keyof typeof SCHEMES} */
function scheme_() {
  const chosen = document.documentElement.dataset.scheme;
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

function nextScheme() {
  const names = /** @type {(keyof typeof SCHEMES)[]} */ (Object.keys(SCHEMES));
  const next = names[(names.indexOf(scheme_()) + 1) % names.length];
  if (next === "system") delete document.documentElement.dataset.scheme;
  else document.documentElement.dataset.scheme = next;
  try {
    localStorage.setItem("dalston.scheme", next);
  } catch {
    // Private windows may refuse storage: the choice lasts as long as the page.
  }
  announce(SCHEMES[next]);
}

/**
 * Shows in words whether changes arrive. Pressing it pauses them and lets them go on: what moves by itself can be stopped.
 * @param {{toggle: (paused: boolean) => void}} to
 * @returns {(connection: import("./watch.js").Connection) => void}
 */
export function connectionChip({ toggle }) {
  let paused = false;
  /** @type {import("./watch.js").Connection} */
  let now = { state: "reconnecting", since: Date.now() };
  const show = () => {
    const waited = Math.floor((Date.now() - now.since) / SECOND);
    const [kind, sign, word] = paused ? ["", "pause", "Paused"]
      : now.state === "live" ? ["good", "dot", "Live"]
      : now.state === "refused" ? ["bad", "cross", "No live changes"]
      : ["warn", "warn", waited < 2 ? "Connecting" : `Reconnecting since ${waited} s`];
    chip.className = `chip ${kind}`;
    if (chip.dataset.word !== word) {
      fill(chip, icon(/** @type {any} */ (sign), "sign"), h("span", null, word));
      chip.dataset.word = word;
    }
    const help = paused ? "Press to follow changes again" : now.message ?? "Press to pause changes";
    set(chip, { title: help, aria: { pressed: paused } });
    chip.hidden = false;
  };
  chip.addEventListener("click", () => {
    paused = !paused;
    toggle(paused);
    show();
    announce(paused ? "Changes are paused" : "Changes are followed");
  });
  setInterval(show, SECOND);
  show();
  return (connection) => {
    if (connection.state !== now.state) announce(connection.state === "live" ? "Connected" : "Connection lost; what is shown stays");
    now = connection;
    show();
  };
}

/** Says something to screen readers, politely.
 * @param {string} text */
export function announce(text) {
  fill(status, text);
}

/**
 * Shows a message for a while.
 * @param {string} text
 * @param {"good" | "bad"} [kind]
 */
export function toast(text, kind = "good") {
  const element = h("div", { class: "toast" }, icon(kind === "good" ? "check" : "warn"), h("span", null, text));
  toasts.append(element);
  announce(text);
  setTimeout(() => element.remove(), TOAST_MS);
}

/** Shows an error for a while. @param {unknown} error */
export function complain(error) {
  const problem = asProblem(error);
  toast([problem.message, problem.safe, problem.next].filter(Boolean).join(" "), "bad");
}

/**
 * An error that stays until it is over: what happened, what is safe, what to do.
 * @param {unknown} error
 * @param {() => void} [again]
 * @param {number} [since] when it began, in milliseconds
 */
export function problemNote(error, again, since) {
  const problem = asProblem(error);
  const waited = since ? Math.round((Date.now() - since) / SECOND) : 0;
  const lasting = waited >= 2 ? ` Since ${counted(waited, "second")}.` : "";
  return h("div", { class: `note ${problem.isPassing ? "warn" : "bad"}` }, icon("warn"),
    h("div", null, h("b", null, problem.message), " ", problem.safe, lasting, " ", problem.next),
    again && h("button", { class: "button", type: "button", onclick: again }, "Try now"));
}

/**
 * Adds a key, which works outside fields, and its line in the help.
 * @param {string} key `?`, `j`, `Escape`; or several to show, with no action
 * @param {string} what
 * @param {(() => void) | null} [action]
 */
export function shortcut(key, what, action = null) {
  shortcuts.push([key, what, action]);
}

const areOff = () => {
  try {
    return localStorage.getItem("dalston.shortcuts") === "off";
  } catch {
    return false;
  }
};

/** @param {KeyboardEvent} event */
function onKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const isTyping = target.matches("input:not([type=checkbox], [type=radio]), select, textarea") || target.isContentEditable;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (areOff() && event.key.length === 1 && event.key !== " ") return;
  const action = shortcuts.find(([key]) => key === event.key)?.[2];
  if (action) {
    event.preventDefault();
    action();
  }
}

function showHelp() {
  const enabled = h("input", { type: "checkbox", checked: !areOff(), onchange: () => localStorage.setItem("dalston.shortcuts", enabled.checked ? "on" : "off") });
  const lines = shortcuts.flatMap(([key, what]) => [h("dt", null, h("kbd", null, key === " " ? "Space" : key)), h("dd", null, what)]);
  dialog("Keyboard", [h("dl", { class: "keys" }, lines), h("hr"), h("label", { class: "check" }, enabled, "Single keys are shortcuts")],
    [h("button", { class: "button", value: "close" }, "Close")]);
}

/**
 * Opens a dialog and returns the value of the button that closed it; "" after Escape. The focus returns by itself.
 * @param {string} title
 * @param {import("./dom.js").Child[]} content
 * @param {HTMLElement[]} buttons with a `value`; the first is focused
 * @returns {Promise<string>}
 */
export function dialog(title, content, buttons) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const element = /** @type {HTMLDialogElement} */ (h("dialog", { aria: { labelledby: "dialog-title" } }, heading, content, h("div", { class: "actions" }, buttons)));
  for (const button of buttons) {
    set(button, { type: "button", onclick: () => element.close(button.getAttribute("value") ?? "") });
  }
  document.body.append(element);
  element.showModal();
  buttons[0]?.focus();
  return new Promise((resolve) => element.addEventListener("close", () => {
    element.remove();
    resolve(element.returnValue);
  }, { once: true }));
}
