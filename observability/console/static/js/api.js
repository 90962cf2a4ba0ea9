// Calls to the console's own server.

export class Failure extends Error {
  constructor({ code = "unavailable", message, field = "" }, status = 0) {
    super(message);
    Object.assign(this, { code, field, status });
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(`/console/api${path}`, {
      method,
      headers: { "X-Tracegate-Console": "1", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    throw new Failure({ message: "The console's server cannot be reached." });
  }
  const json = await response.json().catch(() => null);
  if (response.ok) return json ?? {};
  throw new Failure(json?.code ? json : { message: `The server answered ${response.status}.` }, response.status);
}

export const api = {
  session: () => call("GET", "/session"),
  login: (name, password) => call("POST", "/session", { name, password }),
  logout: () => call("DELETE", "/session"),
  order: (group, verb, order) => call("POST", `/groups/${group}/${verb}`, order),
  confirm: (decision, reason) => call("POST", `/decisions/${encodeURIComponent(decision)}/confirm`, { reason }),
  decisions: (question) => call("GET", `/decisions?${new URLSearchParams(question)}`),
  policy: () => call("GET", "/policy"),
  difference: (question) => call("POST", "/policy/difference", question),
  traces: (group, errors, least) => call("GET", `/groups/${group}/traces?${new URLSearchParams({ errors, min_ms: least })}`),
  trace: (id) => call("GET", `/traces/${id}`),
};

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
