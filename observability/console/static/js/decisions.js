// The timeline of the overview: the newest decisions as they come, or those of a group or a
// time that were asked for, which stay until they are left.

import { api, sentence } from "./api.js";
import { $, h, list, put } from "./dom.js";
import { count, identity } from "./format.js";
import { timeline } from "./timeline.js";

const FIELDS = ["group", "from", "to"];
const NONE = "No decisions yet. A group is isolated when it breaks its objectives while its baseline does not.";

export class Decisions {
  #state;
  #confirm;
  #found = null; // what was asked for; null: live
  #asking = 0;

  constructor(state, confirm) {
    this.#state = state;
    this.#confirm = confirm;
    $("decisions-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find();
    });
    $("decisions-live").addEventListener("click", () => {
      for (const name of FIELDS) $(`decisions-${name}`).value = "";
      $("decisions-group").focus();
      this.#find();
    });
  }

  show() {
    const { decisions, groups } = this.#state;
    const shown = this.#found?.decisions ?? decisions ?? [];
    timeline($("decisions"), shown, this.#confirm);
    list($("decisions-groups"), groups ?? [], (r) => r.group, (r) => h("option", { value: r.group }), (el, r) => put(el, identity(r)));
    put($("decisions-note"), this.#found ? `${this.#found.more ? `the newest ${count(shown.length)}` : count(shown.length)} found` : shown.length ? `last ${shown.length}` : "");
    put($("decisions-empty"), this.#found ? "No decision matches." : NONE);
    $("decisions-empty").hidden = shown.length > 0 || (!this.#found && !decisions);
    $("decisions-live").hidden = !this.#found;
  }

  async #find() {
    const asking = ++this.#asking;
    const group = $("decisions-group").value.trim().toLowerCase();
    const [from, to] = ["from", "to"].map((name) => $(`decisions-${name}`).value).map((value) => value && new Date(value).toISOString());
    let failed = null;
    let found = null;
    if (group || from || to) found = await api.decisions({ group, from, to }).catch((err) => void (failed = err));
    if (asking !== this.#asking) return; // another was asked meanwhile
    put($("decisions-error"), failed ? sentence(failed.message) : "");
    for (const name of FIELDS) $(`decisions-${name}`).toggleAttribute("aria-invalid", false);
    if (failed) return void $(`decisions-${failed.field}`)?.setAttribute("aria-invalid", "true");
    this.#found = found;
    this.show();
  }
}
