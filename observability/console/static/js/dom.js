// Small helpers over the DOM. Text goes in as text nodes only, never as markup.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** h makes an element: h("button", { class: "quiet", onclick: f }, "Text"). */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** svg makes an SVG element. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(el, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else el.setAttribute(key, value === true ? "" : value);
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return el;
}

/** put sets text only where it differs, so that selections and live regions are left alone. */
export function put(el, text) {
  if (el.textContent !== String(text)) el.textContent = text;
}

/**
 * list keeps one element an item: make(item) when its key is new, update(element,
 * item) each time. Elements that stay are not touched otherwise, so that focus, open
 * details and text selections survive a refresh.
 */
export function list(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((el) => [el.dataset.key, el]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let el = known.get(k);
    known.delete(k);
    if (!el) {
      el = make(item);
      el.dataset.key = k;
    }
    update?.(el, item);
    if (el === at) at = at.nextElementSibling;
    else parent.insertBefore(el, at);
  }
  for (const el of known.values()) el.remove();
}

let toastTimer = 0;

export function toast(text) {
  put($("toast"), text);
  $("toast").dataset.shown = "true";
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => delete $("toast").dataset.shown, 3_000);
}
