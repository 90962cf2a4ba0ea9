// What is out of the ordinary for a group by its own past, in words. It explains and
// decides nothing, so it is no alert and is not read out.

import { $, h, list, put } from "./dom.js";
import { clock, identity, ms, percent, rate, span } from "./format.js";

const MEASURES = {
  "requests a second": { name: "Requests/s", format: rate },
  "share of errors": { name: "Errors", format: (v) => percent(v, 1) },
  "P95 in milliseconds": { name: "P95", format: ms },
};

const HOUR = 3_600_000; // what is looked at

/** anomalies lists findings, with a link to each one's group and its traces. */
export function anomalies(el, rows) {
  // What lasts keeps its line, and the focus in it: of an hour, its beginning moves on.
  list(el, rows, (a) => [a.group, a.measure, a.kind, a.lasts || a.since].join("|"), create, update);
}

function create(a) {
  return h("li", {}, h("span", { class: "badge" }),
    h("span", { class: "of" }, h("a", { href: `#/group/${a.group}`, "aria-label": `Group ${a.group}: its figures and traces` }, h("code", {}, a.group)), h("span", { class: "identity" }, identity(a))),
    h("span", { class: "what" }, h("span", { class: "seen" }), h("span", { class: "usual" }), h("p", { class: "words" })),
    h("time"));
}

function update(el, a) {
  const m = MEASURES[a.measure] ?? { name: a.measure, format: String };
  const change = a.kind === "change";
  const badge = el.querySelector(".badge");
  put(badge, change ? "Changed" : a.lasts ? "Now" : "Over");
  badge.dataset.state = change ? "pinned" : a.lasts ? "isolated" : "";
  put(el.querySelector(".seen"), `${m.name} ${m.format(a.seen)}`);
  put(el.querySelector(".usual"), `${change ? "before" : "expected"} ${m.format(a.usual)}`);
  put(el.querySelector(".words"), a.words);
  const length = (a.lasts || change ? Date.now() : new Date(a.until)) - new Date(a.since);
  const time = el.querySelector("time");
  time.dateTime = a.since;
  time.title = clock(a.since);
  put(time, change ? `${span(length)} ago` : a.lasts && length >= HOUR ? "for an hour or more" : `since ${clock(a.since)}, ${a.lasts ? "" : "for "}${span(length)}`);
}

/** anomaliesNote says of what the panel speaks, and why it may be empty. */
export function anomaliesNote(a) {
  const found = a?.found.rows.length ?? 0;
  const ready = a?.state === "ready";
  put($("anomalies-note"), ready && a.groups ? `by their own past, last hour · ${a.groups < a.active ? `the ${a.groups} busiest of ${a.active}` : a.groups} ${a.active === 1 ? "group" : "groups"} · looked at ${clock(a.at)}` : "");
  put($("anomalies-empty"), empty(a));
  $("anomalies-empty").hidden = found > 0;
  put($("anomalies-left"), a?.found.left_out ? `${a.found.left_out} more are left out, none of them newer.` : "");
  $("anomalies-left").hidden = !a?.found.left_out;
}

function empty(a) {
  if (!a) return "Loading";
  if (a.state === "away") return "ClickHouse does not answer.";
  if (a.state === "reading") return "Reading the last 7 days.";
  if (a.groups === 0) return "No group had a request in the last minutes.";
  if (a.known === 0) return "Nothing can be said yet: no group has three days with this hour to compare with.";
  return `Nothing is out of the ordinary.${a.known < a.groups ? ` ${a.groups - a.known} of ${a.groups} groups have no three days with this hour to compare with yet.` : ""}`;
}
