// REST calls of core. Each answer also says who served it.

/** Failure is core's Error, or what stands for one when the answer is not core's. */
export class Failure extends Error {
  constructor({ code = "unavailable", message, field = "", temporary = true }, status = 0) {
    super(message);
    Object.assign(this, { code, field, temporary, status });
  }
}

const TIMEOUT_MS = 10_000;
const REFRESHED = "tracegate.refreshed"; // when a tab of this address got the newest token

export class API {
  #renewing = null;

  /** served({group, pool, node}) is told of every answer that came through the edge. */
  constructor(served = () => {}) {
    this.served = served;
  }

  me = () => this.#call("GET", "/v1/me");
  register = (name, password) => this.#call("POST", "/v1/users", { name, password });
  login = (name, password) => this.#call("POST", "/v1/sessions", { name, password, device: "Chat page" }, false);
  logout = () => this.#call("DELETE", "/v1/sessions/current");
  conversations = async () => (await this.#call("GET", "/v1/conversations")).conversations ?? [];
  open = (name) => this.#call("POST", "/v1/conversations", { with: name });

  /** friends are the names of all in a state: friend, incoming or outgoing. */
  friends = (state) => this.#names("/v1/friends", { state }, ({ friends = [] }) => friends.map((f) => f.name));
  askFriend = (name) => this.#call("PUT", `/v1/friends/${encodeURIComponent(name)}`);
  acceptFriend = (name) => this.#call("POST", `/v1/friends/${encodeURIComponent(name)}/accept`);
  endFriend = (name) => this.#call("DELETE", `/v1/friends/${encodeURIComponent(name)}`);
  blocks = () => this.#names("/v1/blocks", {}, ({ names = [] }) => names);
  block = (name) => this.#call("PUT", `/v1/blocks/${encodeURIComponent(name)}`);
  unblock = (name) => this.#call("DELETE", `/v1/blocks/${encodeURIComponent(name)}`);

  devices = async () => (await this.#call("GET", "/v1/sessions")).sessions ?? [];
  logoutDevice = (id) => this.#call("DELETE", `/v1/sessions/${encodeURIComponent(id)}`);
  logoutAll = () => this.#call("DELETE", "/v1/sessions");
  setProfile = (profile) => this.#call("PATCH", "/v1/me", profile);
  setPassword = (old, fresh) => this.#call("PUT", "/v1/me/password", { old, new: fresh });

  // names reads all pages of a list.
  async #names(path, query, of) {
    const out = [];
    for (let after = ""; ; ) {
      const page = await this.#call("GET", `${path}?${new URLSearchParams({ ...query, limit: 200, ...(after && { after }) })}`);
      out.push(...of(page));
      if (!page.next) return out;
      after = page.next;
    }
  }

  async messages(conversation, after, limit) {
    const query = new URLSearchParams({ after, limit });
    return this.#call("GET", `/v1/conversations/${encodeURIComponent(conversation)}/messages?${query}`);
  }

  search = (q, cursor) => this.#call("GET", `/v1/search?${new URLSearchParams(cursor ? { q, cursor } : { q })}`);

  /** upload sends a file; progress(share) is told how far it is, 0 to 1. */
  async upload(file, progress, signal) {
    try {
      return await this.#upload(file, progress, signal);
    } catch (err) {
      if (err.status !== 401 || !(await this.renew())) throw err;
    }
    return this.#upload(file, progress, signal);
  }

  #upload(file, progress, signal) {
    // fetch does not tell how far a body has gone.
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", "/v1/files");
      request.responseType = "json";
      request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 0);
      request.onload = () => {
        if (request.status === 201) return resolve(request.response);
        const json = request.response;
        reject(new Failure(json?.code ? json : { message: `The server answered ${request.status}.`, temporary: request.status >= 500 }, request.status));
      };
      request.onerror = () => reject(new Failure({ message: "The server cannot be reached." }));
      request.onabort = () => reject(new Failure({ code: "aborted", message: "Stopped." }));
      signal.addEventListener("abort", () => request.abort());
      const form = new FormData();
      form.append("file", file, file.name);
      request.send(form);
    });
  }

  // refresh gets a new access token by the cookie of the refresh token, and says whether it
  // could. That is good once and shared by the tabs of this address: one asks at a time, and
  // those that waited use what the first one got.
  async #refresh() {
    const since = Date.now();
    const once = async () => {
      if (Number(localStorage.getItem(REFRESHED) ?? 0) >= since) return true;
      try {
        await this.#call("POST", "/v1/sessions/refresh", undefined, false);
      } catch (err) {
        if (err.status === 401) return false;
        throw err;
      }
      localStorage.setItem(REFRESHED, String(Date.now()));
      return true;
    };
    // Without TLS from another machine there are no locks; core forgives what they prevent.
    return navigator.locks ? navigator.locks.request(REFRESHED, once) : once();
  }

  /** renew says whether the login still holds, after it got a new access token. */
  renew() {
    this.#renewing ??= this.#refresh().finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  // An access token is short: where it has ended, the call is made again with a new one.
  async #call(method, path, body, again = true) {
    try {
      return await this.#once(method, path, body);
    } catch (err) {
      if (!again || err.status !== 401 || !(await this.renew())) throw err;
    }
    return this.#once(method, path, body);
  }

  async #once(method, path, body) {
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
