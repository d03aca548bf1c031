"""`flux migrate`: everything arrives in the other database, and goes on there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Queue, interval, pause, task, workflow
from flux.errors import FluxError
from flux.moving import Moved, move
from flux.settings import Settings

pytestmark = pytest.mark.anyio

LARGE = "x" * 300_000  # more than is kept in a history of SQLite


@task
async def large(text: str) -> str:
    return text * 2


@workflow
async def asks(ctx: ExecutionContext[str]) -> Any:
    return [len(await large(ctx.input)), await pause("sure")]


@workflow.with_options(queue=Queue("jobs", concurrency=1), deduplicate=lambda text: text)  # pyright: ignore[reportUnknownLambdaType]
async def queued(ctx: ExecutionContext[str]) -> str:
    return await pause("sure")


@workflow.with_options(schedule=interval(hours=1))
async def ticking() -> None: ...


WORKFLOWS: list[Any] = [asks, queued, ticking]


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "new.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


async def test_executions_arrive_with_their_histories_and_go_on(tmp_path: Path, target: str) -> None:
    old, new = Settings.load(database=tmp_path / "old.db"), Settings.load(database=target)
    async with Flux(settings=old, workflows=WORKFLOWS, recover=False) as flux:
        await flux.run(asks, LARGE, execution_id="a")
        await flux.run(asks, "done", execution_id="b")
        await flux.resume("b", "yes")
        await flux.run(queued, "c", execution_id="c")
        await flux.pause_schedule("ticking")
        before = {row.id: (row.status, row.created_at, row.place) for row in await flux.list()}
        histories = {id: await flux.history(id) for id in ("b", "c")}
    counts: list[int] = []
    assert await move(old, new, tell=counts.append) == Moved(executions=3, known=0)
    assert counts == [1, 2, 3]
    assert await move(old, new, tell=counts.append) == Moved(executions=3, known=3)
    async with Flux(settings=new, workflows=WORKFLOWS, recover=False) as flux:
        assert {row.id: (row.status, row.created_at, row.place) for row in await flux.list()} == before
        assert {id: await flux.history(id) for id in ("b", "c")} == histories
        assert (await flux.start(queued, "c")).execution_id == "c"
        assert (await flux.resume("a", "yes")).output == [2 * len(LARGE), "yes"]
        (state,) = await flux.schedules()
        assert state.paused
    with pytest.raises(FluxError, match="'a' is in the new database already, with another history"):
        await move(old, new, tell=counts.append)


async def test_what_runs_is_not_moved_from_under_its_process(tmp_path: Path) -> None:
    old, new = Settings.load(database=tmp_path / "old.db"), Settings.load(database=tmp_path / "new.db")

    @workflow
    async def looks(ctx: ExecutionContext[None]) -> str:
        try:
            await move(old, new, tell=lambda _: None)
        except FluxError as exc:
            return str(exc)
        return "moved"

    async with Flux(settings=old, workflows=[looks], recover=False) as flux:
        done = await flux.run(looks)
        assert "1 executions run there" in done.output
        assert "stop the servers and workers" in done.output
