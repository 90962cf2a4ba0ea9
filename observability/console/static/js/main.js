// Joins the login, the live state, the address (#/, #/group/ID, #/trace/ID, #/policy) and the
// views. A view has show(argument), hide() and changed(section).

import { api } from "./api.js";
import { Board } from "./board.js";
import { $, h, list, put } from "./dom.js";
import { clock, span } from "./format.js";
import { GroupView } from "./group.js";
import { Orders } from "./orders.js";
import { PolicyView } from "./policy.js";
import { Stream } from "./stream.js";
import { TraceView } from "./trace.js";
import { Welcome } from "./welcome.js";

const stream = new Stream({
  changed: (section) => (section === "health" ? banners() : view?.changed(section)),
  live: (on) => connection(on),
  refused: () => checkSession(),
});
const orders = new Orders(stream.state);
const views = { board: new Board(stream.state, orders), group: new GroupView(stream.state, orders), trace: new TraceView(), policy: new PolicyView() };
const welcome = new Welcome(enter);
let view = null;
let inside = false;
let offlineSince = null;

function enter({ name, role }) {
  inside = true;
  document.body.dataset.role = role ?? "operator";
  put($("who"), role === "viewer" ? `${name} (viewer)` : name);
  $("welcome").hidden = true;
  $("app").hidden = false;
  stream.start();
  route();
}

function leave(text) {
  inside = false;
  stream.stop();
  orders.close();
  for (const section of Object.keys(stream.state)) delete stream.state[section];
  $("app").hidden = true;
  offlineSince = null;
  welcome.show(text);
}

async function checkSession() {
  try {
    await api.session();
  } catch (err) {
    if (err.status === 401 && inside) leave("Your session has ended. Log in again.");
  }
}

function route() {
  if (!inside) return;
  const [, name, argument] = location.hash.match(/^#\/(group|trace)\/([0-9a-f]+)$/) ?? [null, location.hash === "#/policy" ? "policy" : "board", ""];
  const next = views[name];
  if (view !== next) view?.hide();
  const moved = view !== null;
  view = next;
  view.show(argument);
  if (moved) $("view").focus({ preventScroll: true });
  if (moved) window.scrollTo(0, 0);
}

// What is wrong, from the most general down.

function connection(on) {
  offlineSince = on ? null : (offlineSince ?? new Date());
  $("live").dataset.state = on ? "live" : "waiting";
  put($("live"), on ? "Live" : "Reconnecting");
  banners();
}

function banners() {
  const { health } = stream.state;
  const problems = [];
  if (offlineSince) problems.push({ key: "console", title: "Console server unreachable", since: offlineSince, text: "What is shown is old." });
  else if (health) {
    if (!health.telemetry.ok) problems.push({ key: "telemetry", title: "Telemetry unavailable", since: health.telemetry.since, text: "Figures are not shown, and no automatic decision is taken without them.", error: health.telemetry.error });
    if (!health.control.ok) problems.push({ key: "control", title: "Control plane unavailable", since: health.control.since, text: "The edges go on with what they have. Nothing can be isolated or released.", error: health.control.error });
  }
  document.body.dataset.control = health && !health.control.ok ? "away" : "here";
  list($("banners"), problems, (p) => p.key + p.since, (p) => h("div", { class: "banner" }, h("strong", {}, `${p.title} since ${clock(p.since)}`), ` (`, h("span", { class: "for" }), `). ${p.text}`, p.error && h("code", {}, p.error)),
    (el, p) => put(el.querySelector(".for"), span(Math.max(1, Math.round((Date.now() - new Date(p.since)) / 1000)) * 1000)));
  view?.changed("health");
}

window.addEventListener("hashchange", route);
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is ours
  $("view").focus();
});
$("logout").addEventListener("click", async () => {
  await api.logout().catch(() => {});
  leave("");
});
setInterval(() => {
  if (!inside || document.hidden) return;
  banners();
  view?.changed("clock");
}, 1_000);

try {
  enter(await api.session());
} catch (err) {
  welcome.show(err.status === 401 ? "" : err.message);
}
