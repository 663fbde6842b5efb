// The dialog that makes a key, and shows its secret once.

import { asProblem, send } from "./api.js";
import { fill, h, icon, set } from "./dom.js";
import { announce } from "./page.js";
import { SCOPES } from "./scopes.js";
import { fullTime } from "./time.js";

const DAY = 86_400;
/** @type {[string, number | null][]} */
const TERMS = [["30 days", 30 * DAY], ["90 days", 90 * DAY], ["1 year", 365 * DAY], ["1 day", DAY], ["1 hour", 3600], ["Never", null]];

/**
 * What `POST /v1/keys` is sent, or what is wrong with the form.
 * @param {string} name @param {string[]} scopes @param {number | null} seconds
 * @returns {{body: object} | {field: "name" | "scopes", text: string}}
 */
export function requestOf(name, scopes, seconds) {
  const trimmed = name.trim();
  if (!trimmed) return { field: "name", text: "Give the key a name, such as the program that will use it." };
  if (trimmed.length > 100) return { field: "name", text: "A name may have 100 characters." };
  if (!scopes.length) return { field: "scopes", text: "Choose at least one thing that the key allows." };
  return { body: { name: trimmed, scopes, ...(seconds === null ? {} : { expires_in_seconds: seconds }) } };
}

/**
 * Opens the dialog.
 * @param {string | undefined} ownEnd when the key of the caller ends: no key outlives the one that made it
 * @param {(key: any) => void} made called as soon as the key exists
 */
export function newKeyDialog(ownEnd, made) {
  const name = h("input", { id: "new-name", maxlength: "100", autocomplete: "off", aria: { describedby: "new-name-wrong" } });
  const boxes = SCOPES.map(([scope]) => h("input", { type: "checkbox", value: scope }));
  const term = h("select", { id: "new-term" }, TERMS.map(([word], at) => h("option", { value: String(at) }, word)));
  const wrong = { name: h("span", { class: "wrong", id: "new-name-wrong" }), scopes: h("span", { class: "wrong", id: "new-scopes-wrong" }) };
  const trouble = h("div", { role: "alert" });
  const button = h("button", { class: "button primary", type: "submit" }, "Make the key");
  const cancel = h("button", { class: "button", type: "button", onclick: () => element.close() }, "Cancel");
  const form = h("form", { class: "stack", novalidate: true, onsubmit: (/** @type {Event} */ event) => (event.preventDefault(), submit()) },
    h("div", { class: "field" }, h("label", { for: "new-name" }, "Name"), name, wrong.name),
    h("fieldset", { aria: { describedby: "new-scopes-wrong" } }, h("legend", null, "The key allows"),
      SCOPES.map(([scope, words], at) => h("label", { class: "option" }, boxes[at], h("span", null, h("b", null, scope), h("small", null, words)))), h("span", { class: "field" }, wrong.scopes)),
    h("div", { class: "field" }, h("label", { for: "new-term" }, "It expires after"), term,
      ownEnd && h("span", { class: "hint" }, `Your own key ends on ${fullTime(ownEnd)}; a key that it makes ends by then.`)),
    trouble, h("div", { class: "actions" }, cancel, button));
  const element = /** @type {HTMLDialogElement} */ (h("dialog", { class: "wide", aria: { labelledby: "new-title" } }, h("h2", { id: "new-title" }, "New key"), form));
  element.addEventListener("close", () => element.remove());
  document.body.append(element);
  element.showModal();
  name.focus();

  async function submit() {
    const asked = requestOf(name.value, boxes.filter((each) => each.checked).map((each) => each.value), TERMS[Number(term.value)][1]);
    fill(wrong.name, "field" in asked && asked.field === "name" && asked.text);
    fill(wrong.scopes, "field" in asked && asked.field === "scopes" && asked.text);
    set(name, { aria: { invalid: "field" in asked && asked.field === "name" ? "true" : null } });
    if ("field" in asked) return (asked.field === "name" ? name : boxes[0]).focus();
    set(button, { disabled: true });
    fill(trouble);
    try {
      const answer = await send("POST", "/v1/keys", asked.body);
      made(answer.key);
      showSecret(element, answer);
    } catch (error) {
      const problem = asProblem(error);
      const doubt = problem.status === 0 || problem.status >= 500 ? "The key may exist nevertheless: look at the list, and revoke it if its secret was not shown." : problem.next;
      fill(trouble, h("div", { class: "note bad" }, icon("warn"), h("div", null, problem.message, " ", doubt)));
      set(button, { disabled: false });
    }
  }
}

/**
 * Shows a secret until it is said to be stored: Escape does not lose it.
 * @param {HTMLDialogElement} element @param {{key: any, secret: string}} made
 */
function showSecret(element, { key, secret }) {
  const field = h("input", { id: "secret", readonly: true, value: secret, spellcheck: "false", autocomplete: "off", onfocus: () => field.select() });
  const copy = h("button", { class: "button", type: "button", onclick: copied }, icon("copy"), "Copy");
  const done = h("button", { class: "button primary", type: "button", onclick: () => element.close() }, "I have stored it");
  element.addEventListener("cancel", (event) => event.preventDefault());
  element.addEventListener("close", () => ((field.value = ""), fill(element)));
  fill(element, h("h2", { id: "new-title" }, `The secret of “${key.name}”`),
    h("div", { class: "stack" },
      h("div", { class: "note warn" }, icon("warn"), h("div", null, h("b", null, "It is shown this once."), " The service keeps a hash of it only. Store it where secrets belong, such as a password manager or the secrets of your deployment.")),
      h("div", { class: "field" }, h("label", { for: "secret" }, "Secret"), h("div", { class: "once" }, field, copy)),
      h("div", { class: "field" }, "What to do with it", h("code", { class: "commands" }, `export DALSTON_API_KEY=…\ncurl -H "Authorization: Bearer $DALSTON_API_KEY" \\\n  ${location.origin}/v1/realtime/sessions`)),
      h("div", { class: "actions" }, done)));
  copy.focus();

  async function copied() {
    try {
      await navigator.clipboard.writeText(secret);
      fill(copy, icon("check"), "Copied");
      announce("The secret is copied.");
    } catch {
      // Without permission or over plain HTTP a page may not write to the clipboard: a person can.
      field.focus();
      field.select();
      fill(copy, "Press Ctrl+C");
    }
  }
}
