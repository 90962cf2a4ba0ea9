// The overview.

import { anomalies, anomaliesNote } from "./anomalies.js";
import { Decisions } from "./decisions.js";
import { $, h, list, put } from "./dom.js";
import { edges } from "./edges.js";
import { ago, bytes, count, identity, ms, percent, rate, span, until } from "./format.js";
import { Kernel } from "./kernel.js";
import { ServiceMap } from "./map.js";
import { sparkline } from "./spark.js";
import { STATES } from "./states.js";

export class Board {
  #state;
  #orders;
  #kernel = new Kernel();
  #map = new ServiceMap();
  #decisions;

  constructor(state, orders) {
    this.#state = state;
    this.#orders = orders;
    this.#decisions = new Decisions(state, orders.confirm);
    $("filter").addEventListener("input", () => this.#groups());
  }

  show() {
    $("view-board").hidden = false;
    document.title = "Overview - Tracegate console";
    for (const section of ["groups", "chart", "map", "decisions", "edges", "telemetry", "storage", "anomalies", "kernel"]) this.changed(section);
  }

  hide() {
    $("view-board").hidden = true;
  }

  changed(section) {
    const draw = {
      groups: () => (this.#groups(), this.#summary(), this.#calls(), this.#overrides()),
      map: () => this.#calls(),
      chart: () => this.#chart(),
      decisions: () => this.#decisions.show(),
      edges: () => (edges(this.#state.edges), this.#summary()),
      telemetry: () => this.#telemetry(),
      storage: () => this.#storage(),
      health: () => (this.#groups(), this.#summary()),
      kernel: () => this.#kernel.show(this.#state.kernel),
      anomalies: () => this.#anomalies(),
      clock: () => (this.#anomalies(), this.#groups(), this.#decisions.show(), this.#overrides(), edges(this.#state.edges), this.#kernel.clock()),
    };
    draw[section]?.();
  }

  #summary() {
    const { groups = [], edges: status } = this.#state;
    const sum = (of) => groups.reduce((total, row) => total + of(row), 0);
    const [requests, errors] = [sum((r) => r.requests), sum((r) => r.errors)];
    const moved = groups.filter((r) => r.known && r.pool !== r.home).length;
    const inSync = status?.edges.filter((e) => e.connected && e.in_sync).length ?? 0;
    const measured = this.#state.health?.telemetry.ok !== false;
    const facts = [
      ["Requests/s", measured ? rate(sum((r) => r.qps)) : "–"],
      ["Errors", measured && requests > 0 ? percent(errors, requests) : "–", errors > 0 && "bad"],
      ["Groups with traffic", measured ? `${groups.filter((r) => r.measured).length}` : "–"],
      ["Moved groups", `${moved}`, moved > 0 && "warn"],
      ["Edges in sync", !status ? "–" : status.edges.length ? `${inSync} of ${status.edges.length}` : "None", status && inSync < status.edges.length && "warn"],
      ["Decisions", status ? { act: "Automatic", recommend: "Asks first", observe: "Observed only" }[status.mode] ?? status.mode : "–"],
    ];
    list($("summary"), facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (el, [, value, tone]) => {
      put(el.lastElementChild, value);
      el.lastElementChild.dataset.tone = tone || "";
    });
  }

  #groups() {
    const { groups, health } = this.#state;
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (r) => [r.group, r.color, r.cohort, r.env, r.tenant, r.pool, STATES[r.state] ?? "", ...r.pools.map((p) => p.pool)].join(" ").toLowerCase();
    const rows = (groups ?? []).filter((r) => words.every((w) => text(r).includes(w)));
    list($("groups"), rows, (r) => r.group, () => this.#row(), (el, r) => this.#fill(el, r));
    put($("groups-note"), groups ? `${words.length ? `${rows.length} of ` : ""}${groups.length}` : "");
    $("groups-empty").hidden = rows.length > 0;
    put($("groups-empty"), !groups || !health ? "Loading" : groups.length ? "No group matches the filter." : "No traffic yet. Send a request through the edge and its group appears here.");
  }

  #row() {
    const cell = (label, cls, ...children) => h("td", { role: "cell", class: cls, "data-label": label }, ...children);
    return h("tr", { role: "row" },
      h("th", { scope: "row", role: "rowheader", class: "id" }, h("a", {}, h("code")), h("span", { class: "identity" })),
      cell("Pool", "pools"), cell("State", "state", h("span", { class: "badge" }), h("span", { class: "since" })),
      cell("Requests/s", "num qps"), cell("P95", "num p95"), cell("Errors", "num errors"), cell("Last 5 min", "trend"), cell("", "act", this.#orders.button()));
  }

  #fill(el, r) {
    const [id, pools, state, qps, p95, errors, trend, act] = el.children;
    id.firstElementChild.href = `#/group/${r.group}`;
    put(id.querySelector("code"), r.group);
    put(id.querySelector(".identity"), identity(r));
    pool(pools, r);
    badge(state.firstElementChild, r);
    put(state.lastElementChild, since(r));
    put(qps, r.measured ? rate(r.qps) : "–");
    put(p95, r.measured ? ms(r.p95) : "–");
    put(errors, r.measured ? percent(r.errors, r.requests) : "–");
    errors.dataset.tone = r.errors === 0 ? "" : r.errors / r.requests >= 0.05 ? "bad" : "warn";
    if (!trend.firstElementChild) this.#trend(trend, r.group);
    this.#orders.update(act.firstElementChild, r);
  }

  #calls() {
    this.#map.show(this.#state.map, this.#state.groups);
  }

  #anomalies() {
    const { anomalies: a } = this.#state;
    anomalies($("anomalies"), a?.found.rows ?? []);
    anomaliesNote(a);
  }

  #chart() {
    for (const el of $("groups").children) this.#trend(el.querySelector(".trend"), el.dataset.key);
  }

  #trend(cell, id) {
    const lines = this.#state.chart?.groups[id];
    cell.replaceChildren(...(lines ? [sparkline(lines)] : []));
  }

  #overrides() {
    const rows = (this.#state.groups ?? []).filter((r) => r.known && (r.state === "forced" || r.state === "pinned"));
    list($("overrides"), rows, (r) => r.group,
      (r) => h("li", {}, h("span", {}, h("a", { href: `#/group/${r.group}` }, h("code", {}, r.group)), " ", h("span", { class: "badge" })), h("span", { class: "what" }), this.#orders.button()),
      (el, r) => {
        badge(el.querySelector(".badge"), r);
        const to = r.until && new Date(r.until) > new Date() ? `, ${until(r.until)} to go` : r.state === "forced" || r.limit ? ", until it is released" : "";
        put(el.querySelector(".what"), `${identity(r)} · by ${(r.by || "an operator").replace(/^operator:/, "")}${r.since ? ` ${ago(r.since)}` : ""}${to}`);
        this.#orders.update(el.lastElementChild, r);
        if (r.state === "pinned" && !r.limit) el.lastElementChild.hidden = true; // it ends by itself
      });
    put($("overrides-note"), rows.length ? count(rows.length) : "");
    $("overrides-empty").hidden = rows.length > 0;
  }

  #telemetry() {
    const t = this.#state.telemetry;
    $("telemetry-empty").hidden = Boolean(t);
    if (!t) return;
    const reasons = (counts) => Object.entries(counts ?? {}).filter(([, n]) => n > 0);
    const sum = (counts) => reasons(counts).reduce((total, [, n]) => total + n, 0);
    const facts = [
      ["Received", count(t.received)],
      t.recovered > 0 && ["Found in the spool", count(t.recovered)],
      ["Stored", count(t.stored)],
      ["In memory", count(t.pending)],
      ["Spooled on disk", `${count(t.spooled)}${t.spool_bytes ? ` (${bytes(t.spool_bytes)})` : ""}`, t.spooled > 0 && "warn"],
      ["Dropped", count(sum(t.dropped)), sum(t.dropped) > 0 && "bad"],
      ...reasons(t.dropped).map(([reason, n]) => [`Dropped: ${reason.replaceAll("_", " ")}`, count(n), "bad"]),
      t.refused > 0 && ["Refused, kept by senders", count(t.refused), "warn"],
      sum(t.cut) > 0 && ["Stored shortened", count(sum(t.cut)), "warn"],
      ...Object.entries(t.tables ?? {}).filter(([, f]) => f.received + f.recovered > 0).map(([table, f]) => [`${table}: stored, of received`, `${count(f.stored)} of ${count(f.received + f.recovered)}`, sum(f.dropped) > 0 && "bad"]),
      ["Accounted for", t.balanced ? "every record" : "not every record", t.balanced ? "good" : "bad"],
    ].filter(Boolean);
    put($("telemetry-note"), t.away ? "ClickHouse does not take batches" : "records since the process started");
    list($("telemetry"), facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (el, [, value, tone]) => {
      put(el.lastElementChild, value);
      el.lastElementChild.dataset.tone = tone || "";
    });
  }

  #storage() {
    const { tables, disk } = this.#state.storage ?? {};
    const rows = tables ?? [];
    const cell = (name, cls = "num") => h("td", { role: "cell", "data-label": name, class: cls });
    list($("storage"), rows, (t) => t.name,
      (t) => h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, h("code", {}, t.name.split(/(?<=_)/).flatMap((part) => [part, h("wbr")]))), cell("On disk"), cell("Rows"), cell("Kept"), cell("Oldest")),
      (el, t) => [t.quota ? `${bytes(t.bytes)} of ${bytes(t.quota)}` : bytes(t.bytes), count(t.rows), t.days ? `${t.days} d` : "for ever", t.oldest ? span(Date.now() - new Date(t.oldest)) : "–"].forEach((text, i) => {
        put(el.children[i + 1], text);
        if (i === 0) el.children[1].dataset.tone = t.quota && t.bytes > t.quota ? "bad" : "";
      }));
    put($("storage-note"), rows.length ? `${bytes(rows.reduce((sum, t) => sum + t.bytes, 0))} of tables, ${bytes(disk.free)} of ${bytes(disk.total)} free` : "");
    $("storage-note").dataset.tone = rows.length && disk.free < disk.total / 10 ? "bad" : "";
    $("storage-empty").hidden = rows.length > 0;
  }
}

/** pool shows who should serve a group and, where it differs, who did. */
export function pool(el, r) {
  const served = r.pools.map((p) => p.pool || "no upstream");
  const should = r.pool || served[0] || "–";
  const other = r.pools.filter((p) => p.pool !== should);
  const text = other.length ? other.map((p) => `${percent(p.requests, r.requests)} by ${p.pool || "no upstream"}`).join(", ") : "";
  if (el.dataset.text === should + text) return;
  el.dataset.text = should + text;
  el.replaceChildren(h("span", { class: "pool", "data-pool": should }, should), ...(text ? [h("span", { class: "served" }, text)] : []));
}

export function badge(el, r) {
  const more = r.share ? `, ${r.share}%` : r.limit ? `, ${r.limit}/s` : "";
  put(el, r.known ? (STATES[r.state] ?? r.state) + more : "Unknown");
  el.dataset.state = r.known ? r.state : "unknown";
}

export function since(r) {
  if (!r.known || r.state === "home") return r.held ? "held" : "";
  return r.since ? ago(r.since) : "";
}
