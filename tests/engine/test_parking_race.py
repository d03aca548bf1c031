"""An answer that comes at the very moment when an execution is about to be parked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from flux import Flux, pause, workflow
from flux.domain.events import Event, ExecutionParked
from flux.stores.memory import MemoryStore
from flux.tasks import parallel

pytestmark = pytest.mark.anyio


@workflow
async def asks_twice() -> list[int]:
    return await parallel(pause("left", response=int), pause("right", response=int))


@pytest.mark.parametrize("turns", range(40))
async def test_an_answer_is_seen_at_whatever_moment_of_parking_it_comes(turns: int, flux: Flux) -> None:
    id = (await flux.run(asks_twice)).execution_id
    await flux.answer(id, 1, pause="left")
    for _ in range(turns):
        await asyncio.sleep(0)
    await flux.answer(id, 2, pause="right")
    assert (await flux.wait(id, timeout=10)).output == [1, 2]


class Between(MemoryStore):
    """Another process answers `left` just before the execution is parked, and tells the run of it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.here: Flux | None = None
        self.there: Flux | None = None

    async def append(self, id: str, events: Sequence[Event], **how: Any) -> None:
        if self.there is not None and self.here is not None and isinstance(events[-1], ExecutionParked):
            there, self.there = self.there, None
            await there.answer(id, 1, pause="left")
            self.here.engine.runs.changed_elsewhere(id)
        await super().append(id, events, **how)

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        """What was there when it was asked for, told a moment later."""
        found = await super().load(id, after=after)
        for _ in range(20):
            await asyncio.sleep(0)
        return found


async def test_an_answer_from_another_process_that_is_told_while_the_run_parks_counts_once() -> None:
    store = Between()
    async with (
        Flux(store=store, workflows=[asks_twice], recover=False) as here,
        Flux(store=store, workflows=[asks_twice], recover=False) as there,
    ):
        store.here, store.there = here, there
        id = (await here.run(asks_twice)).execution_id
        assert [asked.name for asked in (await here.get(id)).pauses] == ["right"]
        await asyncio.wait_for(here.answer(id, 2), 10)
        assert (await here.wait(id, timeout=10)).output == [1, 2]


async def test_answers_given_elsewhere_as_soon_as_the_questions_are_open_are_all_seen(postgres: str) -> None:
    async with (
        Flux(postgres, workflows=[asks_twice]) as here,
        Flux(postgres, workflows=[asks_twice]) as there,
    ):
        for number in range(50):
            id = (await here.start(asks_twice, execution_id=f"e{number}")).execution_id
            async with asyncio.timeout(10):
                while len((await there.get(id)).pauses) < 2:
                    pass
            await there.answer(id, 1, pause="left")
            await there.answer(id, 2, pause="right")
            assert (await there.wait(id, timeout=10)).has_succeeded, f"execution {number} waits for ever"
