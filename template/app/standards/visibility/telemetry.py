"""Error reports to Sentry and traces to OpenTelemetry, each only where its setting is given."""

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi.telemetry import TelemetryConfig
from loguru import logger
from opentelemetry.trace import NoOpTracerProvider, Tracer, TracerProvider

from app.foundation.record import Phase
from app.foundation.release import release_of
from app.foundation.settings import Settings
from app.providers.base import Prompt
from app.standards.visibility import gen_ai
from app.standards.visibility.gen_ai import ModelCall
from app.standards.visibility.redaction import Redactor
from app.standards.visibility.threads import in_thread

UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})


class Telemetry:
    """Make it after `configure_logs`: Sentry gets what is logged at ERROR. `name` is the app's."""

    def __init__(self, settings: Settings, name: str, redactor: Redactor) -> None:
        self._provider: TracerProvider = NoOpTracerProvider()
        self._tracer: Tracer | None = None
        self._flushers: list[Callable[[], object]] = []
        self._closers: list[Callable[[], object]] = []
        sends = settings.sentry_dsn or settings.otel_exporter_otlp_endpoint
        release = release_of(settings, name) if sends else ""  # it reads all of the app's files
        if settings.sentry_dsn is not None:
            from app.standards.visibility import sentry

            dsn = settings.sentry_dsn.get_secret_value()
            prompts = settings.log_prompts
            flush = sentry.start(dsn, settings.app_env, release, redactor, prompts=prompts)
            self._flushers.append(flush)
            self._closers.append(flush)
        if settings.otel_exporter_otlp_endpoint is not None:
            from app.standards.visibility import tracing

            endpoint = settings.otel_exporter_otlp_endpoint
            about = {
                "service.name": name,
                "service.version": release,
                "deployment.environment.name": settings.app_env,
            }
            share = settings.otel_traces_sampler_arg
            provider = tracing.start(endpoint, about, redactor, share=share)
            self._provider, self._tracer = provider, provider.get_tracer("app")
            self._flushers.append(provider.force_flush)
            self._closers.append(provider.shutdown)

    def fastapi(self) -> TelemetryConfig:
        """For `FastAPI(telemetry=...)`: one server span per request, without its content."""
        return {
            "tracing": self._tracer is not None,
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _untraced,
        }

    def phase(self, name: Phase) -> AbstractContextManager[object]:
        """A span for a phase of a request. A call to a provider has one of its own."""
        if self._tracer is None or name == "provider":
            return nullcontext()
        return self._tracer.start_as_current_span(
            name,
            record_exception=False,  # its text and stack are for the log
            set_status_on_exception=False,
        )

    def model_call(self, provider: str, model: str, prompt: Prompt) -> ModelCall:
        """The span of a call to a model, which begins now."""
        if self._tracer is None:
            return ModelCall()
        return gen_ai.begin(self._tracer, provider, model, prompt)

    async def flush(self, seconds: float) -> None:
        """Send what waits, for at most `seconds`; the rest goes on being sent."""
        await _run(self._flushers, seconds)

    async def close(self, seconds: float) -> None:
        """Send what waits, for at most `seconds`, and end."""
        if not await _run(self._closers, seconds):
            logger.warning("telemetry was still on its way when the app stopped")


async def _run(work: list[Callable[[], object]], seconds: float) -> bool:
    """Do the work in a thread; False where it takes longer than `seconds`, and goes on there."""
    if not work:
        return True
    _, done = in_thread("telemetry", lambda: [each() for each in work])
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        return False
    return True


def _untraced(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in UNTRACED
