// The login: one form for logging in and for registering.

import { $, put } from "./dom.js";

// Each address keeps a login of its own, and these are the same machine.
const TWIN = { "127.0.0.1": "localhost", localhost: "127.0.0.1" };

export class Welcome {
  #api;
  #enter;
  #register = false;

  constructor(api, enter) {
    this.#api = api;
    this.#enter = enter;
    $("login").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    $("switch-mode").addEventListener("click", () => this.#mode(!this.#register));
    this.#mode(false);
    const twin = TWIN[location.hostname];
    $("twin").hidden = !twin;
    $("private").hidden = Boolean(twin);
    if (twin) $("twin-link").href = `${location.protocol}//${twin}${location.port ? `:${location.port}` : ""}/`;
    put($("twin-link"), $("twin-link").host);
  }

  show(text = "") {
    $("welcome").hidden = false;
    $("welcome-text").textContent = text;
    $("welcome-text").hidden = text === "";
    document.title = "Tracegate chat";
    $("name").focus();
  }

  hide() {
    $("welcome").hidden = true;
    $("password").value = "";
  }

  #mode(register) {
    this.#register = register;
    const verb = register ? "Create account" : "Log in";
    $("welcome-title").textContent = register ? "Create an account" : "Log in";
    $("login-submit").textContent = verb;
    $("switch-text").textContent = register ? "Have an account?" : "New here?";
    $("switch-mode").textContent = register ? "Log in" : "Create an account";
    $("password").autocomplete = register ? "new-password" : "current-password";
    $("password-hint").hidden = !register;
    this.#error("");
  }

  async #submit() {
    const name = $("name").value.trim();
    const password = $("password").value;
    if (!name) return this.#error("Enter a user name.", "name");
    if (!password) return this.#error("Enter a password.", "password");
    this.#busy(true);
    try {
      if (this.#register) await this.#api.register(name, password);
      await this.#api.login(name, password);
      this.#enter(await this.#api.me());
      this.#mode(false);
    } catch (err) {
      this.#error(message(err, this.#register), err.field || (err.code === "already_exists" ? "name" : "password"));
    } finally {
      this.#busy(false);
    }
  }

  #busy(busy) {
    $("login-submit").disabled = busy;
    $("login").setAttribute("aria-busy", busy);
  }

  #error(text, field) {
    $("login-error").textContent = text;
    for (const id of ["name", "password"]) $(id).setAttribute("aria-invalid", String(text !== "" && id === field));
    if (text) $(field === "name" ? "name" : "password").focus();
  }
}

function message(err, register) {
  if (err.code === "already_exists") return "This name is taken. Choose another, or log in.";
  if (err.code === "unauthenticated" && !register) return "Name or password is wrong.";
  return sentence(err.message);
}

export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
