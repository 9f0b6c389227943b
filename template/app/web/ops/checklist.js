// The last run of the checklist: what it found about the code that answers here.
import { element, table } from "./dom.js";
import { dayAndTime, language, texts } from "./texts.js";

const isOpen = (item) => !item.checked;
const nameOf = (item) => `${item.number} ${item.title[language]}`;

/** What of it needs someone; "" where nothing does. */
export function openItems(found) {
  const open = found.state === "found" ? found.items.filter(isOpen).length : 0;
  return open > 0 && texts.itemsOpen(open);
}

/** The section's content. */
export function checklist(found) {
  if (found.state === "none") return [element("p", {}, texts.noChecklist)];
  if (found.state === "unreadable") return [element("p", { className: "bad" }, texts.badChecklist)];
  const { items } = found;
  const open = items.filter(isOpen);
  const run = [
    texts.runAt(dayAndTime(new Date(found.when))),
    found.commit && texts.commit(found.commit),
    found.kit && `Survival Kit ${found.kit}`,
  ];
  const rows = items.map((item) => [nameOf(item), state(item)]);
  return [
    element("p", { className: open.length ? "bad" : "well" }, texts.itemsChecked(items.length - open.length, items.length)),
    element("p", { className: "quiet" }, run.filter(Boolean).join(" · ")),
    open.length > 0 && element("ul", {}, ...open.map((item) => element("li", {}, `☐ ${nameOf(item)}`))),
    element("details", {}, element("summary", {}, texts.allItems), table(texts.checklist, [texts.item, texts.state], rows, { titled: true })),
  ];
}

function state(item) {
  return element("span", { className: item.checked ? "" : "bad" }, item.checked ? texts.itemChecked : texts.itemOpen);
}
