"""A program that collects the spans of one agent and prints their names; a process of its own, since a provider is set once."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent
from flux.testing import ScriptedModel

NAMES: list[str] = []


class Tracer(trace.NoOpTracer):
    def start_span(self, name: str, *args: Any, **kwargs: Any) -> trace.Span:
        NAMES.append(name)
        return super().start_span(name, *args, **kwargs)


class Provider(trace.NoOpTracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return Tracer()


helper = agent("Help.", model=ScriptedModel(["ok"], name="gpt-x"), name="helper")


@workflow
async def helps(ctx: ExecutionContext[None]) -> str:
    return await helper("Go.")


if __name__ == "__main__":
    trace.set_tracer_provider(Provider())
    print(helps.run(None).output)  # noqa: T201 - what the test reads
    print(NAMES)  # noqa: T201 - the same
