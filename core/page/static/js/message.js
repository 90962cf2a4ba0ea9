// One message on screen: its text, where it is on its way, and its trace.

import { attachment } from "./attachments.js";
import { copy, h, put, toast } from "./dom.js";

const STATES = { waiting: "Waiting", sending: "Sending", accepted: "Accepted", failed: "Not sent" };

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dateFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });

export const day = (time) => h("li", { class: "day" }, h("span", {}, dayFormat.format(new Date(time))));

/** change says in words what an entry that is no message has changed. */
export const change = ({ sender, event }) => {
  const who = (event.members ?? []).join(", ");
  const words = {
    created: () => `${sender} created ${event.name}`,
    added: () => (who === sender ? `${sender} joined` : `${sender} added ${who}`),
    removed: () => (who === sender ? `${sender} left` : `${sender} removed ${who}`),
    role: () => `${sender} made ${who} ${event.role}`,
    renamed: () => `${sender} renamed the group to ${event.name}`,
    opened: () => `${sender} opened the group: anybody may join`,
    closed: () => `${sender} closed the group`,
  };
  return h("li", { class: "day" }, h("span", {}, words[event.kind]?.() ?? ""));
};

function create(m, own) {
  return h("li", { class: own ? "message own" : "message" },
    h("span", { class: "visually-hidden" }, own ? "You: " : `${m.sender}: `),
    m.file && attachment(m.file),
    h("p", { class: "bubble", hidden: !m.text }, m.text),
    h("div", { class: "reactions", role: "group", "aria-label": "Reactions", hidden: true }),
    h("div", { class: "meta" },
      h("time"), h("span", { class: "sent" }), h("button", { type: "button", class: "trace", hidden: true }),
      h("button", { type: "button", class: "link retry", hidden: true }, "Retry"),
      h("button", { type: "button", class: "link discard", hidden: true }, "Discard"),
      h("button", { type: "button", class: "quiet react", hidden: true, title: "React", "aria-label": "React" }, "☺")));
}

// update shows where a message is: in the outbox (state) or in the conversation (seq).
function update(el, m, on) {
  const [time, sent, traceButton, retry, discard, react] = el.querySelector(".meta").children;
  const state = m.seq ? "delivered" : m.state;
  const bubble = el.querySelector(".bubble");
  put(bubble, m.recalled ? "Message recalled" : m.text);
  bubble.hidden = bubble.textContent === "";
  react.hidden = !m.seq || Boolean(m.recalled);
  react.onclick = () => on.pick(react);
  if (m.recalled) el.querySelector(".picture, .document")?.remove();
  if (el.dataset.state === state && el.dataset.trace === (m.trace_id ?? "") && el.dataset.edited === String(m.edited ?? false)) return;
  el.dataset.edited = String(m.edited ?? false);
  el.dataset.state = state;
  el.dataset.trace = m.trace_id ?? "";
  put(time, clock(m.sent_at));
  time.dateTime = m.sent_at;
  time.title = new Date(m.sent_at).toLocaleString();
  const own = el.classList.contains("own");
  put(sent, m.seq ? `${own ? "Delivered " : ""}#${m.seq}${m.edited ? " edited" : ""}` : STATES[state] + (state === "failed" && m.error ? `: ${m.error}` : ""));
  traceButton.hidden = !m.trace_id;
  if (m.trace_id) trace(traceButton, m.trace_id);
  retry.hidden = discard.hidden = state !== "failed";
  retry.onclick = () => on.retry(m.client_id);
  discard.onclick = () => on.discard(m.client_id);
}

// trace makes a button that copies a trace id; its first eight digits are the color.
function trace(button, id, word = "trace ") {
  button.replaceChildren(h("span", { class: "visually-hidden" }, "Copy "), word, h("code", {}, h("b", {}, id.slice(0, 8)), id.slice(8, 12), "…"));
  button.title = `Copy trace id ${id}`;
  button.onclick = async () => toast((await copy(id)) ? "Trace id copied" : `Trace id: ${id}`);
}

export const clock = (time) => clockFormat.format(new Date(time));
export const date = (time) => dateFormat.format(new Date(time));

export const message = { create, update, trace, clock };
