"""The verbs: start, answer, resume, suspend, cancel, retry, fork, get, list, wait. Each works for any execution in the
store, whichever process runs it."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from flux.domain.calls import CallId, Json, Pause
from flux.domain.events import (
    CancelRequested,
    Event,
    ExecutionResumed,
    ExecutionStarted,
    PauseAnswered,
    SuspendRequested,
)
from flux.domain.execution import Execution, Status, apply, fold
from flux.domain.history import forked, to_be_retried
from flux.engine.admission import Admission
from flux.engine.body import Body
from flux.engine.ports import Listing
from flux.engine.runs import Runs, World, head_of
from flux.engine.tags import KEPT, tag_of, untagged
from flux.errors import (
    AlreadyQueued,
    ExecutionBusy,
    ExecutionError,
    ExecutionExists,
    ExecutionFinished,
    ExecutionNotFound,
    FluxError,
    NotFailed,
    NotPaused,
    NotReadable,
    PauseNotFound,
    QueueFull,
    StoreError,
    StreamMoved,
)

log = logging.getLogger("flux")

POLL = 0.2  # seconds between two looks at an execution that another process runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How an execution begins. `key` marks executions that a repeated request may join: there is to be no other that was begun at or
    after `unique_since`. `priority` is the one in its queue, None for what the workflow says."""

    workflow: str
    input: Json
    id: str | None = None
    principal: str | None = None
    parent: str | None = None
    key: str | None = None
    unique_since: float | None = None
    priority: int | None = None


class Engine:
    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store
        self.runs = Runs(world, children=self, rested=self._settle)
        self.admission = Admission(world, self.runs, self._state)
        self.stirred = asyncio.Event()  # somebody has left an execution for whoever is free

    async def __aenter__(self) -> Engine:
        await self.runs.__aenter__()
        self.store.listen(self._heard)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runs.__aexit__(*exc)

    def _heard(self, id: str, is_free: bool) -> None:
        self.runs.changed_elsewhere(id)
        if is_free:
            self.stirred.set()

    # -- begin ------------------------------------------------------------------------------------------------------

    async def start(self, start: Start) -> Execution:
        """Begin an execution: durable on return, and running or in its queue. When the queue holds one that stands for the same
        already, that is returned. Raises ExecutionExists, KeyTaken, WorkflowNotFound."""
        started = ExecutionStarted(
            at=self._now(),
            workflow=start.workflow,
            input=start.input,
            principal=start.principal,
            parent=start.parent,
            trace=self.world.tracing.current(),
        )
        id = start.id or new_id()
        return await self._create(
            id, [started], key=start.key, unique_since=start.unique_since, priority=start.priority
        )

    async def fork(self, id: str, *, at: int | None = None, as_id: str | None = None) -> Execution:
        """Begin a new execution from the first `at` facts of another's history, by default from all but its end.

        Raises ValueError when there is no such fact."""
        history = forked(id, await self.store.load(id), at=at, now=self._now())
        return await self._create(as_id or new_id(), history)

    async def _create(
        self,
        id: str,
        history: list[Event],
        *,
        key: str | None = None,
        unique_since: float | None = None,
        priority: int | None = None,
    ) -> Execution:
        execution = fold(id, history)
        assert execution is not None
        body = self.world.workflows.get(execution.workflow)
        place = await self.admission.place(execution, priority)
        owner = self.world.owner if place is None and self._has_room_for(body.name) else None
        try:
            lease = await self.store.create(
                id,
                history,
                head=head_of(execution),
                owner=owner,
                ttl=self.world.ttl,
                key=key,
                unique_since=unique_since,
                place=place,
            )
        except AlreadyQueued as exc:
            return await self.get(exc.id)
        if lease is not None:
            self.runs.begin(body, lease, history)
        elif place is not None:
            await self.admission.begin(execution)
        else:
            self.stirred.set()  # it is for whoever is free first, which may be we again
        return execution

    def _has_room_for(self, workflow: str) -> bool:
        return self.world.can_run(workflow) and self.runs.room > 0

    # -- look -------------------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Execution:
        """The execution's state, with the questions of the children it waits for. Raises ExecutionNotFound."""
        execution = self.runs.execution(id)
        if execution is None:
            execution, _ = await self._look(id)
        return await self._shown(execution)

    async def _shown(self, execution: Execution) -> Execution:
        return await self._with_children(await self._with_output(execution))

    async def wait(
        self, id: str, *, timeout: float | None = None, until: Callable[[Execution], bool] | None = None
    ) -> Execution:
        """The execution once it is at rest; as it is then, when `timeout` seconds pass first; or once it is as `until` says, which is
        asked whenever the execution has asked something, and now and then while another process runs it."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        execution: Execution | None = None
        while True:
            question = None if until is None else self.runs.next_question(id)
            execution = await self.get(id) if execution is None else await self._shown(execution)
            left = None if deadline is None else deadline - loop.time()
            if execution.status.is_at_rest or (left is not None and left <= 0):
                return execution
            if until is not None and until(execution):
                return execution
            patience = left if id in self.runs else POLL if left is None else min(POLL, left)
            execution = await self.runs.wait(id, patience, question)

    async def find(
        self,
        *,
        workflow: str | None = None,
        status: Collection[Status] | None = None,
        principal: str | None = None,
        parent: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Listing]:
        return await self.store.find(
            workflow=workflow, status=status, principal=principal, parent=parent, before=before, limit=limit
        )

    # -- steer ------------------------------------------------------------------------------------------------------

    async def answer(self, id: str, answer: Callable[[Pause], Json], *, pause: str | None = None) -> Execution:
        """Answer an open pause: durable on return, and the execution goes on. Of several answers exactly one is taken.

        `answer` makes the answer for the pause that is found, and raises if it does not fit. Raises NotPaused,
        PauseNotFound, ExecutionFinished, ExecutionNotFound."""
        while True:
            execution, seen = await self._look(id)
            asked = _asked(await self._with_children(execution), pause)
            if execution.pause(asked.id) is None:
                child, _, childs_own = asked.id.partition("/")
                await self.answer(child, answer, pause=childs_own)
                return await self.get(id)
            event = PauseAnswered(at=self._now(), call=asked.id, answer=answer(asked))
            pause = asked.id  # somebody else may answer it meanwhile: then the next question is not ours to answer
            if await self._post(execution, event, seen=seen):
                return await self._go_on(id)

    async def resume(self, id: str) -> Execution:
        """Let a suspended, sleeping or interrupted execution go on now. A finished one stays as it is.

        Raises PauseNotFound while an answer is missing, ExecutionBusy when another process runs it."""
        while True:
            execution, seen = await self._look(id)
            if execution.status.is_final or id in self.runs:
                return execution
            if execution.status is Status.RUNNING:
                if self._has_room_for(execution.workflow):
                    with suppress(QueueFull):  # then it waits for its turn
                        await self.runs.take_up(id)
                return execution
            if execution.status is Status.PAUSED:
                raise PauseNotFound(id, None, _names(execution))
            if await self._post(execution, ExecutionResumed(at=self._now(), reason="asked"), seen=seen):
                for child in await self._living_children(id, Status.SUSPENDED):
                    await self.resume(child)
                return await self._go_on(id)

    async def retry(self, id: str) -> Execution:
        """Let a failed execution go on from its failure: the calls that failed are made again, finished work stays.

        Raises NotFailed."""
        while True:
            execution, seen = await self._look(id)
            if execution.status is not Status.FAILED:
                raise NotFailed(id, execution.status.value)
            forget = to_be_retried(await self.store.load(id))
            event = ExecutionResumed(at=self._now(), reason="retry", forget=forget)
            if await self._post(execution, event, seen=seen):
                return await self._go_on(id)

    async def cancel(self, id: str, *, reason: str | None = None) -> Execution:
        """Ask the execution to end as cancelled, wherever it runs. A finished one stays as it is."""
        while True:
            execution, seen = await self._look(id)
            if execution.status.is_final or execution.cancel_requested:
                return execution
            if await self._post(execution, CancelRequested(at=self._now(), reason=reason), seen=seen):
                for child in await self._living_children(id):
                    await self.cancel(child, reason=reason)
                return await self._go_on(id)

    async def suspend(self, id: str) -> Execution:
        """Ask the execution to stop at its next call, until somebody resumes it. Raises ExecutionFinished."""
        while True:
            execution, seen = await self._look(id)
            if execution.status.is_final:
                raise ExecutionFinished(id, execution.status.value)
            if execution.status is Status.SUSPENDED or execution.suspend_requested:
                return execution
            if await self._post(execution, SuspendRequested(at=self._now()), seen=seen):
                for child in await self._living_children(id):
                    await self.suspend(child)
                return await self._go_on(id)

    # -- go on ------------------------------------------------------------------------------------------------------

    async def take_up(self, listing: Listing) -> bool:
        """Go on with an execution that is due: its owner died, its timer has rung, or nobody has begun it. Returns whether it
        goes on here."""
        if listing.id in self.runs or not self._has_room_for(listing.workflow):
            return False
        try:
            if listing.status is Status.RUNNING:
                await self.runs.take_up(listing.id)
            else:
                await self._wake(listing.id)
        except ExecutionBusy:
            pass  # another process was quicker
        except ExecutionError as exc:
            log.warning("cannot go on with execution %s: %s", listing.id, exc)
        return listing.id in self.runs

    async def _wake(self, id: str) -> None:
        execution, seen = await self._look(id)
        due = execution.wake_at is not None and execution.wake_at <= self._now()
        posted = due and await self._post(execution, ExecutionResumed(at=self._now(), reason="timer"), seen=seen)
        if posted and self._has_room_for(execution.workflow):
            await self.runs.take_up(id)

    async def wake_family(self, id: str) -> None:
        """Ring the timers of one execution and of its children, where they are due."""
        for child in await self._living_children(id):
            await self.wake_family(child)
        execution, _ = await self._look(id)
        if self._has_room_for(execution.workflow):
            with suppress(ExecutionBusy):  # another process was quicker
                await self._wake(id)

    async def _go_on(self, id: str) -> Execution:
        """After a fact from outside: tell the run of this process, or begin one, unless another process has it."""
        if not self.runs.refresh(id):
            execution, _ = await self._look(id)
            if execution.status is Status.RUNNING and self._has_room_for(execution.workflow):
                with suppress(ExecutionBusy):  # its owner will see the fact
                    await self.runs.take_up(id)
            elif execution.status is Status.RUNNING and execution.workflow not in self.world.workflows:
                log.warning(
                    "execution %s goes on in a process that serves the workflow %r: this one does not know it",
                    id,
                    execution.workflow,
                )
        return await self.get(id)

    # -- children and parents ---------------------------------------------------------------------------------------

    async def begin(self, body: Body, input: Json, *, id: str, parent: Execution) -> None:
        """Start a child; when it exists already, see to it that it goes on."""
        self.world.workflows.add(body)
        start = Start(workflow=body.name, input=input, id=id, parent=parent.id, principal=parent.principal)
        try:
            await self.start(start)
        except ExecutionExists:
            await self._go_on(id)

    async def rest(self, id: str) -> Execution:
        while True:
            try:
                return await self.wait(id)
            except ExecutionNotFound:
                raise
            except (
                FluxError
            ) as exc:  # its run here was stopped, or the database does not answer: another run will go on
                log.info("execution %s is awaited, and looked for again: %s", id, exc)
                await asyncio.sleep(POLL)

    async def unrest(self, execution: Execution) -> None:
        while (await self.get(execution.id)).status is execution.status:
            await self.runs.wait(execution.id, POLL)

    def named(self, name: str) -> Body:
        return self.world.workflows.get(name)

    async def _with_children(self, execution: Execution) -> Execution:
        """A parent as people see it: with its children's questions, and, when parked, running while one of them runs."""
        children = [
            child for id in await self._awaited_children(execution) if (child := await self._find(id)) is not None
        ]
        pauses = [replace(p, id=CallId(f"{child.id}/{p.id}")) for child in children for p in child.pauses]
        status = execution.status
        if any(child.status is Status.RUNNING or child.status.is_final for child in children):
            status = Status.RUNNING
        elif pauses and status is Status.SLEEPING:
            status = Status.PAUSED
        return replace(execution, status=status, pauses=(*execution.pauses, *pauses)) if children else execution

    async def _find(self, id: str) -> Execution | None:
        """A child's state; None for a transient one that went with its process."""
        try:
            return await self.get(id)
        except ExecutionNotFound:
            return None

    async def _awaited_children(self, execution: Execution) -> Sequence[str]:
        if execution.status is not Status.RUNNING:
            return execution.children
        if execution.id in self.runs:
            return self.runs.awaited_children(execution.id)
        return await self._living_children(execution.id)

    async def _living_children(self, id: str, *status: Status) -> list[str]:
        wanted = status or [each for each in Status if not each.is_final]
        return [child.id for child in await self.store.find(parent=id, status=wanted, limit=100_000)]

    async def _settle(self, execution: Execution) -> None:
        """After a run has come to rest: somebody may have waited for that."""
        await self._settle_family(execution)
        await self.admission.next(execution)
        if self.world.concurrency is not None:
            self.stirred.set()  # there is room for another

    async def _settle_family(self, execution: Execution) -> None:
        """Parent and child each look at the other after their own last write: so neither sleeps through the other's end."""
        if execution.status.is_final and execution.parent is not None:
            await self.wake_parent(execution.parent)
        elif execution.children and not execution.status.is_final:
            await self.wake_parent(execution.id)

    async def wake_parent(self, id: str) -> None:
        """Let a parked execution go on when one of the children it waits for has ended."""
        try:
            while not self.runs.closing:
                execution, seen = await self._look(id)
                children = [await self._find(child) for child in execution.children]
                ended = any(child is None or child.status.is_final for child in children)
                if not ended or execution.status not in (Status.PAUSED, Status.SLEEPING):
                    return
                if await self._post(execution, ExecutionResumed(at=self._now(), reason="child"), seen=seen):
                    await self._go_on(id)
                    return
        except (ExecutionError, StoreError) as exc:
            log.warning("execution %s could not be woken for its child: %s", id, exc)

    async def _with_output(self, execution: Execution) -> Execution:
        """With the output itself, where the workflow keeps it elsewhere. Raises NotReadable when that is gone."""
        if execution.output is None or tag_of(execution.output) != KEPT:
            return execution
        name, _, reference = untagged(KEPT, execution.output).partition(":")
        known = execution.workflow in self.world.workflows
        storage = self.world.workflows.get(execution.workflow).storage if known else None
        if storage is None or storage.name != name:
            raise NotReadable(
                f"The output of execution {execution.id!r} is in the storage {name!r} of workflow {execution.workflow!r}, "
                "which is not known here."
            )
        return replace(execution, output=await storage.retrieve(reference))

    # -- the stream -------------------------------------------------------------------------------------------------

    async def _look(self, id: str) -> tuple[Execution, int]:
        """The execution's state, and how many lifecycle facts it was folded from."""
        events = await self.store.lifecycle(id)
        execution = fold(id, events)
        assert execution is not None
        return execution, len(events)

    async def _state(self, id: str) -> Execution:
        execution, _ = await self._look(id)
        return execution

    async def _post(self, execution: Execution, event: Event, *, seen: int) -> bool:
        """Write a fact from outside the run. False when the execution has moved on meanwhile: look again."""
        after = apply(execution.id, execution, event)
        try:
            await self.store.post(execution.id, [event], seen=seen, head=head_of(after))
        except StreamMoved:
            return False
        return True

    def _now(self) -> float:
        return self.world.clock.now()


def new_id() -> str:
    """128 random bits: an id is also the right to ask about the execution."""
    return uuid.uuid4().hex


def _asked(execution: Execution, pause: str | None) -> Pause:
    """The open pause that is meant: by id, by name when only one has it, or the only one there is."""
    pauses = execution.pauses
    if execution.status.is_final:
        raise ExecutionFinished(execution.id, execution.status.value)
    if not pauses and pause is None:
        raise NotPaused(execution.id, execution.status.value)
    found = [p for p in pauses if pause is None or pause in (p.id, p.name)]
    if len(found) != 1:
        raise PauseNotFound(execution.id, pause, _names(execution))
    return found[0]


def _names(execution: Execution) -> list[str]:
    return [f"{pause.name} (id {pause.id})" for pause in execution.pauses]
