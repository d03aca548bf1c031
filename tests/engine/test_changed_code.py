"""Code that has changed under a living execution is found out before it does anything wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Workflow, pause, task, workflow
from flux.errors import NonDeterminismError
from flux.stores.memory import MemoryStore
from flux.tasks import parallel

pytestmark = pytest.mark.anyio

ran: list[str] = []


@task
async def a(value: int = 0) -> str:
    ran.append(f"a{value}")
    return f"a{value}"


@task
async def b(value: int = 0) -> str:
    ran.append(f"b{value}")
    return f"b{value}"


Body = Callable[[], Awaitable[Any]]


async def changed(before: Body, after: Body) -> NonDeterminismError:
    """The error of an execution that begins with one body and is resumed with another."""

    def made(body: Body) -> Workflow[Any, Any]:
        @workflow.with_options(name="changing")
        async def changing(ctx: ExecutionContext[Any]) -> Any:
            return await body()

        return changing

    store = MemoryStore()
    async with Flux(store=store, workflows=[made(before)], recover=False) as flux:
        paused: ExecutionContext[Any] = await flux.run("changing")
        assert paused.is_paused
    ran.clear()
    async with Flux(store=store, workflows=[made(after)], recover=False) as flux:
        end = await flux.resume(paused.execution_id, "ok")
    assert isinstance(end.error, NonDeterminismError), end.output
    return end.error


async def original() -> Any:
    return [await a(), await b(), await pause("ask")]


async def test_swapped_calls_are_found_before_they_run() -> None:
    async def swapped() -> Any:
        return [await b(), await a(), await pause("ask")]

    error = await changed(original, swapped)
    assert "expected 'a'" in str(error)
    assert "got 'b'" in str(error)
    assert "test_changed_code.py:" in str(error)
    assert "Put the old code back" in str(error)
    assert ran == []


async def test_an_inserted_call_is_found_before_it_runs() -> None:
    async def inserted() -> Any:
        return [await a(), await a(1), await b(), await pause("ask")]

    assert "got 'a'" in str(await changed(original, inserted))
    assert ran == []


async def test_a_call_added_before_an_open_pause_is_found_before_it_runs() -> None:
    async def added() -> Any:
        return [await a(), await b(), await b(2), await pause("ask")]

    assert "expected 'ask'" in str(await changed(original, added))
    assert ran == []


async def test_a_pause_added_before_another_does_not_get_its_answer() -> None:
    async def added() -> Any:
        return [await a(), await b(), await pause("other"), await pause("ask")]

    assert "got 'other'" in str(await changed(original, added))


async def test_a_missing_call_is_found() -> None:
    async def missing() -> Any:
        return [await a(), await pause("ask")]

    assert "expected 'b'" in str(await changed(original, missing))


async def test_a_call_missing_at_the_end_is_found() -> None:
    async def missing() -> Any:
        return [await a(), await b()]

    assert "expected 'ask'" in str(await changed(original, missing))


async def test_other_arguments_are_found_and_shown() -> None:
    async def other() -> Any:
        return [await a(7), await b(), await pause("ask")]

    error = await changed(original, other)
    assert '"value":7' in str(error)
    assert ran == []


async def test_a_branch_that_is_gone_is_found() -> None:
    async def branch(name: str) -> Any:
        return [await a(), await pause(name)]

    async def two() -> Any:
        return await parallel(branch("ask"), asyncio.sleep(0), branch("never"))

    async def one() -> Any:
        return await parallel(branch("ask"))

    store = MemoryStore()

    def made(body: Body) -> Workflow[Any, Any]:
        @workflow.with_options(name="changing")
        async def changing(ctx: ExecutionContext[Any]) -> Any:
            return await body()

        return changing

    async with Flux(store=store, workflows=[made(two)], recover=False) as flux:
        paused: ExecutionContext[Any] = await flux.run("changing")
    async with Flux(store=store, workflows=[made(one)], recover=False) as flux:
        end = await flux.resume(paused.execution_id, "ok", pause="ask")
    assert "branch" in str(end.error)


async def test_code_that_catches_the_error_still_ends_with_it() -> None:
    async def catches() -> Any:
        with contextlib.suppress(NonDeterminismError):
            await b()
        return "fine"

    assert "expected 'a'" in str(await changed(original, catches))


async def test_branches_that_interleave_otherwise_are_no_change() -> None:
    turns = iter([5, 0, 0, 5])

    async def branch(name: str) -> Any:
        for _ in range(next(turns)):
            await asyncio.sleep(0)
        return [await a(), await b(), await pause(name)]

    @workflow
    async def two(ctx: ExecutionContext[Any]) -> Any:
        return await parallel(branch("x"), branch("y"))

    async with Flux(store=MemoryStore(), recover=False) as flux:
        paused = await flux.run(two)
        paused = await flux.resume(paused.execution_id, 1, pause="x")
        turns = iter([0, 5])
        done = await flux.resume(paused.execution_id, 2, pause="y")
        assert done.output == [["a0", "b0", 1], ["a0", "b0", 2]]
