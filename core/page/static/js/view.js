// The chat on screen. It holds no state that matters: app.js tells it what to show.

import { Account } from "./account.js";
import { Attachments } from "./attachments.js";
import { $, arrange, h, put, toast } from "./dom.js";
import { change, message, day } from "./message.js";
import { People } from "./people.js";
import { drawReactions, Picker } from "./reactions.js";
import { Search } from "./search.js";
import { sentence } from "./welcome.js";

const STATES = {
  connecting: () => "Connecting",
  live: () => "Live",
  moving: () => "Moving",
  waiting: (ms) => `Offline, retry in ${Math.max(1, Math.round(ms / 1000))} s`,
  ended: (reason) => `Disconnected: ${reason}`,
};
const NEAR_END_PX = 80;

export class View {
  #on;
  #aborter = new AbortController();
  #elements = new Map(); // key of a message -> its element
  #opened = 0;
  #user;
  #conversation = null;
  #attachments;
  #search;
  #list = [];
  #wanted = 0; // seq of a message to bring into view

  /** People has the lists of friends. */
  people;
  #picker;

  /** on: open, start, search, goTo, renew, send, upload, retry, discard, older, cohort, logout, read, react, talk, left. */
  constructor(user, on, api) {
    this.#user = user;
    this.#on = on;
    const { signal } = this.#aborter;
    const listen = (id, event, f) => $(id).addEventListener(event, f, { signal });
    listen("start", "submit", (event) => this.#start(event));
    listen("composer", "submit", (event) => this.#submit(event));
    listen("text", "keydown", (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && this.#submit(event));
    listen("text", "input", () => this.#grow());
    this.#attachments = new Attachments(on.upload, (text) => this.note(text), signal);
    this.#search = new Search({ search: on.search }, {
      name: (id) => this.#list.find((c) => c.id === id)?.peer ?? "a conversation that you have left",
      open: (id, seq) => {
        this.#wanted = seq;
        on.goTo(id, seq);
      },
      closed: () => this.conversations(this.#list),
    }, signal);
    this.people = new People(api, { talk: on.talk, note: (text) => this.note(text) }, signal);
    new Account(api, { left: on.left, note: (text) => this.note(text) }, signal);
    this.#picker = new Picker(on, signal);
    // A picture that came while the access token ended is asked for once more.
    $("messages").addEventListener("error", (event) => this.#reload(event.target), { capture: true, signal });
    listen("load-older", "click", () => on.older());
    listen("back", "click", () => on.open(null));
    listen("logout", "click", () => on.logout());
    listen("cohort", "click", () => on.cohort($("cohort").getAttribute("aria-checked") !== "true"));
    listen("served", "click", () => $("details").showModal());
    listen("newest", "click", () => this.#toEnd());
    listen("log", "scroll", () => this.#scrolled());
    listen("conversations", "keydown", (event) => this.#arrows(event));
    this.#showCohort(document.cookie.split("; ").includes("env=canary"));
  }

  show() {
    $("app").hidden = false;
    put($("me"), this.#user);
    $("me").title = this.#user; // it may be cut
    this.conversation(null);
    this.conversations([]);
    $("no-conversations").hidden = true; // until the list has been read
    $("with").focus();
  }

  close() {
    this.#aborter.abort();
    this.#attachments.clear();
    this.#search.close();
    $("details").close();
    $("messages").replaceChildren();
    $("conversations").replaceChildren();
    $("text").value = $("with").value = "";
  }

  confirm(text) {
    return window.confirm(text);
  }

  note(text) {
    toast(sentence(text));
  }

  // Who served.

  state(name, detail) {
    $("status").dataset.state = name;
    put($("status"), STATES[name](detail));
    if (name !== "live") return;
    put($("d-opened"), String(++this.#opened));
    for (const prefix of ["served", "d"]) this.#served(prefix, detail);
  }

  request(served) {
    this.#served("r", served);
  }

  me({ group, color, env, tenant, pool, node, trace_id }) {
    this.#served("r", { group, pool, node });
    put($("r-color"), color || "-");
    put($("r-env"), env || "-");
    put($("r-tenant"), tenant || "-");
    $("r-trace").hidden = !trace_id;
    if (trace_id) message.trace($("r-trace"), trace_id, "");
  }

  roundTrip(ms) {
    put($("d-rtt"), `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  }

  #served(prefix, { group, pool, node }) {
    put($(`${prefix}-group`), group || "none");
    put($(`${prefix}-node`), node || "-");
    put($(`${prefix}-pool`), pool || "-");
    $(`${prefix}-pool`).dataset.pool = pool;
  }

  cohort(canary) {
    const age = canary ? 60 * 60 * 24 * 30 : 0;
    document.cookie = `env=canary; Path=/; SameSite=Strict; Max-Age=${age}`;
    this.#showCohort(canary);
  }

  #showCohort(canary) {
    $("cohort").setAttribute("aria-checked", String(canary));
  }

  // Conversations.

  conversations(list) {
    this.#list = list;
    $("no-conversations").hidden = list.length > 0 || !$("found").hidden;
    const known = new Map([...$("conversations").children].map((el) => [el.dataset.id, el]));
    arrange($("conversations"), list.map((c) => this.#summary(known.get(c.id), c)));
    const unread = list.reduce((sum, c) => sum + c.unread, 0);
    document.title = (unread ? `(${unread}) ` : "") + (this.#conversation ? `${this.#conversation.peer} - ` : "") + "Tracegate chat";
  }

  #summary(el, { id, peer, last, unread, open }) {
    el ??= h("li", { "data-id": id }, h("button", { type: "button", onclick: () => this.#on.open(id) },
      h("span", { class: "avatar", "aria-hidden": "true" }, initial(peer)),
      h("span", { class: "who" }, peer), h("time", {}), h("span", { class: "last" }), h("span", { class: "unread" })));
    const button = el.firstElementChild;
    const [avatar, who, time, text, count] = button.children;
    put(avatar, initial(peer)); // a group may have a new name
    put(who, peer);
    open ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
    put(time, last ? message.clock(last.sent_at) : "");
    put(text, last ? (last.sender === this.#user ? "You: " : "") + (last.text || last.file?.name || "") : "No messages yet");
    count.hidden = !unread;
    put(count, unread ? String(Math.min(unread, 999)) : "");
    count.setAttribute("aria-label", `${unread} unread`);
    return el;
  }

  #arrows(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...$("conversations").querySelectorAll("button")];
    buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length)?.focus();
    event.preventDefault();
  }

  async #start(event) {
    event.preventDefault();
    const name = $("with").value.trim();
    const error = (text) => {
      put($("start-error"), text);
      $("with").setAttribute("aria-invalid", String(text !== ""));
    };
    if (!name) return error("Enter a user name.");
    try {
      await this.#on.start(name);
      $("with").value = "";
      error("");
    } catch (err) {
      error(err.code === "not_found" ? `There is no user ${name}.` : sentence(err.message));
    }
  }

  // The open conversation; null shows the list on a phone and a hint elsewhere.
  conversation(conversation) {
    const changed = this.#conversation?.id !== conversation?.id;
    this.#conversation = conversation;
    document.body.dataset.view = conversation ? "chat" : "list";
    put($("peer"), conversation?.peer ?? "No conversation");
    $("composer").hidden = !conversation;
    put($("blank-title"), conversation ? "No messages yet" : "Pick a conversation");
    put($("blank-text"), conversation ? `Say hello to ${conversation.peer}.` : "Or start one with the name of another user.");
    if (!changed) return;
    this.#elements.clear();
    this.#attachments.clear();
    $("messages").replaceChildren();
    $("blank").hidden = false;
    $("older").hidden = true;
    $("newest").hidden = true;
    if (conversation && matchMedia("(pointer: fine)").matches) $("text").focus();
  }

  // Messages.

  get atEnd() {
    const log = $("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  }

  messages(timeline, unsent) {
    const log = $("log");
    const stick = this.atEnd || unsent.at(-1)?.state === "waiting";
    const first = $("messages").firstElementChild;
    const before = first?.offsetTop ?? 0;
    const items = [];
    let date = "";
    for (const m of [...timeline.messages, ...unsent.map((e) => ({ ...e, sender: this.#user }))]) {
      if (date !== (date = new Date(m.sent_at).toDateString())) items.push(this.#element(`day ${date}`, () => day(m.sent_at)));
      if (m.event) {
        if (!m.event.target) items.push(this.#element(`event ${m.seq}`, () => change(m)));
        continue;
      }
      const el = this.#element(`${m.sender} ${m.client_id}`, () => message.create(m, m.sender === this.#user));
      message.update(el, m, { ...this.#on, pick: (button) => this.#picker.open(button, m) });
      drawReactions(el.querySelector(".reactions"), m, this.#on);
      items.push(el);
    }
    arrange($("messages"), items);
    $("blank").hidden = items.length > 0;
    $("older").hidden = timeline.start <= 0;
    if (stick) this.#toEnd();
    else if (first?.isConnected && first.offsetTop !== before) log.scrollTop += first.offsetTop - before;
    $("newest").hidden = this.atEnd;
    this.#bring(timeline);
  }

  // bring shows a message that was asked for, once it is there.
  #bring(timeline) {
    const m = this.#wanted && timeline.messages.find((m) => m.seq === this.#wanted && !m.event);
    if (!m) return;
    this.#wanted = 0;
    const el = this.#elements.get(`${m.sender} ${m.client_id}`);
    el?.scrollIntoView({ block: "center" });
    if (el) el.dataset.found = "true";
    setTimeout(() => delete el?.dataset.found, 3_000);
    $("newest").hidden = this.atEnd;
  }

  async #reload(picture) {
    if (picture.tagName !== "IMG" || picture.dataset.again) return;
    picture.dataset.again = "true";
    await this.#on.renew();
    picture.src = picture.getAttribute("src");
  }

  #element(key, make) {
    if (!this.#elements.has(key)) this.#elements.set(key, make());
    return this.#elements.get(key);
  }

  #toEnd() {
    $("log").scrollTop = $("log").scrollHeight;
    this.#scrolled();
  }

  #scrolled() {
    $("newest").hidden = this.atEnd;
    if (this.atEnd) this.#on.read();
  }

  #submit(event) {
    event.preventDefault();
    const text = $("text").value.trim();
    if (this.#attachments.busy) return this.note("Wait until the files are uploaded.");
    if (!text && this.#attachments.empty) return;
    this.#on.send(text, this.#attachments.take());
    $("text").value = "";
    this.#grow();
    this.#toEnd();
  }

  #grow() {
    $("text").style.height = "auto";
    $("text").style.height = `${Math.min($("text").scrollHeight, 160)}px`;
  }
}

export const initial = (name) => (name.match(/[\p{L}\p{N}]/u)?.[0] ?? "?").toUpperCase();
