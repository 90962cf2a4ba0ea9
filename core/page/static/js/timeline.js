// The messages of one conversation in order of seq, each once, whatever order they
// come in. A pure value: it fetches nothing and draws nothing.

// What is kept ahead of a missing message. When it is full the newest are dropped;
// the history has them, and is asked for to close the gap anyway.
const MAX_EARLY = 256;

export class Timeline {
  /** Messages without a gap, oldest first. */
  messages = [];
  /** Seq before the first of messages; older ones can be loaded. */
  start = 0;
  /** Seq of the last message; null until seed has said where the conversation stands. */
  last = null;
  #early = new Map();
  #user;

  /** user is the name of whose timeline it is. */
  constructor(user) {
    this.#user = user;
  }

  /** seed says that messages after seq `after` follow, or that there are none yet. */
  seed(after) {
    if (this.last !== null) return;
    this.start = this.last = after;
  }

  /**
   * add takes a message as it came and returns those that are new and in order now.
   * A message that is already there gives none. begins says that nothing before it is
   * for this user, who was just added.
   */
  add(message, begins = false) {
    const { seq } = message;
    if (begins && this.last !== null && seq > this.last + 1) this.last = seq - 1;
    if (this.last === null || seq > this.last + 1) {
      if (this.#early.size < MAX_EARLY) this.#early.set(seq, message);
      return [];
    }
    if (seq <= this.last) return [];
    const added = [message];
    this.last = seq;
    for (let next; (next = this.#early.get(this.last + 1)); ) {
      this.#early.delete(next.seq);
      this.last = next.seq;
      added.push(next);
    }
    for (const old of this.#early.keys()) if (old <= this.last) this.#early.delete(old);
    this.messages.push(...added);
    for (const m of added) this.#apply(m);
    return added;
  }

  // apply does to a message that is shown what an edit, a recall or a reaction says.
  #apply({ event, text, sender }) {
    const target = event?.target && this.messages.find((m) => m.seq === event.target);
    if (!target) return;
    const acts = {
      edited: () => Object.assign(target, { text, edited: true }),
      recalled: () => Object.assign(target, { text, edited: false, recalled: true, file: undefined, reactions: [] }),
      reacted: () => this.#react(target, event, sender, true),
      unreacted: () => this.#react(target, event, sender, false),
    };
    acts[event.kind]?.();
  }

  // react takes the entry's count as it is: that is right whatever came twice.
  #react(target, { emoji, count = 0 }, sender, on) {
    const list = target.reactions ?? [];
    const is = list.find((r) => r.emoji === emoji) ?? { emoji, mine: false };
    const next = { ...is, count, mine: sender === this.#user ? on : is.mine };
    target.reactions = (list.some((r) => r.emoji === emoji) ? list.map((r) => (r.emoji === emoji ? next : r)) : [...list, next]).filter((r) => r.count > 0);
  }

  /** prepend takes older messages, oldest first, that end where this begins. */
  prepend(older) {
    const fit = older.filter((m) => m.seq <= this.start);
    if (fit.length === 0) return;
    this.messages.unshift(...fit);
    this.start = fit[0].seq - 1;
  }

  /** gap says whether something came that cannot be shown before what is missing. */
  get gap() {
    return this.#early.size > 0;
  }
}
