"""The rule file: `app/yours/policy.toml`, which is yours, or the one that POLICY_FILE names.

Where there is none, as in an app that was updated from a release without a policy, the rules in
`default.toml` hold. The file is read and compiled at start; whatever is wrong in it is listed with
its line, and nothing starts.
"""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import phonenumbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.foundation.checks import Problem, wrong
from app.launch.policy import find
from app.launch.policy.data import REGIONS, kinds
from app.launch.policy.find import EmptyMatchError, Finder, PatternError, TooLongError
from app.launch.policy.width import UnboundedError

Action = Literal["block", "redact", "abstain"]
Side = Literal["input", "output"]

YOURS = Path(__file__).parents[2] / "yours" / "policy.toml"
DEFAULT = Path(__file__).with_name("default.toml")
# A change to how rules are applied changes this: answers that were kept before are then not found.
FORMAT = 3
_MOST_RULES = 100
# Characters of a rule's words together: more of them make the start slow, and RE2 gives up.
_MOST_IN_WORDS = 20_000
_HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready for use. `reason` is what the caller is told, by language."""

    name: str
    action: Action
    sides: frozenset[Side]
    finders: tuple[Finder, ...]
    restore: bool
    reason: dict[str, str]


@dataclass(frozen=True, slots=True)
class OneSide:
    """The rules of one side. `anything`: see `find.anything`; `joined`: see `folding.bases`."""

    rules: tuple[Rule, ...]
    anything: find.Pattern | None
    joined: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules in their order. `version` changes with the file's content."""

    rules: tuple[Rule, ...]
    version: str

    def on(self, side: Side) -> OneSide:
        """The rules of one side."""
        rules = tuple(rule for rule in self.rules if side in rule.sides)
        finders = [finder for rule in rules for finder in rule.finders]
        joined = frozenset[str]().union(*(finder.joined for finder in finders))
        return OneSide(rules, find.anything(finders), joined)


class InvalidRulesError(Exception):
    """The file is wrong; `problems` say where and how."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(", ".join(problem.name for problem in problems))
        self.problems = problems


def _word(value: str) -> str:
    if not value.strip():
        raise wrong("policy_blank")
    if len(value) > find.LONGEST:
        raise wrong("policy_too_long", width=len(value), longest=find.LONGEST)
    return value


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _pattern(value: str) -> str:
    try:
        find.pattern(value, "")
    except PatternError as error:
        raise wrong("policy_pattern", reason=_said(error)) from None
    except UnboundedError as error:
        facts = {"repetition": str(error), "star": "{0,20}", "plus": "{1,20}"}
        raise wrong("policy_unbounded", **facts) from None
    except TooLongError as error:
        raise wrong("policy_too_long", width=error.width, longest=find.LONGEST) from None
    except EmptyMatchError:
        raise wrong("policy_everything") from None
    return value


def _region(value: str) -> str:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        raise wrong("policy_region")
    return value


class _Reason(BaseModel):
    model_config = ConfigDict(extra="forbid")
    en: str
    ko: str


class _Rule(BaseModel):
    """A rule as it is written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    action: Action
    on: Literal["input", "output", "both"] = "both"
    words: list[Annotated[str, AfterValidator(_word)]] = []
    patterns: list[Annotated[str, AfterValidator(_pattern)]] = []
    data: list[Literal["card", "email", "iban", "phone", "rrn", "secret"]] = []
    regions: list[Annotated[str, AfterValidator(_region)]] = list(REGIONS)
    restore: bool = False
    reason: _Reason | Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not (self.words or self.patterns or self.data):
            raise wrong("policy_nothing")
        if sum(map(len, self.words)) > _MOST_IN_WORDS:
            raise wrong("policy_too_many", most=_MOST_IN_WORDS)
        if self.restore and (self.action != "redact" or self.on == "output"):
            raise wrong("policy_restore")
        return self

    def rule(self) -> Rule:
        """The rule, compiled."""
        label = self.name.upper().replace("-", "_")
        known = kinds(tuple(self.regions))
        finders = [find.of_kind(known[name]) for name in self.data]
        finders += [find.words(self.words, label)] if self.words else []
        finders += [find.pattern(text, label) for text in self.patterns]
        told = self.reason
        reason = {"en": told, "ko": told} if isinstance(told, str) else {}
        if isinstance(told, _Reason):
            reason = {"en": told.en, "ko": told.ko}
        sides: tuple[Side, ...] = ("input", "output") if self.on == "both" else (self.on,)
        return Rule(self.name, self.action, frozenset(sides), tuple(finders), self.restore, reason)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    rule: Annotated[list[_Rule], Field(max_length=_MOST_RULES)] = []


def read_rules(named: str | None) -> Rules:
    """Read and compile the rules; `named` is POLICY_FILE. Raises `InvalidRulesError`."""
    path = Path(named) if named else YOURS if YOURS.exists() else DEFAULT
    shown = named or f"app/{path.relative_to(DEFAULT.parents[2]).as_posix()}"
    try:
        content = path.read_bytes()
    except OSError as error:
        facts = {"path": shown, "reason": error.strerror or type(error).__name__}
        raise InvalidRulesError([Problem("policy_file", "policy_unreadable", facts)]) from None
    return _compiled(shown, content)


@lru_cache(maxsize=1)  # a start asks twice: whether they are right, and then for the rules
def _compiled(shown: str, content: bytes) -> Rules:
    try:
        text = content.decode("utf-8-sig")  # Windows editors write a mark at the start
        written = tomllib.loads(text)
    except ValueError as error:  # bad UTF-8 too
        facts = {"reason": str(error)}
        raise InvalidRulesError([Problem(shown, "policy_toml", facts)]) from None
    try:
        asked = _File.model_validate(written).rule
    except ValidationError as error:
        problems = [_problem(shown, text, written, item) for item in error.errors()]
        raise InvalidRulesError(problems) from None
    rules: list[Rule] = []
    for number, rule in enumerate(asked):
        try:
            rules.append(rule.rule())
        except PatternError as error:  # each entry is good, but together they are too large
            place = _place(shown, text, written, ("rule", number, "words"))
            facts = {"reason": _said(error)}
            raise InvalidRulesError([Problem(place, "policy_pattern", facts)]) from None
    names = [rule.name for rule in rules]
    for number, name in enumerate(names):
        if name in names[:number]:
            place = _place(shown, text, written, ("rule", number, "name"))
            raise InvalidRulesError([Problem(place, "policy_twice")])
    state = hashlib.sha256(b"%d\0%s" % (FORMAT, content))
    return Rules(tuple(rules), state.hexdigest()[:16])


def _problem(shown: str, text: str, written: dict[str, Any], item: Any) -> Problem:
    place = _place(shown, text, written, item["loc"])
    return Problem(place, item["type"], item.get("ctx", {}), item["msg"])


def _place(shown: str, text: str, written: dict[str, Any], where: tuple[int | str, ...]) -> str:
    """A place as a person looks for it: file, line, rule, key."""
    if len(where) < 2 or not isinstance(where[1], int):
        return f"{shown}, {where[0]}" if where else shown
    number, keys = where[1], where[2:]
    rule = written["rule"][number]
    name = rule.get("name") if isinstance(rule, dict) else None
    line = _line(text, number, rule, keys)
    parts = [f"{shown}:{line}", f"rule {name if isinstance(name, str) else number + 1}"]
    return ", ".join([*parts, *(str(key) for key in keys[:1])])


def _line(text: str, number: int, rule: Any, keys: tuple[int | str, ...]) -> int:
    """The line of a rule's key, or of an item in its list; else of the rule's header."""
    lines = text.splitlines()
    headers = [place for place, line in enumerate(lines) if _HEADER.match(line)]
    if number >= len(headers):
        return 1
    first = headers[number]
    last = headers[number + 1] if number + 1 < len(headers) else len(lines)
    found = first
    if keys:
        key = re.compile(rf"\s*[\"']?{re.escape(str(keys[0]))}[\"']?\s*[.=]")
        found = next((n for n in range(first, last) if key.match(lines[n])), first)
    if len(keys) > 1 and isinstance(keys[1], int):
        item = str(rule[keys[0]][keys[1]])
        found = next((n for n in range(found, last) if item and item in lines[n]), found)
    return found + 1
