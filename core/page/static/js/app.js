// The chat itself: joins link, timelines, outbox and view. State lives here; view.js
// draws it and reports what the user does.

import { Link } from "./link.js";
import { Memory } from "./memory.js";
import { Outbox } from "./outbox.js";
import { Timeline } from "./timeline.js";
import { View } from "./view.js";

const PAGE = 50;
// Fan-out may lose a message that the log has; what is missing is then read from the
// history, after this time.
const HEAL_MS = 2_500;
// How often a reaction is sent before the user is told that it could not be.
const MAX_REACT = 5;

// crypto.randomUUID would do, but not on a page that came without TLS from another machine.
const newClientID = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
const later = (ms) => new Promise((done) => setTimeout(done, ms));

export class App {
  #api;
  #me;
  #leave;
  #memory;
  #link;
  #outbox;
  #view;
  #epoch;
  #positions; // of conversations that are not loaded yet, from before a reload
  #read;
  #conversations = new Map(); // id -> {id, peer, timeline, filling}
  #open = null;
  #saving = 0;
  #listing = null;
  #aborter = new AbortController();

  /** user is the id of who is logged in here. */
  get user() {
    return this.#me.user.id;
  }

  get #stopped() {
    return this.#aborter.signal.aborted;
  }

  constructor(api, me, leave) {
    this.#api = api;
    this.#me = me;
    this.#leave = leave;
    this.#memory = new Memory(me.user.id);
    const saved = this.#memory.load();
    this.#epoch = saved.epoch;
    this.#positions = saved.positions;
    this.#read = saved.read;
    this.#view = new View(me.user.name, {
      open: (id) => this.#show(id),
      search: (text, cursor) => this.#api.search(text, cursor),
      renew: () => this.#api.me().catch(() => null), // a call gets a new token where it needs one
      goTo: (id, seq) => this.#goTo(id, seq),
      start: (name) => this.#startWith(name),
      send: (text, files) => this.#send(text, files),
      upload: (file, progress, signal) => this.#api.upload(file, progress, signal),
      retry: (clientID) => this.#outbox.retry(clientID),
      discard: (clientID) => this.#outbox.discard(clientID),
      older: () => this.#older(this.#open),
      cohort: (canary) => this.#cohort(canary),
      logout: () => this.#logout(),
      read: () => this.#markRead(),
      react: (message, emoji, add) => this.#react(message, emoji, add),
      talk: (name) => this.#startWith(name),
      left: () => this.#left(),
    }, api);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.#link = new Link(`${scheme}//${location.host}/v1/ws`, {
      position: () => ({ epoch: this.#epoch, positions: this.#allPositions() }),
      state: (name, detail) => this.#state(name, detail),
      message: (message) => this.#receive(message),
      friend: () => this.#view.people.refresh(),
      resumed: (resumed) => this.#resumed(resumed),
      roundTrip: (ms) => this.#view.roundTrip(ms),
      refused: async () => (await this.#api.me().then(() => 0, (err) => err.status)) === 401,
    });
    this.#outbox = new Outbox(
      {
        request: (command) => this.#link.request(command),
        ready: () => this.#link.ready,
        changed: (entry) => this.#sent(entry),
        save: (entries) => this.#memory.save({ outbox: entries.map(({ conversation, client_id, text, file, sent_at, state, error }) => ({ conversation, client_id, text, file, sent_at, state, error })) }),
        later,
        random: Math.random,
      },
      saved.outbox,
    );
  }

  start() {
    const { signal } = this.#aborter;
    this.#api.served = (served) => this.#view.request(served);
    this.#view.show();
    this.#view.me(this.#me);
    window.addEventListener("online", () => this.#link.hurry(), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && this.#awake(), { signal });
    window.addEventListener("pagehide", () => this.#save(), { signal });
    this.#link.start();
    this.#list();
  }

  stop() {
    this.#aborter.abort();
    clearTimeout(this.#saving);
    this.#link.stop();
    this.#view.close();
  }

  // Conversations.

  async #list() {
    this.#listing ??= this.#api.conversations().finally(() => (this.#listing = null));
    try {
      const listed = await this.#listing;
      if (this.#stopped) return;
      for (const c of listed) this.#add(c);
    } catch (err) {
      if (this.#stopped) return;
      if (err.status === 401) return this.#leave("Your session has ended. Log in again.");
      this.#view.note(err.message);
      await later(2_000);
      return this.#stopped ? undefined : this.#list();
    }
    this.#view.conversations(this.#summaries());
  }

  #add({ id, name = "", members = [], last_seq }) {
    let conversation = this.#conversations.get(id);
    if (!conversation) {
      const peer = name || (members.find((other) => other !== this.#me.user.name) ?? this.#me.user.name);
      conversation = { id, peer, timeline: new Timeline(this.#me.user.name), filling: null };
      this.#conversations.set(id, conversation);
    }
    if (conversation.timeline.last === null) this.#begin(conversation, last_seq);
    return conversation;
  }

  // begin seeds a timeline where this tab left off or, in a new tab, at the end: live
  // messages follow from there, older ones are read backwards.
  #begin(conversation, lastSeq) {
    const known = this.#positions[conversation.id];
    conversation.timeline.seed(known ?? lastSeq ?? 0);
    this.#read[conversation.id] ??= conversation.timeline.last;
    delete this.#positions[conversation.id];
    this.#older(conversation.id);
    this.#fill(conversation);
  }

  #allPositions() {
    const positions = { ...this.#positions };
    for (const { id, timeline } of this.#conversations.values()) if (timeline.last !== null) positions[id] = timeline.last;
    return positions;
  }

  async #startWith(name) {
    const conversation = this.#add(await this.#api.open(name));
    this.#show(conversation.id);
  }

  #show(id) {
    this.#open = id;
    this.#view.conversation(this.#conversations.get(id) ?? null);
    this.#draw();
    this.#markRead();
  }

  // goTo opens a conversation and loads older messages until one is there.
  async #goTo(id, seq) {
    const conversation = this.#conversations.get(id);
    if (!conversation) return this.#view.note("This conversation is not in your list any more.");
    if (this.#open !== id) this.#show(id);
    for (let before = Infinity; seq <= conversation.timeline.start && conversation.timeline.start < before && !this.#stopped; ) {
      before = conversation.timeline.start;
      while (conversation.reading) await later(20);
      if (seq <= conversation.timeline.start) await this.#older(id);
    }
    this.#draw();
  }

  #markRead() {
    const conversation = this.#conversations.get(this.#open);
    if (!conversation || document.hidden) return;
    this.#read[this.#open] = conversation.timeline.last ?? 0;
    this.#view.conversations(this.#summaries());
    this.#saveSoon();
  }

  // Messages.

  async #receive(message) {
    if (!this.#conversations.has(message.conversation)) await this.#list();
    const conversation = this.#conversations.get(message.conversation);
    if (conversation && !this.#stopped) this.#take(conversation, [message]);
  }

  #take(conversation, messages) {
    const added = messages.flatMap((m) => conversation.timeline.add(m, this.#begins(m)));
    conversation.peer = added.findLast((m) => m.event?.name)?.event.name ?? conversation.peer;
    for (const m of added) if (m.sender === this.#me.user.name) this.#outbox.delivered(m.conversation, m.client_id);
    if (conversation.timeline.gap) this.#fill(conversation, HEAL_MS);
    if (added.length === 0) return;
    this.#saveSoon();
    if (conversation.id === this.#open) {
      this.#view.conversation(conversation);
      this.#draw();
      if (this.#view.atEnd) this.#markRead();
    }
    this.#view.conversations(this.#summaries());
  }

  #begins({ event }) {
    return ["created", "added"].includes(event?.kind) && event.members.includes(this.#me.user.name);
  }

  // fill reads forward from the last message until nothing is known to be missing.
  #fill(conversation, wait = 0) {
    conversation.filling ??= this.#readForward(conversation, wait).finally(() => (conversation.filling = null));
    return conversation.filling;
  }

  async #readForward(conversation, wait) {
    await later(wait);
    for (let first = wait === 0; (first || this.#incomplete(conversation)) && !this.#stopped; first = false) {
      try {
        for (;;) {
          const { messages = [] } = await this.#api.messages(conversation.id, conversation.timeline.last, PAGE * 4);
          if (messages.length === 0 || this.#stopped) break;
          this.#take(conversation, messages);
        }
      } catch (err) {
        if (!err.temporary) return;
      }
      await later(HEAL_MS);
    }
  }

  // incomplete says whether something is known to exist that has not come.
  #incomplete({ id, timeline }) {
    return timeline.gap || this.#outbox.of(id).some((e) => e.state === "accepted");
  }

  async #older(id) {
    const conversation = this.#conversations.get(id);
    if (!conversation || conversation.reading || conversation.timeline.start <= 0) return;
    conversation.reading = true;
    const { timeline } = conversation;
    const after = Math.max(0, timeline.start - PAGE);
    try {
      const { messages = [] } = await this.#api.messages(id, after, timeline.start - after);
      timeline.prepend(messages);
    } catch (err) {
      if (id === this.#open && !this.#stopped) this.#view.note(err.message);
    } finally {
      conversation.reading = false;
    }
    if (this.#stopped) return;
    if (id === this.#open) this.#draw();
    this.#view.conversations(this.#summaries());
  }

  // send makes a message of each file; the first one has the text.
  #send(text, files) {
    if (!this.#open) return;
    for (const file of files.length > 0 ? files : [null]) {
      this.#outbox.push(this.#open, text, newClientID(), new Date().toISOString(), file);
      text = "";
    }
  }

  #sent(entry) {
    const conversation = this.#conversations.get(entry.conversation);
    if (entry.state === "accepted" && conversation) this.#fill(conversation, HEAL_MS);
    if (entry.conversation === this.#open) this.#draw();
  }

  // react shows nothing by itself: what everybody agrees on comes as an entry.
  async #react({ conversation, seq }, emoji, add) {
    const reaction = { conversation, seq, emoji, client_id: newClientID() };
    for (let attempt = 1; !this.#stopped; attempt++) {
      try {
        await this.#link.request(add ? { react: reaction } : { unreact: reaction });
        const held = this.#conversations.get(conversation);
        if (held) this.#fill(held, HEAL_MS); // should its push get lost
        return;
      } catch (err) {
        if (!err.temporary || attempt === MAX_REACT) return this.#view.note(err.message);
        await later(300 * attempt);
      }
    }
  }

  // Connection.

  #state(name, detail) {
    if (name === "live" && detail.user !== this.#me.user.name) return this.#leave(`This address is now logged in as ${detail.user}.`);
    this.#view.state(name, detail);
    if (name === "live") this.#outbox.flush();
    if (name === "live") this.#view.people.refresh(); // a push may have been lost
    if (name === "ended" && detail === "expired") this.#leave("Your session has ended. Log in again.");
  }

  #resumed({ recovered, epoch }) {
    const restart = !recovered && this.#epoch !== "";
    this.#epoch = epoch;
    if (restart) this.#restart();
    this.#saveSoon();
  }

  // restart begins every conversation anew: the server's numbering, or what it
  // remembers of ours, is another one.
  #restart() {
    this.#view.note("The history was reloaded.");
    this.#positions = {};
    this.#read = {};
    this.#conversations.clear();
    this.#list().then(() => this.#open && this.#show(this.#open));
  }

  #awake() {
    this.#link.hurry();
    this.#markRead();
  }

  async #cohort(canary) {
    this.#view.cohort(canary);
    try {
      this.#view.me(await this.#api.me());
      this.#link.move();
    } catch (err) {
      this.#view.note(err.message);
    }
  }

  async #logout() {
    if (this.#outbox.size > 0 && !this.#view.confirm("There are unsent messages. Log out and discard them?")) return;
    try {
      await this.#api.logout();
    } catch (err) {
      if (err.status !== 401) return this.#view.note(err.message);
    }
    this.#left();
  }

  #left() {
    this.#memory.clear();
    this.#leave("");
  }

  // Drawing and keeping.

  #draw() {
    const conversation = this.#conversations.get(this.#open);
    if (conversation) this.#view.messages(conversation.timeline, this.#outbox.of(this.#open));
  }

  #summaries() {
    return [...this.#conversations.values()]
      .map(({ id, peer, timeline }) => ({
        id,
        peer,
        last: timeline.messages.findLast((m) => !m.event),
        unread: this.#unread(id, timeline),
        open: id === this.#open,
      }))
      .sort((a, b) => (b.last?.sent_at ?? "").localeCompare(a.last?.sent_at ?? "") || a.peer.localeCompare(b.peer));
  }

  // unread counts what others wrote; what is not loaded counts whoever wrote it.
  #unread(id, { start, messages }) {
    const read = this.#read[id] ?? 0;
    return Math.max(0, start - read) + messages.filter((m) => !m.event && m.seq > read && m.sender !== this.#me.user.name).length;
  }

  #saveSoon() {
    clearTimeout(this.#saving);
    this.#saving = setTimeout(() => this.#save(), 200);
  }

  #save() {
    this.#memory.save({ epoch: this.#epoch, positions: this.#allPositions(), read: this.#read });
  }
}
