"""Any server that speaks OpenAI's wire: vLLM, Ollama, llama.cpp, Groq, OpenRouter, ..."""

from dataclasses import replace

from app.providers.base import Connection, Provider
from app.providers.openai_wire import OpenAIWire


class Compatible(OpenAIWire):
    """Somebody else's server, taken as it comes.

    It gets the older field names, which all of them know. Its usage may be missing, and its
    stream may end without `[DONE]` once it has given a finish reason.
    """

    name = "compatible"
    max_tokens_field = "max_tokens"
    end_user_field = "user"
    needs_end_marker = False

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        # The SDK takes these from OPENAI_ORG_ID and OPENAI_PROJECT_ID: not for this server.
        for name in ("openai-organization", "openai-project"):
            self._headers.pop(name, None)


def connect(connection: Connection) -> Provider:
    """Open a client; no connection is made yet. Raises `ValueError` without a base URL."""
    if connection.base_url is None:
        raise ValueError("COMPATIBLE_BASE_URL is missing")
    # The SDK insists on a key where the server may want none.
    return Compatible(replace(connection, api_key=connection.api_key or "not-needed"))
