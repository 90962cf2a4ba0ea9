// The live state: sections that the server sends whole, by server-sent events. The
// browser reconnects by itself and is then sent everything anew.

const SECTIONS = ["groups", "chart", "map", "decisions", "edges", "telemetry", "storage", "anomalies", "health", "kernel"];

export class Stream {
  state = {};
  #source = null;
  #on;
  #retry = 0;

  /** on: changed(section), live(bool), refused() when the session may be over. */
  constructor(on) {
    this.#on = on;
  }

  start() {
    this.#source = new EventSource("/console/api/events");
    this.#source.onopen = () => this.#on.live(true);
    this.#source.onerror = () => this.#failed();
    this.#source.addEventListener("bye", () => this.#on.refused());
    for (const section of SECTIONS)
      this.#source.addEventListener(section, (event) => {
        this.state[section] = JSON.parse(event.data);
        this.#on.changed(section);
      });
  }

  stop() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  // A broken stream is opened again by the browser; a refused one (401, 503) is not.
  #failed() {
    this.#on.live(false);
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    this.#source = null;
    this.#on.refused();
    this.#retry = setTimeout(() => this.#source ?? this.start(), 2_000);
  }
}
