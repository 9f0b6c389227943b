"""Which turns of a conversation still travel, and which are carried by a summary.

Turns are dropped whole, oldest first, in steps: the cut stays where it is for a few turns, so the
summary of what lies before it can be used again.
"""

import hashlib
import json
from dataclasses import dataclass

from app.providers.base import Message
from app.standards.tokens.gate import Conversation, Gate, Turn

SUMMARY_SHARE = 8  # a summary may take an eighth of the input limit,
SUMMARY_MAX_TOKENS = 300  # and never more than this
SUMMARY_MIN_TOKENS = 16  # less room than this carries nothing
# What the text around a summary takes (`summary.py` frames it).
SUMMARY_FRAME_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent of a conversation.

    `dropped` and `kept` are turns in order; `summary_tokens` is the room for the summary of what
    was dropped, 0 when there is none. `earlier` is how many of the dropped turns an older summary
    may already cover.
    """

    system: tuple[Message, ...]
    kept: tuple[Turn, ...]
    dropped: tuple[Turn, ...] = ()
    summary_tokens: int = 0
    earlier: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the turns that are kept."""
        return tuple(message for turn in self.kept for message in turn.messages)


class History:
    """Plans a conversation's prompt within the limits of messages and tokens."""

    def __init__(self, gate: Gate, max_messages: int) -> None:
        self._gate = gate
        self._max_messages = max_messages
        self._step = max(1, max_messages // 4)

    async def plan(self, conversation: Conversation, smallest: int) -> Plan:
        """Choose the turns. `smallest` is the gate's count of instructions and newest turn.

        Looks only at as many old turns as fit, however long the history is.
        """
        turns = conversation.turns
        limit = self._gate.max_input_tokens
        fitting = await self._fitting(turns, limit - smallest)
        if fitting == len(turns):
            return Plan(conversation.system, turns)
        room = min(SUMMARY_MAX_TOKENS, limit // SUMMARY_SHARE, limit - smallest)
        room -= SUMMARY_FRAME_TOKENS
        if room < SUMMARY_MIN_TOKENS:
            room = 0
        else:
            framed = room + SUMMARY_FRAME_TOKENS
            fitting = await self._fitting(turns, limit - smallest - framed)
        cut = self._cut(len(turns) - fitting, len(turns))
        return Plan(
            conversation.system,
            turns[cut:],
            dropped=turns[:cut],
            summary_tokens=room,
            earlier=max(cut - self._step, 0),
        )

    async def _fitting(self, turns: tuple[Turn, ...], spare: int) -> int:
        """How many of the newest turns fit; the newest one always does (the gate saw to it)."""
        count, messages = 1, len(turns[-1].messages) if turns else 0
        for turn in reversed(turns[:-1]):
            messages += len(turn.messages)
            if messages > self._max_messages:
                return count
            tokens = await self._gate.count(turn)
            if tokens is None or tokens > spare:
                return count
            spare -= tokens
            count += 1
        return min(count, len(turns))

    def _cut(self, at_least: int, turns: int) -> int:
        """The next stable place for the cut, so that it moves once in `step` turns only."""
        stepped = -(-at_least // self._step) * self._step
        return min(stepped, turns - 1)


def digest(turns: tuple[Turn, ...]) -> bytes:
    """A fingerprint of the turns' whole content."""
    state = hashlib.sha256()
    for turn in turns:
        for message in turn.messages:
            state.update(json.dumps([message.role, message.text]).encode())
    return state.digest()
