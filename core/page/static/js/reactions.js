// Reactions under a message, and the picker that gives one.

import { $, arrange, h, put } from "./dom.js";

const CHOICE = { "👍": "thumbs up", "❤️": "heart", "😂": "laughing", "🎉": "party", "😮": "surprised", "😢": "sad", "🙏": "thanks", "👀": "looking" };

/** drawReactions shows a message's reactions; on.react(m, emoji, add) is what a tap does. */
export function drawReactions(el, m, on) {
  const known = new Map([...el.children].map((chip) => [chip.dataset.emoji, chip]));
  const list = m.recalled ? [] : (m.reactions ?? []);
  arrange(el, list.map(({ emoji, count, mine }) => {
    const chip = known.get(emoji) ?? h("button", { type: "button", class: "reaction", "data-emoji": emoji }, h("span", {}, emoji), h("span", { class: "count" }));
    put(chip.lastElementChild, String(count));
    chip.setAttribute("aria-pressed", String(Boolean(mine)));
    chip.setAttribute("aria-label", `${CHOICE[emoji] ?? emoji}, ${count}`);
    chip.onclick = () => on.react(m, emoji, !mine);
    return chip;
  }));
  el.hidden = list.length === 0;
}

/** Picker is one for all messages, beside the button that has asked for it. */
export class Picker {
  #message = null;

  constructor(on, signal) {
    $("picker").replaceChildren(...Object.entries(CHOICE).map(([emoji, name]) =>
      h("button", { type: "button", class: "quiet", "aria-label": name, "data-emoji": emoji }, emoji)));
    const listen = (event, f) => $("picker").addEventListener(event, f, { signal });
    listen("click", ({ target }) => {
      const { emoji } = target.closest("button")?.dataset ?? {};
      if (!emoji || !this.#message) return;
      const mine = this.#message.reactions?.find((r) => r.emoji === emoji)?.mine;
      on.react(this.#message, emoji, !mine);
      this.close();
    });
    listen("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const buttons = [...$("picker").children];
      buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
      event.preventDefault();
    });
    signal.addEventListener("abort", () => this.close());
  }

  open(button, m) {
    this.#message = m;
    const picker = $("picker");
    picker.showPopover({ source: button });
    const at = button.getBoundingClientRect();
    const { width, height } = picker.getBoundingClientRect();
    picker.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
    picker.style.top = `${at.top - height - 6 > 8 ? at.top - height - 6 : at.bottom + 6}px`;
    picker.firstElementChild.focus();
  }

  close() {
    if ($("picker").matches(":popover-open")) $("picker").hidePopover();
    this.#message = null;
  }
}
