"""OpenTelemetry traces over OTLP/HTTP. Imported only where an endpoint is set."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from app.standards.visibility.redaction import Redactor

EXPORT_SECONDS = 5.0


def start(endpoint: str, name: str, redactor: Redactor, *, share: float) -> TracerProvider:
    """The provider of the app's spans: flush it for what waits, shut it down at the end.

    Of all traces `share` (0 to 1) are sampled. A caller can only ask for fewer: a sampled
    `traceparent` that anybody may send must not fill the collector.
    """
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=EXPORT_SECONDS)
    resource = Resource.create({"service.name": name})
    ratio = TraceIdRatioBased(share)
    sampler = ParentBased(root=ratio, remote_parent_sampled=ratio)
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Redacting(exporter, redactor)))
    return provider


class _Redacting(SpanExporter):
    """Cleans spans in the exporter's thread: a query string may hold a key."""

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([self._clean(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        attributes: dict[str, Any] = {
            name: self._redactor.data(value) for name, value in (span.attributes or {}).items()
        }
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
