from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.domain.events import CallRaised, CallReturned, CallStarted, ExecutionCompleted, ExecutionStarted
from flux.engine.body import Progress
from flux.errors import ExecutionExists, InvalidInput, NotInWorkflow, NotStorable, TaskFailed, TaskTimeout
from flux.tasks import parallel, progress

pytestmark = pytest.mark.anyio


@task
async def greet(name: str) -> str:
    return f"Hello, {name}"


async def test_a_workflow_returns_its_result_and_records_each_step_once(flux: Flux) -> None:
    @workflow
    async def hello(ctx: ExecutionContext[str]) -> str:
        return await greet(ctx.input)

    done = await flux.run(hello, "World")

    assert (done.status, done.output) == (Status.COMPLETED, "Hello, World")
    history = await flux.history(done.execution_id)
    assert [type(event) for event in history] == [ExecutionStarted, CallStarted, CallReturned, ExecutionCompleted]


async def test_a_failed_task_raises_its_own_exception_inside_and_nothing_outside(flux: Flux) -> None:
    @task
    async def fails(why: str) -> None:
        raise ValueError(why)

    @workflow
    async def catches(ctx: ExecutionContext[Any]) -> str:
        try:
            await fails("bad")
        except ValueError as exc:
            return f"caught {exc}"
        return "not reached"

    @workflow
    async def lets_go(ctx: ExecutionContext[Any]) -> None:
        await fails("worse")

    assert (await flux.run(catches)).output == "caught bad"
    failed = await flux.run(lets_go)
    assert failed.has_failed
    assert isinstance(failed.output, ValueError)
    assert str(failed.error) == "worse"
    assert failed.traceback is not None
    assert "raise ValueError(why)" in failed.traceback


async def test_an_exception_that_cannot_be_made_again_keeps_its_type_and_text(flux: Flux) -> None:
    class Odd(Exception):  # its class has no name by which it could be found again
        pass

    @task
    async def fails() -> None:
        raise Odd("strange")

    @workflow
    async def odd(ctx: ExecutionContext[Any]) -> str:
        try:
            await fails()
        except TaskFailed as exc:
            return str(exc)
        return "not reached"

    assert (await flux.run(odd)).output.endswith("Odd: strange")


async def test_what_a_task_returns_live_is_what_a_replay_would_return(flux: Flux) -> None:
    shared = {"count": 1}

    @task
    async def give() -> dict[str, int]:
        return shared

    @workflow
    async def looks(ctx: ExecutionContext[Any]) -> bool:
        return await give() is shared

    assert (await flux.run(looks)).output is False


async def test_what_a_task_does_to_its_arguments_stays_inside(flux: Flux) -> None:
    @task
    async def appends(numbers: list[int]) -> int:
        numbers.append(2)
        return len(numbers)

    @workflow
    async def keeps(ctx: ExecutionContext[Any]) -> tuple[int, list[int]]:
        numbers = [1]
        return await appends(numbers), numbers

    assert (await flux.run(keeps)).output == (2, [1])


async def test_plain_functions_run_side_by_side_in_threads(flux: Flux) -> None:
    meeting = threading.Barrier(2, timeout=10)

    @task
    def meets(name: str) -> str:
        meeting.wait()  # passes only when both are here at once
        return name

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> list[str]:
        return await parallel(meets("a"), meets("b"))

    assert (await flux.run(both)).output == ["a", "b"]


async def test_a_plain_function_can_be_a_workflow(flux: Flux) -> None:
    @workflow
    def plain(ctx: ExecutionContext[int]) -> int:
        return ctx.input + 1

    assert (await flux.run(plain, 1)).output == 2


async def test_the_input_is_checked_before_anything_runs(flux: Flux) -> None:
    ran: list[int] = []

    @workflow
    async def counts(ctx: ExecutionContext[int]) -> None:
        ran.append(ctx.input)

    with pytest.raises(InvalidInput, match="integer"):
        await flux.start(counts, "many")
    assert ran == []
    assert await flux.list() == []


async def test_a_result_that_cannot_be_stored_fails_the_task_by_name_and_place(flux: Flux) -> None:
    @task
    async def gives_a_lock() -> Any:
        return {"deep": [threading.Lock()]}

    @workflow
    async def stores(ctx: ExecutionContext[Any]) -> None:
        await gives_a_lock()

    failed = await flux.run(stores)
    assert isinstance(failed.error, NotStorable)
    assert "gives_a_lock" in str(failed.error)
    assert "deep" in str(failed.error)


async def test_a_task_outside_a_workflow_says_where_it_belongs() -> None:
    with pytest.raises(NotInWorkflow, match="greet"):
        await greet("nobody")


async def test_an_execution_id_is_taken_once(flux: Flux) -> None:
    @workflow
    async def once(ctx: ExecutionContext[Any]) -> None: ...

    await flux.run(once, execution_id="mine")
    with pytest.raises(ExecutionExists):
        await flux.start(once, execution_id="mine")


async def test_many_executions_of_one_workflow_keep_their_own_values(flux: Flux) -> None:
    @workflow
    async def own(ctx: ExecutionContext[int]) -> tuple[int, str]:
        return ctx.input, await greet(str(ctx.input))

    started = [await flux.start(own, number) for number in range(50)]
    done = [await flux.wait(execution.execution_id) for execution in started]
    assert [execution.output for execution in done] == [(n, f"Hello, {n}") for n in range(50)]


async def test_retries_happen_as_often_as_allowed_and_then_the_error_comes_through(flux: Flux) -> None:
    attempts: list[int] = []

    @task.with_options(retry_max_attempts=2, retry_delay=0)
    async def fails() -> None:
        attempts.append(1)
        raise ValueError(len(attempts))

    @workflow
    async def tries(ctx: ExecutionContext[Any]) -> None:
        await fails()

    failed = await flux.run(tries)
    assert len(attempts) == 3
    assert repr(failed.error) == "ValueError(3)"


async def test_a_fallback_answers_for_a_task_that_failed_and_a_rollback_undoes_it(flux: Flux) -> None:
    undone: list[str] = []

    async def undo(what: str) -> None:
        undone.append(what)

    def instead(what: str) -> str:
        return f"instead of {what}"

    @task.with_options(fallback=instead)
    async def falls_back(what: str) -> str:
        raise ValueError(what)

    @task.with_options(rollback=undo)
    async def rolls_back(what: str) -> str:
        raise ValueError(what)

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> str:
        first = await falls_back("a")
        try:
            await rolls_back("b")
        except ValueError as exc:
            return f"{first}, lost {exc}"
        return "not reached"

    assert (await flux.run(both)).output == "instead of a, lost b"
    assert undone == ["b"]


async def test_a_timeout_ends_async_and_plain_tasks_and_is_not_taken_for_the_bodys_own(flux: Flux) -> None:
    release = threading.Event()

    @task.with_options(timeout=0.05)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @task.with_options(timeout=0.05)
    def blocks() -> None:
        release.wait(10)

    @task.with_options(timeout=10)
    async def raises_its_own() -> None:
        raise TimeoutError("the far end")

    @workflow
    async def three(ctx: ExecutionContext[Any]) -> list[str]:
        ends = await parallel(hangs(), blocks(), raises_its_own(), raise_on_error=False)
        return [f"{type(end).__name__}: {end}" for end in ends]

    done = await flux.run(three)
    release.set()
    assert [text.split(":")[0] for text in done.output] == [TaskTimeout.__name__, TaskTimeout.__name__, "TimeoutError"]
    assert "'hangs'" in done.output[0]


async def test_of_several_failures_the_first_given_is_raised_and_the_rest_is_cancelled(flux: Flux) -> None:
    cancelled = asyncio.Event()

    @task
    async def fails(name: str) -> None:
        raise ValueError(name)

    @task
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @workflow
    async def several(ctx: ExecutionContext[Any]) -> None:
        await parallel(hangs(), fails("b"), fails("c"))

    failed = await flux.run(several)
    assert str(failed.error) == "b"
    assert cancelled.is_set()
    history = await flux.history(failed.execution_id)
    assert sum(isinstance(event, CallRaised) for event in history) == 2


async def test_a_map_keeps_the_order_of_its_items_and_its_limit(flux: Flux) -> None:
    running, most = 0, 0

    @task
    async def squares(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - n):
            await asyncio.sleep(0)
        running -= 1
        return n * n

    @workflow
    async def mapped(ctx: ExecutionContext[list[int]]) -> list[int]:
        return await squares.map(ctx.input, max_concurrent=3)

    assert (await flux.run(mapped, list(range(10)))).output == [n * n for n in range(10)]
    assert most == 3


async def test_logs_and_progress_are_silent_on_replay(flux: Flux, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> None:
        ctx.log.warning("before %s", "the pause")
        progress("before")
        await greet("x")
        await pause("ask")
        ctx.log.warning("after")
        progress("after")

    told: list[Any] = []
    with flux.observed("talk", lambda heard: told.append(heard.value)):
        await flux.run(talks, execution_id="talk")
        await flux.resume("talk", 1)
    assert [record.getMessage() for record in caplog.records] == ["[talk] before the pause", "[talk] after"]
    assert told == ["before", None, "after"]  # None tells that a task has finished


async def test_what_was_reported_before_anybody_listened_is_told_first(flux: Flux) -> None:
    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> None:
        for n in range(30):
            progress(n)

    await flux.run(talks, execution_id="early")
    told: list[Any] = []
    with flux.observed("early", lambda heard: told.append(heard.value)):
        pass
    assert told == list(range(10, 30))


async def test_an_execution_can_be_read_as_json_and_be_found_from_a_task(flux: Flux) -> None:
    @task
    async def whose() -> str:
        return (await ExecutionContext.get()).execution_id

    @workflow
    async def asks(ctx: ExecutionContext[dict[str, int]]) -> str:
        return await whose()

    done = await flux.run(asks, {"n": 1}, execution_id="mine")
    assert done.output == "mine"
    read = json.loads((await flux.get("mine", events=True)).to_json())
    assert (read["state"], read["input"], read["output"], read["error"]) == ("completed", {"n": 1}, "mine", None)
    types = ["WORKFLOW_STARTED", "TASK_STARTED", "TASK_COMPLETED", "WORKFLOW_COMPLETED"]
    assert [event["type"] for event in read["events"]] == types


async def test_methods_can_be_tasks(flux: Flux) -> None:
    class Shop:
        def __init__(self, price: int) -> None:
            self.price = price

        @task
        async def total(self, count: int) -> int:
            return self.price * count

    @workflow
    async def buys(ctx: ExecutionContext[int]) -> int:
        return await Shop(7).total(ctx.input)

    done = await flux.run(buys, 3)
    assert done.output == 21
    started = (await flux.get(done.execution_id, events=True)).events[1]
    assert started.name == "total"
    assert started.value["count"] == 3  # although the shop itself cannot be kept


async def test_a_task_that_calls_exit_fails_and_takes_nothing_down(flux: Flux) -> None:
    @task
    async def leaves() -> None:
        raise SystemExit(3)

    @workflow
    async def stays(ctx: ExecutionContext[Any]) -> None:
        await leaves()

    failed = await flux.run(stays)
    assert failed.has_failed
    assert "sys.exit(3)" in str(failed.error)


async def test_a_body_that_calls_exit_fails_its_execution_and_nothing_else(flux: Flux) -> None:
    @workflow
    async def leaves(ctx: ExecutionContext[Any]) -> None:
        await greet("x")
        raise SystemExit(3)

    @workflow
    def leaves_from_a_thread(ctx: ExecutionContext[Any]) -> None:
        raise SystemExit("enough")

    for body, said in ((leaves, "sys.exit(3)"), (leaves_from_a_thread, "sys.exit('enough')")):
        failed = await flux.run(body)
        assert failed.has_failed
        assert said in str(failed.error)


async def test_what_concurrent_calls_of_one_task_report_can_be_told_apart(flux: Flux) -> None:
    @task
    async def loads(n: int) -> None:
        progress(n)
        await greet("x")

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> None:
        progress("both")
        await parallel(loads(1), loads(2))

    told: list[Progress] = []
    with flux.observed("both", told.append):
        await flux.run(both, execution_id="both")
    assert told[0].call is None
    said = {heard.value: heard.call for heard in told if heard.value in (1, 2)}
    finished = {heard.call for heard in told if heard.value is None and heard.task == "loads"}
    assert said[1] != said[2]
    assert finished == set(said.values())
