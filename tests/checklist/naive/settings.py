"""Settings from the environment; a missing key stops the start."""

import sys

from pydantic import ValidationError
from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    """What the app needs to know."""

    openai_api_key: str
    openai_base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-6-luna"
    second_model: str = "gpt-6-mini"
    requests_per_minute: int = 60
    daily_cost_cap_usd: float = 5.0
    max_input_tokens: int = 4000
    max_output_tokens: int = 1000
    max_history_messages: int = 10
    max_attempts: int = 3


def load() -> Settings:
    """The settings, or the end of the process."""
    try:
        return Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        print("Invalid settings:", error)
        sys.exit(1)
