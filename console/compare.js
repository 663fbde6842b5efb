// Two versions of a transcript side by side as one text.

import { asProblem, get } from "./lib/api.js";
import { comparedText } from "./lib/compared.js";
import { fill, h, icon } from "./lib/dom.js";
import { announce, frame, problemNote, shortcut } from "./lib/page.js";
import { player } from "./lib/player.js";
import { formatOf, titleOf, withoutAudio } from "./lib/record.js";
import { counted } from "./lib/time.js";
import { nameOf } from "./lib/versions.js";

const query = new URLSearchParams(location.search);
const id = query.get("id") ?? "";
const suffix = query.get("linked") === "true" ? "linked=true" : "";
const path = `/v1/realtime/sessions/${encodeURIComponent(id)}`;
const main = /** @type {HTMLElement} */ (document.querySelector("main"));

/** @type {Record<string, any>} */
let session = {};
/** @type {import("./lib/versions.js").Version[]} */
let versions = [];
/** @type {Map<number, Promise<any>>} the transcripts by version, as they are read */
const transcripts = new Map();
let run = 0;

const sound = player({ onTime: () => {} });
const position = h("span", { class: "number soft", role: "status" });
const text = comparedText({
  play: (from, until) => !sound.element.hidden && sound.play(from, until),
  toggle: () => sound.toggle(),
  moved: (at, count) => fill(position, `${at + 1} of ${count}`),
});
const figures = h("dl", { class: "figures" });
const verdicts = h("div", { class: "stack tight" });
const head = h("div", { class: "head" });
const body = h("section", { class: "card body", aria: { label: "Differences" } });
const [first, second] = [0, 1].map((side) => h("select", { onchange: () => turn(side) }));
const strict = h("input", { type: "checkbox", role: "switch", checked: query.get("strict") === "true", onchange: () => turn(0) });
const only = h("input", { type: "checkbox", role: "switch", onchange: () => text.element.classList.toggle("only", only.checked) });

frame("sessions");
begin();

async function begin() {
  fill(head, h("h1", null, "Compare"));
  fill(main, head, h("div", { class: "card padded stack" }, h("span", { class: "ghost" }), h("span", { class: "ghost" })));
  try {
    const [found, listed] = await Promise.all([get(path), get(`${path}/transcripts`)]);
    session = found;
    versions = suffix ? listed.transcripts.filter((/** @type {any} */ each) => each.linked || each.version === 1) : listed.transcripts;
    build();
    await compare();
  } catch (error) {
    fill(main, head, problemNote(error, asProblem(error).isPassing ? begin : undefined));
  }
}

function build() {
  document.title = `Compare · ${titleOf(session)} · Dalston`;
  const back = `session.html?id=${id}${suffix && `&${suffix}`}`;
  fill(head, h("nav", { class: "crumb", aria: { label: "Where this is" } }, h("a", { href: "./" }, "Sessions"), icon("right"), h("a", { href: back }, titleOf(session)), icon("right"), h("span", { class: "soft" }, "Compare")),
    h("h1", null, "Compare versions"));
  if (versions.length < 2) {
    return fill(main, head, h("div", { class: "card empty" }, icon("text"), h("p", null, "This transcript has one version. Enhance the session to get another one."), h("a", { class: "button primary", href: back }, "To the session")));
  }
  const wanted = [Number(query.get("a")), Number(query.get("b"))];
  const current = versions.find((each) => each.is_current && each.version > 1) ?? versions[versions.length - 1];
  for (const [side, select] of [first, second].entries()) {
    const chosen = versions.find((each) => each.version === wanted[side]) ?? [versions[0], current][side];
    fill(select, versions.map((each) => h("option", { value: each.version, selected: each === chosen }, `${nameOf(each)}${each.is_current ? " (current)" : ""}`)));
  }
  const why = withoutAudio(session);
  sound.element.hidden = Boolean(why);
  if (!why) {
    const at = suffix && `?${suffix}`;
    sound.load({ src: `${path}/audio${at}`, waveform: `${path}/waveform${at}`, duration: session.audio_duration_seconds, kind: formatOf(session), utterances: [] });
  }
  const swap = h("button", { class: "button square", type: "button", aria: { label: "Swap the versions" }, title: "Swap the versions", onclick: () => {
    [first.value, second.value] = [second.value, first.value];
    turn(0);
  } }, "⇄");
  const moves = h("div", { class: "row moves" },
    h("button", { class: "button", type: "button", title: "Previous difference (p)", onclick: text.previous }, icon("left"), "Previous"),
    h("button", { class: "button", type: "button", title: "Next difference (n)", onclick: text.next }, "Next", icon("right")), position);
  // In the player they stay where they can be reached.
  if (!why) sound.element.querySelector(".controls")?.append(moves);
  fill(body, h("div", { class: "row bar" }, why ? moves : h("h2", null, "Differences"),
    h("span", { class: "row wide push" }, h("label", { class: "check" }, strict, "Case and punctuation"), h("label", { class: "check" }, only, "Only differences"))), text.element);
  fill(main, head, h("div", { class: "toolbar" }, h("label", { class: "field" }, "From", first), swap, h("label", { class: "field" }, "To", second)),
    verdicts, figures, sound.element, why && h("div", { class: "note" }, icon("audio"), h("div", null, why)), body);
  shortcut("n", "Next difference", text.next);
  shortcut("p", "Previous difference", text.previous);
  shortcut("k", "Play or pause", sound.toggle);
}

/** Another choice: the two versions stay different ones. @param {number} side the one that was chosen */
function turn(side) {
  if (first.value === second.value) {
    const other = versions.find((each) => String(each.version) !== first.value);
    [first, second][1 - side].value = String(other?.version);
  }
  query.set("a", first.value);
  query.set("b", second.value);
  if (strict.checked) query.set("strict", "true");
  else query.delete("strict");
  history.replaceState(null, "", `?${query}`);
  compare();
}

/** @param {string} version */
function read(version) {
  const number = Number(version);
  if (!transcripts.has(number)) {
    const found = get(`${path}/transcript?${new URLSearchParams(suffix)}${suffix && "&"}version=${number}`);
    found.catch(() => transcripts.delete(number));
    transcripts.set(number, found);
  }
  return transcripts.get(number);
}

async function compare() {
  if (versions.length < 2) return;
  run += 1;
  const mine = run;
  fill(position);
  showVerdicts();
  try {
    const [a, b] = await Promise.all([read(first.value), read(second.value)]);
    if (mine !== run) return;
    sound.speech(b.utterances);
    await text.show(a.utterances, b.utterances, strict.checked ? "text" : "plain", (found, share) => {
      showFigures(found, share);
      if (share === 1) announce(`${counted(found.changes, "difference")}`);
    });
  } catch (error) {
    if (mine === run) fill(text.element, problemNote(error, compare));
  }
}

/** What the comparison of the job said of each. */
function showVerdicts() {
  const chosen = versions.filter((each) => [first.value, second.value].includes(String(each.version)));
  fill(verdicts, chosen.filter((each) => each.verdict === "doubtful").map((each) => h("div", { class: "note warn" }, icon("warn"), h("div", null, h("b", null, `${nameOf(each)}, is doubtful`), each.verdict_reason && `: ${each.verdict_reason}`, "."))));
}

/** @param {import("./lib/compared.js").Figures} found @param {number} share */
function showFigures({ words: [before, after], changes, removed, added }, share) {
  const same = before + after > 0 ? 1 - (removed + added) / (before + after) : 1;
  const figure = (/** @type {string} */ name, /** @type {string} */ value, kind = "") => h("div", { class: `card ${kind}` }, h("dt", null, name), h("dd", { class: "number" }, value));
  fill(figures, figure("Words", `${before.toLocaleString("en")} → ${after.toLocaleString("en")}`), figure("Differences", share < 1 ? `${changes.toLocaleString("en")}…` : changes.toLocaleString("en")),
    figure("Removed words", removed ? `−${removed.toLocaleString("en")}` : "0", removed ? "less" : ""), figure("Added words", added ? `+${added.toLocaleString("en")}` : "0", added ? "more" : ""), figure("The same", share < 1 ? "…" : `${(same * 100).toFixed(1)} %`));
  if (share === 1 && changes === 0) fill(position, "No difference");
}
