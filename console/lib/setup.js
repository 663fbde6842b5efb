// What a recording is made with: the microphone, its processing, the model, the language, and what is stored.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { microphones } from "./microphone.js";

const REMEMBERED = "dalston.live";
const PROCESSING = { echoCancellation: "Cancel echo", noiseSuppression: "Suppress noise", autoGainControl: "Adjust the level" };
/** Noise suppression is made for ears: speech recognition understands the plain sound better. */
const DEFAULTS = {
  deviceId: "", echoCancellation: false, noiseSuppression: false, autoGainControl: true,
  model: "", language: "", vocabulary: "", store_audio: true, store_transcript: true, enhance_on_end: false,
};
const languages = new Intl.DisplayNames(["en"], { type: "language" });

/** @returns {typeof DEFAULTS} */
function remembered() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(REMEMBERED) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

/** The form. Its choices last from visit to visit. */
export class Setup {
  #choices = remembered();
  /** @type {{name: string, languages?: string[]}[]} */
  #models = [];
  #device = this.#select("deviceId");
  #model = this.#select("model");
  #language = this.#select("language");
  #enhance = this.#check("enhance_on_end", "Transcribe it again afterwards");
  /** Called with the id of another device. @type {(id: string) => void} */
  ondevice = () => {};

  constructor() {
    const terms = h("input", { type: "text", value: this.#choices.vocabulary, autocomplete: "off", placeholder: "Dashwood, Norland Park", onchange: () => this.#choose({ vocabulary: terms.value }) });
    const store = h("fieldset", null, h("legend", null, "Store"),
      this.#check("store_audio", "Audio"), this.#check("store_transcript", "Transcript"), this.#enhance,
      h("p", { class: "hint" }, "What is not stored is gone when the page is closed."));
    this.afterwards = h("fieldset", { class: "plain" },
      this.#field("Model", this.#model), this.#field("Language", this.#language),
      this.#field("Names and terms to expect", terms), store,
      h("details", null, h("summary", null, "Processing of the sound"),
        Object.entries(PROCESSING).map(([name, title]) => this.#check(/** @type {any} */ (name), title)),
        h("p", { class: "hint" }, "For headphones and a quiet room all of it may be off.")));
    this.element = h("form", { class: "card padded setup", aria: { label: "Settings of the recording" }, onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
      this.#field("Microphone", this.#device), this.afterwards);
    this.#show();
  }

  /** @param {string} title @param {HTMLElement} control */
  #field(title, control) {
    return h("label", { class: "field" }, title, control);
  }

  /** @param {"deviceId" | "model" | "language"} name */
  #select(name) {
    const select = h("select", { onchange: () => {
      this.#choose({ [name]: select.value });
      if (name === "deviceId") this.ondevice(select.value);
    } });
    return select;
  }

  /** @param {keyof typeof DEFAULTS} name @param {string} title */
  #check(name, title) {
    const box = h("input", { type: "checkbox", name, checked: this.#choices[name], onchange: () => this.#choose({ [name]: box.checked }) });
    return h("label", { class: "check" }, box, title);
  }

  /** @param {Partial<typeof DEFAULTS>} change */
  #choose(change) {
    Object.assign(this.#choices, change);
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(this.#choices));
    } catch {
      // Private windows may refuse storage: the choices last as long as the page.
    }
    this.#show();
  }

  #show() {
    const { model } = this.#choices;
    const enhance = /** @type {HTMLInputElement} */ (this.#enhance.querySelector("input"));
    enhance.disabled = !this.#choices.store_audio;
    this.#options(this.#model, [["", "fast (default)"], ...this.#models.filter(({ name }) => name !== "fast").map(({ name }) => [name, name])], model);
    const codes = (this.#models.find(({ name }) => name === (model || "fast")) ?? this.#models[0])?.languages ?? [];
    const named = codes.map((code) => [code, languages.of(code) ?? code]).sort((a, b) => a[1].localeCompare(b[1]));
    this.#options(this.#language, [["", "Detect it"], ...named], this.#choices.language);
  }

  /** @param {HTMLElement & Record<string, any>} select @param {string[][]} options @param {string} value */
  #options(select, options, value) {
    if (select.childElementCount !== options.length) fill(select, options.map(([key, title]) => h("option", { value: key }, title)));
    select.value = value;
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  }

  async readModels() {
    this.#models = (await get("/v1/realtime/models")).models ?? [];
    this.#show();
  }

  /** Lists the microphones, which have names once the page may use one. */
  async readDevices() {
    const found = (await microphones().catch(() => [])).filter(({ deviceId }) => deviceId !== "default" && deviceId !== "");
    fill(this.#device, h("option", { value: "" }, "The system's default"), found.map(({ deviceId, label }, index) => h("option", { value: deviceId }, label || `Microphone ${index + 1}`)));
    const isThere = found.some(({ deviceId }) => deviceId === this.#choices.deviceId);
    this.#device.value = isThere ? this.#choices.deviceId : "";
  }

  /** While a recording runs only the microphone can be changed. @param {boolean} isRecording */
  lock(isRecording) {
    /** @type {any} */ (this.afterwards).disabled = isRecording;
  }

  /** @returns {import("./microphone.js").Choice} */
  get microphone() {
    const { echoCancellation, noiseSuppression, autoGainControl } = this.#choices;
    return { deviceId: this.#device.value, echoCancellation, noiseSuppression, autoGainControl };
  }

  /** Parameters of the WebSocket; empty and false ones are left out. */
  get options() {
    const { store_audio, store_transcript, enhance_on_end, vocabulary } = this.#choices;
    const terms = vocabulary.split(",").map((term) => term.trim()).filter(Boolean);
    return {
      model: this.#model.value, language: this.#language.value, store_audio, store_transcript,
      enhance_on_end: enhance_on_end && store_audio, vocabulary: terms.length ? JSON.stringify(terms) : "",
    };
  }
}
