"""A call to a model in a trace, in OpenTelemetry's conventions for generative AI.

Its span lasts until the answer is complete, a streamed one too. Of what was asked and answered
nothing is in it.
"""

from contextlib import AbstractContextManager, nullcontext

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, use_span

from app.providers.base import Prompt, Usage

# The names of the conventions where they are not ours.
_PROVIDERS = {"gemini": "gcp.gemini"}


class ModelCall:
    """One attempt's span; without one (traces are off) it does nothing."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    def current(self) -> AbstractContextManager[object]:
        """While it is current, what is sent says that it belongs to it."""
        if self._span is None:
            return nullcontext()
        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def answered(self, usage: Usage | None, finish_reason: str | None) -> None:
        """What the provider has reported, which may be a part of it."""
        if self._span is None:
            return
        if finish_reason is not None:
            self._span.set_attribute("gen_ai.response.finish_reasons", [finish_reason])
        if usage is not None:
            self._span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": usage.input_tokens,
                    "gen_ai.usage.output_tokens": usage.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                    "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
                }
            )

    def end(self, outcome: str) -> None:
        """It is over: `ok`, `cancelled` or the error's kind. Only the first end counts."""
        if self._span is None:
            return
        if outcome != "ok":
            self._span.set_attribute("error.type", outcome)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        self._span = None


def begin(tracer: Tracer, provider: str, model: str, prompt: Prompt) -> ModelCall:
    """The span of a call that begins now."""
    known: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(provider, provider),
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": prompt.max_output_tokens,
        "gen_ai.request.temperature": prompt.temperature,
        "gen_ai.request.top_p": prompt.top_p,
        "gen_ai.request.seed": prompt.seed,
        "gen_ai.output.type": "json" if prompt.response_format else "text",
    }
    attributes = {name: value for name, value in known.items() if value is not None}
    return ModelCall(
        tracer.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes)
    )
