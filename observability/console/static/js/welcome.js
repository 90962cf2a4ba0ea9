// The login.

import { api, sentence } from "./api.js";
import { $, put } from "./dom.js";

// The name is kept for the next login, where the browser lets us.
const name = {
  get() {
    try {
      return localStorage.getItem("tracegate.console.name") ?? "";
    } catch {
      return "";
    }
  },
  set(text) {
    try {
      localStorage.setItem("tracegate.console.name", text);
    } catch {
      // It is typed again then.
    }
  },
};

export class Welcome {
  #enter;

  constructor(enter) {
    this.#enter = enter;
    $("login").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  show(text = "") {
    $("welcome").hidden = false;
    put($("welcome-text"), text || "Traffic groups, decisions, edges and telemetry.");
    $("name").value = name.get();
    ($("name").value ? $("password") : $("name")).focus();
  }

  async #submit() {
    const who = $("name").value.trim();
    if (!who) return this.#error("Enter your name.", "name");
    if (!$("password").value) return this.#error("Enter the password.", "password");
    $("login-submit").disabled = true;
    try {
      const session = await api.login(who, $("password").value);
      name.set(who);
      $("password").value = "";
      this.#error("");
      this.#enter(session);
    } catch (err) {
      this.#error(sentence(err.message), err.field || "password");
    } finally {
      $("login-submit").disabled = false;
    }
  }

  #error(text, field) {
    put($("login-error"), text);
    for (const id of ["name", "password"]) $(id).setAttribute("aria-invalid", String(text !== "" && id === field));
    if (text) $(field === "name" ? "name" : "password").focus();
  }
}
