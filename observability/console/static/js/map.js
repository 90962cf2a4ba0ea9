// The service map: who calls whom, as a drawing and as a table that says the same. Parts
// are buttons in layers, so text, focus and wrapping are the browser's; lines are drawn
// between them. On a phone the layers stand below each other.

import { $, h, list, put, svg } from "./dom.js";
import { count, ms, percent, rate } from "./format.js";
import { STATES } from "./states.js";

const KINDS = { edge: "Edge", service: "Service", queue: "Queue", database: "Database", outside: "Outside" };
const VERBS = { serve: "sends requests to", command: "sends socket commands to", call: "calls", query: "queries", publish: "publishes to", receive: "is received by", process: "is processed by" };
const FEW = 12; // rows before "Show all"
const SPOTS = [0.5, 0.38, 0.62, 0.28, 0.72]; // of a line, where its label may stand

const tone = (l) => (l.errors === 0 ? "" : l.errors / l.requests >= 0.05 ? "bad" : "warn");
const poolName = (pool) => pool || "no upstream";

export class ServiceMap {
  #map;
  #groups = [];
  #chosen = ""; // a part whose lines alone are shown
  #table = false;
  #all = false;

  constructor() {
    for (const [id, table] of [["map-as-map", false], ["map-as-table", true]]) $(id).addEventListener("click", () => this.#switch(table));
    $("map-more").addEventListener("click", () => {
      this.#all = !this.#all;
      this.#rows();
    });
    $("map").addEventListener("keydown", (event) => event.key === "Escape" && this.#choose(""));
    new ResizeObserver(() => this.#lines()).observe($("map-drawing"));
    this.#switch(false);
  }

  /** show draws the newest map; groups say what their pools are in. */
  show(map, groups) {
    this.#map = map;
    this.#groups = groups ?? [];
    if (map && !map.parts.some((p) => p.id === this.#chosen)) this.#chosen = "";
    this.#draw();
  }

  #switch(table) {
    this.#table = table;
    $("map-as-map").setAttribute("aria-pressed", String(!table));
    $("map-as-table").setAttribute("aria-pressed", String(table));
    this.#draw();
  }

  #choose(id) {
    this.#chosen = this.#chosen === id ? "" : id;
    this.#draw();
  }

  #draw() {
    const m = this.#map;
    const some = Boolean(m?.links.length);
    $("map-empty").hidden = some;
    put($("map-empty"), m ? "Nothing was called in the last seconds." : "Loading");
    $("map-drawing").hidden = !some || this.#table;
    $("map-calls").hidden = !some || !(this.#table || this.#chosen);
    put($("map-note"), m ? `last ${m.seconds} s${m.left_out ? `, ${count(m.left_out)} rarer calls are left out` : ""}` : "");
    if (!some) return;
    this.#parts();
    this.#lines();
    this.#rows();
  }

  #parts() {
    const layers = new Map();
    for (const p of this.#map.parts) layers.set(p.depth, [...(layers.get(p.depth) ?? []), p]);
    list($("map-parts"), [...layers].map(([depth, parts]) => ({ depth, parts })), (l) => String(l.depth), () => h("div", { class: "layer" }),
      (el, l) => list(el, l.parts, (p) => p.id, (p) => this.#part(p), (part, p) => this.#fill(part, p)));
  }

  #part(p) {
    return h("button", { type: "button", class: "part", "data-kind": p.kind, onclick: () => this.#choose(p.id) },
      h("span", { class: "kind" }, p.system || KINDS[p.kind]), h("strong", {}, p.name), h("span", { class: "part-pools" }));
  }

  #fill(el, p) {
    el.setAttribute("aria-pressed", String(p.id === this.#chosen));
    list(el.lastElementChild, p.kind === "service" ? p.pools : [], (pool) => `pool ${pool}`,
      (pool) => h("span", { class: "part-pool" }, h("span", { class: "pool", "data-pool": pool }, poolName(pool)), h("span", { class: "badge" })),
      (row, pool) => {
        const [text, state] = stateOf(pool, this.#groups);
        row.dataset.state = state;
        put(row.lastElementChild, text);
        row.lastElementChild.dataset.state = state;
        row.lastElementChild.hidden = text === "";
      });
  }

  // Lines between parts, one from a part to a pool of another, whoever of its pools calls.
  #lines() {
    const drawing = $("map-drawing");
    if (!this.#map || drawing.hidden || !drawing.offsetParent) return;
    const frame = $("map-parts").getBoundingClientRect();
    const box = (el) => {
      const r = el.getBoundingClientRect();
      return { x: r.x - frame.x, y: r.y - frame.y, w: r.width, h: r.height };
    };
    const parts = new Map([...drawing.querySelectorAll(".part")].map((el) => [el.dataset.key, { el, box: box(el) }]));
    const depth = new Map(this.#map.parts.map((p) => [p.id, p.depth]));
    const stacked = getComputedStyle($("map-parts")).flexDirection === "column";
    const lines = merged(this.#map.links).filter((l) => l.from !== l.to && parts.has(l.from) && parts.has(l.to));
    const ends = new Map(); // lines at each side of a part, to stand apart
    const last = Math.max(...depth.values());
    for (const l of lines) {
      const [a, b] = [depth.get(l.from), depth.get(l.to)];
      const beside = a === b && a < last; // behind the last layer there is no room
      l.start = { part: l.from, far: b > a || beside };
      l.end = { part: l.to, far: b < a || beside, pool: l.toPool };
      for (const [end, other] of [[l.start, l.to], [l.end, l.from]]) {
        const side = `${end.part} ${end.far}`;
        end.toward = stacked ? parts.get(other).box.x : parts.get(other).box.y;
        ends.set(side, [...(ends.get(side) ?? []), end]);
      }
    }
    for (const side of ends.values()) place(side, parts, stacked, box);
    for (const l of lines) l.over = crossings(l, depth, parts, stacked);
    const { w, h: height } = box($("map-parts"));
    const el = $("map-lines");
    el.setAttribute("viewBox", `0 0 ${w} ${height}`);
    el.setAttribute("width", w);
    el.setAttribute("height", height);
    const most = Math.max(...lines.map((l) => l.qps));
    const taken = [...parts.values()].map((p) => p.box);
    const dim = (l) => this.#chosen !== "" && l.from !== this.#chosen && l.to !== this.#chosen;
    const wires = lines.map((l) => svg("g", { class: "link", "data-tone": tone(l), "data-dim": dim(l) }, curve(l, stacked, most)));
    const labels = stacked ? [] : lines.filter((l) => !dim(l)).map((l) => label(l, taken));
    el.replaceChildren(...wires, ...labels.filter(Boolean));
  }

  #rows() {
    const m = this.#map;
    const parts = new Map(m.parts.map((p) => [p.id, p]));
    const links = m.links.filter((l) => this.#chosen === "" || l.from === this.#chosen || l.to === this.#chosen);
    const all = this.#all || links.length <= FEW;
    const cell = (name, cls) => h("td", { role: "cell", "data-label": name, class: cls });
    put($("map-calls-title"), this.#chosen ? `Calls from and to ${parts.get(this.#chosen).name}` : "All calls");
    list($("map-rows"), all ? links : links.slice(0, FEW), (l) => [l.from, l.from_pool, l.verb, l.to, l.to_pool].join("|"),
      (l) => h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, end(parts.get(l.from), l.from_pool), h("span", { class: "verb" }, ` ${VERBS[l.verb] ?? l.verb} `), end(parts.get(l.to), l.to_pool, l.verb === "serve")),
        cell("Requests/s", "num"), cell("P95", "num"), cell("Errors", "num")),
      (el, l) => {
        put(el.children[1], rate(l.qps));
        put(el.children[2], ms(l.p95));
        put(el.children[3], percent(l.errors, l.requests));
        el.children[3].dataset.tone = tone(l);
      });
    $("map-foot").hidden = links.length <= FEW;
    put($("map-more"), all ? "Show fewer" : `Show all ${links.length}`);
    $("map-more").setAttribute("aria-expanded", String(all));
  }
}

const end = (part, pool, always) => h("span", { class: "end" }, h("strong", {}, part.name), (pool || always) && h("span", { class: "pool", "data-pool": pool }, poolName(pool)));

// What groups of a pool are in: the state furthest from home, with how many are.
function stateOf(pool, groups) {
  const away = groups.filter((g) => g.known && g.pool === pool && g.state !== "home");
  const worst = ["isolated", "forced", "limited", "returning", "pinned"].find((s) => away.some((g) => g.state === s)) ?? away[0]?.state ?? "";
  const n = away.filter((g) => g.state === worst).length;
  return [n ? `${n} ${(STATES[worst] ?? worst).toLowerCase()}` : "", worst];
}

/** merged adds links up that end at the same pool; the P95 is that of the slowest. */
function merged(links) {
  const lines = new Map();
  for (const l of links) {
    const back = l.verb === "process" || l.verb === "receive";
    const key = [l.from, l.to, l.to_pool, back].join("|");
    const line = lines.get(key) ?? { from: l.from, to: l.to, toPool: l.to_pool, qps: 0, requests: 0, errors: 0, p95: 0 };
    lines.set(key, Object.assign(line, { qps: line.qps + l.qps, requests: line.requests + l.requests, errors: line.errors + l.errors, p95: Math.max(line.p95, l.p95) }));
  }
  return [...lines.values()];
}

// place gives each end on one side of a part a point: beside its pool, or spread out.
function place(side, parts, stacked, box) {
  side.sort((a, b) => a.toward - b.toward);
  side.forEach((end, i) => {
    const { el, box: b } = parts.get(end.part);
    const pool = !stacked && end.pool !== undefined && [...el.querySelectorAll(".part-pool")].find((p) => p.dataset.key === `pool ${end.pool}`);
    const share = (i + 1) / (side.length + 1);
    if (stacked) [end.x, end.y] = [b.x + b.w * share, end.far ? b.y + b.h : b.y];
    else [end.x, end.y] = [end.far ? b.x + b.w : b.x, b.y + b.h * share];
    if (!pool) return;
    const same = side.filter((e) => e.pool === end.pool);
    const row = box(pool);
    end.y = row.y + (row.h * (same.indexOf(end) + 1)) / (same.length + 1);
  });
}

// The four points of a line, which leaves a part straight and arrives so.
function points({ start, end }, stacked) {
  const far = (e) => (e.far ? 1 : -1);
  const along = stacked ? Math.abs(end.y - start.y) : Math.abs(end.x - start.x);
  const reach = Math.max(start.far && end.far ? 64 : 28, along * 0.42);
  const handle = (e) => (stacked ? [e.x, e.y + far(e) * reach] : [e.x + far(e) * reach, e.y]);
  return [[start.x, start.y], handle(start), handle(end), [end.x, end.y]];
}

/** crossings are where a line that goes back over layers crosses them: each in the gap nearest to its way. */
function crossings(l, depth, parts, stacked) {
  const [a, b] = [depth.get(l.from), depth.get(l.to)];
  const across = (end) => (stacked ? end.x : end.y);
  const over = [];
  for (let d = a - 1; d > b; d--) {
    const layer = [...parts].filter(([id]) => depth.get(id) === d).map(([, { box: r }]) => (stacked ? { from: r.x, to: r.x + r.w, near: r.y, far: r.y + r.h } : { from: r.y, to: r.y + r.h, near: r.x, far: r.x + r.w }));
    layer.sort((p, q) => p.from - q.from);
    const gaps = layer.map((p, i) => (i === 0 ? p.from - 10 : (layer[i - 1].to + p.from) / 2)).concat(layer.at(-1).to + 10);
    const wish = across(l.start) + ((across(l.end) - across(l.start)) * (a - d)) / (a - b);
    const at = gaps.reduce((best, gap) => (Math.abs(gap - wish) < Math.abs(best - wish) ? gap : best));
    over.push({ at, near: Math.min(...layer.map((p) => p.near)), far: Math.max(...layer.map((p) => p.far)) });
  }
  return over;
}

// way leads back over layers: straight where it crosses one, bent between them.
function way(l, from, to, stacked) {
  const spot = (along, across) => (stacked ? [across, along] : [along, across]);
  const stops = [from, ...l.over.flatMap((o) => [spot(o.far, o.at), spot(o.near, o.at)]), to];
  const axis = stacked ? 1 : 0;
  const moved = (p, by) => p.map((v, i) => (i === axis ? v + by : v));
  const bends = [];
  for (let i = 0; i < stops.length; i += 2) {
    const reach = Math.abs(stops[i][axis] - stops[i + 1][axis]) * 0.42;
    bends.push([stops[i], moved(stops[i], -reach), moved(stops[i + 1], reach), stops[i + 1]]);
  }
  l.points = bends[0]; // its label stands there
  return `M${from}${bends.map(([p, q, r, s], i) => `${i ? `L${p}` : ""}C${q} ${r} ${s}`).join("")}`;
}

function curve(l, stacked, most) {
  const [a, b, c, d] = (l.points = points(l, stacked));
  const [dx, dy] = stacked ? [0, l.end.far ? 1 : -1] : [l.end.far ? 1 : -1, 0]; // out of the part
  const tip = [d[0] + dx * 7, d[1] + dy * 7];
  const width = 1.25 + 2.25 * Math.sqrt(l.qps / most);
  return [
    svg("path", { class: "wire", d: l.over.length ? way(l, a, tip, stacked) : `M${a}C${b} ${c} ${tip}`, "stroke-width": width.toFixed(2) }),
    svg("path", { class: "tip", d: `M${d}L${[tip[0] + dy * 4.5 + dx * 2, tip[1] + dx * 4.5 + dy * 2]}L${[tip[0] - dy * 4.5 + dx * 2, tip[1] - dx * 4.5 + dy * 2]}Z` }),
  ];
}

// label stands on its line where nothing else does; else nowhere, the table has it.
function label(l, taken) {
  const text = `${rate(l.qps)}/s · ${ms(l.p95)}${l.errors ? ` · ${percent(l.errors, l.requests)}` : ""}`;
  const w = 6.4 * text.length + 8;
  for (const t of SPOTS) {
    const [x, y] = [0, 1].map((i) => bezier(l.points.map((p) => p[i]), t));
    const b = { x: x - w / 2, y: y - 9, w, h: 18 };
    if (b.x < 0 || taken.some((o) => b.x < o.x + o.w && o.x < b.x + b.w && b.y < o.y + o.h && o.y < b.y + b.h)) continue;
    taken.push(b);
    return svg("g", {}, svg("rect", { class: "behind", x: b.x + 2, y: b.y + 1, width: w - 4, height: 16, rx: 3 }), svg("text", { x, y: y + 4, class: "figure", "data-tone": tone(l) }, text));
  }
  return null;
}

const bezier = ([a, b, c, d], t) => a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t ** 2 * (1 - t) + d * t ** 3;
