// The login page: a key is sent once, and becomes a cookie that no script can read. Nothing here stores the key.

import { asProblem, get, request } from "./lib/api.js";
import { fill, h, icon, set } from "./lib/dom.js";
import { counted, fullTime } from "./lib/time.js";

const FORM = /^dk_[A-Za-z0-9_-]{43}$/;

const main = /** @type {HTMLElement} */ (document.querySelector("main"));
const card = h("div", { class: "card padded" });
const trouble = h("div", { role: "alert" });
const below = h("p", { class: "below" });

/** The page to go to: the one that led here, and only one of the console. */
export function destination(search = location.search, base = location.href) {
  const home = new URL("./", base);
  try {
    const wanted = new URL(new URLSearchParams(search).get("next") ?? "./", base);
    const isOurs = wanted.origin === home.origin && wanted.pathname.startsWith(home.pathname);
    if (isOurs && !wanted.pathname.endsWith("/login.html")) return wanted.href;
  } catch {
    // What is no address leads home.
  }
  return home.href;
}

/** What is wrong with the form of a key, as far as it can be known without asking; "" if nothing.
 * @param {string} key */
export function fault(key) {
  if (!key) return "Enter an API key.";
  if (key.startsWith("dt_")) return "This is a token for one live session. Logging in takes a key, which begins with dk_.";
  if (!FORM.test(key)) return "This is not a whole key: a key begins with dk_ and has 46 characters. It was not sent.";
  return "";
}

/** What a refused login means, as a sentence.
 * @param {import("./lib/api.js").Problem} problem */
export function refusal(problem) {
  if (problem.status === 401) return "This key is not valid: it is wrong, revoked or expired. Check that you copied all of it.";
  if (problem.status === 429) return "Too many attempts came from your address.";
  if (problem.status === 0) return "The service cannot be reached. Check the network connection, and try again.";
  if (problem.status >= 500) return "The service cannot check keys at the moment. Your key may be right: try again shortly.";
  return `${problem.message} ${problem.next}`;
}

/** @param {string} text @param {HTMLElement | null} [more] */
function complain(text, more = null) {
  fill(trouble, h("div", { class: "note bad" }, icon("warn"), h("div", null, text, more && " ", more)));
}

function form() {
  const input = h("input", {
    type: "password", id: "key", name: "key", autocomplete: "current-password", required: true, spellcheck: "false",
    autocapitalize: "off", maxlength: "200", aria: { describedby: "key-hint" },
  });
  const reveal = h("button", { class: "button quiet", type: "button", aria: { label: "Show the key" }, onclick: () => show(input.type === "password") }, "Show");
  const show = (/** @type {boolean} */ visible) => {
    input.type = visible ? "text" : "password";
    set(reveal, { aria: { label: visible ? "Hide the key" : "Show the key" } });
    fill(reveal, visible ? "Hide" : "Show");
  };
  const button = h("button", { class: "button primary wide", type: "submit" }, "Log in");
  const element = h("form", { class: "stack", method: "post", novalidate: true, onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), submit()) },
    // Managers of passwords keep an entry under a name.
    h("input", { type: "text", name: "username", autocomplete: "username", value: "Dalston", readonly: true, hidden: true }),
    h("div", { class: "field" }, h("label", { for: "key" }, "API key"), h("div", { class: "secret" }, input, reveal),
      h("span", { class: "hint", id: "key-hint" }, "It begins with dk_. This browser keeps a login of up to 12 hours, and not the key.")),
    trouble, button);

  async function submit() {
    const key = input.value.trim().replace(/^Bearer\s+/i, "");
    const wrong = fault(key);
    set(input, { aria: { invalid: wrong ? "true" : null } });
    if (wrong) {
      complain(wrong);
      return input.focus();
    }
    show(false);
    fill(trouble);
    busy(true);
    try {
      await request("/v1/login", {
        method: "POST", body: "{}", stay: true,
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      });
      input.value = "";
      await arrive();
    } catch (error) {
      refused(asProblem(error));
    }
  }

  /** @param {import("./lib/api.js").Problem} problem */
  function refused(problem) {
    busy(false);
    // A key that was not judged stays in the field, to be sent again by one press.
    if (!problem.isPassing) input.value = "";
    set(input, { aria: { invalid: problem.status === 401 ? "true" : null } });
    const wait = h("span", { class: "number" });
    complain(refusal(problem), problem.status === 429 ? wait : null);
    if (problem.status === 429) countDown(wait, problem.retryAfter || 1);
    else input.focus();
  }

  /** @param {HTMLElement} wait @param {number} seconds */
  function countDown(wait, seconds) {
    set(button, { disabled: seconds > 0 });
    fill(wait, seconds > 0 ? `Try again in ${counted(seconds, "second")}.` : "You can try again now.");
    if (seconds > 0) setTimeout(countDown, 1000, wait, seconds - 1);
  }

  /** @param {boolean} is */
  function busy(is) {
    set(button, { disabled: is });
    fill(button, is ? "Logging in" : "Log in");
  }
  // A page that the browser keeps for Back must not keep the key.
  addEventListener("pagehide", () => (input.value = ""));
  fill(card, element);
  fill(below, "A key is made by an administrator on the page Keys, the first one by the operator of the service.");
  input.focus();
}

/** Goes on if the browser has kept the cookie, and says so if it has not. */
async function arrive() {
  try {
    await get("/v1/login", { stay: true });
    location.replace(destination());
  } catch (error) {
    const problem = asProblem(error);
    if (problem.status !== 401) throw problem;
    refuseHost("The key is right, but this browser did not keep the login.");
  }
}

/** @param {string} what */
function refuseHost(what) {
  const secure = new URL(location.href);
  secure.protocol = "https:";
  fill(card, h("div", { class: "note warn", role: "alert" }, icon("warn"), h("div", null, h("b", null, what),
    " Browsers keep logins over HTTPS only, and over plain HTTP for localhost. Nothing was stored.")),
    location.protocol === "http:" && h("p", null, "Use the address of the service that begins with https, such as ", h("a", { href: secure.href }, secure.origin), ", or on the machine of the service itself ", h("code", null, `http://localhost${location.port ? `:${location.port}` : ""}`), "."));
  fill(below);
}

/** @param {import("./lib/login.js").Login} found */
function already(found) {
  fill(card, h("p", null, "You are logged in with the key ", h("b", null, found.key?.name ?? ""), ` of ${found.tenant}`,
    found.expires_at && [", until ", h("time", { datetime: found.expires_at }, fullTime(found.expires_at))], "."),
    h("a", { class: "button primary wide", href: destination() }, "Continue"),
    h("button", { class: "button wide", type: "button", onclick: form }, "Log in with another key"));
}

function off() {
  fill(card, h("div", { class: "note" }, icon("info"), h("div", null, h("b", null, "No login is needed."), " This service runs without keys: who reaches it may use all of it.")),
    h("a", { class: "button primary wide", href: destination() }, "Open the console"));
}

/** @param {boolean} isReturn whether the page was there before, and another tab may have logged in */
async function look(isReturn) {
  try {
    const found = await get("/v1/login", { stay: true, retries: 0 });
    if (!found.authentication) off();
    else if (isReturn) location.replace(destination());
    else already(found);
  } catch (error) {
    const { status } = asProblem(error);
    if (isReturn) return;
    if (status === 404 || status === 501) off();
    else form();
  }
}

main.append(card, below);
fill(card, h("span", { class: "ghost" }), h("span", { class: "ghost" }));
if (isSecureContext) {
  look(false);
  document.addEventListener("visibilitychange", () => !document.hidden && look(true));
} else {
  refuseHost("This page came over plain HTTP, so it asks for no key.");
}
