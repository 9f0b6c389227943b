// The newest failures, and the way from each to its line in the log.
import { element, table } from "./dom.js";
import { ago, count, texts } from "./texts.js";

/** What of the failures changes the table. */
export const shownOf = (found) => found.map((each) => [each.request_id, each.times, sinceWhen(each.age_seconds)]);

/** The table; `say(node)` tells what came of asking for a log line. `log` is { place, command }. */
export function failures(found, log, say) {
  const heads = [texts.cause, texts.last, texts.times, texts.firstRequest, texts.logLine, texts.where];
  const rows = found.map((failure) => [
    failure.cause,
    sinceWhen(failure.age_seconds),
    count(failure.times),
    element("code", {}, failure.request_id),
    leadingTo(failure.request_id, log, say),
    [failure.status, failure.provider, failure.model].filter(Boolean).join(" · "),
  ]);
  const nothing = [texts.nothing, ...heads.slice(1).map(() => "")];
  return table(texts.recentFailures, heads, rows.length ? rows : [nothing], { titled: true });
}

/** A button that copies the command, and shows it: also where a browser lets nothing be copied. */
function leadingTo(id, { place, command }, say) {
  const what = command ? texts.copyCommand : texts.copyId;
  const words = command ? command.replaceAll("REQUEST_ID", id) : id;
  const onclick = async () => {
    const copied = await navigator.clipboard?.writeText(words).then(() => true, () => false);
    say(element("span", {}, texts[`log_${place}`], copied ? ` ${texts.copied}` : ""), element("code", {}, words));
  };
  return element("button", { type: "button", onclick, ariaLabel: `${what}: ${id}` }, what);
}

/** In whole minutes: a table that changed each time could not be read, or selected from. */
function sinceWhen(age) {
  return age < 5400 ? ago(Math.round(age / 60), 60) : ago(Math.round(age / 3600), 3600);
}
