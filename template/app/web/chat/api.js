// The wire: one question out, a stream of events back. Knows HTTP, knows nothing of the page.

/** Why a turn failed. Of a lost connection no more is known than the defaults. */
export class Failure extends Error {
  constructor(known) {
    super();
    Object.assign(this, { code: "connection_lost", retryable: true, waitSeconds: 0 }, known);
  }
}

/**
 * Asks the app and yields what happens: { text: "…" } as often as words arrive, and { facts: {…} }
 * about the answer: request ID and provider at once; ending, sources, tokens and cost when it is
 * complete.
 * Throws a Failure, or whatever fetch throws when `signal` is aborted.
 */
export async function* ask({ messages, idempotencyKey, appKey, language, signal }) {
  const headers = {
    "Content-Type": "application/json",
    "Accept-Language": language,
    "Idempotency-Key": idempotencyKey,
  };
  if (appKey) headers.Authorization = `Bearer ${appKey}`;
  const body = JSON.stringify({ model: "auto", messages, stream: true, stream_options: { include_usage: true } });
  const request = { method: "POST", headers, body, signal };
  const response = await fetch("v1/chat/completions", request).catch((error) => lost(error, signal));
  if (!response.ok) throw await refusal(response);
  yield* answerIn(response, signal);
}

/** Rates an answer, "up" or "down". Throws a Failure. */
export async function rate({ requestId, rating, appKey, language }) {
  const headers = { "Content-Type": "application/json", "Accept-Language": language };
  if (appKey) headers.Authorization = `Bearer ${appKey}`;
  const body = JSON.stringify({ request_id: requestId, rating });
  const response = await fetch("v1/feedback", { method: "POST", headers, body }).catch(() => null);
  if (!response) throw new Failure();
  if (!response.ok) throw await refusal(response);
}

async function* answerIn(response, signal) {
  const header = (name) => response.headers.get(name) ?? "";
  const [requestId, provider] = [header("X-Request-ID"), header("X-Provider")];
  yield { facts: { requestId, provider, fallback: header("X-Fallback") === "true" } };

  let complete = false;
  for await (const chunk of chunksOf(response, signal)) {
    if (chunk.error) throw new Failure(chunk.error);
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) {
      complete = true;
      yield { facts: { ending: choice.finish_reason, sources: choice.delta.citations ?? [] } };
    }
    if (chunk.usage) yield { facts: receiptIn(chunk) };
  }
  // A stream that ends without saying why was cut by something between us and the app.
  if (!complete) throw new Failure();
}

function receiptIn({ model, usage, survival_kit }) {
  return { input: usage.prompt_tokens, output: usage.completion_tokens, model, ...survival_kit };
}

/** Turns an error answer into a Failure. The body is the app's JSON, or a proxy's page. */
async function refusal(response) {
  const { status, headers } = response;
  const { message, code = "" } = (await response.json().catch(() => null))?.error ?? {};
  const mayPass = status === 409 || status === 429 || status >= 500;
  return new Failure({
    message,
    code,
    status,
    requestId: headers.get("X-Request-ID"),
    retryable: mayPass && headers.get("x-should-retry") !== "false",
    waitSeconds: Number(headers.get("Retry-After")) || 0,
  });
}

async function* chunksOf(response, signal) {
  try {
    for await (const data of serverSentEvents(response.body)) {
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  } catch (error) {
    lost(error, signal);
  }
}

/** Each event of this wire is one `data:` line; other lines, such as ": ping", mean nothing here. */
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

function lost(error, signal) {
  throw signal.aborted ? error : new Failure();
}
