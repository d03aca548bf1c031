"""The life of one task call: recall it, or see what it needs and make attempts until one ends it, and write down how."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from flux.domain.calls import Json, Outcome, Returned
from flux.domain.events import CallCancelled, CallRaised, CallReturned, CallStarted
from flux.engine import approval
from flux.engine.attempts import attempts, roll_back_cancelled
from flux.engine.caching import remembered
from flux.engine.fence import check_open
from flux.engine.journal import Record
from flux.engine.offers import with_offers
from flux.engine.outcomes import delivered, handed_over, raised
from flux.engine.scope import Scope, Site
from flux.engine.spec import Call, Spec
from flux.engine.tags import REDACTED_JSON
from flux.errors import NonDeterminismError, Suspend


async def invoke(call: Call) -> Any:
    """What the call returned or raised, now or before."""
    digest, arguments = _described(call)
    record = recall(call.site, call.name, digest, arguments)
    if record is not None and record.is_finished:
        return await handed_over(call, await recorded(call.site, record))
    return await _live(call, record, digest, arguments)


def _described(call: Call) -> tuple[str, Json]:
    if call.spec.sensitive:
        return "", REDACTED_JSON  # no digest either: of few possible values one could try them all
    return call.run.codec.describe(call.bound)


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
    return delivered(site.scope.run, await recorded(site, record), output_type)


async def recorded(site: Site, record: Record) -> Outcome | None:
    run = site.scope.run
    if not (run.journal.alone and run.journal.order.is_next(site.id)):
        await run.journal.order.turn(site.id)
    if record.outcome is None:
        await run.wait_to_be_cancelled()
    return record.outcome


async def _live(call: Call, record: Record | None, digest: str, arguments: Json) -> Any:
    run, scope = call.run, call.site.scope
    if run.execution.suspend_requested:
        await run.wait_to_be_suspended()
    check_open(scope.fences)
    if record is None:
        run.check_going()
        run.journal.note(
            CallStarted(at=run.clock.now(), call=call.site.id, name=call.name, digest=digest, arguments=arguments)
        )
    try:
        outcome = await _made(call, record, arguments)
        check_open(scope.fences)
    except asyncio.CancelledError:
        _note_cancelled(call)
        raise
    await run.journal.record(_fact(call, outcome))
    run.tell(call.name, None, call=call.site.id)
    return await handed_over(call, outcome)


async def _made(call: Call, record: Record | None, arguments: Json) -> Outcome:
    """How the call ends: what has to be so before anything runs, then the attempts."""
    spec, run = call.spec, call.run
    try:
        if spec.approval:
            await _approved(call, arguments)
        call = await with_offers(call)
        known = await remembered(call) if spec.cache is not None else None
    except Exception as exc:  # whatever the user's code raises is the task's outcome
        if run.mismatch is not None:
            raise
        return raised(call, exc)
    if known is not None:
        return known
    try:
        run.check_going()
        return await attempts(call, record)
    except asyncio.CancelledError:
        await roll_back_cancelled(call)
        raise


def _fact(call: Call, outcome: Outcome) -> CallReturned | CallRaised:
    at = call.run.clock.now()
    if isinstance(outcome, Returned):
        return CallReturned(at=at, call=call.site.id, value=outcome.value)
    return CallRaised(at=at, call=call.site.id, error=outcome.error)


def _note_cancelled(call: Call) -> None:
    """The body around the call, or somebody from outside, cancelled it. A run that is only unwound records nothing, nor
    does what an attempt has left behind."""
    run = call.run
    if run.unwinding:
        raise Suspend
    if not any(fence.is_over for fence in call.site.scope.fences):
        run.journal.note(CallCancelled(at=run.clock.now(), call=call.site.id))


async def _approved(call: Call, arguments: Json) -> None:
    """Where approval is needed, wait for it. Raises ApprovalRejected. Whether it is needed is recorded like any call."""
    scope = call.site.scope.inside(call.site.id, 0, call.name)
    if callable(call.spec.approval) and not await invoke(_question_whether(call, scope, call.spec.approval)):
        return
    site = _site(call, scope)
    record = recall(site, approval.name_of(call))
    if record is not None and record.is_finished:
        approval.check(call, await replayed(site, record, Any))
        return
    await approval.ask(call, site, record, arguments)


def _question_whether(call: Call, scope: Scope, predicate: Callable[..., Any]) -> Call:
    spec = Spec(
        name=f"needs approval: {call.name}",
        func=predicate,
        parameters=tuple(inspect.signature(predicate).parameters),
        sensitive=call.spec.sensitive,
    )
    return Call(spec, _site(call, scope), spec.name, call.args, call.kwargs)


def _site(call: Call, scope: Scope) -> Site:
    """The next call of the scope, made where `call` is made."""
    return Site(scope, scope.name_call().id, call.site.file, call.site.line)
