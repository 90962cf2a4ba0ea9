// Decisions, newest first, each with the figures it was taken on and the times it took.

import { h, list, put } from "./dom.js";
import { ago, clock, count, ms, percent, rate, span } from "./format.js";

const VERBS = { isolate: "Isolated", pin: "Pinned", release: "Released", hold: "Held", prewarm: "Pre-warmed", shed: "Limited", lift: "Limit lifted", rollback: "Rolled back" };
const MODES = { act: "acts", recommend: "asks first", observe: "only observes" };
const ADVICE = { isolate: "Isolate", shed: "Limit", rollback: "Roll back" };

const verb = (d) => (d.action === "release" && d.share > 0 && d.share < 100 ? `Released ${d.share}%` : (VERBS[d.action] ?? d.action));

/** timeline shows decisions; confirm, where there is one, is asked to carry out what one recommends. */
export function timeline(el, decisions, confirm) {
  list(el, decisions, (d) => d.id || `${d.time}${d.group}`, create, (row, d) => update(row, d, confirm));
}

function create(d) {
  return h("li", { class: "decision", "data-action": d.action },
    h("div", { class: "line" }, h("strong", {}, verb(d)), " ", d.group ? h("a", { href: `#/group/${d.group}` }, h("code", {}, d.group)) : "the policy", " ",
      d.group && h("span", { class: "muted" }, `${d.env} · ${d.tenant}`), d.from !== d.to && h("span", { class: "move" }, h("span", { class: "pool", "data-pool": d.from }, d.from), " → ", h("span", { class: "pool", "data-pool": d.to }, d.to)),
      h("time", { datetime: d.time, title: clock(d.time) })),
    h("p", { class: "reason" }),
    d.advice && h("p", { class: "advice" }, h("button", { type: "button" }, `${ADVICE[d.advice] ?? d.advice} it`)),
    h("div", { class: "causes", hidden: true }, h("p", { class: "muted" }, "Suggested by kernel probes and traces"), h("ul")),
    h("details", {}, h("summary", {}, h("span", { class: "how" }), "Record"), h("div", { class: "record" }, figures(d), h("dl", { class: "facts" }))));
}

function update(el, d, confirm) {
  const button = el.querySelector(".advice button");
  if (button) {
    button.hidden = !confirm || document.body.dataset.role === "viewer";
    button.disabled = document.body.dataset.control === "away";
    button.setAttribute("aria-label", `${button.textContent}: group ${d.group}, as recommended`);
    button.onclick = () => confirm(d);
  }
  put(el.querySelector("time"), ago(d.time));
  put(el.querySelector(".reason"), d.reason);
  causes(el.querySelector(".causes"), d.causes ?? [], d.causes_left_out ?? 0);
  put(el.querySelector(".how"), `${by(d)}, ${applied(d)}. `);
  const facts = [
    ["Decided", `${clock(d.time)} by ${d.by}`],
    d.stats && ["Window", `${clock(d.stats.from)} to ${clock(d.stats.to)}`],
    d.first_bad && ["First bad second", `${clock(d.first_bad)}, ${span(new Date(d.time) - new Date(d.first_bad))} before`],
    ["On every edge", d.programmed ? `${clock(d.programmed)}, ${span(new Date(d.programmed) - new Date(d.time))} after` : "not yet"],
    d.version && ["Plan", d.version_before && d.version_before !== d.version ? `${d.version}, before ${d.version_before}` : d.version],
    d.requests > 0 && ["Limit", `${d.requests} requests a second at each edge`],
    d.test && ["Test", `${d.test}, ${chance(d.chance)} by chance`],
    d.limits && ["Held against", d.limits],
    d.full && ["How full pools were", d.full],
    d.mode && ["Policy", MODES[d.mode] ?? d.mode],
    d.confirms && ["Follows", d.confirms],
    d.for > 0 && ["Meant to last", span(d.for)],
    d.room && ["Load to come", d.room],
    d.revision && ["Taken back", d.revision],
    d.outcome && ["Since then", `${d.better ? "objectives kept" : "not better"}: ${d.outcome}`],
    d.undo && ["Undo", d.undo],
    d.id && ["Record", d.id],
  ].filter(Boolean);
  list(el.querySelector("dl"), facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (row, [, value]) => put(row.lastElementChild, value));
}

// What the kernel probes saw in the pool when the decision was taken.
function causes(el, sentences, more) {
  el.hidden = sentences.length === 0;
  const lines = more ? [...sentences, `and ${more} more`] : sentences;
  list(el.lastElementChild, lines.map((text, i) => ({ text, key: String(i) })), (c) => c.key, () => h("li"), (li, c) => put(li, c.text));
}

const chance = (p) => (p < 1e-12 ? "less than once in 10^12" : `once in 10^${Math.max(0, Math.floor(-Math.log10(p)))}`);

const by = (d) => (d.by === "policy" ? "By policy" : `By ${d.by.replace(/^operator:/, "")}`);

function applied(d) {
  if (d.action === "hold" || d.action === "prewarm") return "nothing to apply";
  return d.programmed ? `on every edge after ${span(new Date(d.programmed) - new Date(d.time))}` : "not on every edge yet";
}

// The group's figures beside those of its baseline.
function figures(d) {
  if (!d.stats) return null;
  const rows = [["The group", d.stats], d.baseline && ["Its baseline", d.baseline]].filter(Boolean);
  const cell = (text) => h("td", { class: "num" }, text);
  return h("table", { class: "figures", "aria-label": `Figures of the decision on ${d.group}` },
    h("thead", {}, h("tr", {}, ["In " + span(d.stats.seconds * 1000), "Pool", "Requests", "Per second", "Errors", "P50", "P95", "P99"].map((text, i) => h("th", { scope: "col", class: i > 1 ? "num" : "" }, text)))),
    h("tbody", {}, rows.map(([name, s]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, s.pool || "–"), cell(count(s.requests)), cell(rate(s.qps)), cell(percent(s.errors, s.requests)), cell(ms(s.p50)), cell(ms(s.p95)), cell(ms(s.p99))))));
}
