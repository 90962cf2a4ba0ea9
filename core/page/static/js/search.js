// The search in the sidebar: words in, messages out, newest first, page by page.

import { $, h, put } from "./dom.js";
import { clock, date } from "./message.js";
import { sentence } from "./welcome.js";

// So long a pause means that the user has stopped typing.
const PAUSE_MS = 350;

export class Search {
  #api;
  #on;
  #timer = 0;
  #asked = 0; // answers to older questions are dropped
  #next = "";

  /** api: search(text, cursor) -> {results, next}; on: name(conversation), open(conversation, seq). */
  constructor(api, on, signal) {
    this.#api = api;
    this.#on = on;
    const listen = (id, event, f) => $(id).addEventListener(event, f, { signal });
    listen("search", "submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    listen("query", "input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#ask(), PAUSE_MS);
    });
    listen("query", "keydown", (event) => event.key === "Escape" && this.close());
    listen("more-found", "click", () => this.#more());
  }

  close() {
    clearTimeout(this.#timer);
    this.#asked++;
    $("query").value = "";
    this.#show(false);
  }

  #show(searching) {
    $("found").hidden = !searching;
    $("conversations").hidden = searching;
    if (searching) $("no-conversations").hidden = true;
    if (!searching) {
      $("results").replaceChildren();
      put($("found-state"), "");
      this.#on.closed();
    }
  }

  async #ask() {
    clearTimeout(this.#timer);
    const text = $("query").value.trim();
    if (!text) return this.close();
    this.#show(true);
    const page = await this.#page(text, "");
    if (!page) return;
    $("results").replaceChildren(...page.results.map((r) => this.#result(r)));
    const n = page.results.length;
    put($("found-state"), n === 0 && !page.next ? "Nothing found." : `${n}${page.next ? " or more" : ""} found.`);
  }

  async #more() {
    const page = await this.#page($("query").value.trim(), this.#next);
    if (!page) return;
    $("results").append(...page.results.map((r) => this.#result(r)));
    put($("found-state"), `${$("results").children.length}${page.next ? " or more" : ""} found.`);
  }

  async #page(text, cursor) {
    const asked = ++this.#asked;
    $("more-found").hidden = true;
    try {
      const page = await this.#api.search(text, cursor);
      if (asked !== this.#asked) return null;
      this.#next = page.next ?? "";
      $("more-found").hidden = !this.#next;
      return page;
    } catch (err) {
      if (asked === this.#asked) {
        if (!cursor) $("results").replaceChildren();
        put($("found-state"), sentence(err.message));
      }
      return null;
    }
  }

  #result({ message, snippet }) {
    const { conversation, seq, sender, sent_at } = message;
    return h("li", {}, h("button", { type: "button", onclick: () => this.#on.open(conversation, seq) },
      h("span", { class: "who" }, sender), h("time", { dateTime: sent_at }, `${date(sent_at)}, ${clock(sent_at)}`),
      h("span", { class: "where" }, `in ${this.#on.name(conversation)}`),
      h("span", { class: "snippet" }, ...snippet.map((part) => (part.match ? h("mark", {}, part.text) : part.text)))));
  }
}
