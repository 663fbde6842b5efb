// What a batch job does, waits for or has come to, in words.

import { counted } from "./time.js";

/** @typedef {Record<string, any>} Job the message `Job` */

/** @param {Job} job */
export const hasEnded = (job) => !["queued", "running"].includes(job.status);

/** Class, icon and word of a job's chip.
 * @param {Job} job @returns {[string, string, string]} */
export function sign(job) {
  if (job.cancel_requested && !hasEnded(job)) return ["", "cross", "Canceling"];
  switch (job.status) {
    case "queued": return ["", "clock", "Queued"];
    case "running": return ["live", "dot", "Running"];
    case "completed": return job.verdict === "doubtful" ? ["warn", "warn", "Doubtful"] : ["good", "check", "Completed"];
    case "failed": return ["bad", "cross", "Failed"];
    case "canceled": return ["", "cross", "Canceled"];
    default: return ["", "dot", job.status];
  }
}

/** `about 5 s left`, `about 3 min left`.
 * @param {number} seconds */
export function left(seconds) {
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${Math.round(seconds / 3600)} h left`;
}

const ERRORS = {
  undecodable: "The file could not be decoded: it is damaged, or of a format that the service does not take.",
  unsupported_media: "The file is not audio or video of a format that the service takes.",
  audio_damaged: "The stored audio is damaged.",
  no_speech: "Nobody speaks in it.",
  invalid_model: "The server does not have this model any more.",
  file_too_big: "The audio in the file is longer than the service takes.",
};

/** @param {string} text */
const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1).replace(/\.?$/, ".") : "");

/** What a job does, waits for or has come to: one line.
 * @param {Job} job @returns {string} */
export function story(job) {
  switch (job.status) {
    case "queued": return waiting(job);
    case "running": return running(job);
    case "completed":
      if (job.verdict === "doubtful") return `Version ${job.version} is stored, and is not the current one: ${job.verdict_reason || "it differs much from the live one"}.`;
      return job.version === undefined ? "The transcript is stored." : `Version ${job.version} of the transcript is stored.`;
    case "failed": {
      const reason = ERRORS[job.error_code] ?? (sentence(job.error) || "It failed; the worker's log has the reason.");
      return job.attempts > 1 ? `${reason} It was tried ${job.attempts} times.` : reason;
    }
    case "canceled": return job.error_code === "continued" ? "Another session continues this one, and its job transcribes both." : "What it had transcribed is removed.";
    default: return "";
  }
}

/** @param {Job} job */
function waiting(job) {
  switch (job.step) {
    case "worker": return "No worker is running. It begins as soon as one does.";
    case "retry": return `Attempt ${job.attempts} failed, and another one follows.`;
    case "capacity": return "Live sessions need the machine. It begins when they leave room.";
    default: return job.queue_position ? `${counted(job.queue_position, "job")} ${job.queue_position === 1 ? "is" : "are"} before it.` : "It is the next.";
  }
}

/** @param {Job} job */
function running(job) {
  switch (job.step) {
    case "listening": return "Language and speech are detected.";
    case "storing": return "The transcript is being stored.";
    case "capacity": return "It pauses, because live sessions need the machine.";
    default: return job.eta_seconds === undefined ? "Transcribing." : `Transcribing, ${left(job.eta_seconds)}.`;
  }
}

/** The name of a job: its file, or what it does.
 * @param {Job} job */
export function title(job) {
  if (job.file_name) return job.file_name;
  if (job.kind === "upload") return "Uploaded file";
  return job.linked ? "Enhancement of a joined recording" : "Enhancement of a recording";
}

/** `auto` or a code, as the name of a language.
 * @param {string} code */
export function language(code) {
  if (!code || code === "auto") return "Any language";
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}
