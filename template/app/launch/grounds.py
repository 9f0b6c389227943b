"""What an answer rests on: the model alone, or passages of the app's knowledge.

Where the app has knowledge, `launch/evidence` finds the passages and holds the answer to them.
Here is what the request path knows of that, and all that an app without knowledge has.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from app.foundation.messages import Messages
from app.foundation.record import RequestRecord
from app.providers.base import Message
from app.standards.availability.deadline import Deadline

Planned = TypeVar("Planned")
# Plans a prompt with more messages of the app's own. Raises `AppError` where they do not fit.
Plan = Callable[[tuple[Message, ...]], Awaitable[Planned]]


class Grounds:
    """Of a question that is asked without knowledge: its answer leaves as it comes."""

    abstained: str | None = None

    def push(self, text: str) -> str:
        """Take a piece of the answer; what of it, and of what was held back, may go on."""
        return text

    def rest(self) -> str:
        """The answer is complete: what was held back and may go on. Raises `AbstainedError`."""
        return ""

    def told(self, shown: Callable[[str], str]) -> dict[str, Any]:
        """What the answer's message says beside its text; `shown`: what may be shown of a text."""
        return {}


class Evidence(Protocol):
    """Finds the grounds of a question. `version` changes with all that they depend on."""

    @property
    def version(self) -> str:
        """The knowledge, and how it is used."""

    async def ground(
        self,
        messages: tuple[Message, ...],
        plan: Plan[Planned],
        *,
        texts: Messages,
        record: RequestRecord,
        deadline: Deadline,
        in_json: bool,
    ) -> tuple[Grounds, Planned]:
        """The grounds of the newest question, and the plan of the prompt that carries them.

        Raises `AbstainedError` where there are none.
        """
        ...

    async def close(self) -> None:
        """No question comes any more."""
