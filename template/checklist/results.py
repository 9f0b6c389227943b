"""What a run of the checklist found, and the verdict on it."""

from dataclasses import dataclass, field
from datetime import datetime

from checklist.items import BY_NUMBER, TOO_MANY_OPEN, Item
from checklist.messages import load_texts

EX_NEARLY = 1
EX_NOT_READY = 2


class RefusedError(Exception):
    """The command is not carried out; the text says why."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that was not met: what was expected, what was seen, which file to look at."""

    test: str
    expected: str
    seen: str
    look: str


@dataclass(frozen=True, slots=True)
class Result:
    """One item's outcome. `evidence` is what its tests noted, `seconds` what it took."""

    item: Item
    seconds: float
    evidence: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def checked(self) -> bool:
        """True when nothing failed and something was shown."""
        return bool(self.evidence) and not self.failures

    @property
    def mark(self) -> str:
        """The box as it is drawn."""
        return "☑" if self.checked else "☐"

    @property
    def title(self) -> str:
        """The item's question."""
        return load_texts().text(f"{self.item.number}.title")

    @property
    def name(self) -> str:
        """The item's number, where it has one, and its question."""
        number = self.item.number
        return f"{number} {self.title}" if number in BY_NUMBER else self.title

    @property
    def line(self) -> str:
        """The evidence in one line; of an open item, what was seen instead."""
        if self.failures:
            return " · ".join(dict.fromkeys(failure.seen for failure in self.failures))
        return " · ".join(dict.fromkeys(self.evidence))


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `of` is how many items there are in all, `seconds` is wall time.

    `outside` is a look at a live deployment; `notes` say what else is to be known.
    """

    app: str
    when: datetime
    results: list[Result]
    of: int
    seconds: float
    notes: list[str] = field(default_factory=list)
    outside: bool = False

    @property
    def open(self) -> int:
        """How many items are not checked."""
        return sum(not result.checked for result in self.results)

    @property
    def exit_code(self) -> int:
        """0: all checked. 1: ready, with open items. 2: not ready, by one of the two lists."""
        if not self.open:
            return 0
        return EX_NOT_READY if max(self._open_by_list) >= TOO_MANY_OPEN else EX_NEARLY

    @property
    def _open_by_list(self) -> tuple[int, int]:
        """How many are open of the standards' list, and of the launch's."""
        launch = sum(r.item.of_launch for r in self.results if not r.checked)
        return self.open - launch, launch

    @property
    def count(self) -> str:
        """How many were checked, in words."""
        total = len(self.results)
        facts = {"checked": total - self.open, "total": total, "seconds": round(self.seconds)}
        return load_texts().text("report.count", **facts)

    @property
    def verdict(self) -> str:
        """The verdict in words; none on a part of the checklist that has few open items."""
        text = load_texts().text
        if self.outside:
            return text("url.some" if self.open else "url.all", open=self.open)
        if self.exit_code == EX_NOT_READY:
            standards, launch = self._open_by_list
            key = "not_ready" if standards >= TOO_MANY_OPEN else "not_ready_to_launch"
            return text(f"report.{key}", open=max(standards, launch), limit=TOO_MANY_OPEN)
        if len(self.results) < self.of:
            return text("report.partial", total=len(self.results), of=self.of)
        key = "report.nearly" if self.open else "report.ready"
        return text(key, limit=TOO_MANY_OPEN)
