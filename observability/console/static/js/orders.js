// Orders by hand (isolate, release, keep at home, limit): buttons, and the question before.

import { api, sentence } from "./api.js";
import { $, h, put, toast } from "./dom.js";
import { identity } from "./format.js";

const HOURS = [["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600], ["1 day", 86_400]];

const DONE = { isolate: "isolated", release: "released", pin: "kept at home", limit: "limited" };

export class Orders {
  #row = null;
  #verb = "";

  constructor() {
    $("order-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    for (const id of ["order-reason", "order-requests"]) $(id).addEventListener("input", () => this.#error(""));
    $("order-cancel").addEventListener("click", () => $("order").close());
  }

  close() {
    if ($("order").open) $("order").close();
  }

  /** button gives the action that makes sense for a row; update keeps it so. */
  button() {
    return h("button", { type: "button", class: "order-button" });
  }

  /** more gives the orders that only a group's own page has: stay at home, and a limit. */
  more(row) {
    const order = (verb, text) => h("button", { type: "button", class: "order-button", onclick: () => this.#ask(row(), verb) }, text);
    return [order("pin", "Keep at home"), order("limit", "Limit")];
  }

  update(button, row) {
    const verb = row.known && (row.pool !== row.home || row.limit > 0) ? "release" : "isolate";
    put(button, verb === "release" ? "Release" : "Isolate");
    button.dataset.verb = verb;
    button.setAttribute("aria-label", `${button.textContent} group ${row.group}`);
    button.hidden = document.body.dataset.role === "viewer";
    button.disabled = document.body.dataset.control === "away";
    button.onclick = () => this.#ask(row, verb);
  }

  /** confirm asks about what a decision recommends. */
  confirm = (d) => {
    this.#row = { group: d.group, decision: d.id };
    this.#verb = "confirm";
    put($("order-title"), `Follow the recommendation for group ${d.group}?`);
    put($("order-text"), `${identity(d)}. ${d.reason}. It is done as the policy would have done it, and ends as it would have.`);
    $("order-for").replaceChildren(h("option", { value: 0 }, "As the policy says"));
    put($("order-submit"), "Confirm");
    this.#open(true);
  };

  #ask(row, verb) {
    this.#row = row;
    this.#verb = verb;
    const from = row.pool || row.pools[0]?.pool || "its pool";
    const home = row.home || from;
    const { title, text, first, submit } = {
      isolate: { title: `Isolate group ${row.group}?`, text: `Its requests and its open sockets move from ${from} to isolated as soon as every edge has acknowledged.`, first: "Until it is released", submit: "Isolate" },
      release: { title: `Release group ${row.group}?`, text: `Its requests and its open sockets go back to ${home}. For a minute, or as long as you say, policy leaves it there.`, first: "1 minute", submit: "Release" },
      pin: { title: `Keep group ${row.group} at home?`, text: `It stays in ${home}, however it fares, for a minute or as long as you say.`, first: "1 minute", submit: "Keep at home" },
      limit: { title: `Limit group ${row.group}?`, text: "Each edge lets so many of its requests pass, and answers 429 to what is above.", first: "Until it is released", submit: "Limit" },
    }[verb];
    put($("order-title"), title);
    put($("order-text"), `${identity(row)}. ${text}`);
    $("order-for").replaceChildren(...[[first, 0], ...HOURS].map(([text, seconds]) => h("option", { value: seconds * 1000 }, text)));
    put($("order-submit"), submit);
    this.#open(verb === "isolate" || verb === "limit");
  }

  #open(danger) {
    for (const id of ["order-requests", "order-requests-label"]) $(id).hidden = this.#verb !== "limit";
    $("order-requests").value = "";
    $("order-submit").classList.toggle("danger", danger);
    $("order-reason").value = "";
    this.#error("");
    $("order").showModal();
    $("order-reason").focus();
  }

  async #submit() {
    const reason = $("order-reason").value.trim();
    if (!reason) return this.#error("Say why: it is kept with the decision.");
    const requests = Number($("order-requests").value);
    if (this.#verb === "limit" && !(Number.isInteger(requests) && requests > 0)) return this.#error("Say how many requests a second may pass: a whole number above 0.", "order-requests");
    const { group, color, env, tenant, decision } = this.#row;
    $("order-submit").disabled = true;
    try {
      if (decision) await api.confirm(decision, reason);
      else await api.order(group, this.#verb === "pin" ? "release" : this.#verb, { reason, for_ms: Number($("order-for").value), identity: { color, env, tenant }, ...(this.#verb === "limit" ? { requests } : {}) });
      $("order").close();
      toast(decision ? `What was recommended for group ${group} is done` : `Group ${group} will be ${DONE[this.#verb]}`);
    } catch (err) {
      this.#error(sentence(err.message));
    } finally {
      $("order-submit").disabled = false;
    }
  }

  #error(text, field = "order-reason") {
    put($("order-error"), text);
    for (const id of ["order-reason", "order-requests"]) $(id).setAttribute("aria-invalid", String(text !== "" && id === field));
  }
}
