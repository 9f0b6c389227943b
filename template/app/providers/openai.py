"""OpenAI."""

from app.providers.base import Connection, Provider
from app.providers.openai_wire import OpenAIWire


class OpenAI(OpenAIWire):
    """OpenAI's own API.

    `max_completion_tokens` is what bounds reasoning models too, and the end user's hash goes into
    `safety_identifier`, the successor of `user`.
    """

    name = "openai"
    max_tokens_field = "max_completion_tokens"
    end_user_field = "safety_identifier"
    needs_end_marker = True


def connect(connection: Connection) -> Provider:
    """Open a client; no connection is made yet."""
    return OpenAI(connection)
