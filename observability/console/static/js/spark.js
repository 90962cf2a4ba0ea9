// Charts as SVG: a sparkline for a row, a chart with a scale for a group's page.

import { svg } from "./dom.js";

/** line gives the path of values over a width and a height; null breaks it. */
function line(values, max, width, height) {
  const step = width / Math.max(1, values.length - 1);
  let path = "";
  let pen = "M";
  values.forEach((v, i) => {
    if (v === null) return (pen = "M");
    path += `${pen}${(i * step).toFixed(1)} ${(height - (v / max) * height).toFixed(1)}`;
    pen = "L";
  });
  return path;
}

const most = (values) => values.reduce((m, v) => Math.max(m, v ?? 0), 0);

/** sparkline shows requests as a line and errors below it as an area. */
export function sparkline(lines, width = 132, height = 28) {
  const max = most(lines.qps) || 1;
  const inner = height - 4;
  const shape = (values, cls, area) => svg("path", { class: cls, d: line(values, max, width, inner) + (area ? `L${width} ${inner}L0 ${inner}Z` : ""), transform: "translate(0 2)" });
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true", preserveAspectRatio: "none" },
    shape(lines.qps, "fill", true), most(lines.errors) > 0 && shape(lines.errors, "errors", true), shape(lines.qps, "line"));
}

/** chart shows one line with its largest value and the time it covers. */
export function chart({ values, label, format, cls = "" }) {
  const [width, height] = [320, 96];
  const max = most(values);
  const last = values.findLast((v) => v !== null) ?? 0;
  const text = `${label}: ${format(last)} now, at most ${format(max)} in the time shown`;
  return svg("svg", { class: `chart ${cls}`, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text, preserveAspectRatio: "none" },
    svg("path", { class: "grid", d: `M0 1H${width}M0 ${height / 2}H${width}M0 ${height - 1}H${width}` }),
    svg("path", { class: "line", d: line(values, max || 1, width, height - 4), transform: "translate(0 2)" }));
}

export { most };
