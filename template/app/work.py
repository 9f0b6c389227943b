"""A request inside the path."""

from dataclasses import dataclass

from app import wire
from app.answers import Keeping
from app.exchange import Context
from app.launch.policy.screen import Screen
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

    def said(self, text: str) -> None:
        """What a provider has said, before the policy judges it."""
        if (said := self.context.record.said) is not None:
            said.more(text)
