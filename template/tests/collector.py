"""A server that takes whatever telemetry is sent to it: traces over OTLP, reports to Sentry."""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from checklist.listener import Listener, until


class Collector(Listener):
    """A listener that reads traces."""

    @property
    def port(self) -> int:
        """Where it listens on this machine."""
        return int(self.address.rpartition(":")[2])

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """The spans that came, of one trace or of all, in the order in which they began."""
        spans = [
            span
            for path, body in self.received
            if path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if trace_id in (None, span.trace_id.hex())
        ]
        return sorted(spans, key=lambda span: span.start_time_unix_nano)

    def trace(self, trace_id: str, count: int, timeout: float = 20.0) -> list[Span]:
        """The spans of a trace, once there are `count` of them. Raises where they do not come."""
        until(lambda: len(self.spans(trace_id)) >= count, timeout)
        spans = self.spans(trace_id)
        names = [span.name for span in spans]
        assert len(spans) == count, f"{names} in place of {count} spans"
        return spans
