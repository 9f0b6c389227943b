// Helpers for making page elements. Text only ever becomes text: nothing here parses HTML.
import { texts } from "./messages.js";

/** element("p", { className: "quiet" }, "some text", anotherElement); what is false is left out. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter(Boolean));
  return node;
}

export function button(label, onclick, className = "") {
  return element("button", { type: "button", className, onclick }, label);
}

/** Buttons of which one at most is pressed. `choose` gets a value, and resolves to the pressed one. */
export function choiceButtons(name, choices, chosen, choose) {
  const group = element("span", { role: "group", ariaLabel: name });
  const press = (value) => {
    for (const one of group.children) one.ariaPressed = String(one.value === value);
  };
  for (const { value, icon, label } of choices) {
    const one = button(icon, async () => press(await choose(value)), "choice");
    group.append(Object.assign(one, { value, ariaLabel: label, title: label }));
  }
  press(chosen);
  return group;
}

/** A button that copies `text` and says so for a moment. `name` is what a screen reader hears. */
export function copyButton(text, label, name) {
  const show = (content, ariaLabel) => Object.assign(copy, { textContent: content, ariaLabel });
  const copy = button(label, async () => {
    if (!navigator.clipboard) return getSelection().selectAllChildren(copy); // no https: copy by hand
    await navigator.clipboard.writeText(text);
    show(texts.copied, texts.copied);
    setTimeout(show, 1500, label, name);
  }, "copy");
  return show(label, name);
}
