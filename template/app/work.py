"""A request inside the path."""

from dataclasses import dataclass

from app import wire
from app.answers import Keeping
from app.exchange import Context
from app.launch.policy.screen import Screen
from app.launch.rollout.shadow import Mirror
from app.providers.base import Answer, Piece
from app.standards.availability.bill import Bill
from app.standards.availability.relay import Target
from app.summaries import Background


@dataclass(slots=True)
class Work:
    """What the steps of the path hand on to each other."""

    request: wire.ChatRequest
    context: Context
    targets: tuple[Target, ...]
    background: Background
    keeping: Keeping
    screen: Screen
    bill: Bill
    mirror: Mirror | None = None

    def heard(self, heard: Answer | Piece) -> None:
        """A provider has said something; the policy has not judged it yet."""
        if (said := self.context.record.said) is not None:
            said.more(heard.text)
        if self.mirror is not None:
            self.mirror.hear(heard.text, heard.finish_reason, heard.usage)

    def given(self) -> None:
        """The whole answer is given and settled."""
        if self.mirror is not None:
            self.mirror.given(abstained=self.screen.abstained is not None)
