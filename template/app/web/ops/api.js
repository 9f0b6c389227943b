// What the page asks of the app. Knows HTTP, knows nothing of the page.

/** Why a request was not done: the app's own words, where there are any. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status; // 0 where the app was not reached
  }
}

/** What the page shows, for the last "hour", "day" or "week". */
export function readState(range) {
  return send("GET", `ops/state?range=${range}`);
}

/** Whether this browser is signed in: { in }. */
export function readSession() {
  return send("GET", "ops/session");
}

export function signIn(token) {
  return send("POST", "ops/session", { token });
}

export function signOut(csrf) {
  return send("DELETE", "ops/session", undefined, csrf);
}

/** Turns a kill switch. `why` is read by others. */
export function turn(name, off, why, csrf) {
  return send("POST", "ops/switches", { name, off, why }, csrf);
}

async function send(method, path, body, csrf) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (csrf) headers["X-CSRF-Token"] = csrf;
  const request = { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" };
  const response = await fetch(path, request).catch(() => null);
  if (!response) throw new Refused(0, "");
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, answer?.error?.message ?? "");
  return answer;
}
