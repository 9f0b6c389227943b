// The operations page: joins the session, the numbers and the switches. Read this file first.
import { readSession, readState, Refused, signIn, signOut, turn } from "./api.js";
import { element } from "./dom.js";
import { clock, language, texts } from "./texts.js";
import { View } from "./view.js";

// A week changes slowly, and is the most to read.
const EVERY_MS = { hour: 5000, day: 5000, week: 30000 };
const RANGES = Object.keys(EVERY_MS);

const byId = (id) => document.getElementById(id);
const [door, page, dialog] = ["sign-in", "operations", "turn"].map(byId);

let range = RANGES.find((name) => `#${name}` === location.hash) ?? "hour";
let csrf = null;
let turning = null; // the switch that the dialog asks about
let readAt = null;
let timer = 0;
let asking = 0; // the number of the newest question: an older answer is not shown any more

document.documentElement.lang = language;
document.title = texts.title;
for (const node of document.querySelectorAll("[data-text]")) node.textContent = texts[node.dataset.text];
const view = new View(byId, ask);

// --- numbers ---

async function look() {
  clearTimeout(timer);
  const number = ++asking;
  try {
    const state = await readState(range);
    if (number !== asking) return false;
    show(state);
    return true;
  } catch (error) {
    if (number !== asking || !(error instanceof Refused)) throw error;
    if (error.status === 401) {
      showDoor();
      return false;
    }
    byId("said").textContent = [wordsOf(error), readAt && texts.stale(clock(readAt))].filter(Boolean).join(" ");
    page.hidden = door.hidden === false;
    return false;
  } finally {
    if (number === asking && !document.hidden && door.hidden) timer = setTimeout(look, EVERY_MS[range]);
  }
}

function show(state) {
  csrf = state.session.csrf;
  readAt = new Date();
  door.hidden = true;
  page.hidden = false;
  byId("said").textContent = "";
  byId("sign-out").hidden = state.session.open;
  byId("news").textContent = texts.news(clock(readAt));
  document.title = `${state.app} · ${texts.title}`;
  view.show(state);
}

function showDoor() {
  csrf = null;
  if (dialog.open) dialog.close();
  page.hidden = true;
  if (!door.hidden) return;
  door.hidden = false;
  byId("token").focus();
}

function wordsOf(error) {
  return error.message || (error.status ? texts.unexpected(error.status) : texts.unreachable);
}

// --- session ---

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [token, said] = [byId("token"), byId("sign-in-said")];
  said.textContent = "";
  try {
    await signIn(token.value);
  } catch (error) {
    said.textContent = wordsOf(error);
    token.select();
    return;
  }
  token.value = "";
  if (await look()) byId("range").querySelector("[aria-pressed=true]").focus();
  else if (!door.hidden) said.textContent = texts.notKept;
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await signOut(csrf);
    showDoor();
  } catch (error) {
    if (error.status === 401) showDoor();
    else byId("said").textContent = wordsOf(error);
  }
});

// --- range ---

const choices = RANGES.map((name) => {
  const onclick = () => choose(name);
  return element("button", { type: "button", onclick, ariaPressed: String(name === range) }, texts[name]);
});
byId("range").ariaLabel = texts.range;
byId("range").append(...choices);

function choose(name) {
  range = name;
  history.replaceState(null, "", `#${name}`);
  choices.forEach((choice, index) => (choice.ariaPressed = String(RANGES[index] === name)));
  look();
}

// --- switches ---

/** Asks before a switch is turned. */
function ask(name, off) {
  turning = { name, off };
  byId("turn-title").textContent = off ? texts.askOff(name) : texts.askOn(name);
  const effects = { spending: texts.effectSpending, canary: texts.effectCanary, shadow: texts.effectShadow };
  byId("turn-effect").textContent = off ? effects[name] ?? texts.effectTarget : texts.effectOn;
  byId("turn-do").textContent = off ? texts.turnOff : texts.turnOn;
  byId("turn-said").textContent = "";
  byId("why").value = "";
  dialog.showModal();
}

byId("turn-cancel").addEventListener("click", () => dialog.close());
byId("turn-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const why = byId("why").value.trim();
  if (!why) {
    byId("turn-said").textContent = texts.whyMissing;
    byId("why").focus();
    return;
  }
  byId("turn-do").disabled = true;
  try {
    await turn(turning.name, turning.off, why, csrf);
    dialog.close();
  } catch (error) {
    byId("turn-said").textContent = wordsOf(error);
    return;
  } finally {
    byId("turn-do").disabled = false;
  }
  await look();
  view.focusSwitch(turning.name);
});

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : door.hidden && look()));

// Whoever is not signed in has no error in the console for it.
const session = await readSession().catch(() => ({ in: true }));
if (session.in) look();
else showDoor();
