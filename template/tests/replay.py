"""Cases: what somebody wrote, and what should become of it, played against a running app.

A file holds one or more of them:

    [[case]]
    name = "typos"
    text = "waht is teh captial of frnace"   # or [[case.messages]], each with role and content
    expect = "answered"                      # answered, cut, abstained, blocked or refused

    repeat = 5000         # the last message so many times
    stream = true         # ask for a stream
    request = { n = 2 }   # more fields of the request
    answer = "…"          # what the provider says; by default an echo
    finish = "length"     # why the provider ended: stop, length or content_filter
    code = "…"            # refused: the error's code
    rule = "…"            # abstained: the rule
    comment = "…"         # what somebody said of the answer

What was hidden when a failure was kept, such as `[EMAIL_1]`, is played with a made-up one.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import httpx2
from pydantic import BaseModel, ConfigDict, model_validator

from app.launch.policy.rules import DEFAULT
from tests.fake_provider import FakeProvider, Reply

HERE = Path(__file__).parent
STARTER = HERE / "cases"
YOURS = HERE / "yours" / "cases"
# The starter set is played by the rules that come with the app, whatever yours are.
RULES = str(DEFAULT)
_HIDDEN = re.compile(r"\[([A-Z]+)_(\d{1,3})\]")
_MADE_UP = {
    "CARD": "4111 1111 1111 1111",
    "EMAIL": "somebody{n}@example.com",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "PHONE": "010-1234-5678",
    "RRN": "900101-1234568",
    "SECRET": "AKIA" + "IOSFODNN7" + "EXAMPLE",
}

Shape = Literal["answered", "cut", "abstained", "blocked", "refused"]


class Turn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str


class Case(BaseModel):
    """One case; `file` is where it was found."""

    model_config = ConfigDict(extra="forbid")
    name: str
    expect: Shape
    messages: list[Turn] = []
    text: str | None = None
    repeat: int = 1
    stream: bool = False
    request: dict[str, Any] = {}
    answer: str | None = None
    finish: Literal["stop", "length", "content_filter"] = "stop"
    code: str | None = None
    rule: str | None = None
    comment: str = ""
    file: str = ""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if (self.text is None) == (not self.messages):
            raise ValueError("a case has either text or messages")
        return self

    def body(self) -> dict[str, Any]:
        """The request."""
        turns = self.messages or [Turn(role="user", content=self.text or "")]
        told = [{"role": turn.role, "content": made_up(turn.content)} for turn in turns]
        told[-1]["content"] *= self.repeat
        return {"model": "auto", "messages": told, "stream": self.stream, **self.request}


class Seen(BaseModel):
    """What became of a case."""

    shape: Shape
    status: int
    code: str | None = None
    rule: str | None = None
    text: str = ""


def cases_in(folder: Path) -> list[Case]:
    """The cases of a folder's files. Raises `ValueError` that names the file at fault."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        try:
            written = tomllib.loads(path.read_text(encoding="utf-8"))
            found += [Case(**case, file=path.name) for case in written["case"]]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def play(http: httpx2.Client, fake: FakeProvider, case: Case) -> Seen:
    """Ask an app what the case asks; its provider says what it says there."""
    fake.reset()
    if case.answer is not None or case.finish != "stop":
        text = None if case.answer is None else made_up(case.answer)
        fake.always(Reply(text, finish=case.finish))
    return _seen(http.post("/v1/chat/completions", json=case.body()))


def unmet(case: Case, seen: Seen) -> str:
    """What is not as the case says; empty where all is."""
    wrong = [
        f"{name} is {found!r} and not {wanted!r}"
        for name, wanted, found in (
            ("the shape", case.expect, seen.shape),
            ("the code", case.code, seen.code),
            ("the rule", case.rule if case.expect == "abstained" else None, seen.rule),
        )
        if wanted is not None and wanted != found
    ]
    if wrong:
        return f"{case.file}, {case.name}: {', '.join(wrong)} ({seen.status} {seen.text[:160]!r})"
    return ""


def made_up(text: str) -> str:
    """The text with something in the place of what was hidden."""

    def one(found: re.Match[str]) -> str:
        return _MADE_UP.get(found[1], found[0]).replace("{n}", found[2])

    return _HIDDEN.sub(one, text)


def _seen(answer: httpx2.Response) -> Seen:
    streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
    lines = [x[6:] for x in answer.text.splitlines() if x.startswith("data: {")]
    events = [json.loads(line) for line in lines] if streamed else [answer.json()]
    for event in events:
        if (error := event.get("error")) is not None:
            shape: Shape = "blocked" if error["code"] == "content_policy_violation" else "refused"
            seen = {"code": error["code"], "text": error["message"]}
            return Seen(shape=shape, status=answer.status_code, **seen)
    choices = [choice for event in events for choice in event.get("choices", ())]
    told = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    rule = next((one["reason"] for one in told if one.get("abstained")), None)
    finish = next((c["finish_reason"] for c in reversed(choices) if c["finish_reason"]), None)
    text = "".join(one.get("content") or "" for one in told)
    shape = "abstained" if rule else "answered" if finish == "stop" and text else "cut"
    return Seen(shape=shape, status=answer.status_code, rule=rule, text=text)
