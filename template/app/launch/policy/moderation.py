"""Moderation by a provider's own endpoint, on OpenAI's wire: a second opinion on the newest turn.

MODERATION=open asks it and goes on without it where it fails; with `closed` a question that nobody
has judged is refused. It is asked once, after the limits and before the model, with what the rules
have left of the text; it has a time limit of its own. What it flags is blocked.
"""

import httpx2
from loguru import logger

from app.foundation.errors import AppError
from app.foundation.settings import Settings
from app.providers.formats import encode, parse, read_body
from app.standards.availability.deadline import Deadline

URL = "https://api.openai.com/v1"
MODEL = "omni-moderation-latest"
RETRY_AFTER_SECONDS = 5.0
# The policy's hits name it so, beside the rules.
NAME = "moderation"


class Moderation:
    """Asks the endpoint; MODERATION is `open` or `closed`."""

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.moderation
        self._seconds = settings.moderation_timeout_seconds
        key = settings.openai_api_key
        url = settings.moderation_base_url or settings.openai_base_url or URL
        self._url = f"{url}/moderations"
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=self._seconds,
            follow_redirects=False,
        )

    async def flags(self, text: str, deadline: Deadline) -> bool | None:
        """True for what the endpoint flags; None where it failed and may.

        Raises `AppError` where it must not.
        """
        try:
            async with (
                deadline.limit(self._seconds),
                self._client.stream(
                    "POST",
                    self._url,
                    content=encode({"model": MODEL, "input": text}),
                    headers={"Content-Type": "application/json"},
                ) as response,
            ):
                answer = parse(await read_body(response.raise_for_status()))
            flags = [bool(result["flagged"]) for result in answer["results"]]
            return flags[0] or any(flags)  # without a result nobody has judged: a LookupError
        except (
            TimeoutError,
            OSError,
            httpx2.HTTPError,
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ) as error:
            logger.warning("moderation failed", kind=type(error).__name__, mode=self.mode)
            if deadline.over:
                raise AppError("time_budget_exceeded") from None
            if self.mode == "closed":
                raise AppError("providers_unavailable", retry_after=RETRY_AFTER_SECONDS) from None
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
