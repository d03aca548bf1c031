"""Work that only some processes can do."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest

from flux import ExecutionContext, Flux, Workflow, task, workflow
from flux.engine.clockwork import BATCH
from flux.engine.ports import Listing, Owner
from flux.errors import DefinitionError
from flux.service import AnyWorkflow
from flux.settings import Settings
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, settle

pytestmark = pytest.mark.anyio

OTHER = Owner(host="elsewhere", pid=1, started=0.0, token="other")


@task
async def render(scene: str) -> str:
    return f"{scene}, rendered"


@workflow.with_options(needs=["gpu"])
async def rendering(ctx: ExecutionContext[str]) -> str:
    return await render(ctx.input)


def process(
    store: MemoryStore,
    clock: FakeClock,
    *workflows: AnyWorkflow,
    tags: Sequence[str] = (),
    concurrency: int | None = None,
    recover: bool = True,
) -> Flux:
    settings = Settings(database=":memory:", worker_tags=frozenset(tags), concurrency=concurrency)
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


def gated(go: asyncio.Event, running: set[str]) -> Workflow[str, str]:
    @task
    async def wait(name: str) -> str:
        running.add(name)
        await go.wait()
        running.discard(name)
        return name

    @workflow
    async def waits(ctx: ExecutionContext[str]) -> str:
        return await wait(ctx.input)

    return waits


async def test_what_a_full_process_begins_is_run_by_one_that_has_room() -> None:
    clock, store, go = FakeClock(), MemoryStore(), asyncio.Event()
    running: set[str] = set()
    waits = gated(go, running)
    async with (
        process(store, clock, waits, concurrency=2) as full,
        process(store, clock, waits, concurrency=3) as other,
    ):
        for name in "abcdefg":
            await full.start(waits, name, execution_id=name)
        await clock.advance(seconds=3)
        assert (len(full.engine.runs.leases), len(other.engine.runs.leases)) == (2, 3)
        assert len(running) == 5
        go.set()
        await clock.advance(seconds=5)
        for name in "abcdefg":
            assert (await other.wait(name, timeout=5)).output == name


async def test_a_process_that_runs_nothing_starts_and_answers_what_others_run() -> None:
    clock, store, go = FakeClock(), MemoryStore(), asyncio.Event()
    go.set()
    waits = gated(go, set())
    async with process(store, clock, waits, concurrency=0) as front:
        await front.start(waits, "a", execution_id="a")
        await clock.advance(seconds=30)
        assert (await front.get("a")).is_running
        async with process(store, clock, waits) as worker:
            await clock.advance(seconds=3)
            assert (await worker.wait("a", timeout=5)).output == "a"


class Contended(MemoryStore):
    """A store in which another process is quicker, once, to claim what is due."""

    was_quicker: str | None = None

    async def due(self, *, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
        rows = await super().due(workflows=workflows, now=now, limit=limit)
        if rows and self.was_quicker is None:
            self.was_quicker = rows[0].id
            await self.claim(rows[0].id, OTHER, ttl=3600, now=now)
        return rows


async def test_a_process_with_room_for_one_goes_on_to_the_next_when_another_was_quicker() -> None:
    clock, store, go = FakeClock(), Contended(), asyncio.Event()
    running: set[str] = set()
    waits = gated(go, running)
    async with process(store, clock, waits, concurrency=0) as front:
        for name in "ab":
            await front.start(waits, name, execution_id=name)
    async with process(store, clock, waits, concurrency=1):
        await settle()
        assert running == set("ab") - {store.was_quicker}


async def test_a_process_looks_on_at_once_when_more_is_due_than_one_look_shows() -> None:
    clock, store, go = FakeClock(), MemoryStore(), asyncio.Event()
    running: set[str] = set()
    waits = gated(go, running)
    names = {str(number) for number in range(2 * BATCH + 1)}
    async with process(store, clock, waits, concurrency=0) as front:
        for name in names:
            await front.start(waits, name, execution_id=name)
    async with process(store, clock, waits), asyncio.timeout(10):
        while running != names:  # on a clock that stands still
            await settle()


async def test_a_parent_that_fills_its_process_makes_room_for_its_child() -> None:
    @workflow
    async def child(ctx: ExecutionContext[int]) -> int:
        return await parent(ctx.input - 1) if ctx.input else 0

    @workflow
    async def parent(ctx: ExecutionContext[int]) -> int:
        return 1 + await child(ctx.input)

    clock = FakeClock()
    async with process(MemoryStore(), clock, parent, child, concurrency=1) as only:
        await only.start(parent, 5, execution_id="a")
        await clock.advance(seconds=60)
        assert (await only.wait("a", timeout=10)).output == 6


async def test_a_process_that_drains_takes_nothing_more_and_lets_what_runs_end() -> None:
    clock, store, go = FakeClock(), MemoryStore(), asyncio.Event()
    waits = gated(go, set())
    async with process(store, clock, waits) as worker:
        await worker.start(waits, "a", execution_id="a")
        await settle()
        draining = asyncio.create_task(worker.drain(20))
        await settle()
        await worker.start(waits, "b", execution_id="b")
        go.set()
        await asyncio.wait_for(draining, 10)
        assert (await worker.get("a")).output == "a"
        assert (await worker.get("b")).is_running
        assert "b" not in worker.engine.runs


def test_needs_are_a_list_of_tags() -> None:
    async def nothing(ctx: ExecutionContext[str]) -> None: ...

    with pytest.raises(DefinitionError, match="needs='gpu': it has to be a list of tags"):
        workflow.with_options(needs="gpu")(nothing)


def test_the_tags_of_a_process_are_a_setting() -> None:
    assert Settings.load(environ={"FLUX_WORKER_TAGS": "gpu, ssd"}).worker_tags == {"gpu", "ssd"}
