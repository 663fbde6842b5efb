// The level of the last seconds as bars, the newest on the right.

const [BAR, GAP] = [3, 3];
const FLOOR_DB = 42;
const QUIET = 0.004;
const CLIPPED = 0.995;
/** Each clipped chunk counts as three, each other one takes one away. */
const LOUD = 15;
/** Chunks of a tenth of a second without sound before the page says so. */
const SILENT_CHUNKS = 60;

/** A height from 0 to 1 for an amplitude: 42 decibels. @param {number} peak */
const height = (peak) => Math.max(0, Math.min(1, 1 + (20 * Math.log10(Math.max(peak, 1e-6))) / FLOOR_DB));

export class Meter {
  /** @type {number[]} */
  #levels = [];
  #quiet = 0;
  #loud = 0;

  /** @param {HTMLCanvasElement} canvas its colour is that of the bars */
  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {number} peak from 0 to 1, of a tenth of a second */
  push(peak) {
    this.#levels.push(height(peak));
    if (this.#levels.length > 400) this.#levels.splice(0, 100);
    this.#quiet = peak < QUIET ? this.#quiet + 1 : 0;
    this.#loud = peak > CLIPPED ? Math.min(2 * LOUD, this.#loud + 3) : Math.max(0, this.#loud - 1);
    this.canvas.setAttribute("aria-valuenow", String(Math.round(100 * height(peak))));
    this.draw();
  }

  /** What is wrong with the level, in words. */
  get hint() {
    if (this.#quiet >= SILENT_CHUNKS) return "No sound arrives. Is the microphone muted, or is it another one?";
    return this.#loud >= LOUD ? "Too loud: move away from the microphone, or turn it down." : "";
  }

  clear() {
    this.#levels = [];
    this.#quiet = this.#loud = 0;
    this.canvas.setAttribute("aria-valuenow", "0");
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio;
    const [wide, high] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.clearRect(0, 0, wide, high);
    pen.fillStyle = getComputedStyle(canvas).color;
    const step = (BAR + GAP) * ratio;
    for (let index = 0, x = wide - BAR * ratio; x > -step; index += 1, x -= step) {
      const level = this.#levels[this.#levels.length - 1 - index] ?? 0;
      const size = Math.max(BAR * ratio, level * high);
      pen.globalAlpha = level > 0 ? 1 : 0.25;
      pen.beginPath();
      pen.roundRect(x, (high - size) / 2, BAR * ratio, size, (BAR * ratio) / 2);
      pen.fill();
    }
  }
}
