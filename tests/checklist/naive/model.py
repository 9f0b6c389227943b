"""Asking the model: retries, a second model, and an apology."""

import logging

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion
from tenacity import retry, stop_after_attempt, wait_exponential

from .settings import Settings

log = logging.getLogger("naive")
APOLOGY = "I am sorry, something went wrong on our side. Could you try again in a little while?"


class Model:
    """The models of one provider, through its SDK."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = AsyncOpenAI(
            api_key=settings.openai_api_key, base_url=settings.openai_base_url
        )

    @retry(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=0.5, max=4))
    async def _ask(self, model: str, messages: list[dict[str, str]]) -> ChatCompletion:
        answer: ChatCompletion = await self._client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            max_completion_tokens=self._settings.max_output_tokens,
        )
        return answer

    async def ask(self, messages: list[dict[str, str]]) -> tuple[str, int, int]:
        """The answer's text, and the tokens of prompt and answer."""
        for model in (self._settings.model, self._settings.second_model):
            try:
                answer = await self._ask(model, messages)
            except Exception as error:
                log.warning("%s failed: %s", model, error)
                continue
            usage = answer.usage
            told, said = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
            return answer.choices[0].message.content or "", told, said
        return APOLOGY, 0, 0
