// Elements without markup: text becomes text nodes and nothing else, so nothing that a stranger said can become an element.

/** @typedef {Node | string | number | null | undefined | false} Child */

const SVG = "http://www.w3.org/2000/svg";
/** Attributes that are states of an element rather than its markup. */
const PROPERTIES = new Set(["value", "checked", "indeterminate", "disabled", "hidden", "open", "muted", "selected"]);

/**
 * Makes an element. `onclick` and the like are functions, `data` and `aria` are objects, and null or false leaves an
 * attribute out.
 * @param {string} tag
 * @param {Record<string, any> | null} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement & Record<string, any>}
 */
export function h(tag, attributes = null, ...children) {
  const element = document.createElement(tag);
  set(element, attributes ?? {});
  element.append(...nodes(children));
  return element;
}

/**
 * Sets attributes as `h` does.
 * @param {Element & Record<string, any>} element
 * @param {Record<string, any>} attributes
 */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, each] of Object.entries(value)) attribute(element, `aria-${key}`, each);
    else if (PROPERTIES.has(name)) element[name] = value;
    else attribute(element, name, value === true ? "" : value === false ? null : value);
  }
}

function attribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/**
 * Replaces what an element has, and leaves a text alone that is the same: a selection in it stays.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  const fresh = nodes(children);
  const isSameText = fresh.length === 1 && fresh[0].nodeType === 3 && element.childNodes.length === 1
    && element.firstChild.nodeType === 3 && element.firstChild.data === fresh[0].data;
  if (!isSameText) element.replaceChildren(...fresh);
}

/**
 * Makes the children of `parent` those of `items`, in their order. An element stays the same one as long as its item's key
 * does, so that focus, selection and ticks stay with it, and only elements at the wrong place are moved.
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => Element} make
 * @param {(element: Element, item: T) => void} update
 */
export function keyed(parent, items, key, make, update) {
  const old = new Map();
  for (const child of [...parent.children]) {
    const name = /** @type {any} */ (child).dataset.key;
    // What is no item, such as a row that stood for one until it was read.
    if (name === undefined) child.remove();
    else old.set(name, child);
  }
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = old.get(name);
    old.delete(name);
    if (element === undefined) {
      element = make(item);
      /** @type {any} */ (element).dataset.key = name;
    }
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const element of old.values()) element.remove();
}

/**
 * An icon of `PATHS`; it says nothing to screen readers, so a word stands beside it.
 * @param {keyof typeof PATHS} name
 * @param {string} [more] further classes
 */
export function icon(name, more = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${more}`.trim());
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

export const PATHS = {
  sessions: "M2 4h12M2 8h12M2 12h8",
  live: "M8 1.8a2.2 2.2 0 0 1 2.2 2.2v4a2.2 2.2 0 0 1-4.4 0V4A2.2 2.2 0 0 1 8 1.800M3.500 7.500a4.500 4.500 0 0 0 9 0M8 12v2.300",
  jobs: "M8 1.500 14 4.800v6.400L8 14.500 2 11.200V4.800zM2 4.800l6 3.300 6-3.300M8 8.100v6.400",
  keys: "M10.300 9.700a3.700 3.700 0 1 0-3.500-2.500L2 12v2h2.500v-1.500H6V11h1.500l1-1.600q.8.3 1.800.3M11 5h.01",
  status: "M1.500 8h3l2-5 3 10 2-5h3",
  scheme: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  help: "M5.800 6a2.200 2.200 0 1 1 3.200 2c-.7.4-1 .8-1 1.600M8 12h.01M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13",
  exit: "M6 14H3V2h3M10 11l3-3-3-3M13 8H6",
  check: "M3 8.500 6.500 12 13 4.500",
  dot: "M8 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M8 6.500v3M6.500 8h3",
  cut: "M2 8h4M10 8h4M7 4l2 8",
  cross: "M4 4l8 8M12 4l-8 8",
  warn: "M8 2 14.500 13.500h-13zM8 6.500v3M8 11.700h.01",
  info: "M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13M8 7.500v3.700M8 4.800h.01",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  play: "M5 3l8 5-8 5z",
  clock: "M8 4.500V8l2.500 1.500M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13",
  trash: "M2.500 4h11M6 4V2.500h4V4M4 4l.7 9.500h6.600L12 4M6.700 7v4M9.300 7v4",
  chain: "M6.500 9.500l3-3M7.500 4.500l1-1a2.800 2.800 0 0 1 4 4l-1 1M8.500 11.500l-1 1a2.800 2.800 0 0 1-4-4l1-1",
  audio: "M2 6.500v3M5 4v8M8 2v12M11 5v6M14 6.500v3",
  volume: "M2.500 6v4H5l3.500 3V3L5 6zM11 5.500a3.500 3.500 0 0 1 0 5M13 3.500a6.400 6.400 0 0 1 0 9",
  text: "M3 3.500h10M8 3.500v9.500M6 13h4",
  spark: "M8 1.500l1.500 5 5 1.500-5 1.500-1.500 5-1.500-5-5-1.500 5-1.500z",
  left: "M10 3 5 8l5 5",
  right: "M6 3l5 5-5 5",
  copy: "M5.500 5.500h8v8h-8zM10.500 5.500v-3h-8v8h3",
  download: "M8 2v8M4.500 7 8 10.500 11.500 7M2.500 13.500h11",
  upload: "M8 10.500V2M4.500 5.500 8 2l3.500 3.500M2.500 13.500h11",
  plus: "M8 3v10M3 8h10",
  search: "M7 2.500a4.500 4.500 0 1 0 0 9 4.500 4.500 0 0 0 0-9M10.300 10.300l3.200 3.200",
};
