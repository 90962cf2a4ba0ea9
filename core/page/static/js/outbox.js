// What the user has sent and the log has not acknowledged yet, in order. Each
// conversation has one message under way at a time, so that a retry cannot overtake:
// order is the order of sending, whichever connection carried what.
//
// A message keeps its client id over every retry, so that repeating takes effect once.

import { pause } from "./backoff.js";

// Temporary refusals before the user is asked. A lost connection does not count.
const MAX_REFUSALS = 6;

/**
 * States of an entry: waiting (its turn, or a connection), sending, accepted (durable,
 * its seq is not known yet), failed (refused; the user may retry or discard).
 */
export class Outbox {
  #entries = [];
  #deps;

  /**
   * deps: request(command) -> Promise of a reply frame, rejecting with {code, message,
   * temporary, lost}; ready() -> whether there is a connection; changed(entry);
   * save(entries); later(ms) -> Promise; random().
   */
  constructor(deps, saved = []) {
    this.#deps = deps;
    for (const s of saved) this.#entries.push({ ...s, state: s.state === "failed" ? "failed" : "waiting", refusals: 0 });
  }

  get size() {
    return this.#entries.length;
  }

  of(conversation) {
    return this.#entries.filter((e) => e.conversation === conversation);
  }

  /** push takes a message; file is what the server has said of an uploaded one, if any. */
  push(conversation, text, clientID, now, file = null) {
    const entry = { conversation, text, file, client_id: clientID, sent_at: now, state: "waiting", refusals: 0 };
    this.#entries.push(entry);
    this.#update(entry);
    this.flush();
    return entry;
  }

  /** delivered forgets an entry whose message has come back with its seq. */
  delivered(conversation, clientID) {
    const i = this.#entries.findIndex((e) => e.conversation === conversation && e.client_id === clientID);
    if (i < 0) return;
    const [entry] = this.#entries.splice(i, 1);
    entry.state = "delivered";
    this.#update(entry);
    this.flush();
  }

  retry(clientID) {
    const entry = this.#entries.find((e) => e.client_id === clientID && e.state === "failed");
    if (!entry) return;
    entry.refusals = 0;
    this.#update(entry, "waiting");
    this.flush();
  }

  discard(clientID) {
    const i = this.#entries.findIndex((e) => e.client_id === clientID && e.state === "failed");
    if (i < 0) return;
    const [entry] = this.#entries.splice(i, 1);
    entry.state = "discarded";
    this.#update(entry);
    this.flush();
  }

  /** flush sends what may be sent now; call it when a connection is ready. */
  flush() {
    if (!this.#deps.ready()) return;
    const busy = new Set();
    for (const entry of this.#entries) {
      if (busy.has(entry.conversation)) continue;
      if (entry.state === "waiting") this.#send(entry);
      if (entry.state === "sending") busy.add(entry.conversation);
    }
  }

  async #send(entry) {
    this.#update(entry, "sending");
    const { conversation, client_id, text, file } = entry;
    try {
      const { accepted } = await this.#deps.request({ send: { conversation, client_id, text, ...(file && { file: file.id }) } });
      if (!this.#entries.includes(entry)) return; // its message was faster than its reply
      entry.trace_id = accepted.trace_id;
      this.#update(entry, "accepted");
    } catch (err) {
      await this.#refused(entry, err);
    }
    this.flush();
  }

  async #refused(entry, err) {
    if (!this.#entries.includes(entry)) return;
    if (err.lost) return this.#update(entry, "waiting");
    entry.error = err.message;
    if (!err.temporary || ++entry.refusals >= MAX_REFUSALS) return this.#update(entry, "failed");
    // Still "sending": nothing of this conversation may overtake it meanwhile.
    await this.#deps.later(pause(entry.refusals, this.#deps.random()));
    this.#update(entry, "waiting");
  }

  #update(entry, state = entry.state) {
    entry.state = state;
    this.#deps.save(this.#entries);
    this.#deps.changed(entry);
  }
}
