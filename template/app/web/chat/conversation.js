// The conversation: what is said, what is sent, what this browser remembers.

const MAX_CHARACTERS = 200_000;

/**
 * One turn is a question and its answer:
 *   state    "asking", "done", "stopped" or "failed"
 *   key      the Idempotency-Key: the same key never runs, or costs, twice
 *   facts    tokens, cost, provider, model, request ID, sources
 *   trouble  why it failed: { message, code, status, requestId, retryable, retryAt }
 */
export function newTurn(question) {
  return { question, answer: "", state: "asking", key: newKey(), facts: {}, trouble: {} };
}

/** crypto.randomUUID exists only on https and localhost. */
export function newKey() {
  return crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
}

export function newConversation() {
  return { turns: [], total: { tokens: 0, cost: 0 } };
}

/** What the model gets to see. The app itself shortens a long history, so we need not. */
export function messagesFor({ turns }, turn) {
  const answered = turns.slice(0, Math.max(0, turns.indexOf(turn))).filter(({ answer }) => answer);
  const history = answered.flatMap(({ question, answer }) => [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ]);
  return [...history, { role: "user", content: turn.question }];
}

/** The total outlives the oldest turns, which are dropped. */
export function addToTotal({ total }, { input = 0, output = 0, cost_usd = 0 }) {
  total.tokens += input + output;
  total.cost += cost_usd;
}

export function load(slot) {
  try {
    const stored = JSON.parse(localStorage.getItem(slot));
    stored.turns.forEach(markInterrupted);
    return { ...newConversation(), ...stored };
  } catch {
    return newConversation(); // nothing stored, not readable, or storage is switched off
  }
}

/** A turn that was being answered when the page went away can be asked again. */
function markInterrupted(turn) {
  if (turn.state !== "asking") return;
  turn.state = "failed";
  turn.trouble = { code: "connection_lost" };
  if (turn.answer) turn.key = newKey();
}

export function save(slot, conversation) {
  shorten(conversation.turns);
  try {
    localStorage.setItem(slot, JSON.stringify(conversation));
  } catch {
    // Full or switched off: the conversation goes on, it is only not remembered.
  }
}

/** Drops the oldest turns until the rest fits; the newest always stays. */
function shorten(turns) {
  while (turns.length > 1 && JSON.stringify(turns).length > MAX_CHARACTERS) turns.shift();
}
