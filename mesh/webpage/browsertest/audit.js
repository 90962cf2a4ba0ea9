// What can be checked by computing, without a library: names, contrast, structure and
// targets (WCAG 2.2: 1.1.1, 1.3.1, 1.4.3, 1.4.11 of borders excepted, 2.4.6, 2.5.8, 4.1.1, 4.1.2).
// It gives a list of findings in words; none is good.
(() => {
  const findings = [];
  const say = (el, text) => findings.push(`${el.tagName.toLowerCase()}${el.id ? `#${el.id}` : ""}${el.className && typeof el.className === "string" ? `.${el.className.split(" ").join(".")}` : ""}: ${text}`);
  const all = [...document.querySelectorAll("body *")];
  const shown = (el) => el.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !el.closest("[aria-hidden=true]");
  const clipped = (el) => el.closest(".visually-hidden, .skip");

  if (!document.documentElement.lang) findings.push("html: no lang");
  if (!document.title) findings.push("html: no title");
  if (!document.querySelector('meta[name="viewport"]') || /user-scalable=no|maximum-scale/.test(document.querySelector('meta[name="viewport"]').content)) findings.push("html: zoom is kept from the user");

  const ids = new Map();
  for (const el of all) if (el.id) ids.has(el.id) ? say(el, "id used twice") : ids.set(el.id, el);
  for (const el of all)
    for (const attribute of ["aria-labelledby", "aria-describedby", "aria-controls", "for"])
      for (const id of (el.getAttribute(attribute) ?? "").split(" ").filter(Boolean)) if (!ids.has(id)) say(el, `${attribute} names ${id}, which is not there`);

  const text = (el) => [...el.childNodes].map((n) => (n.nodeType === 3 ? n.data : n.nodeType === 1 && n.getAttribute("aria-hidden") !== "true" ? n.getAttribute("aria-label") ?? n.getAttribute("alt") ?? text(n) : "")).join(" ").trim();
  const byID = (el, attribute) => (el.getAttribute(attribute) ?? "").split(" ").map((id) => ids.get(id)?.textContent ?? "").join(" ").trim();
  const name = (el) => byID(el, "aria-labelledby") || el.getAttribute("aria-label") || (el.labels?.length ? [...el.labels].map(text).join(" ") : "") || text(el) || el.getAttribute("title") || "";
  const controls = all.filter((el) => el.matches("a[href], button, input, select, textarea, summary, [role=button], [role=switch], [role=link], [tabindex]") && shown(el));
  for (const el of controls) {
    if (!name(el)) say(el, "a control without a name");
    if (el.matches("input, select, textarea") && !el.labels?.length && !el.getAttribute("aria-label") && !el.getAttribute("aria-labelledby")) say(el, "a field without a label (a placeholder is none)");
    if (el.tabIndex > 0) say(el, "a positive tabindex changes the order");
    const box = el.getBoundingClientRect();
    const inline = el.matches("a") && getComputedStyle(el).display === "inline";
    if (!clipped(el) && !inline && !el.disabled && (box.width < 24 || box.height < 24)) say(el, `a target of ${box.width.toFixed(0)}x${box.height.toFixed(0)}, 24x24 is the least`);
  }
  for (const el of document.querySelectorAll("img")) if (!el.hasAttribute("alt")) say(el, "no alt");
  for (const el of document.querySelectorAll("svg")) if (shown(el) && !el.getAttribute("aria-hidden") && !name(el)) say(el, "neither hidden nor named");
  for (const el of document.querySelectorAll("table")) if (shown(el) && !el.caption && !name(el)) say(el, "a table without a name");
  for (const el of document.querySelectorAll("th")) if (shown(el) && !el.scope) say(el, "no scope");

  if ([...document.querySelectorAll("h1")].filter(shown).length !== 1) findings.push("html: not exactly one visible h1");
  let level = 0;
  for (const el of document.querySelectorAll("h1, h2, h3, h4")) {
    if (!shown(el) || el.closest("dialog") || el.closest("aside")) continue;
    const n = Number(el.tagName[1]);
    if (level && n > level + 1) say(el, `heading of level ${n} after level ${level}`);
    level = n;
  }
  if ([...document.querySelectorAll("main")].filter(shown).length !== 1) findings.push("html: not exactly one visible main");
  if (document.documentElement.scrollWidth > innerWidth) findings.push(`html: ${document.documentElement.scrollWidth} pixels wide on a screen of ${innerWidth}`);

  // Contrast: the color as painted, over the opaque colors behind it. A canvas turns
  // any CSS color into bytes.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const bytes = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const backdrop = (el) => {
    const layers = [];
    for (let e = el; e; e = e.parentElement) {
      const color = bytes(getComputedStyle(e).backgroundColor);
      if (color[3] > 0) layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), bytes("Canvas"));
  };
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => sum + w * (c[i] / 255 <= 0.04045 ? c[i] / 255 / 12.92 : ((c[i] / 255 + 0.055) / 1.055) ** 2.4), 0);
  const seen = new Set();
  for (const el of all) {
    const own = [...el.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !shown(el) || clipped(el) || el.closest(":disabled") || el.closest("svg")) continue;
    const style = getComputedStyle(el);
    let opacity = 1;
    for (let e = el; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    const back = backdrop(el);
    const front = bytes(style.color);
    front[3] *= opacity;
    const [x, y] = [luminance(over(front, back)), luminance(back)].sort((p, q) => q - p);
    const ratio = (x + 0.05) / (y + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio >= (large ? 3 : 4.5)) continue;
    const text = `contrast ${ratio.toFixed(2)} of "${el.textContent.trim().slice(0, 30)}"`;
    if (!seen.has(text)) say(el, text);
    seen.add(text);
  }
  return findings;
})()
