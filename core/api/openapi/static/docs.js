// The API's documentation, drawn from openapi.json. Text goes in as text nodes only.

const $ = (id) => document.getElementById(id);

function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value !== undefined) el.setAttribute(key, value);
  }
  el.append(...children.filter((child) => child !== undefined && child !== null));
  return el;
}

const METHODS = ["get", "post", "put", "patch", "delete"];

/** The operations of a document, by tag, in its order. */
function operations(doc) {
  const tags = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const method of METHODS.filter((m) => item[m])) {
      const op = { path, method, ...item[method] };
      const tag = op.tags?.[0] ?? "";
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push(op);
    }
  }
  return tags;
}

const name = (op) => op.operationId.replace(/^.*_/, "");

class Page {
  #doc;

  constructor(doc) {
    this.#doc = doc;
  }

  draw() {
    $("title").textContent = this.#doc.info.title;
    $("about").textContent = this.#doc.info.description;
    for (const [tag, ops] of operations(this.#doc)) {
      const said = this.#doc.tags?.find((t) => t.name === tag)?.description;
      const list = h("ul", {}, ...ops.map((op) => h("li", { "data-find": `${name(op)} ${op.method} ${op.path}`.toLowerCase() }, h("a", { href: `#${op.operationId}` }, name(op)))));
      $("toc").append(h("section", {}, h("h2", {}, tag.replace(/Service$/, "")), list));
      $("operations").append(h("section", {}, h("h2", {}, tag.replace(/Service$/, "")), said && h("p", {}, said), ...ops.map((op) => this.#operation(op))));
    }
    $("codes").textContent = this.#doc.definitions.Error.properties.code.description;
    $("errors").hidden = false;
  }

  #operation(op) {
    const parameters = op.parameters ?? [];
    const body = parameters.find((p) => p.in === "body");
    const form = parameters.filter((p) => p.in === "formData");
    const [status, success] = Object.entries(op.responses).find(([code]) => code !== "default");
    const refusals = Object.entries(op.responses).filter(([code]) => code >= "400" && code !== "default");
    return h("article", { id: op.operationId },
      h("h3", {}, name(op)),
      h("p", { class: "path" }, h("span", { class: `method ${op.method}` }, op.method.toUpperCase()), " ", h("code", {}, op.path)),
      h("p", {}, [op.summary, op.description].filter(Boolean).join("\n")),
      op.security?.length === 0 ? h("p", { class: "muted" }, "Needs no token.") : undefined,
      this.#fields("In the path and the query", parameters.filter((p) => p !== body && !form.includes(p)).map((p) => ({ name: p.name, note: p.in, ...p }))),
      body && this.#fields("Body", this.#properties(body.schema)),
      this.#fields("Form", form),
      this.#fields(`Answer ${status} ${success.description}`, this.#properties(success.schema), success.schema?.type === "file" ? "The content." : "Nothing."),
      this.#refusals(refusals),
      h("details", {}, h("summary", {}, "curl"), h("pre", { tabindex: "0" }, h("code", {}, this.#curl(op, body, form)))));
  }

  #resolve(schema) {
    return schema?.$ref ? this.#doc.definitions[schema.$ref.replace("#/definitions/", "")] : schema;
  }

  #properties(schema) {
    return Object.entries(this.#resolve(schema)?.properties ?? {}).map(([field, p]) => ({ name: field, ...p }));
  }

  #type(p) {
    if (p.$ref) return p.$ref.replace("#/definitions/", "");
    if (p.type === "array") return `list of ${this.#type(p.items)}`;
    if (p.format === "date-time") return "time";
    return p.type ?? "object";
  }

  /** A table of fields, with the fields of messages below them. */
  #fields(title, fields, nothing) {
    if (fields.length === 0 && !nothing) return undefined;
    if (fields.length === 0) return h("div", {}, h("h4", {}, title), h("p", { class: "muted" }, nothing));
    const rows = [];
    const add = (list, depth, within) => {
      for (const p of list) {
        const inner = p.$ref ?? p.items?.$ref;
        const text = [p.title, p.description].filter(Boolean).join(". ");
        rows.push(h("tr", {},
          h("th", { scope: "row", class: `depth${depth}` }, h("code", {}, p.name)),
          h("td", {}, this.#type(p), p.note ? h("span", { class: "muted" }, ` ${p.note}`) : undefined),
          h("td", {}, text)));
        if (inner && !within.includes(inner) && depth < 3) add(this.#properties({ $ref: inner }), depth + 1, [...within, inner]);
      }
    };
    add(fields, 0, []);
    return h("div", {}, h("h4", {}, title), h("table", {}, h("tbody", {}, ...rows)));
  }

  /** Which answers mean what, where an operation says more than all do. */
  #refusals(list) {
    if (list.length === 0) return undefined;
    const rows = list.map(([code, r]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, code)), h("td", {}, r.description)));
    return h("div", {}, h("h4", {}, "Refused with"), h("table", {}, h("tbody", {}, ...rows)));
  }

  #curl(op, body, form) {
    const lines = [`curl ${op.method === "get" || (op.method === "post" && (body || form.length > 0)) ? "" : `-X ${op.method.toUpperCase()} `}${location.origin}${op.path}`];
    if (op.security?.length !== 0) lines.push(`-H "Authorization: Bearer $TOKEN"`);
    if (body) {
      const example = Object.fromEntries(this.#properties(body.schema).map((p) => [p.name, this.#example(p)]));
      lines.push(`--json '${JSON.stringify(example)}'`);
    }
    for (const p of form) lines.push(`-F ${p.name}=@FILE`);
    return lines.join(" \\\n  ");
  }

  #example(p) {
    if (p.type === "array") return [this.#example(p.items)];
    return { integer: 1, boolean: true, string: "..." }[p.type] ?? {};
  }
}

function find(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of $("toc").children) {
    let shown = 0;
    for (const li of section.querySelectorAll("li")) {
      li.hidden = !words.every((word) => li.dataset.find.includes(word));
      if (!li.hidden) shown++;
    }
    section.hidden = shown === 0;
  }
}

try {
  const response = await fetch("/openapi.json", { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  new Page(await response.json()).draw();
  $("find").addEventListener("input", (event) => find(event.target.value));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (err) {
  $("title").textContent = "Tracegate chat API";
  $("trouble").textContent = `The description could not be loaded: ${err.message}.`;
  $("trouble").hidden = false;
}
