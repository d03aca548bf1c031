"""A workflow called by a workflow: a child execution of its own, known to its parent by the place of the call."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, CallStarted
from flux.domain.execution import Execution, Status
from flux.engine.body import Body
from flux.engine.invoke import recall, replayed
from flux.engine.run import Run
from flux.engine.scope import Site
from flux.errors import ExecutionFailure, StoreError, Suspend


def child_id(parent: str, call: CallId) -> str:
    """The same after every crash, so that a child is begun once; as hard to guess as the parent's own id."""
    return hashlib.blake2b(f"{parent}/{call}".encode(), digest_size=16).hexdigest()


async def begin_child(site: Site, body: Body, input: Json) -> str:
    """Start a child execution, durably, and return its id."""
    run = site.scope.run
    child = child_id(run.id, site.id)
    digest, _ = run.codec.describe(input)
    record = recall(site, body.name, digest)
    if record is not None and record.is_finished:
        return await replayed(site, record, str)
    await _begin(site, body, input, child, digest, is_new=record is None)
    await run.journal.record(CallReturned(at=run.clock.now(), call=site.id, value=run.codec.encode(child, owner="id")))
    return child


async def run_child(site: Site, body: Body, input: Json) -> Execution:
    """Start a child execution, wait until it has ended, and return it as it ended."""
    run = site.scope.run
    child = child_id(run.id, site.id)
    digest, _ = run.codec.describe(input)
    record = recall(site, body.name, digest)
    if record is not None and record.is_finished:
        return await replayed(site, record, Execution)
    try:
        await _begin(site, body, input, child, digest, is_new=record is None)
        await run.wait_for_child(site.id, child)
    except asyncio.CancelledError:
        if run.unwinding:
            raise Suspend from None
        await run.children.cancel(child)
        raise
    ended = await run.children.rest(child)
    owner = f"the end of workflow {body.name!r}"
    value = run.codec.encode(ended, owner=owner)
    await run.journal.record(CallReturned(at=run.clock.now(), call=site.id, value=value))
    return ended


async def _begin(site: Site, body: Body, input: Json, child: str, digest: str, *, is_new: bool) -> None:
    run = site.scope.run
    await run.ready()
    if is_new:
        arguments = run.codec.describe({"execution": child})[1]
        now = run.clock.now()
        run.journal.note(CallStarted(at=now, call=site.id, name=body.name, digest=digest, arguments=arguments))
    try:
        await run.children.begin(body, input, id=child, parent=run.execution)
    except StoreError as exc:  # no business of the workflow's: a later run begins the child
        run.stop(exc)
        raise Suspend from exc


def output_of(run: Run, ended: Execution, output_type: Any) -> Any:
    """What the child returned. Raises the error it failed with, ExecutionFailure when it was cancelled."""
    if ended.output is not None:
        return run.codec.decode(ended.output, output_type)
    if ended.error is not None:
        raise run.codec.decode_error(ended.error)
    why = f": {ended.cancel_reason}" if ended.cancel_reason else ""
    raise ExecutionFailure(f"Workflow {ended.workflow!r} (execution {ended.id}) was {Status.CANCELLED.value}{why}.")
