"""What a collector of OpenTelemetry is told, for tests to look at."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """What has been told since the test began."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def above(self, span: ReadableSpan) -> str | None:
        """The name of the span that it is part of."""
        return next((each.name for each in self.all if span.parent and _id(each) == span.parent.span_id), None)


@contextmanager
def collecting() -> Generator[Spans]:
    """What is told while the block runs."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # which is set once in a process
        trace.set_tracer_provider(TracerProvider())
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    spans = Spans()
    provider.add_span_processor(SimpleSpanProcessor(spans.exporter))
    yield spans
    spans.exporter.shutdown()


def _id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
