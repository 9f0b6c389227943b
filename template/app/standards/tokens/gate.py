"""The gate: what is too long is refused here, before a quota, a cent or a provider is touched."""

from dataclasses import dataclass

from app.foundation.errors import AppError
from app.providers.base import Message
from app.standards.tokens.counting import (
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REQUEST,
    TokenCounter,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's message and the replies to it; kept or dropped as a whole."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's messages in order: the instructions, then the turns, oldest first."""

    system: tuple[Message, ...]
    turns: tuple[Turn, ...]


class Gate:
    """Refuses a request whose smallest possible prompt is over `max_input_tokens`.

    The smallest prompt is the instructions, the newest turn and `extra` (a JSON schema, say).
    """

    def __init__(self, counter: TokenCounter, max_input_tokens: int) -> None:
        self._counter = counter
        self.max_input_tokens = max_input_tokens

    async def check(self, conversation: Conversation, extra: str = "") -> int:
        """The tokens of the smallest prompt. Raises `AppError` context_length_exceeded."""
        newest = conversation.turns[-1].messages if conversation.turns else ()
        total = TOKENS_PER_REQUEST
        if extra:
            total += await self._count_text(extra)
        left = [*conversation.system, *newest]
        for number, message in enumerate(left, 1):
            total += TOKENS_PER_MESSAGE + await self._count_text(message.text)
            if total > self.max_input_tokens:
                raise self._too_long(tokens=total, all_of_it=number == len(left))
        return total

    async def count(self, turn: Turn) -> int | None:
        """The tokens of a turn; None where it is too long to be counted."""
        total = 0
        for message in turn.messages:
            count = await self._counter.count(message.text)
            if count is None:
                return None
            total += TOKENS_PER_MESSAGE + count
        return total

    async def _count_text(self, text: str) -> int:
        count = await self._counter.count(text)
        if count is None:
            raise self._too_long(size=len(text.encode("utf-8", "surrogatepass")))
        return count

    def _too_long(
        self, *, tokens: int | None = None, size: int = 0, all_of_it: bool = True
    ) -> AppError:
        detail = "bytes" if tokens is None else None if all_of_it else "more"
        return AppError(
            "context_length_exceeded",
            param="messages",
            detail=detail,
            limit=self.max_input_tokens,
            tokens=tokens,
            size=size,
        )


def split(messages: tuple[Message, ...]) -> Conversation:
    """Group a request's messages into instructions and turns."""
    system = tuple(message for message in messages if message.role == "system")
    turns: list[list[Message]] = []
    for message in messages:
        if message.role == "system":
            continue
        if not turns or message.role == "user":
            turns.append([])
        turns[-1].append(message)
    return Conversation(system, tuple(Turn(tuple(turn)) for turn in turns))
