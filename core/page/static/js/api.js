// REST calls of core. Each answer also says who served it.

/** Failure is core's Error, or what stands for one when the answer is not core's. */
export class Failure extends Error {
  constructor({ code = "unavailable", message, field = "", temporary = true }, status = 0) {
    super(message);
    Object.assign(this, { code, field, temporary, status });
  }
}

const TIMEOUT_MS = 10_000;

export class API {
  /** served({group, pool, node}) is told of every answer that came through the edge. */
  constructor(served = () => {}) {
    this.served = served;
  }

  me = () => this.#call("GET", "/v1/me");
  register = (name, password) => this.#call("POST", "/v1/users", { name, password });
  login = (name, password) => this.#call("POST", "/v1/sessions", { name, password });
  logout = () => this.#call("DELETE", "/v1/sessions/current");
  conversations = async () => (await this.#call("GET", "/v1/conversations")).conversations ?? [];
  open = (name) => this.#call("POST", "/v1/conversations", { with: name });

  async messages(conversation, after, limit) {
    const query = new URLSearchParams({ after, limit });
    return this.#call("GET", `/v1/conversations/${encodeURIComponent(conversation)}/messages?${query}`);
  }

  async #call(method, path, body) {
    let response;
    try {
      response = await fetch(path, {
        method,
        headers: body ? { "Content-Type": "application/json" } : {},
        body: body && JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (err) {
      throw new Failure({ message: err.name === "TimeoutError" ? "The server did not answer in time." : "The server cannot be reached." });
    }
    const pool = response.headers.get("x-traffic-pool");
    if (pool) this.served({ group: response.headers.get("x-traffic-group") ?? "", pool, node: response.headers.get("x-traffic-node") ?? "" });
    const json = await response.json().catch(() => null);
    if (response.ok) return json ?? {};
    throw new Failure(json?.code ? json : { message: `The server answered ${response.status}.`, temporary: response.status >= 500 }, response.status);
  }
}
