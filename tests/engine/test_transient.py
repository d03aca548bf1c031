from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, cron, pause, task, workflow
from flux.errors import DefinitionError, ExecutionNotFound
from flux.stores import transient
from flux.tasks import parallel

pytestmark = pytest.mark.anyio


@task
async def double(n: int) -> int:
    return n * 2


@workflow.with_options(durability="transient")
async def cheap(ctx: ExecutionContext[int]) -> int:
    return await double(ctx.input)


@workflow
async def dear(ctx: ExecutionContext[int]) -> list[int]:
    return await parallel(cheap(ctx.input), double(ctx.input))


async def test_a_transient_execution_leaves_nothing_on_disk_and_works_like_any_other(tmp_path: Path) -> None:
    @workflow.with_options(durability="transient")
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await pause("ask")

    async with Flux(tmp_path / "f.db") as flux:
        done = await flux.run(cheap, 2)
        assert done.output == 4
        paused = await flux.run(asks)
        assert (await flux.resume(paused.execution_id, "yes")).output == "yes"
        assert {row.id for row in await flux.list()} == {done.execution_id, paused.execution_id}
    async with Flux(tmp_path / "f.db") as flux:
        assert await flux.list() == []
        with pytest.raises(ExecutionNotFound):
            await flux.get(done.execution_id)


async def test_a_durable_workflow_keeps_what_its_transient_child_gave(tmp_path: Path) -> None:
    async with Flux(tmp_path / "f.db") as flux:
        done = await flux.run(dear, 3)
        assert done.output == [6, 6]
    async with Flux(tmp_path / "f.db") as flux:
        assert [row.id for row in await flux.list()] == [done.execution_id]


async def test_of_many_ended_ones_the_oldest_are_forgotten(flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transient, "KEPT", 10)
    for n in range(25):
        await flux.run(cheap, n)
    assert 10 <= len(await flux.list(limit=100)) <= 11


def test_a_transient_workflow_has_no_schedule_and_other_words_are_refused() -> None:
    with pytest.raises(DefinitionError, match="transient"):
        workflow.with_options(durability="transient", schedule=cron("* * * * *"))(cheap.func)
    with pytest.raises(DefinitionError, match="durable"):
        workflow.with_options(durability="soon")(cheap.func)  # pyright: ignore[reportArgumentType] - what the test is about
