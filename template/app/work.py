"""A request inside the path, and its answer on the way out."""

from dataclasses import dataclass, field, replace
from typing import Any

from app import wire
from app.answers import Keeping, in_words
from app.exchange import Context
from app.launch.grounds import Grounds
from app.launch.policy.screen import AbstainedError, Screen
from app.launch.rollout.shadow import Mirror
from app.providers.base import Answer, Piece
from app.standards.availability.bill import Bill
from app.standards.availability.relay import Target
from app.summaries import Background


@dataclass(slots=True)
class Work:
    """What the steps of the path hand on to each other.

    The answer passes its grounds first and the policy last: what leaves is what was judged.
    """

    request: wire.ChatRequest
    context: Context
    targets: tuple[Target, ...]
    background: Background
    keeping: Keeping
    screen: Screen
    bill: Bill
    grounds: Grounds = field(default_factory=Grounds)
    mirror: Mirror | None = None

    @property
    def abstained(self) -> str | None:
        """Why the app gives no answer of its own, where it gives none."""
        return self.screen.abstained or self.grounds.abstained

    def heard(self, heard: Answer | Piece) -> None:
        """A provider has said something; the policy has not judged it yet."""
        if (said := self.context.record.said) is not None:
            said.more(heard.text)
        if self.mirror is not None:
            self.mirror.hear(heard.text, heard.finish_reason, heard.usage)

    def push(self, text: str) -> str:
        """Take a piece of the answer; what of it, and of what was held back, may leave."""
        return self.screen.push(self.grounds.push(text))

    def rest(self) -> str:
        """The answer is complete: what was held back and may leave. Raises `AbstainedError`."""
        rest = self.grounds.rest()
        return (self.screen.push(rest) if rest else "") + self.screen.rest()

    def whole(self, answer: Answer) -> Answer:
        """A whole answer as it may leave. Raises `AppError` where it is blocked."""
        try:
            text = self.push(answer.text) + self.rest()
            self.screen.verdict()
            return replace(answer, text=text)
        except AbstainedError as error:
            return replace(answer, text=in_words(error, self.context), finish_reason="stop")

    def judge(self, finish_reason: str) -> dict[str, Any]:
        """The answer came to its end: what its message says beside the text."""
        abstained = self.abstained
        self.keeping.judge(finish_reason, self.context.record, self.screen, abstained)
        return wire.abstained(abstained) if abstained else self.grounds.told(self.screen.shown)

    def given(self) -> None:
        """The whole answer is given and settled."""
        if self.mirror is not None:
            self.mirror.given(abstained=self.abstained is not None)
