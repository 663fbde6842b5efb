// The filters of the list of sessions: in the address of the page, in the query of the service, and as fields.

import { h, icon, set } from "./dom.js";
import { inUtc } from "./time.js";

/** @typedef {{status: string, source: string, from: string, to: string}} Filters `from` and `to` are days, `2026-11-30` */

const NONE = { status: "", source: "", from: "", to: "" };
const STATUSES = [["", "Any status"], ["active", "Running"], ["completed", "Completed"], ["interrupted", "Interrupted"], ["error", "Error"]];
const SOURCES = [["", "Any source"], ["live", "Live"], ["upload", "Upload"]];
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** @param {string} search @returns {Filters} */
export function filtersOf(search) {
  const query = new URLSearchParams(search);
  const one = (/** @type {string} */ name, /** @type {string[][]} */ known) => known.find(([value]) => value === query.get(name))?.[0] ?? "";
  const day = (/** @type {string} */ name) => (DAY.test(query.get(name) ?? "") && !Number.isNaN(Date.parse(query.get(name) ?? "")) ? query.get(name) ?? "" : "");
  return { status: one("status", STATUSES), source: one("source", SOURCES), from: day("from"), to: day("to") };
}

/** The address of the page with these filters.
 * @param {Filters} filters */
export function searchOf(filters) {
  const query = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  return query.size ? `?${query}` : "";
}

/** @param {Filters} filters */
export const hasFilters = (filters) => searchOf(filters) !== "";

/**
 * The query of `GET /v1/realtime/sessions`.
 * @param {Filters} filters
 * @param {string} cursor
 * @param {number} limit
 */
export function queryOf(filters, cursor, limit) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (filters.status) query.set("status", filters.status);
  if (filters.source) query.set("source", filters.source);
  if (filters.from) query.set("since", midnight(filters.from, 0).toISOString());
  if (filters.to) query.set("until", midnight(filters.to, 1).toISOString());
  if (cursor) query.set("cursor", cursor);
  return query.toString();
}

/** The beginning of a day, or of a later one, in the time that the page shows.
 * @param {string} day @param {number} later */
function midnight(day, later) {
  const [year, month, date] = day.split("-").map(Number);
  return inUtc() ? new Date(Date.UTC(year, month - 1, date + later)) : new Date(year, month - 1, date + later);
}

/** Whether a session is of those that the filters ask for.
 * @param {Filters} filters @param {Record<string, any>} session */
export function matches(filters, session) {
  const started = new Date(session.started_at);
  return (!filters.status || session.status === filters.status)
    && (!filters.source || (session.source || "live") === filters.source)
    && (!filters.from || started >= midnight(filters.from, 0))
    && (!filters.to || started < midnight(filters.to, 1));
}

/**
 * The fields of the filters; `show` sets them.
 * @param {(filters: Filters) => void} changed
 */
export function filterFields(changed) {
  const status = choice("Status", STATUSES), source = choice("Source", SOURCES);
  const from = h("input", { type: "date" }), to = h("input", { type: "date" });
  const clear = h("button", { class: "button quiet", type: "button" }, icon("cross"), "Clear");
  const read = () => ({ status: status.field.value, source: source.field.value, from: from.value, to: to.value });
  for (const field of [status.field, source.field, from, to]) field.addEventListener("change", () => changed(read()));
  clear.addEventListener("click", () => (changed({ ...NONE }), status.field.focus()));
  return {
    elements: [status.label, source.label, labelled("From", from), labelled("To", to), clear],
    /** @param {Filters} filters */
    show(filters) {
      Object.assign(status.field, { value: filters.status });
      Object.assign(source.field, { value: filters.source });
      // A day that is being typed must not be taken away.
      if (document.activeElement !== from) from.value = filters.from;
      if (document.activeElement !== to) to.value = filters.to;
      set(clear, { hidden: !hasFilters(filters) });
    },
  };
}

/** @param {string} name @param {HTMLElement} field */
const labelled = (name, field) => h("label", { class: "field" }, name, field);

/** @param {string} name @param {string[][]} options */
function choice(name, options) {
  const field = h("select", null, options.map(([value, word]) => h("option", { value }, word)));
  return { field, label: labelled(name, field) };
}
