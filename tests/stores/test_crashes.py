"""Crashes, on real databases: wherever a process dies, the next one ends as if it had not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux import ExecutionContext, pause, task, workflow
from flux.engine.ports import Store
from flux.stores import open_store
from flux.tasks import parallel
from flux.testing import Stores, crash_at_every_fact
from tests.engine.test_determinism import Program, crashed_run, programs


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    base = f"sqlite:///{tmp_path}/" if request.param == "sqlite" else request.getfixturevalue("postgres_database")

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Store]:
        name = f"t{uuid4().hex}"
        async with open_store(f"{base}{name}.db" if base.startswith("sqlite") else f"{base}?schema={name}") as store:
            yield store

    return opened


@pytest.mark.anyio
async def test_a_workflow_ends_the_same_after_a_crash_behind_any_of_its_facts(stores: Stores) -> None:
    tries: list[int] = []

    @task.with_options(retry_max_attempts=2, retry_delay=0)
    async def flaky(number: int) -> int:
        tries.append(number)
        if tries.count(number) == 1:
            raise ValueError(f"the first time, {number} fails")
        return number * 2

    @workflow
    async def child(ctx: ExecutionContext[int]) -> int:
        return await flaky(ctx.input)

    @workflow
    async def whole(ctx: ExecutionContext[None]) -> list[Any]:
        pair = await parallel(flaky(1), flaky(2))
        return [pair, await pause("sure"), await child(3)]

    done = await crash_at_every_fact(whole, answers={"sure": "yes"}, stores=stores)
    assert done.output == [[2, 4], "yes", 6]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(program=programs, cut=st.floats(0, 1), seed=st.integers(0, 1000))
def test_any_program_crashed_anywhere_ends_as_recorded_on_a_real_database(
    stores: Stores, program: Program, cut: float, seed: int
) -> None:
    asyncio.run(crashed_run(program, cut, seed, stores))
