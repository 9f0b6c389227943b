// Every text of the page, once per language. A text with values in it is a function.

const en = {
  title: "Operations",
  token: "Admin token",
  tokenNote: "The value of ADMIN_TOKEN. You stay signed in for eight hours.",
  signIn: "Sign in",
  signOut: "Sign out",
  notKept: "The browser did not keep the session. Open this page over https.",
  unreachable: "The app does not answer.",
  unexpected: (status) => `The app answered with an error (${status}).`,
  stale: (when) => `These numbers are from ${when}.`,
  news: (when) => `Updated at ${when}`,
  openToAll: "No ADMIN_TOKEN is set: whoever reaches this app sees this page. Set one in .env to turn switches here.",
  range: "Shown",
  hour: "Last hour",
  day: "Last day",
  week: "Last week",

  attention: "What needs you",
  allWell: "Nothing needs you.",
  isOff: (name, by, why) => `${name} is switched off by ${by}: ${why}`,
  isCutOff: (provider) => `${provider} fails and is spared by this process.`,
  isFailing: (provider) => `Every call to ${provider} has failed in the last minutes.`,
  isBurning: (slo) => `The error budget of "${slo}" burns too fast.`,
  isDear: (percent) => `${percent} of today's cap is spent.`,
  isDearCaller: (name, percent) => `${name} has spent ${percent} of its cap for today.`,
  runbook: "RUNBOOK.md says for each alert what to do.",
  onCall: "On call:",

  spending: "Spending today",
  ofCap: (spent, cap, percent) => `${spent} of ${cap} (${percent})`,
  meter: (name, spent, cap) => `${name}: ${spent} of ${cap} spent, with a line at 80 %`,
  wholeApp: "The app",
  reserved: (amount) => `${amount} reserved`,
  resets: (time) => `starts again in ${time}`,
  objective: (amount) => `objective ${amount} a day`,
  byCaller: "Cost by caller",
  byModel: "Cost by model",
  byProvider: "Cost by provider",
  name: "Name",
  cost: "Cost",
  others: "the others",
  anonymous: "without a key",

  traffic: "Requests",
  asked: "Questions",
  perMinute: "Per minute",
  errorRate: "Error rate",
  latencies: "p50 / p95 / p99",
  costInAll: "Cost",
  requestsPlot: (unit) => `Questions per ${unit}`,
  latencyPlot: "Time until the answer is complete",
  costPlot: (unit) => `Cost per ${unit}, in US dollars`,
  minuteUnit: "minute",
  hourUnit: "hour",
  answered: "answered",
  refused: "refused",
  failed: "failed",
  left: "broken off by the client",
  limitLatency: (time) => `Limit ${time}`,
  limitPace: (amount) => `The cap, spread over the day: ${amount}`,
  asTable: "As a table",
  when: "When",
  now: "now",

  objectives: "Objectives",
  objectivesNote: "The error budget is what may be bad in 30 days. It burns at 1 when it would last exactly that long.",
  slo: "Objective",
  good: "Good",
  bad: "Bad",
  mayBeBad: "May be bad",
  burn: "Burn",
  budgetLeft: "Budget left",
  alarm: "Alert",
  page: "call someone",
  ticket: "look at it",
  none: "none",
  slo_availability: "answered",
  slo_latency: "in time",
  slo_fallback: "by the first provider",
  slo_refusal: "not refused",

  providers: "Providers",
  providersNote: "A target fails when no call of the last minutes was answered, over all processes. Each process cuts one off by itself: that state is of the process that answered now. The counts are over all.",
  provider: "Provider and model",
  state: "State",
  works: "in use",
  cutOff: "cut off",
  failing: "fails",
  calls: "Calls",
  failures: "Failed calls",
  timesCutOff: "Times cut off",

  events: "What else happened",
  event: "Event",
  times: "Times",
  fallbacks: "Fallbacks",
  retries: "Retries",
  zeroHits: "Answers without evidence",
  cacheEvents: "Answer cache",
  cache_hit: "from the cache",
  cache_miss: "asked of a provider",
  cache_bypass: "not to be cached",
  cache_replay: "sent again for a key",
  errors: "Refusals and errors",
  abstained: "Abstentions",
  policy: "Policy hits",
  recovery: "Recovery",
  nothing: "nothing",

  recentFailures: "Recent failures",
  failuresNote: "The request ID is in each of its log lines, and in its trace. What was asked is not shown here: uv run failures list and export read it.",
  cause: "Cause",
  last: "Last",
  firstRequest: "Request",
  logLine: "Log line",
  copyCommand: "Copy the command",
  copyId: "Copy the ID",
  copied: "(copied)",
  log_docker: "Run this on the server, in the project's folder:",
  log_vercel: "Run this in the linked project's folder:",
  log_aws: "Run this where the aws command is signed in to the account:",
  log_terminal: "In development the log is where the app was started. Look there for:",
  where: "Status and model",

  checklist: "The checklist",
  itemsChecked: (checked, all) => `${checked} of ${all} items are checked.`,
  itemsOpen: (open) => (open === 1 ? "One item of the checklist is open." : `${open} items of the checklist are open.`),
  runAt: (when) => `Run on ${when}`,
  commit: (name) => `commit ${name}`,
  allItems: "All items",
  item: "Item",
  itemChecked: "checked",
  itemOpen: "open",
  noChecklist: "No result came with this app. uv run checklist writes it, and the next build takes it along.",
  badChecklist: "The result (app/checklist.json) cannot be read. uv run checklist writes it anew.",

  switches: "Kill switches",
  switchesNote: "Every process follows within seconds. Each turn is written to the log.",
  switchName: "Switch",
  on: "on",
  off: (by, at, why) => `off since ${at}, by ${by}: ${why}`,
  action: "Action",
  turnOff: "Switch off",
  turnOn: "Switch on",
  askOff: (name) => `Switch off ${name}?`,
  askOn: (name) => `Switch on ${name}?`,
  effectSpending: "Every question is refused until it is on again.",
  effectTarget: "The app asks the others in their order; where none is left, it refuses.",
  effectCanary: "Every question goes to the proven models.",
  effectShadow: "No answer is asked of the candidate for comparison. What callers get stays the same.",
  effectOn: "It is used again by every process within seconds.",
  why: "Reason, for those who are on call with you",
  whyMissing: "Write a reason.",
  cancel: "Cancel",
};

const ko = {
  title: "운영",
  token: "관리자 토큰",
  tokenNote: "ADMIN_TOKEN의 값입니다. 로그인은 여덟 시간 동안 유지됩니다.",
  signIn: "로그인",
  signOut: "로그아웃",
  notKept: "브라우저가 로그인을 저장하지 않았습니다. https 주소로 열어 주세요.",
  unreachable: "앱이 응답하지 않습니다.",
  unexpected: (status) => `앱이 오류로 응답했습니다(${status}).`,
  stale: (when) => `${when} 기준 수치입니다.`,
  news: (when) => `${when} 갱신`,
  openToAll: "ADMIN_TOKEN이 없어 이 앱에 접속하는 누구나 이 페이지를 볼 수 있습니다. 스위치를 쓰려면 .env에 설정해 주세요.",
  range: "기간",
  hour: "최근 1시간",
  day: "최근 하루",
  week: "최근 일주일",

  attention: "확인할 것",
  allWell: "확인할 것이 없습니다.",
  isOff: (name, by, why) => `${name} 꺼짐(${by}): ${why}`,
  isCutOff: (provider) => `${provider} 호출이 계속 실패해 이 프로세스가 잠시 쓰지 않습니다.`,
  isFailing: (provider) => `최근 몇 분 동안 ${provider} 호출이 모두 실패했습니다.`,
  isBurning: (slo) => `'${slo}' 오류 예산이 너무 빨리 줄고 있습니다.`,
  isDear: (percent) => `오늘 한도의 ${percent}를 썼습니다.`,
  isDearCaller: (name, percent) => `${name} 호출자가 오늘 한도의 ${percent}를 썼습니다.`,
  runbook: "알림마다 할 일이 RUNBOOK.md에 있습니다.",
  onCall: "당직:",

  spending: "오늘 지출",
  ofCap: (spent, cap, percent) => `${cap} 중 ${spent} (${percent})`,
  meter: (name, spent, cap) => `${name}: ${cap} 중 ${spent} 지출, 80% 지점에 선`,
  wholeApp: "앱 전체",
  reserved: (amount) => `예약 ${amount}`,
  resets: (time) => `${time} 뒤 다시 시작`,
  objective: (amount) => `목표 하루 ${amount}`,
  byCaller: "호출자별 비용",
  byModel: "모델별 비용",
  byProvider: "제공자별 비용",
  name: "이름",
  cost: "비용",
  others: "그 밖",
  anonymous: "키 없음",

  traffic: "요청",
  asked: "질문",
  perMinute: "분당",
  errorRate: "오류율",
  latencies: "p50 / p95 / p99",
  costInAll: "비용",
  requestsPlot: (unit) => `${unit}당 질문 수`,
  latencyPlot: "답변이 끝날 때까지 걸린 시간",
  costPlot: (unit) => `${unit}당 비용(미국 달러)`,
  minuteUnit: "1분",
  hourUnit: "1시간",
  answered: "답변함",
  refused: "거절함",
  failed: "실패",
  left: "클라이언트가 끊음",
  limitLatency: (time) => `한도 ${time}`,
  limitPace: (amount) => `한도를 하루에 고르게 나눈 값: ${amount}`,
  asTable: "표로 보기",
  when: "시각",
  now: "지금",

  objectives: "목표",
  objectivesNote: "오류 예산은 30일 동안 나빠도 되는 몫입니다. 소진 속도가 1이면 꼭 30일 만에 다 씁니다.",
  slo: "목표",
  good: "좋음",
  bad: "나쁨",
  mayBeBad: "허용 비율",
  burn: "소진 속도",
  budgetLeft: "남은 예산",
  alarm: "알림",
  page: "당직 호출",
  ticket: "살펴볼 것",
  none: "없음",
  slo_availability: "답변함",
  slo_latency: "제때 답변",
  slo_fallback: "첫 제공자가 답변",
  slo_refusal: "거절하지 않음",

  providers: "제공자",
  providersNote: "최근 몇 분 동안 어느 프로세스의 호출에도 답이 없으면 실패 중으로 표시합니다. 차단은 프로세스마다 따로 판단하며, 표시된 것은 지금 응답한 프로세스의 상태입니다. 횟수는 모든 프로세스의 합입니다.",
  provider: "제공자와 모델",
  state: "상태",
  works: "사용 중",
  cutOff: "차단됨",
  failing: "실패 중",
  calls: "호출",
  failures: "실패한 호출",
  timesCutOff: "차단 횟수",

  events: "그 밖의 일",
  event: "내용",
  times: "횟수",
  fallbacks: "대체 제공자 답변",
  retries: "재시도",
  zeroHits: "근거를 찾지 못한 질문",
  cacheEvents: "답변 캐시",
  cache_hit: "캐시에서 답변",
  cache_miss: "제공자에게 질문",
  cache_bypass: "캐시하지 않음",
  cache_replay: "같은 키로 다시 보냄",
  errors: "거절과 오류",
  abstained: "답변 보류",
  policy: "정책에 걸린 것",
  recovery: "복구",
  nothing: "없음",

  recentFailures: "최근 실패",
  failuresNote: "요청 ID는 로그의 모든 줄과 트레이스에 있습니다. 질문 내용은 여기에 나오지 않으며 uv run failures list 와 export 로 볼 수 있습니다.",
  cause: "원인",
  last: "마지막",
  firstRequest: "요청",
  logLine: "로그 줄",
  copyCommand: "명령 복사",
  copyId: "ID 복사",
  copied: "(복사했습니다)",
  log_docker: "서버의 프로젝트 폴더에서 실행하세요:",
  log_vercel: "연결된 프로젝트 폴더에서 실행하세요:",
  log_aws: "이 계정에 로그인된 aws 명령으로 실행하세요:",
  log_terminal: "개발 환경의 로그는 앱을 시작한 터미널에 있습니다. 거기서 찾아보세요:",
  where: "상태와 모델",

  checklist: "체크리스트",
  itemsChecked: (checked, all) => `${all}개 중 ${checked}개를 확인했습니다.`,
  itemsOpen: (open) => `체크리스트 항목 ${open}개가 확인되지 않았습니다.`,
  runAt: (when) => `${when} 실행`,
  commit: (name) => `커밋 ${name}`,
  allItems: "모든 항목",
  item: "항목",
  itemChecked: "확인됨",
  itemOpen: "미확인",
  noChecklist: "이 앱에는 결과가 들어 있지 않습니다. uv run checklist 를 실행하면 결과가 남고, 다음 빌드에 함께 들어갑니다.",
  badChecklist: "결과 파일(app/checklist.json)을 읽을 수 없습니다. uv run checklist 를 실행하면 새로 씁니다.",

  switches: "긴급 스위치",
  switchesNote: "모든 프로세스가 몇 초 안에 따릅니다. 바꿀 때마다 로그에 남습니다.",
  switchName: "스위치",
  on: "켜짐",
  off: (by, at, why) => `${at} 꺼짐(${by}): ${why}`,
  action: "동작",
  turnOff: "끄기",
  turnOn: "켜기",
  askOff: (name) => `${name} 스위치를 끌까요?`,
  askOn: (name) => `${name} 스위치를 켤까요?`,
  effectSpending: "다시 켤 때까지 모든 질문을 거절합니다.",
  effectTarget: "나머지 제공자에게 순서대로 질문하고, 남은 곳이 없으면 거절합니다.",
  effectCanary: "모든 질문을 검증된 모델에 보냅니다.",
  effectShadow: "비교하려고 후보에게 물어보던 것을 멈춥니다. 호출자가 받는 답변은 그대로입니다.",
  effectOn: "몇 초 안에 모든 프로세스가 다시 씁니다.",
  why: "함께 당직을 서는 사람에게 남기는 이유",
  whyMissing: "이유를 적어 주세요.",
  cancel: "취소",
};

export const language = navigator.language.startsWith("ko") ? "ko" : "en";
export const texts = language === "ko" ? ko : en;

export function count(number, most = 2) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: most }).format(number);
}

export function percent(share, digits = 1) {
  const style = { style: "percent", maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, style).format(share);
}

/** US dollars: to the cent from a dollar on, and to two digits that say something below it. */
export function dollars(amount) {
  const small = Math.abs(amount) < 1 && amount !== 0;
  const digits = small ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 2 };
  return new Intl.NumberFormat("en", { style: "currency", currency: "USD", ...digits }).format(amount);
}

export function seconds(value) {
  const [amount, unit] = value < 1 ? [value * 1000, "millisecond"] : [value, "second"];
  const style = { style: "unit", unit, maximumSignificantDigits: 3 };
  return new Intl.NumberFormat(language, style).format(amount);
}

/** "5 hr", "12 min" */
export function duration(value) {
  const [size, unit] = value < 5400 ? [60, "minute"] : [3600, "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit }).format(Math.ceil(value / size));
}

export function clock(when) {
  return new Intl.DateTimeFormat(language, { timeStyle: "medium" }).format(when);
}

export function dayAndTime(when) {
  return new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "short" }).format(when);
}

/** "45 minutes ago": so many spans of so many seconds. */
export function ago(spans, span) {
  if (!spans) return texts.now;
  const back = new Intl.RelativeTimeFormat(language, { style: "short" });
  return span < 3600 ? back.format(-spans, "minute") : back.format(-spans, "hour");
}
