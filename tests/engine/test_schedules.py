from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Workflow, cron, interval, once, pause, workflow
from flux.errors import DefinitionError, FluxError, WorkflowNotFound
from flux.schedules import Schedule
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, settle

pytestmark = pytest.mark.anyio


def starts(schedule: Schedule, after: str, count: int) -> list[str]:
    moment = datetime.fromisoformat(after).timestamp()
    found: list[str] = []
    while len(found) < count and (following := schedule.next_after(moment)) is not None:
        moment = following
        found.append(datetime.fromtimestamp(moment, UTC).isoformat())
    return found


def test_a_cron_expression_is_read_in_its_zone_and_is_right_when_clocks_change() -> None:
    nightly = cron("30 2 * * *", timezone="Europe/Berlin")
    spring = starts(nightly, "2026-03-28T12:00:00+00:00", 2)
    assert spring == ["2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]  # 02:30 does not exist on the 29th
    autumn = starts(nightly, "2026-10-24T12:00:00+00:00", 2)
    assert autumn == ["2026-10-25T00:30:00+00:00", "2026-10-26T01:30:00+00:00"]  # 02:30 comes twice, and counts once


def test_an_interval_keeps_to_its_start_and_end() -> None:
    hourly = interval(
        hours=1, start_time=datetime(2026, 1, 1, 9, 30), end_time=datetime(2026, 1, 1, 11, 0), timezone="Asia/Tokyo"
    )
    assert starts(hourly, "2026-01-01T00:00:00+00:00", 5) == ["2026-01-01T00:30:00+00:00", "2026-01-01T01:30:00+00:00"]


def test_once_is_once() -> None:
    assert starts(once(datetime(2026, 5, 1, tzinfo=UTC)), "2026-04-01T00:00:00+00:00", 5) == [
        "2026-05-01T00:00:00+00:00"
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: cron("every day"), "every day"),
        (lambda: cron("* * * * *", timezone="Mars/Olympus"), "Mars/Olympus"),
        (lambda: interval(), "longer than nothing"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_at_once(make: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


def scheduled(schedule: Schedule, runs: list[Any], *, asks: bool = False) -> Workflow[Any, Any]:
    @workflow.with_options(name="scheduled", schedule=schedule)
    async def body(ctx: ExecutionContext[Any]) -> None:
        runs.append(ctx.input)
        if asks:
            await pause("ask")

    return body


async def test_a_scheduled_workflow_starts_at_each_time_with_its_input() -> None:
    runs: list[Any] = []
    clock = FakeClock()
    made = scheduled(interval(minutes=10, input={"why": "clock"}), runs)
    async with Flux(store=MemoryStore(), clock=clock, workflows=[made]):
        await clock.advance(minutes=35)
    assert runs == [{"why": "clock"}] * 3


async def test_two_servers_on_one_database_start_it_once() -> None:
    runs: list[Any] = []
    clock, store = FakeClock(), MemoryStore()
    made = scheduled(interval(minutes=10), runs)
    async with (
        Flux(store=store, clock=clock, workflows=[made]),
        Flux(store=store, clock=clock, workflows=[made]),
    ):
        await clock.advance(minutes=15)
    assert len(runs) == 1


@pytest.mark.parametrize(("missed", "expected"), [("latest", 1), ("all", 6), ("skip", 0)])
async def test_starts_that_were_missed_while_no_server_ran(missed: Any, expected: int) -> None:
    runs: list[Any] = []
    clock, store = FakeClock(start=1_800_000_000.0), MemoryStore()
    made = scheduled(interval(minutes=10, missed=missed, overlap="allow"), runs)
    async with Flux(store=store, clock=clock, workflows=[made]):
        await settle()
    await clock.advance(minutes=65)
    async with Flux(store=store, clock=clock, workflows=[made]):
        await settle(500)
    assert len(runs) == expected


@pytest.mark.parametrize(("overlap", "expected"), [("skip", 1), ("allow", 3)])
async def test_a_run_that_has_not_ended_holds_the_next_one_up_or_not(overlap: Any, expected: int) -> None:
    runs: list[Any] = []
    clock = FakeClock()
    made = scheduled(interval(minutes=10, overlap=overlap), runs, asks=True)
    async with Flux(store=MemoryStore(), clock=clock, workflows=[made]):
        await clock.advance(minutes=35)
    assert len(runs) == expected


async def test_a_paused_schedule_starts_nothing_until_it_is_resumed() -> None:
    runs: list[Any] = []
    clock = FakeClock()
    made = scheduled(interval(minutes=10), runs)
    async with Flux(store=MemoryStore(), clock=clock, workflows=[made]) as flux:
        await flux.pause_schedule("scheduled")
        await clock.advance(minutes=35)
        assert runs == []
        (state,) = await flux.schedules()
        assert state.paused
        await flux.resume_schedule("scheduled")
        await clock.advance(minutes=10)
        assert len(runs) == 1


async def test_a_schedule_that_is_not_there_cannot_be_paused(flux: Flux) -> None:
    @workflow
    async def plain(ctx: ExecutionContext[Any]) -> None: ...

    with pytest.raises(WorkflowNotFound):
        await flux.pause_schedule("plain")
    flux.workflows.add(plain)
    with pytest.raises(FluxError, match="no schedule"):
        await flux.pause_schedule("plain")
