// The policy: which is in force, those before it, and what another one would change.

import { api, sentence } from "./api.js";
import { $, h, list, put } from "./dom.js";
import { clock, count } from "./format.js";

const STATES = { pending: "Pending", in_force: "In force", partly: "Partly in force", refused: "Refused", rolled_back: "Taken back", superseded: "Superseded", invalid: "Invalid" };
const TYPES = { lds: "Listener", rds: "Routes", cds: "Cluster", eds: "Endpoints", ecds: "Filter" };

export class PolicyView {
  #asked = 0;

  constructor() {
    $("policy-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare({ document: $("policy-document").value }, "the text below");
    });
    $("policy-file").addEventListener("change", async () => {
      const [file] = $("policy-file").files;
      if (file) $("policy-document").value = await file.text();
      $("policy-file").value = ""; // the same file may be chosen again
    });
  }

  async show() {
    $("view-policy").hidden = false;
    document.title = "Policy - Tracegate console";
    try {
      const { document: text, revision, revisions } = await api.policy();
      if (!$("policy-document").value) $("policy-document").value = text;
      put($("policy-note"), revision ? `revision ${revision.number} in force, by ${revision.by}` : "");
      this.#revisions(revisions, revision?.number);
    } catch (err) {
      put($("policy-error"), sentence(err.message));
    }
  }

  hide() {
    $("view-policy").hidden = true;
    $("policy-difference").hidden = true;
    put($("policy-error"), "");
  }

  changed() {}

  #revisions({ rows, left_out: out }, current) {
    const cell = (name, ...children) => h("td", { role: "cell", "data-label": name }, ...children);
    list($("revisions"), rows, (r) => `${r.number} ${r.state}`, (r) => h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, String(r.number)),
      cell("When", h("time", { datetime: r.time }, clock(r.time))), cell("By", r.by), cell("State", h("span", { class: "badge", "data-state": ["refused", "rolled_back", "invalid"].includes(r.state) ? "isolated" : "" }, STATES[r.state] ?? r.state)),
      cell("Why", r.why || r.reason || "–"), h("td", { role: "cell", class: "act" }, r.number !== current && r.state !== "invalid" && h("button", { type: "button", "aria-label": `Compare revision ${r.number} with the policy in force`, onclick: () => this.#compare({ revision: r.number }, `revision ${r.number}`) }, "Compare"))));
    put($("revisions-note"), out ? `the last ${rows.length} of ${count(rows.length + out)}` : "");
  }

  async #compare(question, name) {
    const asked = ++this.#asked;
    put($("policy-error"), "");
    try {
      const d = await api.difference(question);
      if (asked === this.#asked) this.#difference(d, name);
    } catch (err) {
      if (asked === this.#asked) put($("policy-error"), sentence(err.message));
    }
  }

  #difference({ problems, changes, lines }, name) {
    const same = lines.rows.length === 0;
    $("policy-difference").hidden = false;
    put($("policy-difference-title"), `What ${name} would change`);
    put($("policy-result"), problems.length ? "It would be refused, and the one in force would go on:" : same ? "It is the policy in force." : changes.rows.length ? `${count(changes.rows.length + changes.left_out)} resources at the edge would change.` : "Nothing would change at the edge.");
    $("policy-result").dataset.tone = problems.length ? "bad" : "";
    list($("policy-problems"), problems.map((text, i) => ({ text, key: `${i} ${text}` })), (p) => p.key, (p) => h("li", {}, p.text));
    list($("policy-changes"), problems.length ? [] : changes.rows, (c) => [c.type, c.name, c.what].join(" "), (c) => h("li", {}, `${TYPES[c.type] ?? c.type} `, h("code", {}, c.name), ` ${c.what}`));
    $("policy-lines").replaceChildren(...lines.rows.map((text) => h("span", { class: "diff-line", "data-sign": text.startsWith("+") ? "added" : text.startsWith("-") ? "removed" : text.startsWith("@@") || text.startsWith("diff ") ? "place" : "" }, `${text}\n`)), lines.left_out ? h("span", { class: "diff-line" }, `${count(lines.left_out)} more lines`) : "");
    $("policy-lines").hidden = same;
    $("policy-difference").focus();
  }
}
