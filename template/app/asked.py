"""What a request asks for, with the settings where it says nothing."""

import hashlib

from app import wire
from app.foundation.settings import Settings


def output_cap(request: wire.ChatRequest, settings: Settings) -> int:
    """The most tokens that the answer may have."""
    asked = request.max_completion_tokens or request.max_tokens
    limit = settings.max_output_tokens
    return min(asked, limit) if asked else limit


def temperature(request: wire.ChatRequest, settings: Settings) -> float | None:
    """The temperature; None means the provider's default."""
    return settings.temperature if request.temperature is None else request.temperature


def seed(request: wire.ChatRequest, settings: Settings) -> int | None:
    """The seed; None means that there is none."""
    return settings.seed if request.seed is None else request.seed


def stop(request: wire.ChatRequest) -> tuple[str, ...]:
    """The texts at which the answer ends."""
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())


def schema(request: wire.ChatRequest) -> str:
    """The part of a request that is sent beside the messages, as text."""
    asked = request.response_format
    if asked is None or asked.type == "text":
        return ""
    # With room for the sentence that asks for JSON where a provider has no field for it.
    return asked.model_dump_json(by_alias=True) + " Answer with one JSON object and nothing else."


def end_user(request: wire.ChatRequest, caller: str) -> str | None:
    """A hash that lets a provider tell end users apart without knowing them."""
    if request.user is None:
        return None
    return hashlib.sha256(f"{caller}\0{request.user}".encode()).hexdigest()[:32]
