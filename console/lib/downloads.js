// The files of a session: links, which say before they are followed whether there is something to save.

import { request } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { complain } from "./page.js";

const TEXTS = { txt: "Plain text", srt: "Captions, SubRip", vtt: "Captions, WebVTT", json: "All of it, with times and confidence" };

/**
 * @param {{path: string, state: () => {linked: boolean, version: number}}} to
 */
export function downloads({ path, state }) {
  const files = h("div", { class: "row files" });
  const element = h("section", { class: "card padded", aria: { labelledby: "files-title" } }, h("h2", { id: "files-title" }, "Downloads"), files);

  /** @param {string} way @param {string} word @param {string} title */
  function link(way, word, title) {
    const anchor = h("a", { class: "button", href: way, download: true, title, onclick: (/** @type {Event} */ event) => check(event, way) }, icon("download"), word);
    return anchor;
  }

  return {
    element,
    /** @param {Record<string, any>} session */
    show(session) {
      const { linked, version } = state();
      const query = (/** @type {boolean} */ hasVersion) => {
        const chosen = new URLSearchParams({ ...(linked ? { linked: "true" } : {}), ...(hasVersion && version ? { version: String(version) } : {}) });
        return String(chosen) && `?${chosen}`;
      };
      const isFile = session.source === "upload";
      fill(files,
        session.audio_url && link(`${path}/audio${query(false)}`, isFile ? "File" : "WAV", isFile ? "The file as it was sent" : "The audio as it was sent"),
        session.transcript_url && Object.entries(TEXTS).map(([name, title]) => link(`${path}/export/${name}${query(true)}`, name.toUpperCase(), title)),
      );
      element.hidden = !files.hasChildNodes();
    },
  };
}

/** A browser saves an error as a file. This asks first, and shows the error instead.
 * @param {Event} event @param {string} way */
async function check(event, way) {
  event.preventDefault();
  try {
    const head = await fetch(way, { method: "HEAD", cache: "no-store" });
    // The answer to HEAD has no body that would say why.
    if (!head.ok) await request(way);
    h("a", { href: way, download: true }).click();
  } catch (error) {
    complain(error);
  }
}
