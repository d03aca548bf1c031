"""The attempts of one call: until one succeeds or the policy gives up; then the fallback and the rollback."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import anyio.to_thread

from flux.domain.calls import Outcome
from flux.domain.events import AttemptFailed
from flux.engine.caching import remember
from flux.engine.fence import Fence, check_open
from flux.engine.journal import Record
from flux.engine.offers import accepted
from flux.engine.outcomes import failure, raised, returned
from flux.engine.run import is_suspension
from flux.engine.scope import entered
from flux.engine.spec import Call
from flux.errors import DefinitionError, NonDeterminismError, NonRetryable, NotStorable, Suspend

ROLLBACK_WITHIN = 10.0  # seconds that the rollback of a cancelled call may take
UNDOING = 1_000_000  # the number of the attempt, as it were, in whose scope that rollback makes its calls

_NEVER_AGAIN = (NonRetryable, NotStorable, DefinitionError)


async def attempts(call: Call, record: Record | None) -> Outcome:
    """How the call ends; the count goes on from what another process has recorded."""
    run, failed = call.run, 0
    if record is not None and record.error is not None:
        failed = record.attempts
        if record.gave_up or failed > call.spec.retry.max_attempts:
            return await _given_up(call, failed, as_exception(run.codec.decode_error(record.error)))
        await run.wait_until(call.site.id, record.retry_at)
    while True:
        failed += 1
        try:
            with _traced(call, failed):
                return await _attempt(call, failed)
        except NonDeterminismError as exc:
            if run.mismatch is not None:
                raise
            return raised(call, exc)
        except Exception as exc:  # noqa: BLE001 - whatever the user's code raises is the task's outcome
            error = exc
        if not await _goes_on(call, failed, error):
            return await _given_up(call, failed, error)


def _traced(call: Call, number: int) -> AbstractContextManager[object]:
    return call.run.trail.attempt(call.spec.name, call.name, call.site.id, number, partial(failure, call))


async def _attempt(call: Call, number: int) -> Outcome:
    """One run of the body, in a scope of its own, behind a fence of its own."""
    spec, run = call.spec, call.run
    fence = Fence(call.name, seconds=spec.timeout, is_cached=spec.cache is not None)
    scope = call.site.scope.inside(call.site.id, number, call.name, fence)
    with entered(scope):
        try:
            value = await fence.within(_called(call, spec.func, number))
        except BaseException as exc:  # a signal to unwind may come wrapped, or as another error
            if run.unwinding or is_suspension(exc):
                raise Suspend from None
            await fence.close()
            if isinstance(exc, SystemExit):  # a task cannot end the process of all the others
                raise RuntimeError(f"{call.owner} called sys.exit({exc.code!r})") from exc
            raise
    run.journal.check_end(scope)
    outcome = await returned(call, value)
    if spec.cache is not None:
        await remember(call, outcome)
    return outcome


async def _goes_on(call: Call, attempt: int, error: Exception) -> bool:
    """Make the failed attempt durable, where anything comes after it, and wait for the time of the next one, if there is one."""
    spec, run = call.spec, call.run
    delay = spec.retry.delay_after(attempt, luck=random.random()) if _may_help(call, error) else None
    if delay is None and spec.fallback is None and spec.rollback is None:
        return False
    check_open(call.site.scope.fences)
    now = run.clock.now()
    retry_at = now + (delay or 0.0)
    failed = AttemptFailed(
        at=now,
        call=call.site.id,
        attempt=attempt,
        error=failure(call, error),
        retry_at=retry_at,
        final=delay is None,
    )
    await run.journal.record(failed)
    if delay is None:
        return False
    await run.wait_until(call.site.id, retry_at)
    return True


def _may_help(call: Call, error: Exception) -> bool:
    """Whether trying again makes sense after such an error."""
    spec = call.spec
    return isinstance(error, spec.retry_on) and not isinstance(error, (*_NEVER_AGAIN, *spec.no_retry_on))


async def _given_up(call: Call, failed: int, error: Exception) -> Outcome:
    """The last attempt has failed: the fallback's result instead, or the error, after the rollback."""
    spec = call.spec
    if spec.fallback is not None:
        try:
            return await returned(call, await _beside(call, failed + 1, spec.fallback), by="the fallback of ")
        except Exception as exc:  # noqa: BLE001 - the fallback's failure is the task's, with the first error as its cause
            _caused_by(exc, error)
            error = exc
    if spec.rollback is not None:
        try:
            await _beside(call, failed + 2, spec.rollback)
        except Exception as exc:  # noqa: BLE001 - the reason for the rollback matters more than the rollback's own failure
            call.run.report(call.name, exc)
            error.add_note(f"The rollback failed, too: {type(exc).__name__}: {exc}")
    return raised(call, error)


def _caused_by(error: BaseException, cause: BaseException) -> None:
    """Put `cause` at the end of the error's own causes, unless it stands there already."""
    seen = [error]
    while (before := seen[-1].__cause__ or seen[-1].__context__) is not None and before not in seen:
        seen.append(before)
    if cause not in seen:
        seen[-1].__cause__ = cause


async def _beside(call: Call, number: int, func: Callable[..., Any]) -> Any:
    """A fallback or a rollback, in the scope that an attempt of this number would have."""
    with entered(call.site.scope.inside(call.site.id, number, call.name)):
        try:
            return await _called(call, func, number)
        except BaseException as exc:  # a signal to unwind may come wrapped, or as another error
            if call.run.unwinding or is_suspension(exc):
                raise Suspend from None
            raise


async def roll_back_cancelled(call: Call) -> None:
    """The call was cancelled while it was under way: undo what it may have done, within bounds."""
    if call.spec.rollback is None or call.run.unwinding:
        return
    fence = Fence(call.name, is_undoing=True)
    scope = call.site.scope.inside(call.site.id, UNDOING, call.name, fence)
    try:
        with entered(scope):
            async with asyncio.timeout(ROLLBACK_WITHIN):
                await asyncio.shield(_called(call, call.spec.rollback, 1))
    except Exception as exc:  # noqa: BLE001 - a rollback that fails must not hide the cancellation
        call.run.report(call.name, exc)


async def _called(call: Call, func: Callable[..., Any], number: int) -> Any:
    """Call user code with copies of the arguments: what it does to them stays inside. A plain function runs in a thread."""
    isolate = call.run.codec.isolate
    args, kwargs = isolate(call.args), isolate(call.kwargs)
    if call.offers or call.spec.metadata:
        kwargs = {**kwargs, **accepted(call, func, number)}
    if inspect.iscoroutinefunction(func):
        return await func(*args, **kwargs)
    result = await anyio.to_thread.run_sync(partial(func, *args, **kwargs), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


CALLED = _called.__code__
"""The code that calls a task's function: by it the watchdog knows whose frames are on the stack."""


def as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))
