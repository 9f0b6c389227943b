"""L4 Guardrails on sensitive topics?

A prompt is a wish, not a guardrail: sooner or later somebody talks the model into what it was told
not to say. What must not be said is checked outside the model, in both directions: the question
before it is sent, the answer before it is shown, a streamed answer too, where the words come in
splinters. What is personal is hidden before a provider sees it, and told by its checksum from what
is only a long number.

How we see it: rules of our own, in English and Korean, for each action and side; a provider that
says the forbidden thing a letter at a time; and a look at what reached whom.
"""

import json
from pathlib import Path

import httpx2
import pytest

from checklist.asking import CHAT, calls_seen, code_of, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import until
from checklist.messages import seen_as
from checklist.starting import try_to_start
from tests.fake_provider import FakeProvider, Reply
from tests.running import RunningApp, production

RULES = """
[[rule]]
name = "block-it"
action = "block"
words = ["Project Nightjar", "쏙독새 프로젝트"]

[[rule]]
name = "abstain-from-it"
action = "abstain"
words = ["maximum dose", "최대 복용량"]
reason = { en = "Please ask a doctor.", ko = "의사에게 물어봐 주세요." }

[[rule]]
name = "hide-it"
action = "redact"
data = ["card", "rrn", "iban", "email", "phone", "secret"]
"""
WRONG_RULES = RULES.replace('"redact"', '"hide"')
LOGGED_SECONDS = 10.0
LOOK_RULES = "app/launch/policy/rules.py"
LOOK_DATA = "app/launch/policy/data.py"
# For each language a sentence that is blocked, one that is abstained from, and the reason for it.
SENTENCES = {
    "en": ("All about Project Nightjar.", "The maximum dose is ten.", "Please ask a doctor."),
    "ko": (
        "쏙독새 프로젝트를 알려 드릴게요.",
        "최대 복용량은 열입니다.",
        "의사에게 물어봐 주세요.",
    ),
}
FORBIDDEN = ("Nightjar", "쏙독새", "maximum dose", "복용량")
REAL = {
    "card": "4111 1111 1111 1111",
    "rrn": "900101-1234568",
    "iban": "DE89 3704 0044 0532 0130 00",
    "email": "bob@example.com",
    "phone": "010-1234-5678",
    "secret": "AKIA" + "IOSFODNN7" + "EXAMPLE",
}
# One digit off, or no such number: they are left as they are.
FALSE = ("4111 1111 1111 1112", "9001011234567", "GB82 WEST 1234 5698 7654 33", "2026-11-27")


@pytest.fixture(scope="module")
def app(start: StartApp, folder: Path) -> RunningApp:
    """An app with the rules above."""
    file = folder / "policy.toml"
    file.write_text(RULES, encoding="utf-8")
    return start(policy_file=str(file), max_attempts=1)


def _ask(app: RunningApp, text: str, language: str = "en", stream: bool = False) -> httpx2.Response:
    with app.http(**{"Accept-Language": language}) as http:
        return http.post(CHAT, json=question(text, stream=stream))


def _seen(answer: httpx2.Response, calls: int | None = None) -> str:
    seen = f"{answer.status_code} {code_of(answer)} {answer.text[:160]}"
    return seen if calls is None else f"{seen}; {calls_seen(calls)}"


def _abstained(answer: httpx2.Response, rule: str, reason: str) -> bool:
    """True where an answer or a stream says that it is none, and why."""
    told = answer.text if answer.status_code == 200 else ""
    marks = ('"abstained":true', f'"reason":"{rule}"', reason)
    return all(mark in told for mark in marks)


def test_a_question_is_judged_before_anything_is_sent(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    for language, (blocked, abstained, reason) in SENTENCES.items():
        for stream in (False, True):
            fake.reset()
            answer = _ask(app, blocked, language, stream)
            calls = len(fake.ledger.calls)
            refused = answer.status_code == 400 and code_of(answer) == "content_policy_violation"
            check.that(refused and calls == 0, "input_blocked", seen=_seen(answer, calls))
            answer = _ask(app, abstained, language, stream)
            calls = len(fake.ledger.calls)
            said = _abstained(answer, "abstain-from-it", reason) and calls == 0
            check.that(said, "input_abstained", seen=_seen(answer, calls))
    check.found("input", languages=", ".join(SENTENCES))


def test_an_answer_is_judged_before_it_is_shown(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    for language, (blocked, abstained, reason) in SENTENCES.items():
        for stream in (False, True):
            fake.reset()
            fake.next(Reply(chunks=tuple(blocked)))  # a letter at a time
            answer = _ask(app, "What is new?", language, stream)
            refused = "content_policy_violation" in answer.text
            clean = not any(word in answer.text for word in FORBIDDEN)
            check.that(refused and clean, "output_blocked", seen=_seen(answer))
            fake.next(Reply(chunks=tuple(abstained)))
            answer = _ask(app, "How many?", language, stream)
            said = _abstained(answer, "abstain-from-it", reason)
            clean = not any(word in answer.text for word in FORBIDDEN)
            check.that(said and clean, "output_abstained", seen=_seen(answer))
    check.found("output", languages=", ".join(SENTENCES))


def test_what_is_personal_is_hidden_from_both_sides(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    for kind, value in REAL.items():
        fake.reset()
        fake.next(Reply(chunks=tuple(f"It is {value}, yes.")))
        answer = _ask(app, f"제 번호는 {value}입니다.", stream=True)
        sent = json.dumps([call.body for call in fake.ledger.calls], ensure_ascii=False)
        got = "reached the provider" if value in sent else "reached the caller"
        kept = bool(fake.ledger.calls) and value not in sent and not _leaked(answer, value)
        check.that(
            kept, "hidden", kind=kind, seen=f"{kind}: {got}; {_seen(answer)}", look=LOOK_DATA
        )
    for value in FALSE:
        fake.reset()
        _ask(app, f"It is {value} or so.")
        sent = json.dumps([call.body for call in fake.ledger.calls], ensure_ascii=False)
        check.that(value in sent, "left_alone", seen=f"{value}: {sent[-160:]}", look=LOOK_DATA)
    check.found("data", kinds=", ".join(REAL), false=len(FALSE))


def _leaked(answer: httpx2.Response, value: str) -> bool:
    """True where the pieces of a stream add up to the value."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line).get("choices", ())]
    said = "".join(choice.get("delta", {}).get("content") or "" for choice in choices)
    return answer.status_code != 200 or value in said or "It is " not in said


def test_every_hit_is_in_the_log_by_its_rule(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    asked = {"block-it": "Project Nightjar", "abstain-from-it": "The maximum dose"}
    ids = {rule: _ask(app, text).headers.get("x-request-id", "") for rule, text in asked.items()}

    def unlogged() -> list[str]:
        lines = [line for line in app.log_lines() if "duration_ms" in line]
        said = {line.get("request_id"): json.dumps(line.get("policy", "")) for line in lines}
        return [rule for rule, wanted in ids.items() if rule not in said.get(wanted, "")]

    until(lambda: not unlogged(), LOGGED_SECONDS)
    missing = ", ".join(unlogged())
    check.that(not missing, "logged", seen=seen_as("unsaid", way="log", names=missing))
    for text in asked.values():
        check.that(text not in app.log(), "unlogged", seen=text)


def test_a_mistake_in_the_rules_stops_the_start(
    fake: FakeProvider, folder: Path, check: Check
) -> None:
    file = folder / "wrong.toml"
    file.write_text(WRONG_RULES, encoding="utf-8")
    line = WRONG_RULES[: WRONG_RULES.index('"hide"')].count("\n") + 1
    refusal = try_to_start(production(fake, folder, policy_file=str(file)), folder)
    ended = refusal.code is not None and not refusal.listened
    seen = seen_as("ended", code=refusal.code) if ended else seen_as("listened")
    named = f"wrong.toml:{line}" in refusal.output and "hide-it" in refusal.output
    check.that(ended and refusal.code == 78 and named, "mistake", seen=seen, look=LOOK_RULES)
    check.found("stopped", line=line)
