// The login.

import { api, sentence } from "./api.js";
import { $, put } from "./dom.js";

const NAME = "tracegate.console.name";

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
    $("name").value = localStorage.getItem(NAME) ?? "";
    ($("name").value ? $("password") : $("name")).focus();
  }

  async #submit() {
    const name = $("name").value.trim();
    if (!name) return this.#error("Enter your name.", "name");
    if (!$("password").value) return this.#error("Enter the password.", "password");
    $("login-submit").disabled = true;
    try {
      const session = await api.login(name, $("password").value);
      localStorage.setItem(NAME, name);
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
