// One WebSocket: commands with replies, pushes, a sign of life. It knows nothing of
// reconnecting; link.js does.

const REPLY_MS = 10_000;
const PING_MS = 25_000;
// Our own close code where no reply came; the server's codes are in core/protocol.
const CLOSE_SILENT = 4000;

/** Lost is how a command ends whose connection ended first: its outcome is unknown. */
export class Lost extends Error {
  lost = true;
  temporary = true;
  constructor() {
    super("The connection was lost.");
  }
}

export class Connection {
  hello = null;
  #socket;
  #next = 1;
  #pending = new Map();
  #on;
  #heartbeat = 0;
  #closed = false;

  /** on: push(frame), closed(code, reason). Neither is called after closed. */
  constructor(url, on) {
    this.#on = on;
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = (event) => this.#end(event.code, event.reason);
    // A silent peer is found by a handshake that takes too long as well.
    this.#heartbeat = setTimeout(() => this.#fail(), REPLY_MS);
  }

  get idle() {
    return this.#pending.size === 0;
  }

  /** request resolves with the reply's frame, rejects with its error or Lost. */
  request(command) {
    if (this.#closed || this.#socket.readyState !== WebSocket.OPEN) return Promise.reject(new Lost());
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail(), REPLY_MS);
      this.#pending.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ id, ...command }));
    });
  }

  /** close ends it without a call of closed; commands under way are Lost. */
  close() {
    this.#socket.onclose = null;
    this.#socket.close(1000);
    this.#release();
  }

  #receive(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return this.#fail();
    }
    if (frame.hello) {
      this.hello = frame.hello;
      this.#beat();
    }
    if (!frame.id) return this.#on.push(frame);
    const waiting = this.#pending.get(frame.id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.#pending.delete(frame.id);
    frame.error ? waiting.reject(frame.error) : waiting.resolve(frame);
  }

  // The server pings too, but a browser does not show that to a page.
  #beat() {
    clearTimeout(this.#heartbeat);
    this.#heartbeat = setTimeout(async () => {
      const sent = performance.now();
      try {
        await this.request({ ping: {} });
        this.#on.roundTrip?.(performance.now() - sent);
        if (!this.#closed) this.#beat();
      } catch {
        // Its timeout has ended the connection.
      }
    }, PING_MS);
  }

  // A dead peer does not answer a close either, so its event is not waited for.
  #fail() {
    this.#socket.onclose = null;
    this.#socket.close(CLOSE_SILENT);
    this.#end(CLOSE_SILENT, "no answer");
  }

  #end(code, reason) {
    if (this.#closed) return;
    this.#release();
    this.#on.closed(code, reason);
  }

  #release() {
    this.#closed = true;
    this.#socket.onmessage = null;
    clearTimeout(this.#heartbeat);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new Lost());
    }
    this.#pending.clear();
  }
}
