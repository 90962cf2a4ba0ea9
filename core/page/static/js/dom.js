// Small helpers over the DOM. Text goes in as text nodes only, never as markup.

export const $ = (id) => document.getElementById(id);

/** h makes an element: h("button", { type: "button", class: "quiet", onclick: f }, "Text"). */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else if (key.startsWith("data-") || key.startsWith("aria-") || key === "class" || key === "role") el.setAttribute(key, value);
    else el[key] = value;
  }
  el.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return el;
}

/** arrange makes children the list, in order, moving only what is not in its place. */
export function arrange(parent, children) {
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
}

/** put sets text only where it differs, so that live regions speak of changes alone. */
export function put(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

/** copy puts text on the clipboard and says whether it could. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no permission, or a page served without TLS from another machine
  }
}

let toastTimer = 0;

export function toast(text) {
  const el = $("toast");
  // A dialog lies above everything that is not in it.
  const above = document.querySelector("dialog:modal") ?? document.body;
  if (el.parentElement !== above) above.append(el);
  el.textContent = text;
  el.dataset.shown = "true";
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => delete el.dataset.shown, 2_500);
}
