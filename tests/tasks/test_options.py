"""What the options of tasks promise, alone, together and across crashes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import anyio.from_thread
import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.domain.events import (
    AttemptFailed,
    CallCancelled,
    CallRaised,
    CallReturned,
    CallStarted,
    Event,
    ExecutionCancelled,
    PauseOpened,
)
from flux.engine.approval import Approval
from flux.engine.offers import TaskMetadata
from flux.errors import ApprovalRejected, DefinitionError, NonRetryable, NotStorable, TaskTimeout
from flux.stores.memory import MemoryStore
from flux.tasks import parallel, sleep
from flux.testing import FakeClock, crash_at_every_fact, settle, store_holding

pytestmark = pytest.mark.anyio


def names(history: Sequence[Event]) -> list[str]:
    return [event.name for event in history if isinstance(event, CallStarted)]


def failures(history: Sequence[Event]) -> list[AttemptFailed]:
    return [event for event in history if isinstance(event, AttemptFailed)]


# -- names ----------------------------------------------------------------------------------------------------------------


async def test_a_name_may_use_every_argument_however_it_is_given(flux: Flux) -> None:
    @task.with_options(name="charge {customer} {amount}")
    async def charge(customer: str, amount: int = 5, **more: Any) -> None: ...

    @workflow
    async def charges(ctx: ExecutionContext[Any]) -> None:
        await charge("a")
        await charge(customer="b", amount=7)
        await charge(amount=9, customer="c", note="x")

    done = await flux.run(charges)
    assert names(await flux.history(done.execution_id)) == ["charge a 5", "charge b 7", "charge c 9"]


async def test_a_methods_name_may_use_its_object(flux: Flux) -> None:
    class Shop:
        _name = "corner shop"

        @task.with_options(name="sell at {self._name}")
        async def sell(self) -> None: ...

    @workflow
    async def sells(ctx: ExecutionContext[Any]) -> None:
        await Shop().sell()

    done = await flux.run(sells)
    assert names(await flux.history(done.execution_id)) == ["sell at corner shop"]


@pytest.mark.parametrize("name", ["charge {nobody}", "{}", "{0}", "charge {customer", "{secrets}"])
def test_a_name_that_cannot_be_made_is_refused_where_the_task_is_defined(name: str) -> None:
    with pytest.raises(DefinitionError, match="name of task"):

        @task.with_options(name=name)
        async def charge(customer: str) -> None: ...  # pyright: ignore[reportUnusedFunction] - never made


async def test_a_name_whose_argument_lacks_an_attribute_is_an_error_at_the_call(flux: Flux) -> None:
    @task.with_options(name="{customer.name}")
    async def charge(customer: str) -> None: ...

    @workflow
    async def charges(ctx: ExecutionContext[Any]) -> None:
        await charge("a")

    failed = await flux.run(charges)
    assert isinstance(failed.error, DefinitionError)
    assert "no attribute 'name'" in str(failed.error)


# -- options as such --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": "soon"},
        {"timeout": float("nan")},
        {"retry_max_attempts": -1},
        {"retry_max_attempts": 1.5},
        {"retry_delay": -0.1},
        {"retry_jitter": 1.1},
        {"retry_on": "ValueError"},
        {"no_retry_on": (ValueError, 3)},
        {"fallback": "later"},
        {"cache": 0},
        {"cache": -5},
        {"cache": True, "sensitive": True},
        {"secret_requests": "TOKEN"},
        {"secret_requests": ["TOKEN"]},
        {"metadata": True},
        {"config_requests": ["billing.{nobody}"]},
        {"requires_approval": "yes"},
        {"retries": 3},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_where_the_task_is_defined(options: Any) -> None:
    async def charge(customer: str) -> None: ...

    with pytest.raises(DefinitionError, match="'charge'"):
        task.with_options(**options)(charge)


async def test_an_option_can_be_taken_back_with_none(flux: Flux) -> None:
    @task.with_options(fallback=lambda: "fallback", timeout=3, name="other")
    async def fails() -> str:
        raise ValueError("own")

    bare = fails.with_options(fallback=None, timeout=None, name=None)

    @workflow
    async def both(ctx: ExecutionContext[Any]) -> str:
        return f"{await fails()}, then {type((await parallel(bare(), raise_on_error=False))[0]).__name__}"

    assert (bare.name, bare.spec.timeout) == ("fails", None)
    assert (await flux.run(both)).output == "fallback, then ValueError"


# -- retries --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ConnectionError("try again"), 3),
        (ConnectionRefusedError("never"), 1),
        (ValueError("other"), 1),
        (NonRetryable("declined"), 1),
        (NotStorable("x", "", "y", "z"), 1),
    ],
    ids=repr,
)
async def test_only_errors_for_which_it_may_help_are_tried_again(flux: Flux, error: Exception, attempts: int) -> None:
    made: list[int] = []
    options: Any = {"retry_on": (ConnectionError, NonRetryable, NotStorable), "no_retry_on": ConnectionRefusedError}

    @task.with_options(retry_max_attempts=2, retry_delay=0, **options)
    async def fails() -> None:
        made.append(1)
        raise error

    @workflow
    async def tries(ctx: ExecutionContext[Any]) -> None:
        await fails()

    failed = await flux.run(tries)
    assert (len(made), type(failed.error)) == (attempts, type(error))


async def test_the_delays_grow_to_a_limit_and_the_jitter_that_was_drawn_is_recorded() -> None:
    @task.with_options(retry_max_attempts=4, retry_delay=10, retry_backoff=3, retry_max_delay=60, retry_jitter=0.5)
    async def fails() -> None:
        raise ValueError

    @workflow
    async def tries(ctx: ExecutionContext[Any]) -> None:
        await fails()

    clock = FakeClock()
    async with Flux(store=MemoryStore(), clock=clock) as flux:
        started = await flux.start(tries)
        await clock.advance(minutes=10)
        done = await flux.wait(started.execution_id, timeout=5)
        assert done.has_failed
        history = await flux.history(started.execution_id)
    delays = [event.retry_at - event.at for event in failures(history)]
    assert len(delays) == 4
    assert all(longest / 2 <= delay <= longest for delay, longest in zip(delays, [10, 30, 60, 60], strict=True))
    assert delays != [10, 30, 60, 60]


async def test_a_kill_during_the_back_off_keeps_the_count_and_the_time_of_the_next_attempt() -> None:
    attempts: list[float] = []
    clock = FakeClock()

    @task.with_options(retry_max_attempts=2, retry_delay=100, retry_jitter=1)
    async def fails() -> None:
        attempts.append(clock.now())
        raise ValueError(f"attempt {len(attempts)}")

    @workflow
    async def tries(ctx: ExecutionContext[Any]) -> None:
        await fails()

    async with Flux(store=MemoryStore(), clock=clock) as flux:
        started = await flux.start(tries)
        await settle()
        history = await flux.history(started.execution_id)
    (first,) = failures(history)
    store = await store_holding("killed", [event for event in history if event.at <= first.at][:3])
    async with Flux(store=store, clock=clock, workflows=[tries]) as flux:
        await clock.advance(hours=1)
        failed = await flux.wait("killed", timeout=5)
    assert first.retry_at <= attempts[1] <= first.retry_at + 1  # due executions are looked for every second
    assert len(attempts) == 3
    assert str(failed.error) == "attempt 3"


async def test_what_was_decided_about_the_error_survives_a_crash(flux: Flux) -> None:
    """A class that cannot be made again would look like another one after the crash."""
    attempts: list[int] = []

    class Odd(Exception):
        pass

    @task.with_options(retry_max_attempts=3, retry_delay=0, no_retry_on=Odd, fallback=lambda: "fallback")
    async def fails() -> str:
        attempts.append(1)
        raise Odd

    @workflow
    async def falls(ctx: ExecutionContext[Any]) -> str:
        return await fails()

    await crash_at_every_fact(falls)
    assert (await flux.run(falls)).output == "fallback"
    # once in each run that died before the failure was recorded, never after it
    assert len(attempts) == 4


# -- timeouts -------------------------------------------------------------------------------------------------------------


async def test_the_late_result_of_a_plain_function_is_dropped_and_never_recorded(flux: Flux) -> None:
    release, ended = threading.Event(), threading.Event()
    attempts: list[int] = []

    @task.with_options(timeout=0.05, retry_max_attempts=1, retry_delay=0)
    def slow() -> str:
        attempts.append(1)
        if len(attempts) > 1:
            return "second"
        release.wait(10)
        ended.set()
        return "late"

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        answer = await slow()
        release.set()
        await asyncio.to_thread(ended.wait, 10)
        return answer

    done = await flux.run(calls)
    history = await flux.history(done.execution_id)
    assert done.output == "second"
    assert [event.value for event in history if isinstance(event, CallReturned)] == ['"second"']


async def test_what_a_timed_out_attempt_left_behind_makes_no_calls_and_writes_nothing(flux: Flux) -> None:
    release, tried, ended = threading.Event(), threading.Event(), threading.Event()
    effects: list[str] = []

    @task
    async def effect(name: str) -> None:
        effects.append(name)

    @task.with_options(timeout=0.05, retry_max_attempts=1, retry_delay=0)
    def slow() -> str:
        if tried.is_set():
            return "second"
        tried.set()
        release.wait(10)
        with contextlib.suppress(BaseException):
            anyio.from_thread.run(effect, "late")
        ended.set()
        return "late"

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        answer = await slow()
        release.set()
        await asyncio.to_thread(ended.wait, 10)
        return answer

    done = await flux.run(calls)
    assert (done.output, effects) == ("second", [])
    assert names(await flux.history(done.execution_id)) == ["slow"]


async def test_branches_of_a_failed_attempt_are_stopped_before_the_next_one_begins(flux: Flux) -> None:
    seen: list[str] = []

    @task
    async def hangs(attempt: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(f"{attempt} stopped")

    @task.with_options(metadata=True, retry_max_attempts=1, retry_delay=0)
    async def spawns(metadata: TaskMetadata | None = None) -> str:
        assert metadata is not None
        seen.append(f"{metadata.attempt} began")
        if metadata.attempt == 1:
            spawned.append(asyncio.create_task(hangs(1)))
            await asyncio.sleep(0.01)
            raise ValueError
        return "second"

    spawned: list[asyncio.Task[None]] = []

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        return await spawns()

    done = await flux.run(calls)
    assert done.output == "second"
    assert seen == ["1 began", "1 stopped", "2 began"]
    assert not any(isinstance(event, CallCancelled) for event in await flux.history(done.execution_id))


async def test_a_body_that_swallows_its_timeout_has_timed_out_all_the_same(flux: Flux) -> None:
    @task.with_options(timeout=0.02)
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "too late"

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        return await stubborn()

    assert isinstance((await flux.run(calls)).error, TaskTimeout)


async def test_time_spent_waiting_for_a_person_is_not_the_tasks(flux: Flux) -> None:
    @task.with_options(timeout=0.2)
    async def asks() -> str:
        first, _ = await parallel(pause("who"), sleep(0.3))  # the sleep keeps the run in memory
        return first

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        return await asks()

    started = await flux.start(calls)
    paused = await flux.wait(started.execution_id, timeout=10)
    assert (paused.status, (await flux.resume(paused.execution_id, "me")).output) == (Status.PAUSED, "me")


async def test_the_clock_of_a_task_goes_on_after_a_wait(flux: Flux) -> None:
    @task.with_options(timeout=0.1)
    async def waits_and_hangs() -> None:
        await sleep(0.2)
        await asyncio.Event().wait()

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await waits_and_hangs()

    started = await flux.start(calls)
    done = await flux.wait(started.execution_id, timeout=5)
    assert isinstance(done.error, TaskTimeout)


# -- pauses inside --------------------------------------------------------------------------------------------------------


async def test_a_pause_in_an_attempt_is_no_failure_and_goes_on_in_the_same_attempt(flux: Flux) -> None:
    attempts: list[int] = []

    @task.with_options(retry_max_attempts=3, retry_delay=0, metadata=True)
    async def asks(metadata: TaskMetadata | None = None) -> str:
        assert metadata is not None
        attempts.append(metadata.attempt)
        if metadata.attempt == 1:
            raise ValueError
        return await pause("who")

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        return await asks()

    paused = await flux.run(calls)
    done = await flux.resume(paused.execution_id, "me")
    assert (done.output, attempts) == ("me", [1, 2, 2])
    assert len(failures(await flux.history(done.execution_id))) == 1


async def test_a_fallback_may_ask(flux: Flux) -> None:
    attempts: list[int] = []

    async def ask_somebody() -> str:
        return await pause("who")

    @task.with_options(fallback=ask_somebody)
    async def fails() -> str:
        attempts.append(1)
        raise ValueError

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> str:
        return await fails()

    paused = await flux.run(calls)
    assert (await flux.resume(paused.execution_id, "me")).output == "me"
    assert attempts == [1]


# -- fallback and rollback ------------------------------------------------------------------------------------------------


async def test_a_fallback_that_fails_is_rolled_back_and_tells_what_came_before(flux: Flux) -> None:
    undone: list[str] = []

    def falls(what: str) -> None:
        raise KeyError("fallback") from LookupError("below")

    @task.with_options(fallback=falls, rollback=undone.append)
    async def fails(what: str) -> None:
        raise ValueError("first")

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await fails("it")

    error: BaseException | None = (await flux.run(calls)).error
    chain: list[str] = []
    while error is not None:
        chain.append(repr(error))
        error = error.__cause__
    assert chain == ["KeyError('fallback')", "LookupError('below')", "ValueError('first')"]
    assert undone == ["it"]


async def test_a_rollback_that_fails_hides_nothing(flux: Flux) -> None:
    def undo() -> None:
        raise KeyError("rollback")

    @task.with_options(rollback=undo)
    async def fails() -> None:
        raise ValueError("first")

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await fails()

    error = (await flux.run(calls)).error
    assert repr(error) == "ValueError('first')"
    assert "KeyError: 'rollback'" in error.__notes__[0]  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_fallback_gets_of_what_is_injected_only_what_it_takes(flux: Flux) -> None:
    def plain(x: int) -> str:
        return f"plain {x}"

    @task.with_options(metadata=True, fallback=plain)
    async def bare(x: int, metadata: TaskMetadata | None = None) -> str:
        raise ValueError

    async def with_metadata(x: int, *, metadata: TaskMetadata) -> str:
        return f"attempt {metadata.attempt} of {metadata.task_name}"

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> list[str]:
        return [await bare(1), await bare.with_options(fallback=with_metadata)(1)]

    assert (await flux.run(calls)).output == ["plain 1", "attempt 2 of bare"]


async def test_a_rollback_runs_when_the_call_is_cancelled_and_again_if_a_crash_came_in_between() -> None:
    undone: list[str] = []
    began = asyncio.Event()

    @task.with_options(rollback=undone.append)
    async def hangs(what: str) -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await hangs("it")

    async with Flux(store=MemoryStore(), recover=False) as flux:
        started = await flux.start(calls)
        await began.wait()
        await flux.cancel(started.execution_id)
        done = await flux.wait(started.execution_id, timeout=10)
        assert (done.status, undone) == (Status.CANCELLED, ["it"])
        history = await flux.history(started.execution_id)
    crashed = [event for event in history if not isinstance(event, CallCancelled | ExecutionCancelled)]
    async with Flux(store=await store_holding("crashed", crashed), workflows=[calls], recover=False) as flux:
        await flux.go_on("crashed")
        assert (await flux.wait("crashed", timeout=10)).is_cancelled
    assert undone == ["it", "it"]


async def test_a_rollback_may_call_tasks_although_the_execution_is_being_cancelled(flux: Flux) -> None:
    refunded: list[str] = []
    began = asyncio.Event()

    @task
    async def refund(what: str) -> None:
        refunded.append(what)

    async def undo(what: str) -> None:
        await parallel(refund(what), refund(what))

    @task.with_options(rollback=undo)
    async def hangs(what: str) -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> None:
        await hangs("it")

    started = await flux.start(calls)
    await began.wait()
    await flux.cancel(started.execution_id)
    done = await flux.wait(started.execution_id, timeout=10)
    assert (done.status, refunded) == (Status.CANCELLED, ["it", "it"])


async def test_a_call_that_was_rolled_back_shifts_no_call_of_a_replay() -> None:
    @task
    async def one(n: int) -> int:
        return n

    async def undo() -> None:
        await one(0)

    @task.with_options(rollback=undo)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> list[int]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await hangs()
        return list(await asyncio.gather(one(1), one(2)))

    assert (await crash_at_every_fact(calls)).output == [1, 2]


# -- metadata -------------------------------------------------------------------------------------------------------------


async def test_metadata_names_the_call_the_same_way_in_every_attempt(flux: Flux) -> None:
    seen: list[TaskMetadata] = []

    @task.with_options(metadata=True, retry_max_attempts=1, retry_delay=0, name="pay {who}")
    async def pay(who: str, *, metadata: TaskMetadata | None = None) -> None:
        assert metadata is not None
        seen.append(metadata)
        if metadata.attempt == 1:
            raise ValueError

    @workflow
    async def pays(ctx: ExecutionContext[Any]) -> None:
        await pay("a")
        await pay("a")

    done = await flux.run(pays)
    assert [(each.task_name, each.attempt) for each in seen] == [("pay a", 1), ("pay a", 2)] * 2
    assert len({each.task_id for each in seen}) == 2
    started = [event for event in await flux.history(done.execution_id) if isinstance(event, CallStarted)]
    assert all("metadata" not in str(event.arguments) for event in started)


# -- approval -------------------------------------------------------------------------------------------------------------


async def test_a_task_that_needs_approval_asks_before_anything_runs(flux: Flux) -> None:
    ran: list[str] = []

    @task.with_options(requires_approval=True)
    async def delete(path: str) -> str:
        ran.append(path)
        return f"deleted {path}"

    @workflow
    async def cleans(ctx: ExecutionContext[Any]) -> str:
        return await delete("/tmp")

    asked = await flux.run(cleans)
    (question,) = asked.pauses
    assert (question.name, ran) == ("approval:delete", [])
    assert question.output == {"task": "delete", "arguments": {"path": "/tmp"}}
    done = await flux.resume(asked.execution_id, {"approved": True})
    assert (done.output, ran) == ("deleted /tmp", ["/tmp"])


async def test_a_rejection_passes_by_retry_fallback_and_rollback(flux: Flux) -> None:
    touched: list[str] = []

    @task.with_options(
        requires_approval=True,
        retry_max_attempts=3,
        fallback=lambda: touched.append("fallback"),
        rollback=lambda: touched.append("rollback"),
    )
    async def delete() -> None:
        touched.append("body")

    @workflow
    async def cleans(ctx: ExecutionContext[Any]) -> str:
        try:
            await delete()
        except ApprovalRejected as exc:
            return f"{exc.task}: {exc.reason}"
        return "not reached"

    asked = await flux.run(cleans)
    done = await flux.resume(asked.execution_id, Approval(approved=False, reason="too risky"))
    assert (done.output, touched) == ("delete: too risky", [])


async def test_whether_approval_is_needed_is_decided_once_by_the_arguments(flux: Flux) -> None:
    decided: list[int] = []

    async def is_much(amount: int) -> bool:
        decided.append(amount)
        return amount > 100

    @task.with_options(requires_approval=is_much)
    async def pay(amount: int) -> int:
        return amount

    @workflow
    async def pays(ctx: ExecutionContext[Any]) -> list[int]:
        return [await pay(1), await pay(amount=500)]

    asked = await flux.run(pays)
    done = await flux.resume(asked.execution_id, {"approved": True, "reason": "fine"})
    assert (done.output, decided) == ([1, 500], [1, 500])


async def test_an_approval_survives_a_crash_at_every_fact_and_is_asked_once_for_all_attempts() -> None:
    def is_more_than_nothing(n: int) -> bool:
        return n > 0

    @task.with_options(requires_approval=is_more_than_nothing, retry_max_attempts=1, retry_delay=0, metadata=True)
    async def pay(n: int, metadata: TaskMetadata | None = None) -> int:
        if metadata is not None and metadata.attempt == 1:
            raise ValueError
        return n

    @workflow
    async def pays(ctx: ExecutionContext[Any]) -> list[int]:
        return await pay.map([0, 1])

    done = await crash_at_every_fact(pays, answers={"approval:pay": {"approved": True}})
    assert done.output == [0, 1]
    assert sum(isinstance(event.fact, PauseOpened) for event in done.events) == 1


async def test_a_call_cancelled_while_it_waits_for_approval_has_nothing_to_undo(flux: Flux) -> None:
    undone: list[int] = []

    @task.with_options(requires_approval=True, rollback=lambda: undone.append(1))
    async def delete() -> None: ...

    @workflow
    async def cleans(ctx: ExecutionContext[Any]) -> None:
        await delete()

    asked = await flux.run(cleans)
    await flux.cancel(asked.execution_id)
    assert (await flux.wait(asked.execution_id, timeout=10)).is_cancelled
    assert undone == []


async def test_a_predicate_that_fails_fails_the_task(flux: Flux) -> None:
    def is_needed() -> bool:
        return 1 // 0 > 1

    @task.with_options(requires_approval=is_needed)
    async def delete() -> None: ...

    @workflow
    async def cleans(ctx: ExecutionContext[Any]) -> None:
        await delete()

    failed = await flux.run(cleans)
    assert isinstance(failed.error, ZeroDivisionError)
    assert sum(isinstance(event, CallRaised) for event in await flux.history(failed.execution_id)) == 2


# -- all of it ------------------------------------------------------------------------------------------------------------


async def test_options_together_end_the_same_after_a_crash_at_every_fact() -> None:
    @task
    async def inner(n: int) -> int:
        return n

    def undo(n: int) -> None: ...

    async def instead(n: int) -> int:
        return -await inner(n)

    @task.with_options(
        name="work {n}", retry_max_attempts=2, retry_delay=1, timeout=5, metadata=True, fallback=instead, rollback=undo
    )
    async def work(n: int, metadata: TaskMetadata | None = None) -> int:
        assert metadata is not None
        found = await inner(n)
        if metadata.attempt <= n:
            raise ValueError(f"attempt {metadata.attempt} of {n}")
        return found * 10 + metadata.attempt

    @workflow
    async def works(ctx: ExecutionContext[Any]) -> list[int]:
        return await parallel(*(work(n) for n in range(4)))

    assert (await crash_at_every_fact(works)).output == [1, 12, 23, -3]
