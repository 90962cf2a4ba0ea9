// The live link to core: keeps one connection, replaces it when it breaks, when the
// server asks to move (Reconnect) or when this page does, and resumes on each.
//
// All three are one act, dial: open, hello, resume; then the new connection is the
// active one and the old one, if there still is one, is closed. Both may push while
// they overlap; the timelines drop what comes twice. Nothing is missed, because the
// positions of a resume are read when the new connection stands.

import { pause } from "./backoff.js";
import { Connection } from "./connection.js";

/** Close codes from here on mean: do not come back (core/protocol). */
export const TERMINAL = 3500;
const CLOSE_EXPIRED = 3500;
// A connection that lasted this long was a good one: the next failure is a first one.
const STABLE_MS = 5_000;
// How long an old connection may owe replies before its commands are repeated elsewhere.
const DRAIN_MS = 2_000;

export class Link {
  #url;
  #on;
  #active = null;
  #dialing = null;
  #asked = null; // a Reconnect for the connection that is not resumed yet
  #timer = 0;
  #attempt = 0;
  #since = 0;
  #token = "";
  #stopped = true;

  /**
   * on: position() -> {epoch, positions}; state(name, detail) with name one of
   * connecting, live, moving, waiting, ended; message(message); friend({user, state}); resumed({recovered,
   * replayed, epoch}); roundTrip(ms); refused() -> Promise<bool>, asked when a
   * connection was refused: whether the login is to blame.
   */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
  }

  get ready() {
    return this.#active !== null;
  }

  start() {
    this.#stopped = false;
    this.#dial();
  }

  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#dialing?.close();
    this.#active?.close();
    this.#dialing = this.#active = null;
  }

  request(command) {
    return this.#active ? this.#active.request(command) : Promise.reject({ lost: true, temporary: true, message: "No connection." });
  }

  /** move replaces the connection without a gap, as the edge may now route it elsewhere. */
  move() {
    if (this.#stopped || this.#dialing) return;
    clearTimeout(this.#timer);
    this.#dial();
  }

  /** hurry ends a pause at once: the network or the user is back. */
  hurry() {
    if (this.#stopped || this.#active || this.#dialing) return;
    this.#attempt = 0;
    clearTimeout(this.#timer);
    this.#dial();
  }

  #dial() {
    this.#on.state(this.#active ? "moving" : "connecting");
    const conn = new Connection(this.#url, {
      push: (frame) => this.#push(conn, frame),
      closed: (code, reason) => this.#closed(conn, code, reason),
      roundTrip: (ms) => conn === this.#active && this.#on.roundTrip(ms),
    });
    this.#dialing = conn;
    this.#asked = null;
  }

  #push(conn, frame) {
    if (frame.hello) return this.#resume(conn, frame.hello);
    if (frame.message) return this.#on.message(frame.message);
    if (frame.friend) return this.#on.friend(frame.friend);
    if (!frame.reconnect) return;
    // The server asks once, also in the middle of a replay.
    if (conn === this.#dialing) this.#asked = frame.reconnect;
    else if (conn === this.#active && !this.#dialing) this.#follow(frame.reconnect);
  }

  #follow({ resume, reason, delay_ms }) {
    this.#token = resume;
    this.#on.state("moving", reason);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), delay_ms);
  }

  async #resume(conn, hello) {
    const { epoch, positions } = this.#on.position();
    let reply;
    try {
      reply = await conn.request({ resume: { token: this.#token, epoch: epoch || hello.epoch, positions } });
    } catch (err) {
      if (err.lost) return; // closed() has been told
      conn.close();
      return this.#closed(conn, 0, err.message);
    }
    if (this.#stopped) return;
    const old = this.#active;
    this.#active = conn;
    this.#dialing = null;
    this.#since = performance.now();
    this.#token = hello.resume;
    this.#on.resumed({ ...reply.resumed, epoch: hello.epoch });
    this.#on.state("live", hello);
    if (old) this.#retire(old);
    if (this.#asked) this.#follow(this.#asked);
  }

  // What the old connection still owes is waited for, shortly: repeating is safe, but
  // an answer is cheaper.
  #retire(old) {
    const until = performance.now() + DRAIN_MS;
    const check = () => {
      if (old.idle || performance.now() > until) old.close();
      else setTimeout(check, 50);
    };
    check();
  }

  async #closed(conn, code, reason) {
    if (this.#stopped || (conn !== this.#active && conn !== this.#dialing)) return;
    const wasActive = conn === this.#active;
    if (wasActive) this.#active = null;
    else this.#dialing = null;
    if (code >= TERMINAL && code < 4000 && code !== CLOSE_EXPIRED) return this.#end(reason || `code ${code}`);
    if (wasActive && performance.now() - this.#since > STABLE_MS) this.#attempt = 0;
    // A browser does not tell why a handshake was refused, so ask. An old connection may
    // also have ended with a login that has been prolonged since.
    if ((code === CLOSE_EXPIRED || !conn.hello) && !this.#active && (await this.#on.refused())) return this.#end("expired");
    if (this.#stopped) return;
    if (this.#dialing) return this.#on.state("connecting");
    const ms = pause(this.#attempt++, Math.random());
    this.#on.state(this.#active ? "moving" : "waiting", ms);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#dial(), ms);
  }

  #end(reason) {
    this.stop();
    this.#on.state("ended", reason);
  }
}
