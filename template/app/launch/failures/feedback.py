"""Ratings: only the caller's own answers can be rated, and of each the last rating counts."""

import asyncio
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.foundation.settings import Settings
from app.launch.failures.causes import RATED_DOWN
from app.launch.failures.collection import WRITE_EVERY_SECONDS, FailureCollection
from app.launch.failures.envelope import Text
from app.launch.failures.outbox import EXCHANGES, MOST_EXCHANGES
from app.standards.spending.guard import Guard
from app.standards.spending.identity import Caller
from app.standards.visibility.metrics import Metrics
from app.stores.base import Entry, Store, StoreUnavailableError

# An answer's id is its request's with this before it: either will do.
_PREFIX = "chatcmpl-"


class Rating(BaseModel):
    """What somebody thinks of an answer. `request_id`: the X-Request-ID that came with it."""

    model_config = ConfigDict(extra="forbid")

    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    rating: Literal["up", "down"]
    comment: Annotated[str, Field(max_length=2_000)] = ""


class Feedback:
    """Takes ratings. A bad one joins the collected failures."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        guard: Guard,
        metrics: Metrics,
        collection: FailureCollection,
    ) -> None:
        self._seconds = settings.feedback_seconds
        self._patience = settings.store_timeout_seconds
        self._store = store
        self._guard = guard
        self._metrics = metrics
        self._collection = collection

    async def rate(self, rating: Rating, caller: Caller, record: RequestRecord) -> None:
        """Keep a rating. It counts as one of the caller's requests, and costs nothing.

        Raises `AppError`: for an answer that is not the caller's, not known or too old, a 404.
        """
        await self._guard.count(caller, record)
        try:
            await self._keep(rating, caller)
        except StoreUnavailableError as error:
            raise AppError("store_unavailable", retry_after=1.0) from error

    async def _keep(self, rating: Rating, caller: Caller) -> None:
        entry = await self._rated(rating.request_id, caller) if self._seconds else None
        if entry is None:
            raise AppError("not_found", param="request_id", detail="feedback")
        envelopes = self._collection.envelopes
        facts, text = envelopes.open(entry.value)
        before, facts = facts.rating, replace(facts, rating=rating.rating)
        if rating.rating == "down":
            said = Text((), "") if text is None else text
            told = replace(said, comment=rating.comment)
            await self._collection.keep(RATED_DOWN, facts, told, entry.key)
        elif before == "down":
            await self._collection.forget(RATED_DOWN, entry.key)
        rated = Entry(entry.key, envelopes.close(facts, text))
        await self._store.collect(EXCHANGES, [rated], self._seconds, MOST_EXCHANGES)
        if rating.rating != before:
            self._metrics.feedback(rating.rating)

    async def _rated(self, request_id: str, caller: Caller) -> Entry | None:
        names = dict.fromkeys((request_id, request_id.removeprefix(_PREFIX)))
        keys = [self._collection.mark(caller.name, name) for name in names]
        written = await self._collection.catch_up(self._patience)
        for pause in (WRITE_EVERY_SECONDS + 0.5, None):
            for key in keys:
                if found := await self._store.collected(EXCHANGES, 1, key):
                    return found[0]
            if pause is not None:
                await asyncio.sleep(pause)  # another process may be about to write it
        if not written:
            raise StoreUnavailableError("the answer may be one that waits to be written")
        return None
