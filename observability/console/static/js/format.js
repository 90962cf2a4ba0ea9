// Figures and times in words.

export function rate(n) {
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(1);
  return Math.round(n).toLocaleString("en-US");
}

export function count(n) {
  return n.toLocaleString("en-US");
}

export function bytes(n) {
  if (n < 1e6) return `${Math.ceil(n / 1e3)} kB`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(1)} GB`;
}

export function ms(n) {
  if (n < 1) return `${n.toFixed(2)} ms`;
  if (n < 10) return `${n.toFixed(1)} ms`;
  if (n < 10_000) return `${Math.round(n)} ms`;
  return `${(n / 1000).toFixed(1)} s`;
}

/** brief gives a length of time in seconds that may be far below one: 412 ns, 38 µs, 4.1 ms. */
export function brief(seconds) {
  const us = seconds * 1e6;
  if (us < 1) return `${Math.round(us * 1000)} ns`;
  if (us < 10) return `${us.toFixed(1)} µs`;
  return us < 1000 ? `${Math.round(us)} µs` : ms(us / 1000);
}

/** percent never rounds an error away, nor up to all. */
export function percent(part, whole) {
  if (!whole || !part) return "0%";
  const p = (100 * part) / whole;
  if (p < 0.01) return "<0.01%";
  if (p < 10) return `${p.toFixed(p < 1 ? 2 : 1)}%`;
  return p > 99 && part < whole ? "99%" : `${Math.round(p)}%`;
}

/** span gives a length of time: 340 ms, 12 s, 4 min, 2 h, 3 d. */
export function span(millis) {
  const s = Math.max(0, millis) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172_800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

export function ago(time) {
  const s = (Date.now() - new Date(time)) / 1000;
  return s < 3 ? "just now" : `${span(Math.round(s) * 1000)} ago`;
}

export function until(time) {
  return span(Math.round((new Date(time) - Date.now()) / 1000) * 1000);
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dateFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** clock gives the time of day, with the day where it is not today. */
export function clock(time) {
  const t = new Date(time);
  return (t.toDateString() === new Date().toDateString() ? clockFormat : dateFormat).format(t);
}

/** identity gives a group's env, tenant and cohort in words. */
export function identity({ env, tenant, cohort }) {
  return [env || "no env", tenant || "no tenant", cohort && `cohort ${cohort}`].filter(Boolean).join(" · ");
}
