// Friends and who is blocked, in a dialog. The lists are the server's: whatever is done, or
// pushed, they are read again.

import { $, arrange, h, put } from "./dom.js";
import { sentence } from "./welcome.js";

const LISTS = ["incoming", "outgoing", "friend", "blocked"];

export class People {
  #api;
  #on;
  #reading = null;
  #again = false;
  #stopped = false;

  /** api: see api.js; on: talk(name) opens a conversation; note(text). */
  constructor(api, on, signal) {
    this.#api = api;
    this.#on = on;
    const listen = (id, event, f) => $(id).addEventListener(event, f, { signal });
    listen("open-people", "click", () => this.#show());
    listen("befriend", "submit", (event) => this.#submit(event));
    signal.addEventListener("abort", () => {
      this.#stopped = true;
      $("people").close();
      for (const list of LISTS) $(`${list}-list`).replaceChildren();
      this.#count(0);
      this.#error("");
      $("friend-name").value = "";
    });
  }

  #show() {
    $("people").showModal();
    this.refresh();
  }

  /** refresh reads the lists; while they are being read, once more after that. */
  async refresh() {
    if (this.#reading) return void (this.#again = true);
    do {
      this.#again = false;
      this.#reading = this.#read();
      await this.#reading;
    } while (this.#again && !this.#stopped);
    this.#reading = null;
  }

  async #read() {
    try {
      const lists = await Promise.all([...LISTS.slice(0, 3).map((state) => this.#api.friends(state)), this.#api.blocks()]);
      if (!this.#stopped) LISTS.forEach((list, i) => this.#draw(list, lists[i]));
    } catch (err) {
      if (!this.#stopped && err.status !== 401) this.#on.note(err.message);
    }
  }

  #draw(list, names) {
    const known = new Map([...$(`${list}-list`).children].map((el) => [el.dataset.name, el]));
    arrange($(`${list}-list`), names.map((name) => known.get(name) ?? this.#row(list, name)));
    $(`${list}-title`).hidden = names.length === 0;
    if (list === "incoming") this.#count(names.length);
    $("no-people").hidden = LISTS.some((l) => $(`${l}-list`).children.length > 0);
  }

  #row(list, name) {
    const act = (label, what, primary = false) =>
      h("button", { type: "button", class: primary ? "primary" : "quiet", "aria-label": `${label} ${name}`, onclick: (event) => this.#act(event.target, what) }, label);
    const { accept, end, block, unblock } = {
      accept: () => this.#api.acceptFriend(name),
      end: () => this.#api.endFriend(name),
      block: () => this.#api.block(name),
      unblock: () => this.#api.unblock(name),
    };
    const buttons = {
      incoming: () => [act("Accept", accept, true), act("Decline", end), act("Block", block)],
      outgoing: () => [act("Withdraw", end)],
      friend: () => [act("Message", () => this.#talk(name)), act("Remove", end), act("Block", block)],
      blocked: () => [act("Unblock", unblock)],
    };
    return h("li", { "data-name": name }, h("span", { class: "name" }, name), h("span", { class: "acts" }, ...buttons[list]()));
  }

  async #talk(name) {
    await this.#on.talk(name);
    $("people").close();
  }

  async #act(button, what) {
    button.disabled = true;
    try {
      await what();
    } catch (err) {
      this.#on.note(err.message);
    }
    button.disabled = false;
    await this.refresh();
    // Where the row is gone, the keyboard goes on at the top.
    if ($("people").open && !button.isConnected) $("friend-name").focus();
  }

  async #submit(event) {
    event.preventDefault();
    const name = $("friend-name").value.trim();
    if (!name) return this.#error("Enter a user name.");
    const block = event.submitter?.value === "block";
    try {
      await (block ? this.#api.block(name) : this.#api.askFriend(name));
      $("friend-name").value = "";
      this.#error("");
    } catch (err) {
      this.#error(err.code === "not_found" ? `There is no user ${name}.` : sentence(err.message));
    }
    this.refresh();
  }

  #error(text) {
    put($("friend-error"), text);
    $("friend-name").setAttribute("aria-invalid", String(text !== ""));
  }

  #count(n) {
    $("requests").hidden = n === 0;
    put($("requests"), n ? String(n) : "");
    $("open-people").setAttribute("aria-label", n ? `Friends, ${n} ${n === 1 ? "request" : "requests"}` : "Friends");
  }
}
