// One turn on the page: the question, the answer, its receipt, and what went wrong, if anything.
import { AnswerWriter } from "./answer.js";
import { button, choiceButtons, copyButton, element } from "./dom.js";
import { count, dollars, duration, texts } from "./messages.js";

const LONG_QUESTION = 180; // characters; from here on a question is set as text, not as a heading

export class Entry {
  /** `rate` is null where the app takes no ratings. */
  constructor(turn, retry, rate) {
    Object.assign(this, { turn, retry, rate });
    const className = turn.question.length > LONG_QUESTION ? "question long" : "question";
    const question = element("h2", { className, ariaLive: "off" }, turn.question);
    this.answer = element("div", { className: "answer" });
    this.outcome = element("div", { className: "outcome" });
    this.sources = element("div", { className: "sources", ariaLive: "off" });
    this.receipt = element("dl", { className: "receipt", ariaLive: "off" });
    const parts = [question, this.answer, this.sources, this.outcome, this.receipt];
    this.node = element("article", { tabIndex: -1 }, ...parts);
    this.restart();
  }

  /** Draws the answer from the start: at first sight, and when it is asked for again. */
  restart() {
    this.answer.replaceChildren();
    this.writer = new AnswerWriter(this.answer);
    this.unwritten = this.turn.answer;
    this.refresh();
  }

  /** Words can arrive faster than the screen repaints: they are drawn once per frame. */
  addText(text, followEnd) {
    this.unwritten += text;
    this.frame ||= requestAnimationFrame(() => followEnd(() => this.#write()));
  }

  #write() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.writer.write(this.unwritten);
    this.unwritten = "";
    if (this.turn.state === "asking") this.outcome.replaceChildren();
  }

  /** Brings everything but the running text up to date with the turn. */
  refresh() {
    const { state } = this.turn;
    this.node.dataset.state = state;
    if (state !== "asking") {
      this.#write();
      this.writer.end();
    }
    this.outcome.replaceChildren(...this.#outcome().filter(Boolean));
    this.sources.replaceChildren(...sources(this.turn.facts));
    this.receipt.replaceChildren(...receipt(this.turn, this.rate).filter(Boolean));
  }

  #outcome() {
    const { state, answer, facts, trouble } = this.turn;
    const note = (text) => element("p", { className: "quiet" }, text);
    if (state === "asking") return [!answer && note(texts.waiting)];
    if (state === "stopped") return [note(texts.stopped), this.#retryButton()];
    if (state === "failed") return [...describe(trouble), this.#retryButton()];
    return [facts.ending === "length" && note(texts.cutOff)];
  }

  #retryButton() {
    const { retryable = true, retryAt = 0 } = this.turn.trouble;
    const again = button("", () => this.retry(this.turn));
    again.ariaLive = "off"; // nobody wants to hear a countdown
    countDown(again, retryAt);
    return retryable && again;
  }
}

function countDown(again, retryAt) {
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  const wait = seconds > 0;
  again.disabled = wait;
  again.textContent = wait ? texts.tryAgainIn(duration(seconds)) : texts.tryAgain;
  if (wait) setTimeout(() => again.isConnected && countDown(again, retryAt), 1000);
}

/** The passages that the answer cites: where they stand, and what they say. */
function sources({ sources: cited = [] }) {
  if (!cited.length) return [];
  const heading = element("h3", {}, texts.sources);
  return [heading, element("ul", { role: "list" }, ...cited.map(source))];
}

function source({ number, file, heading, place, quote }) {
  const where = [file, heading, place].filter(Boolean).join(" · ");
  return element("li", {}, element("b", {}, `[${number}] `), where, element("blockquote", {}, quote));
}

function receipt(turn, rate) {
  const { answer, facts, state } = turn;
  const { cost_usd: cost, input, output, provider, requestId } = facts;
  return [
    typeof cost === "number" && row(texts.cost, dollars(cost), "cost"),
    input !== undefined && row(texts.tokens, texts.inAndOut(count(input), count(output))),
    provider && row(texts.model, whoAnswered(facts)),
    requestId && row(texts.request, requestIdButton(requestId)),
    state === "done" && row("", copyButton(answer, texts.copyAnswer, texts.copyAnswer)),
    state === "done" && requestId && rate && row("", ratingButtons(turn, rate)),
  ];
}

function ratingButtons(turn, rate) {
  const choices = [
    { value: "up", icon: "👍", label: texts.good },
    { value: "down", icon: "👎", label: texts.bad },
  ];
  return choiceButtons(texts.rating, choices, turn.facts.rating, (value) => rate(turn, value));
}

function row(name, value, className = "") {
  return element("div", { className }, element("dt", {}, name), element("dd", {}, value));
}

function whoAnswered({ provider, model, fallback, summarised }) {
  const who = model ? `${provider} / ${model}` : provider;
  return [who, fallback && texts.fallback, summarised && texts.summarised].filter(Boolean).join(", ");
}

/** The server's own words, and the request ID that support will ask for. */
export function describe({ message, code, status, requestId }) {
  const said = message || (code === "connection_lost" ? texts.lost : texts.unexpected(status));
  const id = requestId && element("p", { className: "quiet" }, `${texts.request} `, requestIdButton(requestId));
  return [element("p", { className: "said" }, said), id];
}

function requestIdButton(requestId) {
  return copyButton(requestId, requestId, `${texts.copyId} ${requestId}`);
}
