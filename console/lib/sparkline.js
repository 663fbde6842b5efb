// Small lines of what a figure was while the page was open.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 200;
const HEIGHT = 36;
/** As many samples are kept: half an hour at one in five seconds. */
const KEPT = 360;
/** Samples further apart have a gap between them: the page was hidden, or nothing answered. */
const GAP_MS = 20_000;
/** A line begins with at least this width, so that the first samples are no cliff. */
const LEAST_MS = 60_000;

/** @typedef {{at: number, value: number | null}} Sample */

/** @param {Sample[]} samples @param {Sample} fresh */
export function kept(samples, fresh) {
  return [...samples, fresh].slice(-KEPT);
}

/**
 * The `d` of the line and of the area below it, in a box of 200 by 36.
 * @param {Sample[]} samples
 * @param {number} top the value at the upper edge, unless a sample is higher
 */
export function paths(samples, top) {
  const end = samples.at(-1)?.at ?? 0;
  const begin = Math.min(samples[0]?.at ?? 0, end - LEAST_MS);
  const high = Math.max(top, ...samples.map((each) => each.value ?? 0)) || 1;
  const x = (/** @type {Sample} */ each) => ((each.at - begin) / (end - begin)) * WIDTH;
  const y = (/** @type {Sample} */ each) => HEIGHT - 2 - (Number(each.value) / high) * (HEIGHT - 4);
  /** @type {Sample[][]} */
  const runs = [];
  let before = -Infinity;
  for (const each of samples) {
    if (each.value === null) continue;
    if (each.at - before > GAP_MS) runs.push([]);
    runs.at(-1)?.push(each);
    before = each.at;
  }
  const point = (/** @type {Sample} */ each) => `${x(each).toFixed(1)} ${y(each).toFixed(1)}`;
  const line = runs.map((run) => `M${run.map(point).join("L")}${run.length === 1 ? "h.1" : ""}`).join("");
  const area = runs.map((run) => `M${x(run[0]).toFixed(1)} ${HEIGHT}L${run.map(point).join("L")}V${HEIGHT}z`).join("");
  return { line, area };
}

/** A drawing that `draw` updates; it says nothing to screen readers, for whom its figure has a sentence. */
export function sparkline() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

/** @param {SVGSVGElement} svg @param {Sample[]} samples @param {number} top */
export function draw(svg, samples, top) {
  const { line, area } = paths(samples, top);
  svg.children[0].setAttribute("d", area);
  svg.children[1].setAttribute("d", line);
}

/**
 * What the line shows, in words.
 * @param {Sample[]} samples
 * @param {(value: number) => string} say
 */
export function range(samples, say) {
  const values = samples.flatMap((each) => (each.value === null ? [] : [each.value]));
  if (values.length < 2) return "";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const minutes = Math.max(1, Math.round((samples[samples.length - 1].at - samples[0].at) / 60_000));
  return `${low === high ? `Always ${say(low)}` : `${say(low)} to ${say(high)}`} in the last ${minutes === 1 ? "minute" : `${minutes} minutes`}.`;
}
