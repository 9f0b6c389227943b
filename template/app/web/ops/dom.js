// Helpers for making page elements. Text only ever becomes text: nothing here parses HTML.

/** element("p", { className: "quiet" }, "some text", anotherElement); what is false is left out. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

/** The same for SVG, by attributes. */
export function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

/**
 * A table that can be scrolled by keyboard; the first cell of a row is its header. Where a heading
 * says the same above it, the caption is heard and not shown.
 */
export function table(caption, heads, rows, { titled = false } = {}) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, first),
      ...rest.map((cell) => element("td", {}, cell)),
    ),
  );
  const made = element(
    "table",
    {},
    element("caption", { className: titled ? "heard" : "" }, caption),
    element("thead", {}, head),
    element("tbody", {}, ...body),
  );
  return element("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: caption }, made);
}

const shown = new WeakMap();

/** Fills an element anew where what it shows has changed: focus and selection stay otherwise. */
export function refresh(node, data, make) {
  const key = JSON.stringify(data);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  node.replaceChildren(...make().filter(Boolean));
}
