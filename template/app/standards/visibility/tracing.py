"""OpenTelemetry traces over OTLP/HTTP. Imported only where an endpoint is set."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, SamplingResult, TraceIdRatioBased

from app.standards.visibility.redaction import HIDDEN, Redactor

EXPORT_SECONDS = 5.0


def start(
    endpoint: str, about: Mapping[str, str], redactor: Redactor, *, share: float
) -> TracerProvider:
    """The provider of the app's spans: flush it for what waits, shut it down at the end.

    `about` is the app itself, as a resource of OpenTelemetry.

    Of all traces `share` (0 to 1) are sampled. A caller can only ask for fewer: a sampled
    `traceparent` that anybody may send must not fill the collector.
    """
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=EXPORT_SECONDS)
    resource = Resource.create(about)
    sampler = ParentBased(root=TraceIdRatioBased(share), remote_parent_sampled=_Drawn(share))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Redacting(exporter, redactor)))
    return provider


class _Drawn(TraceIdRatioBased):
    """Draws among traces whose ids are a stranger's choice: a low one must win nothing."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self._key = os.urandom(16)

    def should_sample(
        self, parent_context: Context | None, trace_id: int, *more: Any, **named: Any
    ) -> SamplingResult:
        mixed = hashlib.blake2b(trace_id.to_bytes(16), key=self._key, digest_size=8).digest()
        return super().should_sample(parent_context, int.from_bytes(mixed), *more, **named)


class _Redacting(SpanExporter):
    """Cleans spans in the exporter's thread.

    An address may hold a key, or what somebody wrote: of it the route's template is sent.
    """

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([self._clean(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        attributes: dict[str, Any] = {
            name: self._redactor.data(value)
            for name, value in (span.attributes or {}).items()
            if name != "url.query"
        }
        if "url.path" in attributes:
            attributes["url.path"] = attributes.get("http.route", HIDDEN)
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
