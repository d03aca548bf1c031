from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.errors import ExecutionFinished, InvalidAnswer, NotPaused, PauseNotFound, TaskTimeout
from flux.stores.memory import MemoryStore
from flux.tasks import parallel
from flux.testing import FakeClock, crash_at_every_fact

pytestmark = pytest.mark.anyio


class Approval(BaseModel):
    approved: bool
    note: str = ""


@task
async def echo(value: Any) -> Any:
    return value


async def test_a_pause_waits_for_its_answer_and_work_before_it_is_not_repeated(flux: Flux) -> None:
    effects: list[str] = []

    @task
    async def effect(name: str) -> None:
        effects.append(name)

    @workflow
    async def asks(ctx: ExecutionContext[str]) -> Approval:
        await effect("before")
        answer = await pause("approve", response=Approval, output={"order": ctx.input}, message="Is it right?")
        await effect("after")
        return answer

    paused = await flux.run(asks, "book")
    (question,) = paused.pauses
    assert (question.name, question.output, question.message) == ("approve", {"order": "book"}, "Is it right?")
    assert question.schema is not None
    assert set(question.schema["properties"]) == {"approved", "note"}
    assert effects == ["before"]

    done = await flux.resume(paused.execution_id, {"approved": True})
    assert done.output == Approval(approved=True)
    assert effects == ["before", "after"]


async def test_an_answer_that_does_not_fit_is_refused_and_the_pause_stays_open(flux: Flux) -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> str:
        return await pause("colour", response=Literal["red", "blue"])

    paused = await flux.run(asks)
    with pytest.raises(InvalidAnswer, match="red"):
        await flux.resume(paused.execution_id, "green")
    assert (await flux.get(paused.execution_id)).is_paused
    assert (await flux.resume(paused.execution_id, "red")).output == "red"


async def test_an_answer_is_checked_by_its_schema_where_its_type_has_no_name(flux: Flux) -> None:
    @dataclass
    class Local:
        count: int

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> int:
        return (await pause("how many", response=Local)).count

    paused = await flux.run(asks)
    with pytest.raises(InvalidAnswer, match="count"):
        await flux.resume(paused.execution_id, {"count": "three"})
    assert (await flux.resume(paused.execution_id, {"count": 3})).output == 3


async def test_several_pauses_are_open_at_once_and_each_takes_its_own_answer(flux: Flux) -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return await parallel(pause("a"), pause("b"), echo("c"))

    paused = await flux.run(asks)
    assert [question.name for question in paused.pauses] == ["a", "b"]
    with pytest.raises(PauseNotFound, match="say which"):
        await flux.resume(paused.execution_id, 1)
    with pytest.raises(PauseNotFound, match="'z'"):
        await flux.resume(paused.execution_id, 1, pause="z")
    still = await flux.resume(paused.execution_id, "B", pause="b")
    assert [question.name for question in still.pauses] == ["a"]
    assert (await flux.resume(paused.execution_id, "A")).output == ["A", "B", "c"]


async def test_other_branches_finish_before_the_execution_parks(flux: Flux) -> None:
    done: list[str] = []

    @task
    async def slow(name: str) -> None:
        for _ in range(30):
            await asyncio.sleep(0)
        done.append(name)

    async def branch() -> None:
        await slow("first")
        for _ in range(30):
            await asyncio.sleep(0)
        await slow("second")

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch())
            group.create_task(pause("ask"))

    paused = await flux.run(asks)
    assert paused.is_paused
    assert done == ["first", "second"]
    assert (await flux.resume(paused.execution_id, None)).has_succeeded
    assert done == ["first", "second"]


async def test_an_answer_reaches_a_run_that_is_still_busy_elsewhere(flux: Flux) -> None:
    go, answered = asyncio.Event(), asyncio.Event()

    @task
    async def busy() -> str:
        await go.wait()
        return "busy"

    async def branch() -> Any:
        answer = await pause("ask")
        answered.set()
        return answer

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return await parallel(busy(), branch())

    started = await flux.start(asks)
    while not (await flux.get(started.execution_id)).pauses:  # noqa: ASYNC110 - the engine announces nothing here
        await asyncio.sleep(0)
    await flux.answer(started.execution_id, "now")
    await asyncio.wait_for(answered.wait(), 10)  # while `busy` has not finished
    go.set()
    assert (await flux.wait(started.execution_id)).output == ["busy", "now"]


async def test_a_pause_in_a_loop_takes_each_answer_once(flux: Flux) -> None:
    effects: list[int] = []

    @task
    async def effect(n: int) -> None:
        effects.append(n)

    @workflow
    async def loops(ctx: ExecutionContext[Any]) -> list[Any]:
        answers: list[Any] = []
        for n in range(5):
            await effect(n)
            answers.append(await pause("again"))
        return answers

    execution = await flux.run(loops)
    ids = set[str]()
    for n in range(5):
        ids.add(execution.pauses[0].id)
        execution = await flux.resume(execution.execution_id, n * 10)
    assert execution.output == [0, 10, 20, 30, 40]
    assert effects == [0, 1, 2, 3, 4]
    assert len(ids) == 5


async def test_except_exception_does_not_meet_the_signal_that_parks(flux: Flux) -> None:
    @workflow
    async def careful(ctx: ExecutionContext[Any]) -> Any:
        try:
            return await pause("ask")
        except Exception:  # noqa: BLE001 - what the test is about
            return "swallowed"

    paused = await flux.run(careful)
    assert paused.is_paused
    assert (await flux.resume(paused.execution_id, 1)).output == 1


async def test_a_body_that_swallows_everything_is_told_and_still_goes_on(
    flux: Flux, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def greedy(ctx: ExecutionContext[Any]) -> Any:
        try:
            return await pause("ask")
        except BaseException:  # noqa: BLE001 - what the test is about
            return "swallowed"

    paused = await flux.run(greedy)
    assert paused.is_paused
    assert "greedy" in caplog.text
    assert (await flux.resume(paused.execution_id, 1)).output == 1


async def test_a_task_may_pause_inside_a_retried_attempt_and_inside_a_fallback(flux: Flux) -> None:
    attempts: list[str] = []

    @task.with_options(retry_max_attempts=1, retry_delay=0)
    async def asks_on_second() -> Any:
        attempts.append("x")
        if len(attempts) == 1:
            raise ValueError
        return await pause("in attempt")

    async def fallback() -> Any:
        return await pause("in fallback")

    @task.with_options(fallback=fallback)
    async def fails() -> Any:
        raise ValueError

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return [await asks_on_second(), await fails()]

    first = await flux.run(asks)
    assert [question.name for question in first.pauses] == ["in attempt"]
    second = await flux.resume(first.execution_id, 1)
    assert [question.name for question in second.pauses] == ["in fallback"]
    assert (await flux.resume(first.execution_id, 2)).output == [1, 2]


async def test_a_finished_execution_takes_no_answer_and_a_running_one_has_asked_nothing(flux: Flux) -> None:
    go = asyncio.Event()

    @task
    async def waits() -> None:
        await go.wait()

    @workflow
    async def plain(ctx: ExecutionContext[Any]) -> None:
        await waits()

    running = await flux.start(plain)
    with pytest.raises(NotPaused):
        await flux.answer(running.execution_id, 1)
    go.set()
    await flux.wait(running.execution_id)
    with pytest.raises(ExecutionFinished):
        await flux.resume(running.execution_id, 1)
    assert (await flux.resume(running.execution_id)).has_succeeded


async def test_a_pause_that_nobody_answers_in_time_raises_inside() -> None:
    clock = FakeClock()

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> str:
        try:
            return await pause("ask", timeout=3600)
        except TaskTimeout as exc:
            return f"gave up: {exc}"

    async with Flux(store=MemoryStore(), clock=clock) as flux:
        paused = await flux.run(asks)
        assert paused.is_paused
        await clock.advance(hours=1, seconds=2)
        done = await flux.wait(paused.execution_id, timeout=10)
        assert "3600" in done.output
        assert done.pauses == []


async def test_a_pause_with_a_time_goes_on_without_an_answer() -> None:
    clock = FakeClock()
    later = datetime.fromtimestamp(clock.now() + 7200)

    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> list[Any]:
        return [
            await pause("a", {"shown": 1}, after=timedelta(hours=1)),
            await pause("b", until=later),
            await pause("c"),
        ]

    async with Flux(store=MemoryStore(), clock=clock) as flux:
        paused = await flux.run(asks)
        assert paused.pauses[0].output == {"shown": 1}
        await clock.advance(hours=1, seconds=2)
        assert [question.name for question in (await flux.wait(paused.execution_id)).pauses] == ["b"]
        await clock.advance(hours=1, seconds=2)
        assert (await flux.resume(paused.execution_id, 3)).output == [None, None, 3]


async def test_of_two_answers_at_once_exactly_one_is_taken() -> None:
    @workflow
    async def asks(ctx: ExecutionContext[Any]) -> Any:
        return await echo(await pause("ask"))

    store = MemoryStore()
    async with Flux(store=store, workflows=[asks]) as one, Flux(store=store, workflows=[asks]) as two:
        for n in range(20):
            paused = await one.run(asks)
            tries = await asyncio.gather(
                one.resume(paused.execution_id, ("one", n)),
                two.resume(paused.execution_id, ("two", n)),
                return_exceptions=True,
            )
            refused = [end for end in tries if isinstance(end, Exception)]
            taken = [end for end in tries if not isinstance(end, BaseException)]
            assert len(refused) == len(taken) == 1
            assert isinstance(refused[0], (NotPaused, PauseNotFound, ExecutionFinished))
            assert taken[0].output in [("one", n), ("two", n)]


async def test_a_workflow_with_pauses_ends_the_same_wherever_it_crashes() -> None:
    async def branch(name: str) -> Any:
        return await echo([await pause(name), await echo(name)])

    @workflow
    async def asks(ctx: ExecutionContext[str]) -> Any:
        first = await echo(ctx.input)
        both = await parallel(branch("a"), branch("b"))
        return [first, both, await pause("c")]

    done = await crash_at_every_fact(asks, "x", answers={"a": 1, "b": 2, "c": 3})
    assert done.status is Status.COMPLETED
    assert done.output == ["x", [[1, "a"], [2, "b"]], 3]
