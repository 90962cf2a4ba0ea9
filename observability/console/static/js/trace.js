// One trace as a tree of spans over time.

import { api, sentence } from "./api.js";
import { $, h, put, svg } from "./dom.js";
import { clock, ms } from "./format.js";

const DEEPEST = 12; // indented no further; the level is still said

export class TraceView {
  #id = "";

  async show(id) {
    this.#id = id;
    $("view-trace").hidden = false;
    document.title = `Trace ${id.slice(0, 8)} - Tracegate console`;
    put($("trace-id"), id);
    put($("trace-note"), "");
    $("spans").replaceChildren();
    this.#say("Loading");
    try {
      const trace = await api.trace(id);
      if (id === this.#id) this.#draw(trace);
    } catch (err) {
      if (id === this.#id) this.#say(sentence(err.message));
    }
  }

  hide() {
    this.#id = "";
    $("view-trace").hidden = true;
  }

  changed() {}

  #say(text) {
    put($("trace-empty"), text);
    $("trace-empty").hidden = text === "";
  }

  #draw({ start, spans }) {
    this.#say("");
    const end = Math.max(...spans.map((s) => s.start + s.duration), 0.001);
    const services = new Set(spans.map((s) => s.service)).size;
    put($("trace-note"), `${clock(start)}, ${ms(end)}, ${spans.length} spans of ${services} services`);
    $("spans").replaceChildren(...spans.flatMap((s) => row(s, end)));
  }
}

function row(s, end) {
  const bad = s.status === "Error";
  const attributes = Object.entries(s.attributes ?? {}).sort(([a], [b]) => a.localeCompare(b));
  const detail = h("tr", { role: "row", class: "attributes", hidden: true }, h("td", { role: "cell", colspan: 5 },
    h("dl", { class: "facts" }, [["status", s.status_text ? `${s.status}: ${s.status_text}` : s.status], ["kind", s.kind], ["span id", s.span_id], ...attributes].map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, v || "–"))))));
  const toggle = h("button", { type: "button", class: "span-name", "aria-expanded": "false", onclick: () => {
    detail.hidden = !detail.hidden;
    toggle.setAttribute("aria-expanded", String(!detail.hidden));
  } }, h("span", { class: "service" }, s.service), " ", h("span", {}, s.name), bad && h("span", { class: "badge", "data-state": "isolated" }, "Error"), h("span", { class: "visually-hidden" }, ` level ${s.depth + 1}`));
  const name = h("th", { scope: "row", role: "rowheader" }, toggle);
  name.style.paddingLeft = `${8 + 16 * Math.min(s.depth, DEEPEST)}px`;
  const cell = (label, cls, ...children) => h("td", { role: "cell", "data-label": label, class: cls }, ...children);
  return [h("tr", { role: "row" }, name, cell("Pool", "", s.pool ? h("span", { class: "pool", "data-pool": s.pool }, s.pool) : "–"), cell("Start", "num", ms(s.start)), cell("Took", "num", ms(s.duration)), cell("", "lane", bar(s, end, bad))), detail];
}

function bar(s, end, bad) {
  const x = (100 * s.start) / end;
  const width = Math.max(0.6, (100 * s.duration) / end);
  return svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true", class: "bar" },
    svg("rect", { class: "rail", x: 0, y: 4.5, width: 100, height: 1 }), svg("rect", { class: bad ? "bad" : "good", x: Math.min(x, 100 - width), y: 1, width, height: 8, rx: 0.5 }));
}
