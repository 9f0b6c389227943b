// Writes an answer into the page while it arrives: text nodes and a little Markdown, never HTML.
import { element } from "./dom.js";

/**
 * Finished lines are appended once and never touched again: a screen reader hears each line once,
 * and the last word of a long answer costs no more than the first. The unfinished last line is a
 * draft, hidden from the screen reader, that is redrawn with every piece.
 */
export class AnswerWriter {
  #rest = ""; // the last line so far
  #draft = null; // its element
  #code = null; // the open code block
  #gap = ""; // was there an empty line before this one?

  constructor(root) {
    this.root = root;
  }

  write(text) {
    this.#draft?.remove();
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#add(line.trimEnd());
    this.#draft = this.#rest ? this.#show(this.#rest) : null;
    if (this.#draft) this.#draft.ariaHidden = "true";
  }

  end() {
    if (this.#rest) this.write("\n");
  }

  #add(line) {
    const fence = /^\s*```/.test(line);
    if (fence) this.#code = this.#code ? null : this.#openCode();
    else if (line || this.#code) this.#show(line);
    this.#gap = line ? "" : "gap";
  }

  #openCode() {
    const code = element("code");
    this.root.append(element("pre", {}, code));
    return code;
  }

  #show(line) {
    const node = this.#code ? element("span", {}, `${line}\n`) : paragraph(line, this.#gap);
    (this.#code ?? this.root).append(node);
    return node;
  }
}

function paragraph(line, gap) {
  const [, heading] = /^#+ (.+)/.exec(line) ?? [];
  if (heading) return element("p", { className: "heading" }, ...inline(heading));
  const [, indent, bullet, text] = /^(\s*)([-*•]|\d+[.)]) (.+)/.exec(line) ?? [];
  if (!text) return element("p", { className: gap }, ...inline(line));
  const marker = indent + (/\d/.test(bullet) ? bullet : "•");
  return element("p", { className: `item ${gap}` }, marker, element("span", {}, ...inline(text)));
}

/** `code` and **bold** become elements; everything else stays text. */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*.+?\*\*)/).map((part) => {
    if (/^`.+`$/.test(part)) return element("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(part)) return element("b", {}, ...inline(part.slice(2, -2)));
    return part;
  });
}
