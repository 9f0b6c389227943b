// Plots as inline SVG: a title that says what is shown and in which unit, axes, the limit drawn in,
// and the same numbers as a table for those who do not see it.
import { drawn, element, table } from "./dom.js";
import { ago, count, language, texts } from "./texts.js";

const HEIGHT = 180;
const TOP = 20;
const BOTTOM = 24;
const LEFT = 64;
const RIGHT = 12;

/**
 * A plot of `lines` (or, `stacked`, of bars on one another), each { name, className, values }, oldest
 * value first and null where there is none. `limit` is { value, text }; `format` writes a value.
 */
export class Plot {
  constructor() {
    this.title = element("figcaption");
    this.picture = element("div", { className: "picture" });
    this.legend = element("ul", { className: "legend" });
    this.numbers = element("div");
    const more = element("details", {}, element("summary", {}, texts.asTable), this.numbers);
    this.node = element("figure", {}, this.title, this.picture, this.legend, more);
    new ResizeObserver(() => this.#draw()).observe(this.picture);
  }

  show(given) {
    const key = JSON.stringify([given, language]);
    if (key === this.key) return;
    Object.assign(this, { key, given });
    const { title, lines, span, format } = given;
    this.title.textContent = title;
    const names = lines.map((line) => element("li", { className: line.className }, line.name));
    this.legend.replaceChildren(...names);
    this.legend.hidden = lines.length < 2;
    const spans = lines[0].values.length;
    const rows = lines[0].values.map((_, index) => [
      ago(spans - 1 - index, span),
      ...lines.map((line) => (line.values[index] === null ? "–" : format(line.values[index]))),
    ]);
    const heads = [texts.when, ...lines.map((line) => line.name)];
    this.numbers.replaceChildren(table(title, heads, rows.reverse(), { titled: true }));
    this.#draw();
  }

  #draw() {
    const width = Math.floor(this.picture.clientWidth);
    if (!this.given || width <= LEFT + RIGHT) return;
    const { title, lines, limit, log, stacked, span, format } = this.given;
    const spans = lines[0].values.length;
    const scale = log ? logScale(lines, limit) : linearScale(lines, limit, stacked);
    const across = (width - LEFT - RIGHT) / spans;
    const x = (index) => LEFT + index * across;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - scale.share(value));
    const label = limit ? `${title}. ${limit.text}` : title;
    const svg = drawn("svg", { width, height: HEIGHT, role: "img", "aria-label": label });
    for (const tick of scale.ticks) {
      svg.append(drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }));
      svg.append(drawn("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
    }
    for (const [share, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
      const at = LEFT + share * (width - LEFT - RIGHT);
      const text = ago(Math.round((1 - share) * spans), span);
      svg.append(drawn("text", { x: at, y: HEIGHT - 6, "text-anchor": anchor }, text));
    }
    svg.append(...(stacked ? bars(lines, x, y, across) : paths(lines, x, y, across)));
    if (limit) {
      const at = y(limit.value);
      svg.append(drawn("line", { class: "limit", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      // Above the plot, where no bar is.
      svg.append(drawn("text", { class: "limit-text", x: width - RIGHT, y: 11, "text-anchor": "end" }, limit.text));
    }
    this.picture.replaceChildren(svg);
  }
}

function bars(lines, x, y, across) {
  const found = [];
  lines[0].values.forEach((_, index) => {
    let sum = 0;
    for (const { className, values } of lines) {
      const value = values[index] ?? 0;
      if (!value) continue;
      const bottom = y(sum);
      sum += value;
      const height = Math.max(bottom - y(sum), 1.5);
      const width = Math.max(across - 1, 1);
      found.push(drawn("rect", { class: className, x: x(index), y: bottom - height, width, height }));
    }
  });
  return found;
}

function paths(lines, x, y, across) {
  return lines.map(({ className, values }) => {
    let path = "";
    values.forEach((value, index) => {
      if (value === null) return;
      const at = `${(x(index) + across / 2).toFixed(1)} ${y(value).toFixed(1)}`;
      const alone = (values[index - 1] ?? values[index + 1] ?? null) === null;
      // A value that stands alone is a short dash.
      if (alone) path += `M${at}m-3 0h6`;
      else path += (values[index - 1] ?? null) === null ? `M${at}` : `L${at}`;
    });
    return drawn("path", { class: className, d: path });
  });
}

function linearScale(lines, limit, stacked) {
  const values = lines.map((line) => line.values.map((value) => value ?? 0));
  const highest = stacked
    ? values[0].map((_, index) => values.reduce((sum, each) => sum + each[index], 0))
    : values.flat();
  const top = nice(Math.max(...highest, limit?.value ?? 0));
  return { ticks: [0, top / 2, top], share: (value) => value / top };
}

/** The next of 1, 2, 4, 10, 20, 40, …: halves of them are short numbers as well. */
function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 4, 10].find((step) => value <= step * power * 1.000001);
}

function logScale(lines, limit) {
  const values = [...lines.flatMap((line) => line.values), limit?.value].filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...values, 0.1)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...values, 1))), low + 1);
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  const share = (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  return { ticks, share };
}

/** A bar of what is spent against a limit, with a line at `mark`. All in the same unit. */
export function meter(label, { spent, reserved, limit, mark }) {
  const share = (value) => `${Math.min((100 * value) / limit, 100)}%`;
  const svg = drawn("svg", { class: "meter", role: "img", "aria-label": label, width: "100%", height: 22 });
  svg.append(drawn("rect", { class: "whole", width: "100%", height: 22, rx: 4 }));
  svg.append(drawn("rect", { class: "reserved", width: share(spent + reserved), height: 22, rx: 4 }));
  svg.append(drawn("rect", { class: spent >= mark ? "spent high" : "spent", width: share(spent), height: 22, rx: 4 }));
  svg.append(drawn("line", { class: "limit", x1: share(mark), x2: share(mark), y1: 0, y2: 22 }));
  return svg;
}

/** How a plot's numbers are written where they are whole. */
export const whole = (value) => count(value);
