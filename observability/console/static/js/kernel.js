// The kernel probes: what is slow and why, and how well each probe works at what cost.

import { $, h, list, put } from "./dom.js";
import { ago, brief, clock, count, percent, rate, span } from "./format.js";

const FEW = 8; // rows before "Show all"

const KINDS = {
  connect: "Connecting", accept: "Being accepted", wakeup: "CPU, after waking", preempted: "CPU, after preemption", goroutine_wait: "Thread, for a goroutine",
  stopped: "Go, world stopped", marking: "Go, garbage marked", gc_pause: "Go, garbage collector", connect_failed: "Connects failed", retransmit: "Segments sent again", drop: "Packets dropped",
};
const STATES = { on: "On", degraded: "Degraded", off: "Off" };
const words = (name) => KINDS[name] ?? plain(name);
const plain = (name) => name.replaceAll("_", " ");
const identity = ({ owner }) => [owner.service, owner.pool, owner.name];

// A cell is a text, or [text, tone, what stands below it]. Widths are those on a phone;
// figures says from which column on there are figures.
const TABLES = [
  {
    list: "latencies", title: "Waiting", left: "are left out, none of them slower",
    columns: ["Who", "For", "Target", "Count", "P50", "P95", "P99"], widths: ["", "half", "half", "fourth", "fourth", "fourth", "fourth"], figures: 3,
    key: (l) => [l.kind, ...identity(l), l.target],
    head: (l) => who(l.owner),
    cells: (l) => [words(l.kind), l.target || "–", count(l.count), brief(l.p50_seconds), over(l), brief(l.p99_seconds)],
  },
  {
    list: "queues", title: "Accept queues", left: "are left out, none of them fuller",
    columns: ["Who", "Listens on", "Waiting", "Room for", "Dropped"], widths: ["", "half", "half", "half", "half"], figures: 2,
    key: (q) => [q.listen, ...identity(q)],
    head: (q) => who(q.owner),
    cells: (q) => [q.listen, [count(q.length), q.limit > 0 && q.length > q.limit && "bad", q.limit > 0 && q.length > q.limit && "full"], count(q.limit), [count(q.drops), q.drops > 0 && "warn"]],
  },
  {
    list: "counters", title: "Lost and repeated", left: "are left out, none of them more frequent",
    columns: ["Who", "What", "Target", "Reason", "Count"], widths: ["", "half", "half", "half", "half"], figures: 4,
    key: (c) => [c.kind, ...identity(c), c.target, c.reason],
    head: (c) => who(c.owner),
    cells: (c) => [words(c.kind), c.target || "–", c.reason ? plain(c.reason) : "–", count(c.count)],
  },
  {
    list: "probes", title: "Probes", left: "are left out",
    columns: ["Probe", "State", "Core", "Events/s", "Per event", "Sampling", "Lost"], figures: 2,
    key: (p) => [p.probe],
    head: (p) => [h("strong", {}, p.probe), h("span", { class: "identity why" })],
    cells: (p) => (p.state === "off" ? [state(p), "–", "–", "–", "–", "–"] : [state(p), `${p.cost_estimated ? "~" : ""}${percent(p.core_share, 1)}`, rate(p.events_per_second), p.event_cost_seconds ? brief(p.event_cost_seconds) : "–", p.sampling > 1 ? [`1 in ${p.sampling}`, "warn"] : "all", lost(p)]),
    update: (el, p, k) => put(el.querySelector(".why"), p.why && p.why !== k.why ? p.why : ""),
  },
];

function who({ service, pool, name }) {
  if (service && pool) return h("span", { class: "owner" }, h("span", { class: "pool", "data-pool": pool }, pool), h("span", { class: "muted" }, service));
  return h("span", { class: "owner" }, h("strong", {}, service || name || "The machine"), service && name && name !== service && h("span", { class: "muted" }, name));
}

const over = (l) => (l.threshold_seconds > 0 && l.p95_seconds > l.threshold_seconds ? [brief(l.p95_seconds), "bad", `over ${brief(l.threshold_seconds).replace(" ", "\u00a0")}`] : brief(l.p95_seconds));
const state = (p) => [STATES[p.state] ?? p.state, { on: "good", degraded: "warn" }[p.state]];

function lost(p) {
  const reasons = Object.entries(p.lost ?? {}).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
  const sum = reasons.reduce((total, [, n]) => total + n, 0);
  return sum === 0 ? "0" : [count(sum), "warn", reasons.map(([reason, n]) => (reasons.length > 1 ? `${count(n)} ${plain(reason)}` : plain(reason))).join(", ")];
}

export class Kernel {
  #kernel;
  #all = new Set(); // the tables that are shown whole
  #parts = new Map();

  constructor() {
    for (const table of TABLES) this.#parts.set(table, this.#table(table));
    $("kernel-tables").append(...[...this.#parts.values()].map((p) => p.block));
  }

  /** show draws a state; undefined hides the panel, as where there are no probes. */
  show(kernel) {
    this.#kernel = kernel;
    $("kernel").hidden = !kernel;
    if (!kernel) return;
    this.clock();
    this.#status();
    this.#findings();
    for (const table of TABLES) this.#fill(table);
    list($("kernel-unread"), keyed(kernel.problems.rows.map((text) => ({ text })), (p) => [p.text]), (p) => p.key, (p) => h("li", {}, `Not read: ${p.text}`));
  }

  clock() {
    const k = this.#kernel;
    if (!k) return;
    const probes = k.probes.rows;
    const on = probes.filter((p) => p.state !== "off");
    const share = on.reduce((sum, p) => sum + p.core_share, 0);
    const facts = k.at ? [`${on.length} of ${probes.length} probes`, on.length > 0 && `${percent(share, 1)} of a core`, `${count(k.watched)} ${k.watched === 1 ? "process" : "processes"}`, k.window_seconds > 0 && `last ${span(Math.round(k.window_seconds) * 1000)}`, `read ${ago(k.at)}`] : [];
    put($("kernel-note"), facts.filter(Boolean).join(" · "));
    for (const el of $("kernel-findings").querySelectorAll("time")) put(el, `for ${span(Math.max(1, Math.round((Date.now() - new Date(el.dateTime)) / 1000)) * 1000)}`);
  }

  #status() {
    const { state, why, since } = this.#kernel;
    const text = state === "silent" ? `No answer from the probes since ${clock(since)}.` : since ? `Probes are not running: no answer since ${clock(since)}.` : `Probes are not running: ${why}.`;
    $("kernel-status").hidden = state === "running";
    put($("kernel-said"), state === "running" ? "" : text);
    put($("kernel-error"), since ? why : "");
  }

  #findings() {
    const { state, at, findings } = this.#kernel;
    // An alert's text changes with each reading: its line stays.
    const rows = keyed(findings.rows, (f) => [...identity(f), f.since ?? f.text]);
    list($("kernel-findings"), rows, (f) => f.key,
      (f) => h("li", {}, h("span", { class: "badge", "data-state": f.since ? "isolated" : "pinned" }, f.since ? "Alert" : "Cause"), who(f.owner), h("span", { class: "text" }), f.since && h("time", { datetime: f.since, title: `since ${clock(f.since)}` })),
      (el, f) => put(el.querySelector(".text"), f.text));
    this.clock();
    const alerts = rows.filter((f) => f.since).length;
    put($("kernel-findings-note"), rows.length ? `${alerts} of ${rows.length} over a threshold${findings.left_out ? `, ${count(findings.left_out)} more are left out` : ""}` : "");
    $("kernel-why").hidden = !at || (state !== "running" && rows.length === 0); // off is no all-clear
    $("kernel-fine").hidden = rows.length > 0;
  }

  #table(table) {
    const id = `kernel-${table.list}`;
    const body = h("tbody", { role: "rowgroup", id });
    const left = h("span", { class: "muted" });
    const more = h("button", { type: "button", "aria-controls": id, onclick: () => {
      if (!this.#all.delete(table)) this.#all.add(table);
      this.#fill(table);
    } });
    const foot = h("div", { class: "more" }, more, left);
    const block = h("div", { class: "block", hidden: true }, h("h3", { id: `${id}-title` }, table.title),
      h("table", { class: "cards", role: "table", "aria-labelledby": `${id}-title` }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, table.columns.map((name, i) => h("th", { scope: "col", role: "columnheader", class: i >= table.figures ? "num" : "" }, name)))), body), foot);
    return { block, body, left, more, foot };
  }

  #fill(table) {
    const { rows, left_out: out } = this.#kernel[table.list];
    const { block, body, left, more, foot } = this.#parts.get(table);
    const all = this.#all.has(table);
    block.hidden = rows.length === 0;
    list(body, keyed(all ? rows : rows.slice(0, FEW), table.key), (row) => row.key, (row) => create(table, row), (el, row) => update(table, el, row, this.#kernel));
    put(more, all ? "Show fewer" : `Show all ${rows.length}`);
    more.setAttribute("aria-expanded", String(all));
    more.setAttribute("aria-label", `${more.textContent}: ${table.title}`);
    more.hidden = rows.length <= FEW;
    put(left, out ? `${count(out)} more ${table.left}.` : "");
    foot.hidden = more.hidden && !out;
  }
}

// keyed gives each row a key of its own, also where two are the same.
function keyed(rows, parts) {
  const seen = new Map();
  return rows.map((row) => {
    const key = parts(row).join("|");
    seen.set(key, (seen.get(key) ?? 0) + 1);
    return { ...row, key: `${key}|${seen.get(key)}` };
  });
}

function create(table, row) {
  const cells = table.columns.slice(1).map((name, i) => h("td", { role: "cell", "data-label": name, class: `${i + 1 >= table.figures ? "num" : ""} ${table.widths?.[i + 1] ?? ""}` }, h("span"), h("span", { class: "below" })));
  return h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, table.head(row)), cells);
}

function update(table, el, row, kernel) {
  table.cells(row).forEach((cell, i) => {
    const [text, tone, below] = Array.isArray(cell) ? cell : [cell];
    const td = el.children[i + 1];
    put(td.firstElementChild, text);
    put(td.lastElementChild, below || "");
    td.dataset.tone = tone || "";
    td.toggleAttribute("data-empty", text === "–");
  });
  table.update?.(el, row, kernel);
}
