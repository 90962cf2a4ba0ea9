// The files that wait in the composer: each is uploaded at once, and sent with the next
// message when it is there.

import { $, h, put } from "./dom.js";
import { sentence } from "./welcome.js";

// More at a time would be refused by the server.
const MAX = 8;

export class Attachments {
  #upload;
  #note;
  #items = []; // {file, element, aborter, done: what the server says of it}

  /** upload(file, progress, signal) -> Promise of a file; note(text) tells the user. */
  constructor(upload, note, signal) {
    this.#upload = upload;
    this.#note = note;
    const listen = (el, event, f) => el.addEventListener(event, f, { signal });
    listen($("attach"), "click", () => $("file").click());
    listen($("file"), "change", () => {
      this.add($("file").files);
      $("file").value = "";
    });
    listen($("text"), "paste", (event) => {
      if (event.clipboardData.files.length === 0) return;
      event.preventDefault();
      this.add(event.clipboardData.files);
    });
    const chat = $("composer").closest("section");
    const files = (event) => event.dataTransfer?.types.includes("Files") && !$("composer").hidden;
    listen(chat, "dragover", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      chat.dataset.drop = "true";
    });
    listen(chat, "dragleave", (event) => chat.contains(event.relatedTarget) || delete chat.dataset.drop);
    listen(chat, "drop", (event) => {
      delete chat.dataset.drop;
      if (!files(event)) return;
      event.preventDefault();
      this.add(event.dataTransfer.files);
    });
  }

  get empty() {
    return this.#items.length === 0;
  }

  /** busy says that something is still on its way. */
  get busy() {
    return this.#items.some((item) => !item.done);
  }

  add(files) {
    for (const file of files) {
      if (this.#items.length >= MAX) return this.#note(`At most ${MAX} files at a time.`);
      this.#begin(file);
    }
  }

  /** take returns what has been uploaded, and begins anew. */
  take() {
    const done = this.#items.filter((item) => item.done).map((item) => item.done);
    this.clear();
    return done;
  }

  clear() {
    for (const item of this.#items) {
      item.aborter.abort();
      item.element.remove();
    }
    this.#items = [];
    this.#show();
  }

  async #begin(file) {
    const item = { file, aborter: new AbortController(), done: null };
    const bar = h("progress", { max: 1, value: 0, "aria-label": `Uploading ${file.name}` });
    item.element = h("li", { class: "attachment", "data-state": "uploading" },
      h("span", { class: "file-name" }, file.name), h("span", { class: "file-size" }, size(file.size)), bar,
      h("button", { type: "button", class: "quiet", "aria-label": `Remove ${file.name}`, onclick: () => this.#remove(item) }, "×"));
    this.#items.push(item);
    $("attachments").append(item.element);
    this.#show();
    try {
      item.done = await this.#upload(file, (share) => (bar.value = share), item.aborter.signal);
      bar.remove();
      item.element.dataset.state = "ready";
      if (item.done.thumbnail) item.element.prepend(thumbnail(item.done));
    } catch (err) {
      if (err.code === "aborted") return;
      this.#remove(item);
      this.#note(`${file.name}: ${sentence(err.message)}`);
    }
    this.#show();
  }

  #remove(item) {
    item.aborter.abort();
    item.element.remove();
    this.#items = this.#items.filter((other) => other !== item);
    this.#show();
  }

  #show() {
    $("attachments").hidden = this.empty;
    put($("attach-state"), this.busy ? "Uploading" : this.empty ? "" : `${this.#items.length} attached`);
  }
}

const link = (id, what) => `/v1/files/${encodeURIComponent(id)}/${what}`;

function thumbnail({ id, name, width, height }) {
  const scale = Math.min(1, 320 / Math.max(width, height));
  return h("img", {
    class: "thumbnail", src: link(id, "thumbnail"), alt: name, loading: "lazy", decoding: "async",
    width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)),
  });
}

/** attachment shows a file of a message: a picture, or its name and size. */
export function attachment(file) {
  const shown = file.thumbnail ? [thumbnail(file)] : [h("span", { class: "file-name" }, file.name), h("span", { class: "file-size" }, size(file.size))];
  return h("a", { class: file.thumbnail ? "picture" : "document", href: link(file.id, "content"), target: "_blank", rel: "noopener", title: `Open ${file.name}` }, ...shown);
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const unit = bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(bytes / unit[1]).toFixed(1)} ${unit[0]}`;
}
