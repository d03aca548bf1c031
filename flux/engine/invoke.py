"""The life of one task call: recall it, or make attempts until one ends it, and write down how."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.to_thread

from flux.domain.calls import NO_RETRY, Json, Outcome, Raised, RetryPolicy, Returned
from flux.domain.events import AttemptFailed, CallCancelled, CallRaised, CallReturned, CallStarted
from flux.engine.journal import Record
from flux.engine.run import Run, is_suspension
from flux.engine.scope import Site, entered
from flux.errors import NonDeterminismError, NotStorable, Suspend, TaskTimeout

ROLLBACK_WITHIN = 10.0  # seconds that the rollback of a cancelled call may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A task, as the engine sees it. `timeout` is in seconds per attempt, None for no limit."""

    name: str
    func: Callable[..., Any]
    parameters: tuple[str, ...]
    output_type: Any = Any
    retry: RetryPolicy = NO_RETRY
    timeout: float | None = None
    fallback: Callable[..., Any] | None = None
    rollback: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    spec: Spec
    site: Site
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def run(self) -> Run:
        return self.site.scope.run

    @property
    def owner(self) -> str:
        return f"task {self.name!r}"


async def invoke(call: Call) -> Any:
    """What the call returned or raised, now or before."""
    digest, arguments = call.run.codec.describe(bound(call))
    record = recall(call.site, call.name, digest, arguments)
    if record is not None and record.is_finished:
        return await replayed(call.site, record, call.spec.output_type)
    return await _live(call, record, digest, arguments)


def recall(site: Site, name: str, digest: str = "", arguments: Json | None = None) -> Record | None:
    """What the history holds of this call. A call that does not match ends the execution: NonDeterminismError."""
    run = site.scope.run
    try:
        return run.journal.recall(site, name, digest, arguments)
    except NonDeterminismError as exc:
        run.fail(exc)
        raise


async def replayed(site: Site, record: Record, output_type: Any) -> Any:
    """The recorded outcome, when it is its turn."""
    run = site.scope.run
    if not (run.journal.alone and run.journal.order.is_next(site.id)):
        await run.journal.order.turn(site.id)
    if record.outcome is None:
        await run.wait_to_be_cancelled()
    return delivered(run, record.outcome, output_type)


def delivered(run: Run, outcome: Outcome | None, output_type: Any) -> Any:
    """The recorded form is what the workflow sees, live as well: so a replay cannot differ."""
    match outcome:
        case Returned(value):
            return run.codec.decode(value, output_type)
        case Raised(error):
            raise run.codec.decode_error(error)
        case None:
            raise Suspend


async def _live(call: Call, record: Record | None, digest: str, arguments: Json) -> Any:
    run = call.run
    if run.execution.suspend_requested:
        await run.wait_to_be_suspended()
    if record is None:
        run.check_going()
        run.journal.note(
            CallStarted(at=run.clock.now(), call=call.site.id, name=call.name, digest=digest, arguments=arguments)
        )
    try:
        run.check_going()
        outcome = await _attempts(call, record)
    except asyncio.CancelledError:
        await _cancelled(call)
        raise
    await run.journal.record(_fact(call, outcome))
    run.tell(call.name, None)
    return delivered(run, outcome, call.spec.output_type)


def _fact(call: Call, outcome: Outcome) -> CallReturned | CallRaised:
    at = call.run.clock.now()
    if isinstance(outcome, Returned):
        return CallReturned(at=at, call=call.site.id, value=outcome.value)
    return CallRaised(at=at, call=call.site.id, error=outcome.error)


async def _cancelled(call: Call) -> None:
    """The body around the call, or somebody from outside, cancelled it. A run that is only unwound records nothing."""
    run = call.run
    if run.unwinding:
        raise Suspend
    if call.spec.rollback is not None:
        try:
            await asyncio.wait_for(asyncio.shield(_called(call, call.spec.rollback)), ROLLBACK_WITHIN)
        except Exception as exc:  # noqa: BLE001 - a rollback that fails must not hide the cancellation
            run.report(call.name, exc)
    run.journal.note(CallCancelled(at=run.clock.now(), call=call.site.id))


async def _attempts(call: Call, record: Record | None) -> Outcome:
    """Attempts until one succeeds or the policy gives up; the count goes on from what another process has recorded."""
    run, retry = call.run, call.spec.retry
    failed = record.attempts if record is not None else 0
    error: Exception | None = None
    if record is not None and record.error is not None:
        error = as_exception(run.codec.decode_error(record.error))
        await run.wait_until(call.site.id, record.retry_at)
    while error is None or retry.delay_after(failed) is not None:
        try:
            return await _attempt(call, failed + 1)
        except (NonDeterminismError, NotStorable) as exc:
            if run.mismatch is not None:
                raise
            return Raised(run.codec.encode_error(exc))  # the value stays what it is: trying again cannot help
        except Exception as exc:  # noqa: BLE001 - whatever the user's code raises is the task's outcome
            error = exc
        failed += 1
        await _note_failure(call, failed, error)
    return await _given_up(call, failed, error)


async def _note_failure(call: Call, attempt: int, error: Exception) -> None:
    """Make the failed attempt durable, where anything comes after it, and wait for the time of the next one."""
    run = call.run
    delay = call.spec.retry.delay_after(attempt)
    if delay is None and call.spec.fallback is None and call.spec.rollback is None:
        return
    now = run.clock.now()
    retry_at = now + (delay or 0.0)
    failure = run.codec.encode_error(error)
    await run.journal.record(
        AttemptFailed(at=now, call=call.site.id, attempt=attempt, error=failure, retry_at=retry_at)
    )
    if delay is not None:
        await run.wait_until(call.site.id, retry_at)


async def _attempt(call: Call, number: int) -> Outcome:
    """One run of the body, in a scope of its own."""
    spec, run = call.spec, call.run
    scope = call.site.scope.inside(call.site.id, number, call.name)
    with entered(scope):
        try:
            value = await _within(spec.timeout, _called(call, spec.func), call.name)
        except BaseException as exc:
            if run.unwinding or is_suspension(exc):
                raise Suspend from None
            if isinstance(exc, SystemExit):  # a task cannot end the process of all the others
                raise RuntimeError(f"{call.owner} called sys.exit({exc.code!r})") from exc
            raise
    run.journal.check_end(scope)
    return Returned(run.codec.encode(value, owner=call.owner, annotation=spec.output_type))


async def _within(seconds: float | None, work: Any, name: str) -> Any:
    if seconds is None:
        return await work
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await work
    except TimeoutError as exc:
        if limit.expired():
            raise TaskTimeout(name, seconds) from exc
        raise


async def _given_up(call: Call, failed: int, error: Exception) -> Outcome:
    """The last attempt has failed: the fallback's result instead, or the error, after the rollback."""
    spec, codec = call.spec, call.run.codec
    if spec.fallback is not None:
        try:
            value = await _beside(call, failed + 1, spec.fallback)
            return Returned(codec.encode(value, owner=f"the fallback of {call.owner}", annotation=spec.output_type))
        except Exception as exc:  # noqa: BLE001 - the fallback's failure is the task's, with the first error as its cause
            exc.__cause__ = exc.__cause__ or error
            error = exc
    if spec.rollback is not None:
        try:
            await _beside(call, failed + 2, spec.rollback)
        except Exception as exc:  # noqa: BLE001 - the reason for the rollback matters more than the rollback's own failure
            call.run.report(call.name, exc)
            error.add_note(f"The rollback failed, too: {type(exc).__name__}: {exc}")
    return Raised(codec.encode_error(error))


async def _beside(call: Call, number: int, func: Callable[..., Any]) -> Any:
    """A fallback or a rollback, in the scope that an attempt of this number would have."""
    with entered(call.site.scope.inside(call.site.id, number, call.name)):
        try:
            return await _called(call, func)
        except BaseException as exc:
            if call.run.unwinding or is_suspension(exc):
                raise Suspend from None
            raise


async def _called(call: Call, func: Callable[..., Any]) -> Any:
    """Call user code with copies of the arguments: what it does to them stays inside. A plain function runs in a thread."""
    isolate = call.run.codec.isolate
    args, kwargs = isolate(call.args), isolate(call.kwargs)
    if inspect.iscoroutinefunction(func):
        return await func(*args, **kwargs)
    result = await anyio.to_thread.run_sync(partial(func, *args, **kwargs), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


def bound(call: Call) -> Mapping[str, Any]:
    """The arguments by parameter name, positional ones beyond the named under their numbers."""
    names = call.spec.parameters
    positional = {names[i] if i < len(names) else f"*{i}": value for i, value in enumerate(call.args)}
    return {**positional, **call.kwargs} if call.kwargs else positional


def as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))
