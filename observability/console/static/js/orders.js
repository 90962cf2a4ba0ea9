// Isolate and release by hand: buttons, and the question before.

import { api, sentence } from "./api.js";
import { $, h, put, toast } from "./dom.js";
import { identity } from "./format.js";

const HOURS = [["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600], ["1 day", 86_400]];

export class Orders {
  #row = null;
  #verb = "";

  constructor() {
    $("order-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("order-reason").addEventListener("input", () => this.#error(""));
    $("order-cancel").addEventListener("click", () => $("order").close());
  }

  close() {
    if ($("order").open) $("order").close();
  }

  /** button gives the action that makes sense for a row; update keeps it so. */
  button() {
    return h("button", { type: "button", class: "order-button" });
  }

  update(button, row) {
    const verb = row.known && row.pool !== row.home ? "release" : "isolate";
    put(button, verb === "release" ? "Release" : "Isolate");
    button.dataset.verb = verb;
    button.setAttribute("aria-label", `${button.textContent} group ${row.group}`);
    button.disabled = document.body.dataset.control === "away";
    button.onclick = () => this.#ask(row, verb);
  }

  #ask(row, verb) {
    this.#row = row;
    this.#verb = verb;
    const from = row.pool || row.pools[0]?.pool || "its pool";
    put($("order-title"), `${verb === "isolate" ? "Isolate" : "Release"} group ${row.group}?`);
    put($("order-text"), verb === "isolate"
      ? `${identity(row)}. Its requests and its open sockets move from ${from} to isolated as soon as every edge has acknowledged.`
      : `${identity(row)}. Its requests and its open sockets go back to ${row.home}. For a minute, or as long as you say, policy leaves it there.`);
    const first = verb === "isolate" ? "Until it is released" : "1 minute";
    $("order-for").replaceChildren(...[[first, 0], ...HOURS].map(([text, seconds]) => h("option", { value: seconds * 1000 }, text)));
    put($("order-submit"), verb === "isolate" ? "Isolate" : "Release");
    $("order-submit").classList.toggle("danger", verb === "isolate");
    $("order-reason").value = "";
    this.#error("");
    $("order").showModal();
    $("order-reason").focus();
  }

  async #submit() {
    const reason = $("order-reason").value.trim();
    if (!reason) return this.#error("Say why: it is kept with the decision.");
    const { group, color, env, tenant } = this.#row;
    $("order-submit").disabled = true;
    try {
      await api.order(group, this.#verb, { reason, for_ms: Number($("order-for").value), identity: { color, env, tenant } });
      $("order").close();
      toast(`Group ${group} will be ${this.#verb}d`);
    } catch (err) {
      this.#error(sentence(err.message));
    } finally {
      $("order-submit").disabled = false;
    }
  }

  #error(text) {
    put($("order-error"), text);
    $("order-reason").setAttribute("aria-invalid", String(text !== ""));
  }
}
