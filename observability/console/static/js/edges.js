// The edges: what each has acknowledged, what it refused and why, and the files that
// the control plane reads.

import { $, h, list, put } from "./dom.js";
import { ago } from "./format.js";

const SERVICES = { Listener: "LDS", RouteConfiguration: "RDS", Cluster: "CDS", ClusterLoadAssignment: "EDS", TypedExtensionConfig: "ECDS" };

function short(type) {
  const name = type.split(".").at(-1);
  return SERVICES[name] ?? name;
}

export function edges(status) {
  if (!status) return;
  put($("edges-note"), note(status));
  $("edges-empty").hidden = status.edges.length > 0;
  const cards = [
    ...problems(status).map((p) => ({ key: `problem ${p}`, problem: p })),
    ...status.edges.map((e) => ({ key: `edge ${e.id}`, edge: e })),
    ...Object.entries(status.sources ?? {}).map(([name, source]) => ({ key: `source ${name}`, name, source })),
  ];
  list($("edges"), cards, (c) => c.key, create, update);
}

function note(status) {
  const p = status.programming;
  if (p?.version) return `plan ${p.version} waits for ${p.waiting?.join(", ") || "an edge"}${p.late ? " (late)" : ""}`;
  return status.version ? `plan ${status.version}` : "";
}

function problems(status) {
  const out = [];
  if (status.rejected?.version) out.push(`Plan ${status.rejected.version} was refused by ${status.rejected.edge} (${status.rejected.nack.type} ${status.rejected.nack.resource}): ${status.rejected.nack.reason}. The last good one is served.`);
  if (status.rolled_back) out.push(`Policy revision ${status.rolled_back.from} was taken back, ${status.rolled_back.to} is in force: ${status.rolled_back.why}.`);
  const t = status.trial;
  if (t) out.push(`Policy revision ${t.revision} ${t.edge ? `is tried at ${t.edge}; the other edges have the one before` : "waits for an edge"}.${t.measured ? ` Measured: ${t.measured}.` : ""}`);
  if (status.telemetry_stale) out.push(`No data, so no automatic decisions: ${status.telemetry_reason || "telemetry is stale"}.`);
  else if (status.telemetry === "no_traffic") out.push("No traffic: all that was received is stored, and there is nothing new.");
  if (status.not_durable) out.push(`Decisions cannot be kept on disk, so none takes effect: ${status.not_durable}.`);
  if (status.unsaved > 0) out.push(`${status.unsaved} decisions wait for the store.`);
  return out;
}

function create({ problem, edge, name }) {
  if (problem) return h("p", { class: "note" }, problem);
  if (!edge) return h("div", { class: "edge" }, h("div", { class: "line" }, h("strong", {}, name), h("code", { class: "file" }), h("span", { class: "ok" })), h("p", { class: "error" }));
  return h("div", { class: "edge" },
    h("div", { class: "line" }, h("strong", {}, edge.id), h("span", { class: "ok" }), h("span", { class: "muted ago" })),
    h("ul", { class: "versions", "aria-label": `Versions acknowledged by ${edge.id}` }), h("ul", { class: "nacks", "aria-label": `Configurations refused by ${edge.id}` }));
}

function update(el, { problem, edge, source }) {
  if (problem) return;
  const ok = el.querySelector(".ok");
  if (source) {
    put(el.querySelector(".file"), source.file.split("/").at(-1) ?? "");
    el.querySelector(".file").title = source.file;
    put(ok, source.error ? "Refused" : source.loaded ? `Loaded ${ago(source.loaded)}` : "Loaded");
    ok.dataset.tone = source.error ? "bad" : "good";
    return put(el.querySelector(".error"), source.error ? `${source.error}. The version before it goes on.` : "");
  }
  put(ok, edge.connected ? (edge.in_sync ? "In sync" : "Waiting") : "Disconnected");
  ok.dataset.tone = edge.connected ? (edge.in_sync ? "good" : "warn") : "bad";
  put(el.querySelector(".ago"), edge.since ? (edge.connected ? `connected ${ago(edge.since)}` : ago(edge.since)) : "");
  const acked = Object.entries(edge.acked ?? {}).sort(([a], [b]) => a.localeCompare(b));
  list(el.querySelector(".versions"), acked, ([type]) => type, ([type]) => h("li", { title: type }, h("span", {}, short(type)), " ", h("code")), (li, [, version]) => put(li.querySelector("code"), version));
  list(el.querySelector(".nacks"), edge.nacks ?? [], (n) => `${n.type} ${n.resource}`, (n) => h("li", {}, h("strong", {}, `${n.type} ${n.resource}`), h("span", { class: "muted" }), h("code")), (li, n) => {
    put(li.children[1], ` refused ${n.count === 1 ? "once" : `${n.count} times`}, last ${ago(n.time)}`);
    put(li.children[2], n.reason);
  });
}
