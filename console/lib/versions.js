// The versions of a transcript, and the jobs that make them.

import { asProblem, get, send } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { announce, complain, dialog, problemNote, toast } from "./page.js";
import { clock, counted, shortTime, spoken } from "./time.js";

/** @typedef {Record<string, any>} Version as ListTranscripts answers */

const KINDS = { live: "Live", enhanced: "Enhanced", upload: "Upload" };
const STEPS = {
  turn: "waits for its turn", worker: "waits: no worker is running", retry: "waits to be tried again", capacity: "waits until live sessions leave room",
  listening: "listens for speech", transcribing: "transcribes", storing: "stores the transcript",
};

/** @param {Version} version */
export const nameOf = (version) => `Version ${version.version}, ${(KINDS[/** @type {keyof typeof KINDS} */ (version.kind)] ?? version.kind).toLowerCase()}`;

/**
 * The list of versions.
 * @param {{path: string, id: string, mayWrite: boolean, choose: (version: number) => void, changed: () => void}} to
 */
export function versionList({ path, id, mayWrite, choose, changed }) {
  const list = h("ol", { class: "versions" });
  const act = async (/** @type {() => Promise<any>} */ call, /** @type {string} */ done) => {
    try {
      await call();
      toast(done);
      changed();
    } catch (error) {
      complain(error);
    }
  };
  const remove = async (/** @type {Version} */ version) => {
    const answer = await dialog(`Delete version ${version.version}?`,
      [h("p", null, `Its ${counted(version.word_count, "word")} are deleted for good. ${version.is_current ? "The newest accepted version before it becomes the current one. " : ""}The audio and the other versions stay.`)],
      [h("button", { class: "button" }, "Keep it"), h("button", { class: "button danger", value: "delete" }, "Delete")]);
    if (answer === "delete") await act(() => send("DELETE", `${path}/transcripts/${version.version}`), `Version ${version.version} is deleted.`);
  };
  return {
    element: list,
    /** @param {Version[]} versions @param {number} shown the number of the one that is read */
    show(versions, shown) {
      const other = (/** @type {Version} */ version) => versions.find((each) => each.is_current && each !== version) ?? versions.find((each) => each !== version);
      fill(list, versions.map((version) => {
        const number = version.version;
        const compared = other(version);
        return h("li", { class: number === shown ? "shown" : null },
          h("button", { class: "choice", type: "button", aria: { current: number === shown ? "true" : null }, onclick: () => choose(number) },
            h("b", null, nameOf(version)), h("span", { class: "soft small" }, [version.model, version.language, counted(version.word_count, "word"), shortTime(version.created_at), version.linked && "of the joined recording"].filter(Boolean).join(" · "))),
          h("div", { class: "row" },
            version.is_current && h("span", { class: "chip good" }, icon("check", "sign"), "Current"),
            version.verdict === "doubtful" && h("span", { class: "chip warn" }, icon("warn", "sign"), "Doubtful")),
          version.verdict_reason && h("p", { class: "small" }, `Doubtful: ${version.verdict_reason}.`),
          h("div", { class: "row acts" },
            compared && h("a", { class: "button quiet", href: `compare.html?id=${id}&a=${compared.version}&b=${number}` }, "Compare"),
            mayWrite && !version.is_current && h("button", { class: "button quiet", type: "button", onclick: () => act(() => send("POST", `${path}/transcripts/${number}/current`, {}), `Version ${number} is the current one now.`) }, "Make current"),
            mayWrite && number > 1 && h("button", { class: "button quiet danger square", type: "button", aria: { label: `Delete version ${number}` }, title: "Delete this version", onclick: () => remove(version) }, icon("trash"))));
      }));
    },
  };
}

/**
 * The newest batch job of a session, from its record.
 * @param {{path: string, mayWrite: boolean, changed: () => void}} to
 */
export function enhancement({ path, mayWrite, changed }) {
  const element = h("section", { class: "card padded", hidden: true, aria: { label: "Enhancement" } });
  const bar = /** @type {HTMLElement & {value: number}} */ (h("progress", { max: 1, aria: { label: "Progress" } }));
  const state = h("p", { class: "small" });
  const acts = h("div", { class: "row acts" });
  element.append(h("h2", null, "Enhancement"), state, bar, acts);
  /** @type {Version | null} */
  let job = null;
  let shown = "";
  const act = async (/** @type {"POST" | "DELETE"} */ method, /** @type {string} */ way) => {
    try {
      await send(method, way, method === "POST" ? {} : undefined);
      changed();
    } catch (error) {
      complain(error);
    }
  };
  return {
    element,
    /** @param {Record<string, any>} session */
    async show(session) {
      const { enhancement_job_id: id, enhancement_status: status, enhancement_step: step, enhancement_progress: progress = 0 } = session;
      element.hidden = !id;
      if (!id) return;
      const isRunning = status === "queued" || status === "running";
      const key = `${id} ${status}`;
      if (key !== shown) {
        if (shown.startsWith(id)) announce(`Enhancement: ${status}`);
        shown = key;
        job = await get(`${path}/enhancement`).catch(() => null);
      }
      bar.hidden = !isRunning;
      bar.value = progress;
      const does = STEPS[/** @type {keyof typeof STEPS} */ (step)] ?? step ?? "";
      const left = status === "running" && job?.eta_seconds ? `, about ${spoken(job.eta_seconds)} left` : "";
      fill(state, isRunning ? `${status === "queued" ? "Queued" : "Running"}: it ${does}${status === "running" ? ` (${Math.round(progress * 100)} %${left})` : ""}.` : ending(status, job));
      fill(acts,
        mayWrite && isRunning && h("button", { class: "button", type: "button", onclick: () => act("DELETE", `/v1/jobs/${id}`) }, "Cancel"),
        mayWrite && (status === "failed" || status === "canceled") && h("button", { class: "button", type: "button", onclick: () => act("POST", `/v1/jobs/${id}/retry`) }, "Try again"));
    },
  };
}

/** @param {string} status @param {Version | null} job */
function ending(status, job) {
  if (status === "completed") return job?.version ? `Completed: it made version ${job.version}${job.verdict === "doubtful" ? ", which is doubtful" : ""}.` : "Completed.";
  if (status === "canceled") return job?.error_code === "continued" ? "Canceled: a later session continues this one, and its job transcribes both." : "Canceled. What it had transcribed is removed; the live transcript stays.";
  return `Failed: ${job?.error ?? "the job's record says why"}. The live transcript stays.`;
}

/**
 * Asks how the recording is to be transcribed again, and creates the job.
 * @param {string} path of the session
 * @param {Record<string, any>} session
 * @returns {Promise<boolean>} whether there is a job now
 */
export async function enhance(path, session) {
  const models = await get("/v1/models", { retries: 0 }).then((page) => page.data.map((/** @type {any} */ each) => each.id), () => ["accurate"]);
  const options = (/** @type {string} */ id, /** @type {string[]} */ values) => h("datalist", { id }, values.map((value) => h("option", { value })));
  const model = h("input", { list: "models", value: "accurate", autocomplete: "off", required: true });
  const language = h("input", { list: "languages", value: session.language || "auto", autocomplete: "off", maxlength: 16 });
  const vocabulary = h("input", { autocomplete: "off", placeholder: "Norland, Dashwood" });
  const linked = h("input", { type: "checkbox", checked: true });
  const fault = h("div");
  const content = [
    h("p", { class: "soft" }, `The stored audio (${clock(session.audio_duration_seconds)}) is transcribed again, now that all of it is known. The result becomes a new version; the live one stays.`),
    h("div", { class: "stack form" }, fault,
      h("label", { class: "field" }, "Model", model, options("models", models)),
      h("label", { class: "field" }, h("span", null, "Language ", h("span", { class: "hint" }, "a code such as en, or auto")), language, options("languages", ["auto", "en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "uk", "zh", "ja"])),
      h("label", { class: "field" }, h("span", null, "Vocabulary ", h("span", { class: "hint" }, "names and terms, with commas between them")), vocabulary),
      session.previous_session_id && h("label", { class: "check" }, linked, "All of the joined recording")),
  ];
  while ((await dialog("Enhance the transcript", content, [h("button", { class: "button primary", value: "start" }, "Enhance"), h("button", { class: "button" }, "Cancel")])) === "start") {
    const words = vocabulary.value.split(",").map((/** @type {string} */ each) => each.trim()).filter(Boolean);
    try {
      await send("POST", `${path}/enhance`, { model: model.value.trim(), language: language.value.trim(), vocabulary: words, ...(session.previous_session_id ? { linked: linked.checked } : {}) });
      return true;
    } catch (error) {
      fill(fault, problemNote(asProblem(error)));
    }
  }
  return false;
}
