"""Executions as spans of OpenTelemetry, for whoever collects them: by the API alone, which does nothing until then.

A run of an execution is a span: from its start, or from where it goes on, to its rest. Attempts of tasks are spans inside it, and so is
whatever the user's code traces. All runs of an execution belong to the trace in which it was started, whichever process
makes them. Only what is done is told: a replay makes no spans."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context
from dataclasses import dataclass

from opentelemetry import context, trace
from opentelemetry.context import Context as TraceContext
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flux.domain import execution as domain
from flux.domain.calls import CallId, Failure
from flux.domain.execution import Execution
from flux.engine.ports import Trail

_NOTHING = nullcontext()
_tracer = trace.get_tracer("flux")
_traceparent = TraceContextTextMapPropagator()


def detached() -> Context:
    """An empty context that belongs to the current trace: for asyncio tasks that work for a workflow and outlive it."""
    empty = Context()
    empty.run(context.attach, context.get_current())
    return empty


class OpenTelemetry:
    """Implements `Tracing`. Without a provider of spans the trace still goes on: from who starts an execution to whom it calls."""

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        _traceparent.inject(carrier)
        return carrier.get("traceparent")

    def begun(self, execution: Execution) -> Trail:
        known = {} if execution.trace is None else {"traceparent": execution.trace}
        above = _traceparent.extract(known, TraceContext())
        attributes = {"flux.workflow": execution.workflow, "flux.execution.id": execution.id}
        span = _tracer.start_span(f"workflow {execution.workflow}", above, attributes=attributes)
        return _Trail(span, trace.set_span_in_context(span, above), execution.id)


@dataclass(frozen=True, slots=True)
class _Trail:
    span: Span
    inside: TraceContext
    execution_id: str

    def entered(self) -> AbstractContextManager[object]:
        return _attached(self.inside)

    def attempt(
        self, task: str, name: str, call: CallId, number: int, failure: Callable[[Exception], Failure]
    ) -> AbstractContextManager[object]:
        if not self.span.is_recording():
            return _NOTHING
        attributes = {
            "flux.task": name,
            "flux.call": call,
            "flux.attempt": number,
            "flux.execution.id": self.execution_id,
        }
        return _attempt(f"task {task}", attributes, failure)

    def ended(self, execution: Execution) -> None:
        self.span.set_attribute("flux.status", execution.status)
        if execution.status is domain.Status.FAILED and execution.error is not None:
            _fail(self.span, execution.error)
        self.span.end()


@contextmanager
def _attached(inside: TraceContext) -> Generator[None]:
    token = context.attach(inside)
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def _attempt(name: str, attributes: dict[str, str | int], failure: Callable[[Exception], Failure]) -> Generator[None]:
    """The error is not left to the API, which would tell all of it, also what is secret."""
    with _tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except Exception as exc:  # whatever it is, the span tells it and it goes on its way
            _fail(span, failure(exc))
            raise


def _fail(span: Span, failure: Failure) -> None:
    type_ = failure.type.replace(":", ".").removeprefix("builtins.")
    span.set_attribute("error.type", type_)
    span.set_status(Status(StatusCode.ERROR, f"{type_}: {failure.message}"))
