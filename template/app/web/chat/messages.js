// Every text of the page, once per language. A text with values in it is a function.

const en = {
  newConversation: "New conversation",
  undo: "Bring the old conversation back",
  forgetKey: "Forget key",
  memory: "This browser remembers the conversation.",
  box: "Write a message",
  send: "Send",
  stop: "Stop",
  hint: "Enter sends, Shift + Enter starts a new line.",

  keyLabel: "This app asks for a key",
  keySave: "Use this key",
  keyNote: "It is forgotten when you close this tab.",

  waiting: "Waiting for the first words",
  stopped: "You stopped the answer here.",
  cutOff: "The answer ends here: it reached the length limit.",
  sources: "Sources",

  cost: "Cost",
  tokens: "Tokens",
  inAndOut: (input, output) => `${input} in, ${output} out`,
  model: "Model",
  fallback: "fallback",
  summarised: "earlier turns summarised",
  request: "Request",
  copyId: "Copy the request ID",
  copyAnswer: "Copy answer",
  copied: "Copied",
  rating: "Rate this answer",
  good: "Good answer",
  bad: "Bad answer",
  total: (tokens, cost) => `In all ${tokens} tokens, ${cost}`,

  lost: "The connection to the app was lost.",
  unexpected: (status) => `The app answered with an error (${status}).`,
  tryAgain: "Try again",
  tryAgainIn: (time) => `Try again in ${time}`,
};

const ko = {
  newConversation: "새 대화",
  undo: "이전 대화 되돌리기",
  forgetKey: "키 지우기",
  memory: "대화는 이 브라우저에 저장됩니다.",
  box: "메시지를 입력하세요",
  send: "보내기",
  stop: "중지",
  hint: "Enter로 보내고, Shift + Enter로 줄을 바꿉니다.",

  keyLabel: "이 앱을 쓰려면 키가 필요합니다",
  keySave: "키 사용하기",
  keyNote: "이 탭을 닫으면 지워집니다.",

  waiting: "답변을 기다리고 있습니다",
  stopped: "여기서 답변을 중지했습니다.",
  cutOff: "길이 제한에 도달해 답변이 여기서 끝났습니다.",
  sources: "근거",

  cost: "비용",
  tokens: "토큰",
  inAndOut: (input, output) => `입력 ${input}, 출력 ${output}`,
  model: "모델",
  fallback: "대체 모델",
  summarised: "이전 대화 요약됨",
  request: "요청 ID",
  copyId: "요청 ID 복사",
  copyAnswer: "답변 복사",
  copied: "복사했습니다",
  rating: "답변 평가",
  good: "좋은 답변",
  bad: "나쁜 답변",
  total: (tokens, cost) => `모두 ${tokens} 토큰, ${cost}`,

  lost: "앱과의 연결이 끊겼습니다.",
  unexpected: (status) => `앱에서 오류가 발생했습니다(${status}).`,
  tryAgain: "다시 시도",
  tryAgainIn: (time) => `${time} 뒤 다시 시도`,
};

/** Importers see these change when useLanguage is called: exports are live. */
export let language = "en";
export let texts = en;

/** The language of the app, else of the browser, else English. */
export function useLanguage(configured) {
  language = (configured ?? navigator.language).startsWith("ko") ? "ko" : "en";
  texts = language === "ko" ? ko : en;
}

export function count(number) {
  return new Intl.NumberFormat(language).format(number);
}

/** US dollars; one answer often costs less than a cent, so up to six decimals. */
export function dollars(amount) {
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: 6 };
  return new Intl.NumberFormat("en", { style: "currency", currency: "USD", ...digits }).format(amount);
}

/** "12 sec", "4 min", "6 hr" */
export function duration(seconds) {
  const [size, unit] = seconds < 100 ? [1, "second"] : seconds < 6000 ? [60, "minute"] : [3600, "hour"];
  return new Intl.NumberFormat(language, { style: "unit", unit }).format(Math.ceil(seconds / size));
}
