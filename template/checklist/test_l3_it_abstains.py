"""L3 Is abstention defined?

A model always has an answer. An app that must not be wrong needs a place for questions that it
leaves unanswered: for a sensitive topic, for want of evidence, for an answer that rests on none.
Such an answer says that it is none, and why; what the model made up is not shown; and the log
counts it, for every question without an answer is one that somebody had.

How we see it: a rule of our own, and where the app has knowledge, documents of our own; questions
that they do not answer; a provider that is sure of everything; and a look at who was asked.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx2
import pytest

from app.foundation.project import load_project
from checklist.asking import CHAT, calls_seen, question
from checklist.check import Check
from checklist.conftest import StartApp
from checklist.listener import until
from tests.fake_provider import FakeProvider, Reply
from tests.running import RunningApp

RULES = """
[[rule]]
name = "dosage"
action = "abstain"
words = ["maximum dose", "최대 복용량"]
reason = { en = "Please ask a doctor.", ko = "의사에게 물어봐 주세요." }
"""
DOCUMENT = (
    "# Whale\n\nThe whale in the great hall is nineteen metres long.\n\n고래의 길이는 19미터.\n"
)
LOGGED_SECONDS = 10.0
INVENTED = "forty"
KNOWS = load_project().knowledge
LOOK_SCREEN = "app/launch/policy/screen.py"
LOOK_SEARCH = "app/launch/evidence/gather.py"
LOOK_CITED = "app/launch/evidence/citations.py"


@dataclass(frozen=True)
class Case:
    """A question, what the provider would say, why there is no answer, and how many are asked."""

    asked: str
    said: str
    reason: str
    calls: int
    look: str


CASES = [
    Case("What is the maximum dose?", "Forty.", "dosage", 0, LOOK_SCREEN),
    Case("최대 복용량이 얼마인가요?", "Forty.", "dosage", 0, LOOK_SCREEN),
    Case("How long is the whale?", "The maximum dose is forty [1].", "dosage", 1, LOOK_SCREEN),
]
if KNOWS:
    CASES += [
        Case("Which mortgage suits me?", "Forty [1].", "zero_hit", 0, LOOK_SEARCH),
        Case("주택 담보 대출 금리는?", "Forty [1].", "zero_hit", 0, LOOK_SEARCH),
        Case(
            "Which length of mortgage with deferred interest do bankers prefer for a whale?",
            "Forty [1].",
            "weak_evidence",
            0,
            LOOK_SEARCH,
        ),
        Case("How long is the whale?", "Forty metres, certainly.", "ungrounded", 1, LOOK_CITED),
        Case("고래의 길이는 얼마인가요?", "Forty metres [7].", "ungrounded", 1, LOOK_CITED),
    ]


@pytest.fixture(scope="module")
def app(start: StartApp, folder: Path) -> RunningApp:
    """An app with the rule above, which answers from the document where it has knowledge."""
    rules = folder / "abstain.toml"
    rules.write_text(RULES, encoding="utf-8")
    if not KNOWS:
        return start(policy_file=str(rules), max_attempts=1)
    documents = folder / "documents"
    documents.mkdir()
    (documents / "whale.md").write_text(DOCUMENT, encoding="utf-8")
    import_module("indexing.build").build(documents, folder / "knowledge.db")
    return start(
        policy_file=str(rules),
        max_attempts=1,
        knowledge_file=str(folder / "knowledge.db"),
        evidence_passages=4,
    )


def _ask(app: RunningApp, case: Case, stream: bool) -> httpx2.Response:
    with app.http() as http:
        return http.post(CHAT, json=question(case.asked, stream=stream))


def _counted(app: RunningApp) -> int:
    with app.http("admin") as http:
        lines = http.get("/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("llm_app_abstentions_total{")]
    return round(sum(float(line.split()[-1]) for line in counts))


def test_a_question_without_an_answer_is_said_to_be_one(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    expected: dict[str, str] = {}
    for case in CASES:
        for stream in (False, True):
            fake.reset()
            fake.always(Reply(chunks=tuple(case.said)))
            answer = _ask(app, case, stream)
            calls = len(fake.ledger.calls)
            seen = f"{answer.status_code} {answer.text[-300:]}; {calls_seen(calls)}"
            told = '"abstained":true' in answer.text and f'"reason":"{case.reason}"' in answer.text
            check.that(
                answer.status_code == 200 and told,
                "told",
                asked=case.asked,
                reason=case.reason,
                seen=seen,
                look=case.look,
            )
            shown = INVENTED in answer.text.lower()
            check.that(not shown, "invented", asked=case.asked, seen=seen, look=case.look)
            check.that(calls == case.calls, "called", reason=case.reason, seen=seen, look=case.look)
            expected[answer.headers.get("x-request-id", "")] = case.reason

    def unlogged() -> list[str]:
        lines = {line.get("request_id"): line for line in app.log_lines() if "duration_ms" in line}
        return [
            reason
            for request_id, reason in expected.items()
            if lines.get(request_id, {}).get("abstained") != reason
        ]

    until(lambda: not unlogged(), LOGGED_SECONDS)
    check.that(not unlogged(), "logged", seen=", ".join(unlogged()), look=LOOK_SCREEN)
    counted = _counted(app)
    check.that(counted == len(expected), "counted", count=len(expected), seen=counted)
    reasons = ", ".join(sorted(set(expected.values())))
    check.found("abstained", count=counted, reasons=reasons)


def test_a_question_with_an_answer_gets_it(
    app: RunningApp, fake: FakeProvider, check: Check
) -> None:
    fake.reset()
    fake.next(Reply("Nineteen metres [1]."))
    answer = _ask(app, Case("How long is the whale?", "", "", 1, ""), stream=False)
    given = answer.status_code == 200 and "Nineteen metres [1]." in answer.text
    seen = f"{answer.status_code} {answer.text[:300]}"
    check.that(given and '"abstained"' not in answer.text, "answered", seen=seen)
    if KNOWS:
        check.that('"file":"whale.md"' in answer.text, "cited", seen=seen, look=LOOK_CITED)
