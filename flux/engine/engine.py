"""The verbs: start, answer, resume, suspend, cancel, get, list, wait. Each works for any execution in the store, whichever
process runs it; the runs of this process live here."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from flux.domain.calls import CallId, Json, Pause
from flux.domain.events import (
    CallStarted,
    CancelRequested,
    Event,
    ExecutionFailed,
    ExecutionRecovered,
    ExecutionResumed,
    ExecutionStarted,
    PauseAnswered,
    SuspendRequested,
)
from flux.domain.execution import Execution, Status, apply, fold
from flux.engine.ports import Clock, Codec, Head, Lease, Listing, Owner, Store
from flux.engine.run import Bodies, Body, Progress, Run
from flux.engine.scope import install_factory, remove_factory
from flux.errors import (
    ExecutionBusy,
    ExecutionError,
    ExecutionExists,
    ExecutionFinished,
    FluxError,
    LeaseLost,
    NotPaused,
    PauseNotFound,
    RecoveryLimit,
    StoreError,
    StreamMoved,
)

log = logging.getLogger("flux")

POLL = 0.2  # seconds between two looks at an execution that another process runs
CLOSE_WITHIN = 4.0  # seconds that closing waits for the runs of this process

Observer = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How an execution begins. `key` marks executions that a repeated request may join."""

    workflow: str
    input: Json
    id: str | None = None
    principal: str | None = None
    parent: str | None = None
    key: str | None = None


@dataclass(slots=True)
class _Active:
    run: Run
    task: asyncio.Task[None]


@dataclass
class Engine:
    store: Store
    codec: Codec
    clock: Clock
    owner: Owner
    workflows: Bodies
    is_dead: Callable[[Owner], bool]
    ttl: float = 15.0
    poll: float = 1.0
    recoveries: int = 5
    _active: dict[str, _Active] = field(default_factory=dict[str, _Active])
    _observers: dict[str, list[Observer]] = field(default_factory=dict[str, list[Observer]])
    _changes: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])
    _closing: bool = False

    async def __aenter__(self) -> Engine:
        install_factory(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop every run of this process and give its execution up: another process, or the next one here, goes on."""
        self._closing = True
        for active in self._active.values():
            active.run.stop(FluxError("this process is closing"))
        tasks = [active.task for active in self._active.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN)
        remove_factory(asyncio.get_running_loop())

    # -- verbs ------------------------------------------------------------------------------------------------------

    async def start(self, start: Start) -> Execution:
        """Begin an execution: durable on return, and running. Raises ExecutionExists, WorkflowNotFound."""
        body = self.workflows.get(start.workflow)
        id = start.id or uuid.uuid4().hex
        now = self.clock.now()
        event = ExecutionStarted(
            at=now, workflow=body.name, input=start.input, principal=start.principal, parent=start.parent
        )
        execution = apply(id, None, event)
        lease = await self.store.create(
            id, [event], head=_head(execution), owner=self.owner, ttl=self.ttl, key=start.key
        )
        assert lease is not None, "create with an owner gives a lease"
        self._run(body, lease, [event])
        return execution

    async def get(self, id: str) -> Execution:
        """The execution's state; parked for its children, it shows what they ask. Raises ExecutionNotFound."""
        execution, _ = await self._look(id)
        return await self._with_children(execution)

    async def answer(self, id: str, answer: Callable[[Pause], Json], *, pause: str | None = None) -> Execution:
        """Answer an open pause: durable on return, and the execution goes on. Of several answers exactly one is taken.

        `answer` makes the answer for the pause that is found, and raises if it does not fit. Raises NotPaused,
        PauseNotFound, ExecutionFinished, ExecutionNotFound."""
        while True:
            execution, seen = await self._look(id)
            shown = await self._with_children(execution)
            asked = _asked(shown, pause)
            if execution.pause(asked.id) is None:
                child, _, childs_own = asked.id.partition("/")
                await self.answer(child, answer, pause=childs_own)
                return await self.get(id)
            event = PauseAnswered(at=self.clock.now(), call=asked.id, answer=answer(asked))
            pause = asked.id  # somebody else may answer it meanwhile: then the next question is not ours to answer
            if await self._post(execution, event, seen=seen):
                return await self._go_on(id)

    async def resume(self, id: str) -> Execution:
        """Let a suspended, sleeping or interrupted execution go on now. A finished one stays as it is.

        Raises NotPaused while an answer is missing, ExecutionBusy when another process runs it."""
        while True:
            execution, seen = await self._look(id)
            if execution.status.is_final or id in self._active:
                return execution
            if execution.status is Status.RUNNING:
                return await self._take_up(id)
            if execution.status is Status.PAUSED:
                raise PauseNotFound(id, None, _names(execution))
            if await self._post(execution, ExecutionResumed(at=self.clock.now(), reason="asked"), seen=seen):
                for child in await self._living_children(id, Status.SUSPENDED):
                    await self.resume(child)
                return await self._go_on(id)

    async def cancel(self, id: str, *, reason: str | None = None) -> Execution:
        """Ask the execution to end as cancelled, wherever it runs. A finished one stays as it is."""
        while True:
            execution, seen = await self._look(id)
            if execution.status.is_final or execution.cancel_requested:
                return execution
            if await self._post(execution, CancelRequested(at=self.clock.now(), reason=reason), seen=seen):
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
            if await self._post(execution, SuspendRequested(at=self.clock.now()), seen=seen):
                for child in await self._living_children(id):
                    await self.suspend(child)
                return await self._go_on(id)

    async def wait(self, id: str, *, timeout: float | None = None) -> Execution:
        """The execution once it is at rest; as it is then, when `timeout` seconds pass first."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            execution = await self.get(id)
            left = None if deadline is None else deadline - loop.time()
            if execution.status.is_at_rest or (left is not None and left <= 0):
                return execution
            active = self._active.get(id)
            if active is not None:
                await asyncio.wait([active.task], timeout=left)
                self._raise_if_stopped(active.run)
            else:
                await self._next_change(POLL if left is None else min(POLL, left))

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

    @contextmanager
    def observed(self, id: str, observer: Observer) -> Generator[None]:
        """Tell `observer` what the execution reports while it runs in this process."""
        observers = self._observers.setdefault(id, [])
        observers.append(observer)
        try:
            yield
        finally:
            observers.remove(observer)
            if not observers:
                self._observers.pop(id, None)

    # -- runs of this process ---------------------------------------------------------------------------------------

    @property
    def leases(self) -> list[Lease]:
        return [active.run.lease for active in self._active.values()]

    def moved(self, id: str, last: int) -> None:
        """The stream of an execution of this process has `last` facts: perhaps somebody else wrote one."""
        active = self._active.get(id)
        if active is not None and last > active.run.journal.seq:
            active.run.journal.refresh()

    def lost(self, lease: Lease) -> None:
        """Another process has taken this execution over: stop without writing."""
        active = self._active.get(lease.execution_id)
        if active is not None and active.run.lease is lease:
            active.run.stop(LeaseLost(lease.execution_id))

    async def take_up(self, listing: Listing) -> None:
        """Go on with an execution that is due: its owner died, its timer has rung, or nobody has begun it."""
        if listing.id in self._active or listing.workflow not in self.workflows:
            return
        try:
            if listing.status is Status.RUNNING:
                await self._take_up(listing.id)
            else:
                await self._wake(listing.id)
        except ExecutionBusy:
            pass  # another process was quicker
        except ExecutionError as exc:
            log.warning("cannot go on with execution %s: %s", listing.id, exc)

    async def _wake(self, id: str) -> None:
        execution, seen = await self._look(id)
        due = execution.wake_at is not None and execution.wake_at <= self.clock.now()
        if due and await self._post(execution, ExecutionResumed(at=self.clock.now(), reason="timer"), seen=seen):
            await self._take_up(id)

    async def _go_on(self, id: str) -> Execution:
        """After an outside fact: tell the run of this process, or begin one, unless another process has it."""
        active = self._active.get(id)
        if active is not None:
            active.run.journal.refresh()
            return await self.get(id)
        execution = await self.get(id)
        if execution.status is not Status.RUNNING or execution.workflow not in self.workflows:
            return execution
        try:
            return await self._take_up(id)
        except ExecutionBusy:
            return await self.get(id)  # its owner will see the fact

    async def _take_up(self, id: str) -> Execution:
        """Claim a RUNNING execution and go on with it. Raises ExecutionBusy."""
        if self._closing:
            raise ExecutionBusy(id, "nobody: this process is closing")
        lease = await self._claim(id)
        history = await self.store.load(id)
        execution = fold(id, history)
        assert execution is not None
        if execution.status is not Status.RUNNING or id in self._active:
            await self.store.release(lease)
            return execution
        body = self.workflows.get(execution.workflow)
        if lease.taken_from is not None:
            recovered = ExecutionRecovered(at=self.clock.now(), owner=str(lease.taken_from))
            await self.store.append(id, [recovered], expected=len(history), lease=lease)
            history.append(recovered)
            if _recoveries_in_a_row(history) > self.recoveries:
                return await self._give_up(lease, execution, len(history))
        self._run(body, lease, history)
        return execution

    async def _claim(self, id: str) -> Lease:
        """The lease, also from an owner on this host whose process is gone. Raises ExecutionBusy."""
        claimed = await self._try_claim(id)
        if isinstance(claimed, Owner) and self.is_dead(claimed):
            claimed = await self._try_claim(id, dead=[claimed])
        if isinstance(claimed, Owner):
            raise ExecutionBusy(id, str(claimed))
        return claimed

    async def _try_claim(self, id: str, dead: Collection[Owner] = ()) -> Lease | Owner:
        return await self.store.claim(id, self.owner, ttl=self.ttl, now=self.clock.now(), dead=dead)

    async def _give_up(self, lease: Lease, execution: Execution, seq: int) -> Execution:
        error = RecoveryLimit(
            f"Execution {execution.id!r} has taken its process down {self.recoveries} times in a row without finishing a call."
        )
        event = ExecutionFailed(at=self.clock.now(), error=self.codec.encode_error(error))
        execution = apply(execution.id, execution, event)
        await self.store.append(execution.id, [event], expected=seq, lease=lease, head=_head(execution), release=True)
        return execution

    def _run(self, body: Body, lease: Lease, history: list[Event]) -> None:
        run = Run(
            body,
            lease,
            history,
            store=self.store,
            codec=self.codec,
            clock=self.clock,
            publish=self._publish,
            children=self,
        )
        task = asyncio.get_running_loop().create_task(self._to_rest(run), name=f"flux {lease.execution_id}")
        self._active[lease.execution_id] = _Active(run, task)

    async def _to_rest(self, run: Run) -> None:
        try:
            await run.to_rest()
        except Exception:
            log.exception("execution %s: the engine failed; the execution stays as its history has it", run.id)
            run.stopped = run.stopped or FluxError("the engine failed: see the log")
        finally:
            self._active.pop(run.id, None)
            self._tell_change()
            if run.stopped is not None and not isinstance(run.stopped, LeaseLost):
                await self._release(run)

        if run.stopped is None:
            await self._settle_family(run.execution)

    async def _release(self, run: Run) -> None:
        try:
            await self.store.release(run.lease)
        except StoreError as exc:  # the lease will expire
            log.warning("execution %s could not be given up: %s", run.id, exc)

    def _raise_if_stopped(self, run: Run) -> None:
        if run.stopped is not None:
            raise run.stopped

    def _publish(self, progress: Progress) -> None:
        for observer in list(self._observers.get(progress.execution_id, ())):
            observer(progress)

    # -- children and parents ----------------------------------------------------------------------------------------

    async def begin(self, body: Body, input: Json, *, id: str, parent: Execution) -> None:
        self.workflows.add(body)
        try:
            start = Start(workflow=body.name, input=input, id=id, parent=parent.id, principal=parent.principal)
            await self.start(start)
        except ExecutionExists:
            await self._go_on(id)

    async def rest(self, id: str) -> Execution:
        return await self.wait(id)

    async def unrest(self, execution: Execution) -> None:
        while (await self.get(execution.id)).status is execution.status:
            await self._next_change(POLL)

    def named(self, name: str) -> Body:
        return self.workflows.get(name)

    async def _with_children(self, execution: Execution) -> Execution:
        """A parent as people see it: with its children's questions, and, when parked, running while one of them runs."""
        children = [await self.get(id) for id in await self._awaited_children(execution)]
        pauses = [replace(p, id=CallId(f"{child.id}/{p.id}")) for child in children for p in child.pauses]
        status = execution.status
        if any(child.status is Status.RUNNING or child.status.is_final for child in children):
            status = Status.RUNNING
        elif pauses and status is Status.SLEEPING:
            status = Status.PAUSED
        return replace(execution, status=status, pauses=(*execution.pauses, *pauses))

    async def _awaited_children(self, execution: Execution) -> Sequence[str]:
        if execution.status is not Status.RUNNING:
            return execution.children
        active = self._active.get(execution.id)
        return active.run.awaited_children if active else await self._living_children(execution.id)

    async def _living_children(self, id: str, *status: Status) -> list[str]:
        wanted = status or [each for each in Status if not each.is_final]
        return [child.id for child in await self.store.find(parent=id, status=wanted, limit=100_000)]

    async def _settle_family(self, execution: Execution) -> None:
        """Parent and child each look at the other after their own last write: so neither sleeps through the other's end."""
        if execution.status.is_final and execution.parent is not None:
            await self.wake_parent(execution.parent)
        elif execution.children and not execution.status.is_final:
            await self.wake_parent(execution.id)

    async def wake_parent(self, id: str) -> None:
        """Let a parked execution go on when one of the children it waits for has ended."""
        try:
            while not self._closing:
                execution, seen = await self._look(id)
                ended = [child for child in execution.children if (await self._look(child))[0].status.is_final]
                resting = execution.status in (Status.PAUSED, Status.SLEEPING)
                if not ended or not resting:
                    return
                if await self._post(execution, ExecutionResumed(at=self.clock.now(), reason="child"), seen=seen):
                    await self._go_on(id)
                    return
        except (ExecutionError, StoreError) as exc:
            log.warning("execution %s could not be woken for its child: %s", id, exc)

    def _tell_change(self) -> None:
        """Something of this process has come to rest: whoever waits may look again."""
        for change in self._changes:
            if not change.done():
                change.set_result(None)
        self._changes.clear()

    async def _next_change(self, seconds: float) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes.add(change)
        await asyncio.wait([change], timeout=seconds)
        self._changes.discard(change)

    # -- the stream -------------------------------------------------------------------------------------------------

    async def _look(self, id: str) -> tuple[Execution, int]:
        """The execution's state, and how many lifecycle facts it was folded from."""
        events = await self.store.lifecycle(id)
        execution = fold(id, events)
        assert execution is not None
        return execution, len(events)

    async def _post(self, execution: Execution, event: Event, *, seen: int) -> bool:
        """Write a fact from outside the run. False when the execution has moved on meanwhile: look again."""
        after = apply(execution.id, execution, event)
        try:
            await self.store.post(execution.id, [event], seen=seen, head=_head(after))
        except StreamMoved:
            return False
        return True


def _head(execution: Execution) -> Head:
    return Head(status=execution.status, updated_at=execution.updated_at, wake_at=execution.wake_at)


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


def _recoveries_in_a_row(history: list[Event]) -> int:
    """How often in a row a new owner came and nothing was finished by the one before."""
    count = 0
    for event in reversed(history):
        if isinstance(event, ExecutionRecovered):
            count += 1
        elif not isinstance(event, CallStarted):
            break
    return count
