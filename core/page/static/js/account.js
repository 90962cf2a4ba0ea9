// The user's own: profile, password, and the devices that are logged in.

import { $, h, put, toast } from "./dom.js";
import { clock, date } from "./message.js";
import { sentence } from "./welcome.js";

export class Account {
  #api;
  #on;
  #stopped = false;

  /** api: see api.js; on: left() once this device is logged out; note(text). */
  constructor(api, on, signal) {
    this.#api = api;
    this.#on = on;
    const listen = (id, event, f) => $(id).addEventListener(event, f, { signal });
    listen("open-account", "click", () => this.#show());
    listen("profile", "submit", (event) => this.#saveProfile(event));
    listen("change-password", "submit", (event) => this.#changePassword(event));
    listen("logout-all", "click", () => this.#logoutAll());
    signal.addEventListener("abort", () => {
      this.#stopped = true;
      $("account").close();
      $("devices").replaceChildren();
      for (const form of ["profile", "change-password"]) $(form).reset();
      this.#say("profile-error", "");
      this.#say("password-error", "");
    });
  }

  async #show() {
    $("account").showModal();
    this.#say("profile-error", "");
    this.#say("password-error", "");
    this.#devices();
    try {
      const { user } = await this.#api.me();
      if (this.#stopped) return;
      $("display-name").value = user.display_name ?? "";
      $("about").value = user.about ?? "";
    } catch (err) {
      this.#failed(err);
    }
  }

  #failed(err) {
    if (!this.#stopped) this.#on.note(err.message);
  }

  #say(id, text, field) {
    put($(id), text);
    for (const input of $(id).closest("form").querySelectorAll("input, textarea")) {
      input.setAttribute("aria-invalid", String(text !== "" && input.name === field));
    }
  }

  async #saveProfile(event) {
    event.preventDefault();
    try {
      await this.#api.setProfile({ display_name: $("display-name").value.trim(), about: $("about").value.trim() });
      this.#say("profile-error", "");
      toast("Profile saved");
    } catch (err) {
      this.#say("profile-error", sentence(err.message), err.field);
    }
  }

  async #changePassword(event) {
    event.preventDefault();
    const [old, fresh] = [$("old-password").value, $("new-password").value];
    if (!old || !fresh) return this.#say("password-error", "Enter both passwords.", old ? "new" : "old");
    try {
      await this.#api.setPassword(old, fresh);
      $("change-password").reset();
      this.#say("password-error", "");
      toast("Password changed; other devices are logged out");
    } catch (err) {
      const text = err.code === "permission_denied" ? "The present password is wrong." : sentence(err.message);
      this.#say("password-error", text, err.field || "old");
    }
    this.#devices();
  }

  async #devices() {
    try {
      const list = await this.#api.devices();
      if (!this.#stopped) $("devices").replaceChildren(...list.map((d) => this.#device(d)));
    } catch (err) {
      this.#failed(err);
    }
  }

  #device({ id, device, used_at, current }) {
    const name = device || "Unnamed device";
    return h("li", { "data-id": id },
      h("span", { class: "name" }, name, h("span", { class: "muted" }, current ? "This device" : `Last used ${date(used_at)}, ${clock(used_at)}`)),
      h("span", { class: "acts" }, h("button", { type: "button", class: "quiet", "aria-label": `Log out ${name}`, onclick: (event) => this.#logout(event.target, id, current) }, "Log out")));
  }

  async #logout(button, id, current) {
    button.disabled = true;
    try {
      await this.#api.logoutDevice(id);
    } catch (err) {
      if (err.status !== 404) this.#failed(err);
    }
    if (current) return this.#on.left();
    await this.#devices();
    if ($("account").open) $("logout-all").focus();
  }

  async #logoutAll() {
    try {
      await this.#api.logoutAll();
      this.#on.left();
    } catch (err) {
      this.#failed(err);
    }
  }
}
