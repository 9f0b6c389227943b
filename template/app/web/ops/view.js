// Brings the page up to date with a state of the app (`GET /ops/state`).
import { checklist, openItems } from "./checklist.js";
import { element, refresh, table } from "./dom.js";
import { failures, shownOf } from "./failures.js";
import { meter, Plot, whole } from "./plots.js";
import { count, dayAndTime, dollars, duration, percent, seconds, texts } from "./texts.js";

const MINUTES_A_DAY = 24 * 60;

export class View {
  /** `byId` finds an element; `ask(name, off)` asks whether a switch shall be turned. */
  constructor(byId, ask) {
    Object.assign(this, { byId, ask });
    this.plots = [new Plot(), new Plot(), new Plot()];
    byId("plots").append(...this.plots.map((plot) => plot.node));
  }

  show(state) {
    this.#fill("name", state.app, () => [`${state.app} · ${texts.title}`]);
    this.#fill("attention", attentionIn(state), () => attention(state));
    this.#fill("on-call", state.on_call, () => onCall(state.on_call));
    this.#fill("caps", state.spending, () => caps(state.spending));
    this.#fill("costs", [state.totals, state.range], () => costs(state));
    this.#fill("totals", state.totals, () => totals(state));
    this.#fill("objectives-table", state.objectives, () => [objectives(state.objectives)]);
    this.#fill("providers-table", [state.targets, state.totals], () => [providers(state)]);
    this.#fill("events-tables", state.totals, () => events(state.totals));
    const say = (...nodes) => this.byId("log-line").replaceChildren(...nodes);
    this.#fill("failures-table", shownOf(state.failures), () => [failures(state.failures, state.log, say)]);
    this.#fill("checklist-report", state.checklist, () => checklist(state.checklist));
    const { switches, session } = state;
    this.#fill("switches-table", [switches, session.open], () => [this.#switches(switches, session.open)]);
    const given = [requestsPlot(state), latencyPlot(state), costPlot(state)];
    this.plots.forEach((plot, index) => plot.show(given[index]));
  }

  /** Where the keyboard goes on after a switch was turned. */
  focusSwitch(name) {
    const buttons = [...this.byId("switches-table").querySelectorAll("button")];
    buttons.find((each) => each.dataset.name === name)?.focus();
  }

  #fill(id, data, make) {
    refresh(this.byId(id), data, make);
  }

  #switches(switches, open) {
    const rows = switches.map(({ name, off }) => {
      const state = off ? texts.off(off.by, dayAndTime(new Date(off.at)), off.why) : texts.on;
      const label = off ? texts.turnOn : texts.turnOff;
      const turn = element("button", { type: "button", disabled: open, ariaLabel: `${label}: ${name}` }, label);
      turn.dataset.name = name;
      turn.addEventListener("click", () => this.ask(name, !off));
      const parts = name.split(/(?<=:)/).flatMap((part) => [part, element("wbr")]); // lines break there
      return [element("span", {}, ...parts), element("span", { className: off ? "bad" : "" }, state), turn];
    });
    return table(texts.switches, [texts.switchName, texts.state, texts.action], rows, { titled: true });
  }
}

// --- what needs someone ---

function attentionIn({ switches, targets, objectives, spending, checklist, session }) {
  const share = (each) => percent(each.settled_usd / each.cap_usd, 0);
  const isDear = (each) => each.settled_usd >= each.warning_usd;
  return [
    session.open && ["#switches", texts.openToAll],
    ...switches.filter(({ off }) => off).map(({ name, off }) => ["#switches", texts.isOff(name, off.by, off.why)]),
    ...targets.filter((each) => each.failing).map((each) => ["#providers", texts.isFailing(each.provider)]),
    ...targets.filter((each) => each.cut_off && !each.failing).map((each) => ["#providers", texts.isCutOff(each.provider)]),
    ...objectives.filter((each) => each.burning.length).map((each) => ["#objectives", texts.isBurning(texts[`slo_${each.name}`])]),
    isDear(spending) && ["#spending", texts.isDear(share(spending))],
    ...spending.callers.filter(isDear).map((each) => ["#spending", texts.isDearCaller(each.name, share(each))]),
    openItems(checklist) && ["#checklist", openItems(checklist)],
  ].filter(Boolean);
}

function attention(state) {
  const found = attentionIn(state);
  if (!found.length) return [element("li", { className: "well" }, texts.allWell)];
  const items = found.map(([href, text]) => element("li", { className: "bad" }, element("a", { href }, text)));
  return [...items, element("li", { className: "quiet" }, texts.runbook)];
}

function onCall({ name, contact }) {
  const address = contact.includes("@") ? `mailto:${contact}` : /^\+?[\d\s().-]+$/.test(contact) && `tel:${contact.replace(/[^+\d]/g, "")}`;
  const link = address ? element("a", { href: address }, contact) : contact;
  return [`${texts.onCall} ${name}, `, link];
}

// --- money ---

function caps(spending) {
  const resets = texts.resets(duration(spending.resets_in_seconds));
  const warning = spending.warning_usd / spending.cap_usd;
  const more = [resets, texts.objective(dollars(spending.objective_usd)), texts.lineAt(percent(warning, 0))];
  return [
    cap(texts.wholeApp, spending, warning, more),
    ...spending.callers.map((caller) => cap(caller.name, caller, warning, [])),
  ];
}

function cap(name, { settled_usd: spent, reserved_usd: reserved, cap_usd: limit }, warning, more) {
  const label = texts.meter(name, dollars(spent), dollars(limit));
  const said = texts.ofCap(dollars(spent), dollars(limit), percent(spent / limit));
  const facts = [reserved > 0 && texts.reserved(dollars(reserved)), ...more].filter(Boolean).join(" · ");
  return element(
    "div",
    { className: "cap" },
    element("p", {}, element("strong", {}, name), ` ${said} `, element("span", { className: "quiet" }, facts)),
    meter(label, { spent, reserved, limit, mark: warning * limit }),
  );
}

function costs({ totals, range }) {
  const of = (what, rows, name) =>
    rows.length > 0 && table(`${what} · ${texts[range.name]}`, [texts.name, texts.cost], rows.map((row) => [row.rest ? texts.others : name(row), dollars(row.usd)]));
  return [
    of(texts.byCaller, totals.cost_by_caller, ({ caller }) => (caller === "anonymous" ? texts.anonymous : caller)),
    of(texts.byModel, totals.cost_by_model, ({ provider, model }) => `${provider} / ${model}`),
    of(texts.byProvider, totals.cost_by_provider, ({ provider }) => provider),
  ];
}

// --- requests ---

const sum = (numbers) => Object.values(numbers).reduce((all, number) => all + number, 0);

function totals({ totals: { asked, latency_seconds: latency, cost_usd: cost }, range }) {
  const all = sum(asked);
  const failed = (asked.failed ?? 0) + (asked.broken_stream ?? 0);
  const judged = (asked.ok ?? 0) + failed;
  const minutes = (range.span_seconds * range.spans) / 60;
  const shown = ["p50", "p95", "p99"].map((name) => (latency[name] === null ? "–" : seconds(latency[name])));
  return [
    fact(texts.asked, count(all)),
    fact(texts.perMinute, count(all / minutes)),
    fact(texts.errorRate, judged ? percent(failed / judged, 2) : "–"),
    fact(texts.latencies, shown.join(" / ")),
    fact(texts.costInAll, dollars(cost)),
  ];
}

function fact(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

const unitOf = ({ range }) => (range.span_seconds < 3600 ? texts.minuteUnit : texts.hourUnit);

function requestsPlot(state) {
  const { series, range } = state;
  const lines = ["answered", "refused", "failed", "left"].map((name) => ({ name: texts[name], className: name, values: series[name] }));
  return { title: texts.requestsPlot(unitOf(state)), lines, stacked: true, span: range.span_seconds, format: whole };
}

function latencyPlot({ series, range, latency_limit_seconds: value }) {
  const lines = ["p50", "p95", "p99"].map((name) => ({ name, className: name, values: series[name] }));
  const limit = { value, text: texts.limitLatency(seconds(value)) };
  return { title: texts.latencyPlot, lines, log: true, limit, span: range.span_seconds, format: (each) => seconds(each) };
}

function costPlot(state) {
  const { series, range, spending } = state;
  const lines = [{ name: texts.cost, className: "cost", values: series.cost_usd }];
  const value = (spending.cap_usd * range.span_seconds) / 60 / MINUTES_A_DAY;
  const limit = { value, text: texts.limitPace(dollars(value)) };
  return { title: texts.costPlot(unitOf(state)), lines, stacked: true, limit, span: range.span_seconds, format: dollars };
}

// --- tables ---

function objectives(found) {
  const heads = [texts.slo, texts.good, texts.bad, texts.mayBeBad, texts.burn, texts.budgetLeft, texts.alarm];
  const rows = found.map((slo) => [
    texts[`slo_${slo.name}`],
    count(slo.good),
    count(slo.bad),
    percent(slo.budget, 2),
    count(slo.times_too_fast),
    element("span", { className: slo.budget_left < 0 ? "bad" : "" }, percent(slo.budget_left)),
    element("span", { className: slo.burning.length ? "bad" : "" }, texts[slo.burning[0] ?? "none"]),
  ]);
  return table(texts.objectives, heads, rows, { titled: true });
}

function providers({ targets, totals }) {
  const heads = [texts.provider, texts.state, texts.calls, texts.failures, texts.timesCutOff];
  const counted = (rows, { provider, model }, fits = () => true) =>
    rows.filter((row) => row.provider === provider && row.model === model && fits(row)).reduce((all, row) => all + row.count, 0);
  const rows = targets.map((target) => [
    `${target.provider} / ${target.model}`,
    stateOf(target),
    count(counted(totals.attempts, target)),
    count(counted(totals.attempts, target, ({ outcome }) => outcome !== "ok" && outcome !== "cancelled")),
    count(counted(totals.cut_off, target)),
  ]);
  return table(texts.providers, heads, rows, { titled: true });
}

/** What fails for all is said so by every process: whether this one spares it is no news then. */
function stateOf({ failing, cut_off: cutOff }) {
  const state = failing ? texts.failing : cutOff ? texts.cutOff : texts.works;
  return element("span", { className: failing || cutOff ? "bad" : "" }, state);
}

function events(totals) {
  const of = (caption, rows) => table(caption, [texts.event, texts.times], rows.length ? rows : [[texts.nothing, ""]]);
  const flat = (counts, name = (key) => key) => Object.entries(counts).map(([key, number]) => [name(key), count(number)]);
  return [
    of(texts.recovery, [
      [texts.fallbacks, count(totals.fallbacks)],
      [texts.retries, count(totals.retries)],
      [texts.zeroHits, count(totals.abstained.zero_hit ?? 0)],
    ]),
    of(texts.cacheEvents, flat(totals.cache, (key) => texts[`cache_${key}`] ?? key)),
    of(texts.errors, flat(totals.errors)),
    of(texts.abstained, flat(totals.abstained)),
    of(texts.policy, totals.policy.map((hit) => [`${hit.rule} (${hit.action}, ${hit.side})`, count(hit.count)])),
  ];
}
