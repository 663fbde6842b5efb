// Where files are dropped or chosen, and the list of those on their way.

import { get } from "./api.js";
import { fill, h, icon, keyed } from "./dom.js";
import { language } from "./job-words.js";
import { announce } from "./page.js";
import { counted } from "./time.js";
import { fieldsOf, Uploads } from "./upload.js";

/** Of the languages of the models, as far as a browser cannot be told them: the API lists models without languages. */
const LANGUAGES = "ar bg ca cs da de el en es et fa fi fr gl he hi hr hu id is it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv sw ta th tl tr uk ur vi zh".split(" ");

/** `4.2 MB`. @param {number} bytes */
export function size(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  let at = 0;
  for (; bytes >= 1000 && at < 3; at += 1) bytes /= 1000;
  return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

/** One line about a file on its way.
 * @param {import("./upload.js").Sending} each */
export function words(each) {
  const total = each.file.size;
  switch (each.state) {
    case "waiting": return `Waiting: ${size(total)}`;
    case "sending": {
      if (each.sent >= 1) return "Sent, the service checks it";
      const seconds = each.rate > 0 ? (total * (1 - each.sent)) / each.rate : 0;
      return `${size(total * each.sent)} of ${size(total)}${seconds > 1 ? `, ${counted(Math.ceil(seconds), "second")} left` : ""}`;
    }
    case "pausing": return `${each.message} It is sent again in ${Math.max(1, Math.ceil((each.until - Date.now()) / 1000))} s.`;
    case "sent": return "It is queued.";
    default: return each.message;
  }
}

/**
 * Builds both.
 * @param {(job: any, file: File) => void} queued called once a file has its job
 * @returns {{zone: HTMLElement, list: HTMLElement, choose: () => void}}
 */
export function dropZone(queued) {
  const input = h("input", { type: "file", multiple: true, hidden: true, accept: "audio/*,video/*,.amr,.caf,.mkv,.opus", onchange: () => (take(input.files), (input.value = "")) });
  const spoken = h("select", { id: "language" }, h("option", { value: "" }, "Detect it"), LANGUAGES.map((code) => /** @type {[string, string]} */ ([language(code), code])).sort(([a], [b]) => a.localeCompare(b)).map(([name, code]) => h("option", { value: code }, name)));
  const model = h("select", { id: "model" }, h("option", { value: "" }, "The most accurate"));
  const terms = h("input", { id: "terms", autocomplete: "off", placeholder: "Norland, Dashwood", aria: { describedby: "terms-hint" } });
  const keep = h("input", { type: "checkbox", checked: true });
  const choose = () => input.click();
  const zone = h("section", { class: "drop", aria: { label: "Upload" } }, icon("upload"),
    h("div", null, h("h2", null, "Drop audio or video files anywhere on this page"), h("p", { class: "soft small" }, "A batch job transcribes each, and it becomes a session. FLAC, MP3, M4A, MP4, OGG, Opus, WAV, WebM and others; the service limits the size, usually to 512 MiB.")),
    h("button", { class: "button primary", type: "button", onclick: choose }, "Choose files"), input,
    h("details", null, h("summary", null, icon("right"), "Language, model and words for the next files"), h("div", { class: "options" },
      h("div", { class: "field" }, h("label", { for: "language" }, "Language that is spoken"), spoken),
      h("div", { class: "field" }, h("label", { for: "model" }, "Model"), model),
      h("div", { class: "field" }, h("label", { for: "terms" }, "Names and terms that are likely to be spoken"), terms, h("span", { class: "hint", id: "terms-hint" }, "Separated by commas, at most 100.")),
      h("label", { class: "check" }, keep, h("span", null, "Keep the recording and its transcript. ", h("span", { class: "soft" }, "Otherwise they are deleted after a day."))))));
  const list = h("ul", { class: "card sending", hidden: true, aria: { label: "Files on their way" } });
  const uploads = new Uploads(changed);

  /** @param {FileList | null} files */
  function take(files) {
    if (!files?.length) return;
    const options = { model: model.value, language: spoken.value, terms: terms.value, keep: keep.checked };
    announce(`${counted(files.length, "file")} on the way.`);
    uploads.add([...files], fieldsOf(options));
  }

  /** @param {import("./upload.js").Sending} sending */
  function changed(sending) {
    if (sending.state === "sent" && uploads.all.includes(sending)) {
      uploads.all = uploads.all.filter((each) => each !== sending);
      announce(`${sending.file.name} is queued.`);
      queued(sending.job, sending.file);
    }
    draw();
  }

  function draw() {
    list.hidden = uploads.all.length === 0;
    keyed(list, uploads.all, (each) => each.id, make, update);
  }

  /** @param {import("./upload.js").Sending} each */
  function make(each) {
    return h("li", null, h("div", null, h("b", null, each.file.name), h("div", { class: "small soft words number" })), h("div", { class: "actions" },
      h("button", { class: "button quiet again", type: "button", onclick: () => uploads.again(each) }, "Send again"),
      h("button", { class: "button quiet danger", type: "button", aria: { label: `Remove ${each.file.name}` }, onclick: () => uploads.remove(each) }, "Remove")),
    h("progress", { class: "bar", max: 1, aria: { label: `Sending ${each.file.name}` } }));
  }

  /** @param {Element} element @param {import("./upload.js").Sending} each */
  function update(element, each) {
    element.classList.toggle("failed", each.state === "failed");
    const line = /** @type {HTMLElement} */ (element.querySelector(".words"));
    if (each.state === "failed" && line.textContent !== each.message) announce(`${each.file.name}: ${each.message}`);
    fill(line, words(each));
    /** @type {HTMLElement} */ (element.querySelector(".again")).hidden = each.state !== "failed";
    const bar = /** @type {HTMLProgressElement} */ (element.querySelector("progress"));
    bar.value = each.sent;
    bar.hidden = each.state === "failed";
  }

  listenForFiles(zone, take);
  addEventListener("beforeunload", (event) => uploads.isBusy && event.preventDefault());
  setInterval(() => uploads.all.some((each) => each.state === "pausing") && draw(), 1000);
  get("/v1/models", { retries: 1 }).then(({ data }) => {
    const own = data.map((/** @type {any} */ each) => each.id).filter((/** @type {string} */ name) => ["accurate", "fast"].includes(name) || !/^(whisper-1|gpt-|scribe_|nova)/.test(name));
    model.append(...own.map((/** @type {string} */ name) => h("option", { value: name }, name)));
  }).catch(() => {
    // The service's own choice remains.
  });
  return { zone, list, choose };
}

/** The whole page takes files. @param {HTMLElement} zone @param {(files: FileList | null) => void} take */
function listenForFiles(zone, take) {
  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    zone.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && zone.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer?.files ?? null);
  });
}
