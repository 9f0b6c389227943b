"""Where a conversation's summary comes from: the store, the model, or else an extract."""

from dataclasses import dataclass

from loguru import logger

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.providers.base import Message, Prompt
from app.standards.availability.bill import Bill
from app.standards.availability.deadline import Deadline
from app.standards.availability.relay import Call, Relay, Target
from app.standards.tokens import summary
from app.standards.tokens.counting import prompt_bound
from app.standards.tokens.history import Plan
from app.standards.tokens.summary import Summariser, SummaryKey
from app.stores.base import Store, StoreUnavailableError


@dataclass(frozen=True, slots=True)
class Background:
    """What is known of a conversation's dropped turns before anything is spent.

    Either their summary is `known`, or `prompt` asks a model for it, or nothing is to be said.
    """

    plan: Plan
    known: str | None = None
    prompt: Prompt | None = None
    earlier: str | None = None

    def worst_nano(self, targets: tuple[Target, ...]) -> int:
        """The most that writing the summary can cost: one attempt."""
        if self.prompt is None:
            return 0
        bound, output = prompt_bound(self.prompt.messages), self.prompt.max_output_tokens
        return max(target.price.worst_nano(bound, output) for target in targets)

    def longest(self) -> list[Message]:
        """The message that carries the summary, or one that is at least as long."""
        room = self.plan.summary_tokens
        if not room:
            return []
        text = self.known if self.known is not None else " " * summary.max_bytes(room)
        return [summary.as_message(text)]


class Summaries:
    """Finds, writes and keeps summaries. One caller's are never another's."""

    def __init__(self, store: Store, relay: Relay, summariser: Summariser) -> None:
        self._store = store
        self._relay = relay
        self._summariser = summariser

    async def background(self, plan: Plan, caller: str) -> Background:
        """Look the summary up; where there is none, prepare to have it written or continued."""
        if not plan.summary_tokens:
            return Background(plan)
        known = await self._recall(summary.key_of(plan.dropped, caller))
        if known is not None:
            return Background(plan, known)
        earlier = None
        if plan.earlier:
            earlier = await self._recall(summary.key_of(plan.dropped[: plan.earlier], caller))
        prompt = await self._summariser.prompt(plan, earlier)
        return Background(plan, prompt=prompt, earlier=earlier)

    async def messages(
        self,
        background: Background,
        targets: tuple[Target, ...],
        *,
        caller: str,
        deadline: Deadline,
        bill: Bill,
        record: RequestRecord,
    ) -> list[Message]:
        """The message to send in the dropped turns' place; may ask a model, once, to write it."""
        text, prompt = background.known, background.prompt
        # A summary is kept and shared: no candidate writes what others are then answered by.
        targets = tuple(target for target in targets if not target.on_trial)
        if text is None and prompt is not None:
            call = Call(prompt, prompt_bound(prompt.messages), deadline, bill, record)
            text = await self._write(background, call, targets, caller)
        return [summary.as_message(text)] if text else []

    async def _write(
        self, background: Background, call: Call, targets: tuple[Target, ...], caller: str
    ) -> str:
        plan = background.plan
        answer = await self._relay.once(call, targets)
        if answer is None or not answer.text.strip():
            return await self._summariser.extract(plan, background.earlier)
        text = await self._summariser.fit(answer.text, plan)
        key = summary.key_of(plan.dropped, caller)
        try:
            await self._store.remember(key.lookup, summary.seal(text, key), summary.KEEP_SECONDS)
        except StoreUnavailableError:
            logger.warning("summary not kept: the store is unavailable")
        return text

    async def _recall(self, key: SummaryKey) -> str | None:
        try:
            sealed = await self._store.recall(key.lookup)
        except StoreUnavailableError as error:
            raise AppError("store_unavailable", retry_after=1.0) from error
        return None if sealed is None else summary.unseal(sealed, key)
