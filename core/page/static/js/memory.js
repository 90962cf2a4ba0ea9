// What survives a reload of this tab: positions, epoch and unsent messages, kept per
// user in sessionStorage. Where storage is refused (private windows, a full quota)
// the page works on without it.

export class Memory {
  #key;

  constructor(user) {
    this.#key = `tracegate.${user}`;
  }

  load() {
    try {
      const saved = JSON.parse(sessionStorage.getItem(this.#key) ?? "{}");
      return { epoch: "", positions: {}, read: {}, outbox: [], ...saved };
    } catch {
      return { epoch: "", positions: {}, read: {}, outbox: [] };
    }
  }

  save(part) {
    try {
      sessionStorage.setItem(this.#key, JSON.stringify({ ...this.load(), ...part }));
    } catch {
      // Only a reload would have needed it.
    }
  }

  clear() {
    try {
      sessionStorage.removeItem(this.#key);
    } catch {
      // Nothing was kept.
    }
  }
}
