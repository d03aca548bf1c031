"""Executions as spans: what a collector of OpenTelemetry is told, and which trace it belongs to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.tasks import call, parallel
from flux.tasks.ai import agent
from flux.tasks.mcp import mcp
from flux.testing import ScriptedModel
from tests.mcp.serving import ERAS, Era, client_of, data_of, serving
from tests.spans import Spans, collecting, said, trace_of
from tests.tasks.mcp.servers import adder, over_http

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans() -> Iterator[Spans]:
    with collecting() as spans:
        yield spans


@task
async def price(item: str) -> int:
    return len(item)


@task
async def total(items: list[str]) -> int:
    return sum(await parallel(*(price(item) for item in items)))


@workflow
async def shop(ctx: ExecutionContext[list[str]]) -> int:
    return await total(ctx.input)


async def test_a_run_and_each_attempt_in_it_are_spans_in_one_another(flux: Flux, spans: Spans) -> None:
    done = await flux.run(shop, ["ham", "eggs"])

    run = spans.one("workflow shop")
    assert said(run) == {"flux.workflow": "shop", "flux.execution.id": done.execution_id, "flux.status": "completed"}
    outer = said(spans.one("task total"))
    assert (outer["flux.task"], outer["flux.call"], outer["flux.attempt"]) == ("total", "0", 1)
    assert spans.above(spans.one("task total")) == "workflow shop"
    assert [spans.above(span) for span in spans.named("task price")] == ["task total", "task total"]
    assert {trace_of(span) for span in spans.all} == {trace_of(run)}


async def test_each_failed_attempt_is_an_error_and_tells_no_secret(
    flux: Flux, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "hush-hush-hush")

    @task.with_options(retry_max_attempts=1, retry_delay=0, secret_requests=["KEY"])
    async def knock(*, secrets: Any = None) -> str:
        raise ValueError(f"{secrets['KEY']} does not fit")

    @task.with_options(sensitive=True)
    async def whisper(word: str) -> str:
        raise ValueError(word)

    @workflow
    async def enter() -> str:
        try:
            return await knock()
        except ValueError:
            return await whisper("sesame")

    failed = await flux.run(enter)

    assert failed.has_failed
    attempts = spans.named("task knock")
    assert [said(span)["flux.attempt"] for span in attempts] == [1, 2]
    assert [span.status.status_code for span in attempts] == [trace.StatusCode.ERROR] * 2
    assert said(spans.one("workflow enter"))["error.type"] == "ValueError"
    told = "".join(span.to_json() for span in spans.all)
    assert "does not fit" in told
    assert "hush" not in told
    assert "sesame" not in told


async def test_a_replay_makes_no_spans_and_a_resumed_execution_stays_in_its_trace(tmp_path: Path, spans: Spans) -> None:
    @workflow
    async def sell(ctx: ExecutionContext[str]) -> str:
        asked = await price(ctx.input)
        agreed = await pause("haggle", response=int)
        return f"{asked} {await price('x' * agreed)}"

    tracer = trace.get_tracer("test")
    async with Flux(tmp_path / "shop.db", workflows=[sell]) as flux:
        with tracer.start_as_current_span("caller"):
            paused = await flux.run(sell, "ham")
    assert spans.one("task price").status.is_ok
    async with Flux(tmp_path / "shop.db", workflows=[sell]) as later:
        await later.resume(paused.execution_id, 2)

    assert [said(span)["flux.status"] for span in spans.named("workflow sell")] == ["paused", "completed"]
    assert [spans.above(span) for span in spans.named("workflow sell")] == ["caller", "caller"]
    assert [said(span)["flux.call"] for span in spans.named("task price")] == ["0", "2"]
    assert {trace_of(span) for span in spans.all} == {trace_of(spans.one("caller"))}


async def test_a_child_execution_is_part_of_its_parents_run(flux: Flux, spans: Spans) -> None:
    @workflow
    async def fair() -> int:
        return await call(shop, ["ham"])

    await flux.run(fair)

    assert spans.above(spans.one("workflow shop")) == "workflow fair"


async def test_an_agents_requests_are_part_of_its_task(flux: Flux, spans: Spans) -> None:
    helper = agent("Help.", model=ScriptedModel(["ok"], name="gpt-x"), name="helper")

    @workflow
    async def helps() -> str:
        return await helper("Go.")

    assert (await flux.run(helps)).output == "ok"
    (request,) = [span for span in spans.all if "gen_ai.request.model" in said(span)]
    above = spans.above(request)
    assert above is not None
    assert above.startswith("task helper")


@pytest.mark.parametrize("era", ERAS)
async def test_a_clients_trace_goes_on_down_to_the_servers_that_the_workflow_calls(spans: Spans, era: Era) -> None:
    far = adder()
    async with over_http(far.server.streamable_http_app()) as address:

        @workflow
        async def add() -> Any:
            async with mcp(address) as client:
                tools = await client.discover()
                return await tools.add(a=1, b=2)

        async with serving(add) as server, client_of(server, era) as client:
            with trace.get_tracer("test").start_as_current_span("caller") as caller:
                assert data_of(await client.call_tool("add", {})) == {"sum": 3}

    assert spans.above(spans.one("workflow add")) == "tools/call add"
    (sent,) = [meta["traceparent"] for meta in far.metas]
    assert sent.split("-")[1] == f"{caller.get_span_context().trace_id:032x}"
    below = [trace_of(span) for span in spans.named("tools/call add")]
    assert below == [sent.split("-")[1]] * 2, "one here, one far away"


UNCOLLECTED = """
import asyncio
from opentelemetry import context, propagate
from flux import Flux, task, workflow
from flux.tracing import OpenTelemetry

CALLER = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

@task
async def where():
    return OpenTelemetry().current()

@workflow
async def go():
    return await where()

async def main():
    async with Flux(workflows=[go]) as flux:
        context.attach(propagate.extract(CALLER))
        print((await flux.run(go)).output)

asyncio.run(main())
"""


def test_where_nobody_collects_spans_the_trace_goes_on_all_the_same() -> None:
    """In a process of its own: once there is a collector there is always one."""
    done = subprocess.run([sys.executable, "-c", UNCOLLECTED], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
