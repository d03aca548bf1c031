"""Work that only some processes can do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from flux import ExecutionContext, Flux, task, workflow
from flux.errors import DefinitionError
from flux.service import AnyWorkflow
from flux.settings import Settings
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock

pytestmark = pytest.mark.anyio


@task
async def render(scene: str) -> str:
    return f"{scene}, rendered"


@workflow.with_options(needs=["gpu"])
async def rendering(ctx: ExecutionContext[str]) -> str:
    return await render(ctx.input)


def process(
    store: MemoryStore, clock: FakeClock, *workflows: AnyWorkflow, tags: Sequence[str] = (), recover: bool = True
) -> Flux:
    settings = Settings(database=":memory:", worker_tags=frozenset(tags))
    return Flux(store=store, clock=clock, workflows=workflows, settings=settings, recover=recover)


async def test_an_execution_waits_for_a_process_that_has_what_its_workflow_needs() -> None:
    clock, store = FakeClock(), MemoryStore()
    async with process(store, clock, rendering) as front:
        started = await front.start(rendering, "sea")
        await clock.advance(seconds=60)
        await front.go_on(started.execution_id)
        assert started.execution_id not in front.engine.runs
        async with process(store, clock, rendering, tags=["gpu", "ssd"]) as worker:
            await clock.advance(seconds=2)
            done = await worker.wait(started.execution_id, timeout=5)
        assert done.output == "sea, rendered"
        assert (await front.get(started.execution_id)).output == "sea, rendered"


async def test_a_child_runs_where_its_needs_are_met_and_its_parent_where_it_began() -> None:
    clock, store, go = FakeClock(), MemoryStore(), asyncio.Event()

    @task
    async def wait() -> str:
        await go.wait()
        return "rendered"

    @workflow.with_options(needs=["gpu"])
    async def slow(ctx: ExecutionContext[None]) -> str:
        return await wait()

    @workflow
    async def parent(ctx: ExecutionContext[None]) -> str:
        return await slow()

    async with (
        process(store, clock, slow, parent) as front,
        process(store, clock, slow, parent, tags=["gpu"]) as worker,
    ):
        started = await front.start(parent)
        await clock.advance(seconds=2)
        owners = {row.workflow: row.owner for row in await front.list()}
        assert owners == {"parent": front.engine.world.owner, "slow": worker.engine.world.owner}
        go.set()
        await clock.advance(seconds=2)
        assert (await front.wait(started.execution_id, timeout=5)).output == "rendered"


async def test_a_script_runs_what_it_is_told_to_whatever_that_needs() -> None:
    async with process(MemoryStore(), FakeClock(), recover=False) as script:
        assert (await script.run(rendering, "sea")).output == "sea, rendered"


def test_needs_are_a_list_of_tags() -> None:
    async def nothing(ctx: ExecutionContext[str]) -> None: ...

    with pytest.raises(DefinitionError, match="needs='gpu': it has to be a list of tags"):
        workflow.with_options(needs="gpu")(nothing)


def test_the_tags_of_a_process_are_a_setting() -> None:
    assert Settings.load(environ={"FLUX_WORKER_TAGS": "gpu, ssd"}).worker_tags == {"gpu", "ssd"}
