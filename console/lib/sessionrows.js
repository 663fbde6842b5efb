// The table of sessions: rows that stay the same elements while their session changes.

import { fill, h, icon, keyed, set } from "./dom.js";
import { enhancementChip, hrefOf, length, shortId, statusChip, storedSigns } from "./session.js";
import { ago, counted, fullTime, shortTime, spoken } from "./time.js";

/** @typedef {import("./session.js").Session} Session */

const COLUMNS = ["Status", "Started", "Length", "Words", "Language", "Model", "Stored", "Enhancement"];
const GHOSTS = 8;
const NUMBERS = new Set(["Length", "Words"]);

/**
 * @param {{
 *   mayDelete: boolean,
 *   isTicked: (id: string) => boolean,
 *   tick: (id: string, ticked: boolean, range: boolean) => void,
 *   tickAll: (ticked: boolean) => void,
 *   remove: (session: Session) => void,
 * }} to
 */
export function sessionTable(to) {
  const all = h("input", { type: "checkbox", aria: { label: "Tick all sessions of this page" }, onchange: () => to.tickAll(all.checked) });
  const heads = COLUMNS.map((name) => h("th", { scope: "col", class: NUMBERS.has(name) ? "right" : null }, name));
  const head = h("tr", null, to.mayDelete && h("th", { class: "tick", scope: "col" }, all), heads,
    h("th", { scope: "col" }, h("span", { class: "unseen" }, "Actions")));
  const body = h("tbody");
  const table = h("table", { class: "table sessions" }, h("caption", { class: "unseen" }, "Sessions, newest first"), h("thead", null, head), body);
  return {
    element: table,
    body,
    /** @param {Session[]} sessions */
    show(sessions) {
      set(table, { aria: { busy: null } });
      keyed(body, sessions, (session) => session.id, (session) => makeRow(session, to), (row, session) => updateRow(/** @type {any} */ (row), session, to));
      const ticked = sessions.filter((session) => to.isTicked(session.id)).length;
      all.checked = ticked > 0 && ticked === sessions.length;
      all.indeterminate = ticked > 0 && ticked < sessions.length;
    },
    /** Rows without text, until the first answer. */
    showGhosts() {
      set(table, { aria: { busy: "true" } });
      const cells = COLUMNS.length + 1 + Number(to.mayDelete);
      fill(body, Array.from({ length: GHOSTS }, () => h("tr", null, Array.from({ length: cells }, () => h("td", null, h("span", { class: "ghost" }))))));
    },
    /** @param {string} id */
    row: (id) => /** @type {HTMLElement | null} */ (body.querySelector(`[data-key="${CSS.escape(id)}"]`)),
  };
}

/** @param {Session} session @param {Parameters<typeof sessionTable>[0]} to */
function makeRow(session, to) {
  const cells = COLUMNS.map((name) => h("td", { data: { label: name }, class: NUMBERS.has(name) ? "right number" : null }));
  const tick = h("input", { type: "checkbox", onclick: (/** @type {MouseEvent} */ event) => to.tick(session.id, tick.checked, event.shiftKey) });
  const remove = h("button", { class: "button quiet danger square remove", type: "button", onclick: () => to.remove(row.session) }, icon("trash"));
  const row = h("tr", null, to.mayDelete && h("td", { class: "tick" }, tick), cells, h("td", { class: "act" }, to.mayDelete && remove));
  Object.assign(row, { cells_: cells, tick_: tick, remove_: remove });
  return row;
}

/**
 * Changes only what differs: a session that grows every second must not disturb its row.
 * @param {HTMLElement & Record<string, any>} row
 * @param {Session} session
 * @param {Parameters<typeof sessionTable>[0]} to
 */
function updateRow(row, session, to) {
  const isTicked = to.isTicked(session.id);
  row.tick_.checked = isTicked;
  row.classList.toggle("ticked", isTicked);
  const started = `${shortTime(session.started_at)}`;
  if (row.session === session && row.shown_ === started) return;
  row.session = session;
  row.shown_ = started;
  const name = `session of ${started}`;
  set(row.tick_, { aria: { label: `Tick the ${name}` } });
  set(row.remove_, { aria: { label: `Delete the ${name}` }, title: "Delete" });
  const [status, time, long, words, language, model, stored, enhancement] = row.cells_;
  change(status, session.status, () => statusChip(session));
  change(time, started, () => link(session, started));
  change(long, length(session), () => h("span", { title: spoken(session.audio_duration_seconds) }, length(session)));
  change(words, String(session.word_count), () => session.word_count.toLocaleString("en"));
  change(language, session.language, () => session.language || "–");
  change(model, session.model, () => session.model || "–");
  change(stored, [session.store_audio, session.store_transcript, session.audio_url, session.transcript_url, session.status].join(), () => storedSigns(session));
  change(enhancement, [session.enhancement_status, session.enhancement_progress].join(), () => enhancementChip(session) ?? h("span", { class: "soft" }, "–"));
}

/** @param {HTMLElement} cell @param {string} value @param {() => any} make */
function change(cell, value, make) {
  if (cell.dataset.value === value) return;
  cell.dataset.value = value;
  fill(cell, make());
}

/** @param {Session} session @param {string} started */
function link(session, started) {
  const chained = session.previous_session_id || session.next_session_id;
  const time = h("time", { datetime: session.started_at, title: `${fullTime(session.started_at)}, ${ago(session.started_at)}` }, started);
  return [
    h("a", { class: "open", href: hrefOf(session.id) }, time),
    h("span", { class: "under" },
      h("span", { class: "mono", title: session.id }, shortId(session.id)),
      session.source === "upload" && h("span", { title: "A file, not a stream" }, icon("upload"), "file"),
      chained && h("span", { title: "Part of a chain of sessions, which make one recording" }, icon("chain"), "part of a chain")),
  ];
}

/** What goes with sessions, as a sentence for the dialog.
 * @param {Session[]} sessions */
export function whatGoes(sessions) {
  const audio = sessions.filter((each) => each.store_audio).length, text = sessions.filter((each) => each.store_transcript).length;
  if (!audio && !text) return "Nothing but the record goes: no audio and no transcript is stored.";
  if (sessions.length === 1) return `Its record goes, with its ${[audio && "audio", text && "transcript"].filter(Boolean).join(" and its ")}.`;
  return `Their records go, with ${[audio && counted(audio, "recording"), text && counted(text, "transcript")].filter(Boolean).join(" and ")}.`;
}
