// Times and lengths for people. The clock is the server's: that of a client may be wrong by hours.

let offset = 0;

/** Learns the server's clock from the `date` header of a response.
 * @param {Response} response */
export function learnClock(response) {
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header has whole seconds: half of one is its mean error.
  if (!Number.isNaN(date)) offset = date + 500 - Date.now();
}

/** Now, by the server's clock, in milliseconds. */
export const now = () => Date.now() + offset;

/** `0:07`, `12:03`, `1:02:03`.
 * @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** `1 hour 2 minutes 3 seconds`, to be heard rather than seen.
 * @param {number} seconds */
export function spoken(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[Math.floor(whole / 3600), "hour"], [Math.floor(whole / 60) % 60, "minute"], [whole % 60, "second"]];
  const said = parts.filter(([count]) => count).map(([count, unit]) => counted(Number(count), String(unit)));
  return said.join(" ") || "0 seconds";
}

/** `1 session`, `1,204 sessions`.
 * @param {number} count
 * @param {string} unit */
export const counted = (count, unit) => `${count.toLocaleString("en")} ${unit}${count === 1 ? "" : "s"}`;

/** Whether times are shown in UTC rather than in the time of the browser. */
export function inUtc() {
  try {
    return localStorage.getItem("dalston.utc") === "true";
  } catch {
    return false;
  }
}

/** @param {boolean} utc */
export function useUtc(utc) {
  try {
    localStorage.setItem("dalston.utc", String(utc));
  } catch {
    // Private windows may refuse storage: the choice lasts as long as the page.
  }
}

/**
 * `30 Nov, 14:03`, with the year where it is another one.
 * @param {string | number | Date} time
 * @param {boolean} [utc]
 */
export function shortTime(time, utc = inUtc()) {
  const date = new Date(time);
  const year = date.getFullYear() === new Date(now()).getFullYear() ? undefined : "numeric";
  return new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit", timeZone: utc ? "UTC" : undefined,
  }).format(date);
}

/** The same to the second, with its zone.
 * @param {string | number | Date} time
 * @param {boolean} [utc] */
export function fullTime(time, utc = inUtc()) {
  return new Intl.DateTimeFormat("en-GB", {
    dateStyle: "full", timeStyle: "long", timeZone: utc ? "UTC" : undefined,
  }).format(new Date(time));
}

/** `just now`, `12 seconds ago`, `3 hours ago`, by the server's clock.
 * @param {string | number | Date} time */
export function ago(time) {
  const seconds = (now() - new Date(time).getTime()) / 1000;
  if (seconds < 5) return "just now";
  const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([each]) => seconds >= Number(each)) ?? [1, "second"];
  return `${counted(Math.floor(seconds / Number(size)), String(unit))} ago`;
}
