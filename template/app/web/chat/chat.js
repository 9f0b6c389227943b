// The chat page: joins the box, the conversation and the wire. Read this file first.
import { ask, Failure, rate } from "./api.js";
import * as talk from "./conversation.js";
import { button } from "./dom.js";
import { describe, Entry } from "./entry.js";
import { count, dollars, language, texts, useLanguage } from "./messages.js";

const byId = (id) => document.getElementById(id);
const [box, log, notice, keyForm, stopButton] = ["box", "log", "notice", "key-form", "stop"].map(byId);

const given = fetch("assets/chat/config.json").then((response) => response.json());
const config = { name: "Chat", about: "", ...(await given.catch(() => null)) };
// Apps on the same origin, such as localhost, are told apart by name.
const CONVERSATION_SLOT = `survival-kit:${config.name}:conversation`;
const KEY_SLOT = `survival-kit:${config.name}:key`;

let conversation = talk.load(CONVERSATION_SLOT);
let entries = new Map(); // turn → its Entry
let asking = null; // the AbortController of the answer that is arriving

// --- asking ---

function submit() {
  const question = box.value.trim();
  if (asking || !question) return;
  if (config.key_required && !appKey()) return askForKey();
  const turn = talk.newTurn(question);
  conversation.turns.push(turn);
  setBox("");
  say();
  show(turn);
  answer(turn);
  scrollToEnd();
}

function retry(turn) {
  if (asking) return;
  Object.assign(turn, { state: "asking", answer: "", facts: {}, trouble: {} });
  entries.get(turn).restart();
  answer(turn);
}

async function answer(turn) {
  asking = new AbortController();
  const { signal } = asking;
  const messages = talk.messagesFor(conversation, turn);
  save();
  refreshPage();
  focusOn(turn);
  try {
    const events = ask({ messages, idempotencyKey: turn.key, appKey: appKey(), language, signal });
    for await (const event of events) take(event, turn);
    turn.state = "done";
  } catch (error) {
    if (signal.aborted) Object.assign(turn, { state: "stopped", key: talk.newKey() });
    else fail(turn, error);
  }
  asking = null;
  if (document.activeElement === stopButton) focusOn(turn);
  followEnd(() => entries.get(turn)?.refresh());
  refreshPage();
  save();
}

function take({ text, facts }, turn) {
  const entry = entries.get(turn);
  if (text) {
    turn.answer += text;
    entry?.addText(text, followEnd);
  } else {
    Object.assign(turn.facts, facts);
    talk.addToTotal(conversation, facts);
    followEnd(() => entry?.refresh());
  }
}

function fail(turn, error) {
  const failure = error instanceof Failure ? error : new Failure({ message: String(error) });
  if (failure.status === 401) forgetKey();
  if (!failure.retryable && !turn.answer) return giveBack(turn, failure);
  const retryAt = Date.now() + failure.waitSeconds * 1000;
  Object.assign(turn, { state: "failed", trouble: { ...failure, retryAt } });
  if (outcomeIsKnown(turn, failure.code)) turn.key = talk.newKey();
}

/** Not if the line was cut, a proxy spoke, or the app is still at it: then the retry keeps its key. */
function outcomeIsKnown(turn, code) {
  return turn.answer !== "" || !["", "connection_lost", "idempotency_in_progress"].includes(code);
}

/** Sending it again would not help, so the text goes back into the box, to be changed. */
function giveBack(turn, failure) {
  conversation.turns = conversation.turns.filter((other) => other !== turn);
  entries.get(turn).node.remove();
  entries.delete(turn);
  setBox([turn.question, box.value].filter(Boolean).join("\n\n"));
  const tooLong = failure.status === 413 || failure.code === "context_length_exceeded";
  const wayOut = tooLong && entries.size > 0 && button(texts.newConversation, startOver);
  say(...describe(failure), wayOut);
  if (failure.status === 401) askForKey();
  else box.focus();
}

/** What the answer's rating is now: the old one where the app did not take the new one. */
async function rateAnswer(turn, rating) {
  const { requestId } = turn.facts;
  try {
    await rate({ requestId, rating, appKey: appKey(), language });
    turn.facts.rating = rating;
    say();
    save();
  } catch (failure) {
    say(...describe(failure));
  }
  return turn.facts.rating;
}

// --- the conversation ---

function show(turn) {
  const entry = new Entry(turn, retry, config.feedback ? rateAnswer : null);
  entries.set(turn, entry);
  log.append(entry.node);
}

/** Puts a whole conversation on the page; the screen reader need not read all of it aloud. */
function showAll(other) {
  conversation = other;
  entries = new Map();
  log.ariaLive = "off";
  log.replaceChildren();
  conversation.turns.forEach(show);
  refreshPage();
  scrollToEnd();
  setTimeout(() => (log.ariaLive = "polite"), 500);
}

function startOver() {
  const old = conversation;
  asking?.abort();
  replaceBy(talk.newConversation());
  say(button(texts.undo, () => replaceBy(old)));
}

function replaceBy(other) {
  showAll(other);
  save();
  say();
  box.focus();
}

function save() {
  talk.save(CONVERSATION_SLOT, conversation);
}

// --- the app key: in this tab only, never in localStorage ---

function appKey() {
  return sessionStorage.getItem(KEY_SLOT);
}

function askForKey() {
  keyForm.hidden = false;
  byId("key").focus();
}

function useKey() {
  const key = byId("key").value.replace(/[^!-~]/g, ""); // what cannot be part of a header
  sessionStorage.setItem(KEY_SLOT, key);
  keyForm.reset();
  keyForm.hidden = true;
  say();
  refreshPage();
  box.focus();
}

function forgetKey() {
  sessionStorage.removeItem(KEY_SLOT);
  refreshPage();
  box.focus();
}

// --- the page around it ---

function refreshPage() {
  const { tokens, cost } = conversation.total;
  const begun = conversation.turns.length > 0;
  byId("total").textContent = tokens > 0 ? texts.total(count(tokens), dollars(cost)) : "";
  byId("welcome").hidden = begun;
  byId("new-conversation").hidden = !begun;
  byId("forget-key").hidden = !appKey();
  byId("send").hidden = asking !== null;
  stopButton.hidden = asking === null;
}

/** A message above the box; without parts it goes away. */
function say(...parts) {
  notice.replaceChildren(...parts.filter(Boolean));
}

/** To the box; on a phone to the turn, because the box would open the keyboard. */
function focusOn(turn) {
  const touch = matchMedia("(pointer: coarse)").matches;
  const target = touch ? entries.get(turn)?.node : box;
  target?.focus({ preventScroll: true });
}

function setBox(text) {
  box.value = text;
  fitBox();
}

/** The box grows with its text; chat.css sets the limit. */
function fitBox() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

/** Keeps the end in view while the page grows, but only for those who read there. */
function followEnd(change) {
  const atEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 24;
  change();
  if (atEnd) scrollToEnd();
}

function scrollToEnd() {
  scrollTo(0, document.documentElement.scrollHeight);
}

/** Safari on iPhones lays its keyboard over the page; this lifts the box above it. */
function liftAboveKeyboard() {
  const covered = innerHeight - visualViewport.height * visualViewport.scale - visualViewport.offsetTop;
  document.documentElement.style.setProperty("--keyboard", `${Math.max(0, covered)}px`);
}

/** Enter sends, unless it only ends the composing of a Korean syllable (229: Safari says so late). */
function onKey(event) {
  const composing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  submit();
}

function listen() {
  const on = (target, type, action) => target.addEventListener(type, action);
  const onSubmit = (form, action) => on(form, "submit", (event) => (event.preventDefault(), action()));
  const stop = () => asking?.abort();
  onSubmit(byId("composer"), submit);
  onSubmit(keyForm, useKey);
  on(box, "keydown", onKey);
  on(box, "input", fitBox);
  on(stopButton, "click", stop);
  on(document, "keydown", ({ key, isComposing }) => key === "Escape" && !isComposing && stop());
  on(byId("new-conversation"), "click", startOver);
  on(byId("forget-key"), "click", forgetKey);
  on(visualViewport, "resize", liftAboveKeyboard);
  on(window, "pagehide", save);
  // Another tab spoke.
  on(window, "storage", ({ key }) => key === CONVERSATION_SLOT && !asking && showAll(talk.load(key)));
}

function start() {
  useLanguage(config.language);
  document.documentElement.lang = language;
  document.title = config.name;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = texts[node.dataset.text];
  byId("name").textContent = byId("title").textContent = config.name;
  byId("about").textContent = config.about;
  box.placeholder = box.ariaLabel = texts.box;
  listen();
  showAll(conversation);
  if (config.key_required && !appKey()) askForKey();
  else focusOn();
}

start();
