// One group: its figures, charts, decisions and traces.

import { anomalies } from "./anomalies.js";
import { api, sentence } from "./api.js";
import { badge, pool } from "./board.js";
import { $, h, list, put } from "./dom.js";
import { ago, clock, count, ms, percent, rate, until } from "./format.js";
import { chart, most } from "./spark.js";
import { STATES } from "./states.js";
import { timeline } from "./timeline.js";

export class GroupView {
  #state;
  #orders;
  #id = "";
  #button;
  #more = [];
  #badge = h("span", { class: "badge" });
  #pool = h("span", { class: "pools" });
  #reading = 0;

  constructor(state, orders) {
    this.#state = state;
    this.#orders = orders;
    this.#button = orders.button();
    this.#more = orders.more(() => this.#state.groups?.find((r) => r.group === this.#id));
    $("group-actions").append(this.#button, ...this.#more);
    $("group-badges").append(this.#badge, this.#pool);
    $("traces-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#traces();
    });
    $("traces-errors").addEventListener("change", () => this.#traces());
  }

  show(id) {
    this.#id = id;
    $("view-group").hidden = false;
    document.title = `Group ${id} - Tracegate console`;
    put($("group-id"), id);
    $("traces").replaceChildren();
    for (const section of ["groups", "chart", "anomalies", "decisions"]) this.changed(section);
    this.#traces();
  }

  hide() {
    $("view-group").hidden = true;
  }

  changed(section) {
    if (section === "groups" || section === "clock" || section === "health") this.#facts();
    if (section === "chart") this.#charts();
    if (section === "anomalies" || section === "clock") this.#anomalies();
    if (section === "decisions" || section === "clock") this.#decisions();
  }

  #facts() {
    const row = this.#state.groups?.find((r) => r.group === this.#id);
    for (const el of [this.#button, this.#badge, this.#pool, ...this.#more]) el.hidden = !row;
    const facts = row
      ? [
          ["Color", row.color],
          ["Cohort", row.cohort || "none"],
          ["Environment", row.env || "–"],
          ["Tenant", row.tenant || "–"],
          ["Requests/s", row.measured ? rate(row.qps) : "–"],
          ["Errors", row.measured ? `${percent(row.errors, row.requests)} (${count(row.errors)} of ${count(row.requests)})` : "–"],
          ["P50 / P95 / P99", row.measured ? [row.p50, row.p95, row.p99].map((n) => ms(n).replace(/ ms$/, "")).join(" / ") + (row.p99 < 10_000 ? " ms" : "") : "–"],
          row.known && row.state !== "home" && [STATES[row.state] ?? row.state, `${row.since ? ago(row.since) : ""}${row.by ? ` by ${row.by}` : ""}${row.until && new Date(row.until) > new Date() ? `, ${until(row.until)} to go` : ""}`],
          row.held && ["Not moved because", row.held],
        ].filter(Boolean)
      : [["Group", this.#state.groups ? "neither known to the control plane nor seen in the last seconds" : "loading"]];
    list($("group-facts"), facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (el, [, value]) => put(el.lastElementChild, value));
    if (!row) return;
    badge(this.#badge, row);
    pool(this.#pool, row);
    this.#orders.update(this.#button, row);
    for (const button of this.#more) {
      button.hidden = this.#button.hidden;
      button.disabled = this.#button.disabled || !row.known;
    }
  }

  #anomalies() {
    const own = (this.#state.anomalies?.found.rows ?? []).filter((a) => a.group === this.#id);
    anomalies($("group-anomalies"), own);
    $("group-anomalies-panel").hidden = own.length === 0;
  }

  #charts() {
    const lines = this.#state.chart?.groups[this.#id];
    const { step = 0, points = 0 } = this.#state.chart ?? {};
    const charts = lines
      ? [
          { label: "Requests/s", values: lines.qps, format: rate },
          { label: "Errors/s", values: lines.errors, format: rate, cls: "bad" },
          { label: "P95", values: lines.p95, format: ms },
        ]
      : [];
    $("group-charts").replaceChildren(...charts.map((c) => h("figure", {}, h("figcaption", {}, h("strong", {}, c.label), h("span", { class: "muted" }, ` peak ${c.format(most(c.values))} in ${Math.round((step * points) / 60)} min`)), chart(c))));
  }

  #decisions() {
    const own = (this.#state.decisions ?? []).filter((d) => d.group === this.#id);
    timeline($("group-decisions"), own, this.#orders.confirm);
    $("group-decisions-empty").hidden = own.length > 0;
  }

  async #traces() {
    const id = this.#id;
    const reading = ++this.#reading;
    const say = (text) => {
      put($("traces-empty"), text);
      $("traces-empty").hidden = text === "";
    };
    try {
      const { traces, minutes } = await api.traces(id, $("traces-errors").checked, $("traces-min").value.trim());
      if (reading !== this.#reading) return;
      put($("traces-note"), `last ${minutes} minutes, at most 50`);
      list($("traces"), traces, (t) => t.trace_id, line);
      say(traces.length ? "" : "No traces match.");
    } catch (err) {
      if (reading === this.#reading) say(sentence(err.message));
    }
  }
}

function line(t) {
  const cell = (label, cls, ...children) => h("td", { role: "cell", "data-label": label, class: cls }, ...children);
  const bad = t.status === "Error" || t.code >= "500";
  return h("tr", { role: "row" }, cell("Time", "", h("time", { datetime: t.time }, clock(t.time))),
    h("th", { scope: "row", role: "rowheader" }, h("a", { href: `#/trace/${t.trace_id}` }, h("code", {}, t.trace_id.slice(0, 16), "…"))),
    cell("What", "", t.route && t.route !== t.name ? `${t.name} (${t.route})` : t.name), cell("Pool", "", t.pool ? h("span", { class: "pool", "data-pool": t.pool }, t.pool) : "no upstream"),
    h("td", { role: "cell", "data-label": "Result", "data-tone": bad ? "bad" : "" }, bad ? `Error${t.code ? ` ${t.code}` : ""}` : t.code || "OK"), cell("Took", "num", ms(t.duration)));
}
