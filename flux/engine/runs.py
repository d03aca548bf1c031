"""The runs of this process: begun, taken up from others, told what happens outside, and given up at the end."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from weakref import WeakSet

from flux.domain.events import CallStarted, Event, ExecutionFailed, ExecutionRecovered
from flux.domain.execution import Execution, Status, apply, fold
from flux.domain.queues import Queue
from flux.engine.body import Bodies, Body, Children, Closeable, Progress
from flux.engine.ports import Clock, Codec, Head, Lease, Owner, Provisions, Store, Tracing
from flux.engine.run import Run
from flux.engine.scope import install_factory, remove_factory
from flux.errors import ExecutionBusy, FluxError, LeaseLost, RecoveryLimit, StoreError, StreamMoved

log = logging.getLogger("flux")

UNHEARD = 20  # reports that are kept while nobody listens yet, of each of
UNHEARD_EXECUTIONS = 100
CLOSE_WITHIN = 4.0  # seconds that closing waits for the runs of this process

Observer = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What an engine is made of. `ttl` is how long a lease lasts, in seconds, `poll` how often the database is looked at for
    what others did, `recoveries` how often in a row an execution may take its process down. With `recover` what others have
    begun and left is taken up here: what a server does, and a script does not. `tags` say what this process has that workflows
    may need, None that it runs them whatever they need; `concurrency` is how many executions it runs at once, None for no limit.
    Executions are deleted `retention` seconds after they have ended, None
    keeps them."""

    store: Store
    codec: Codec
    clock: Clock
    owner: Owner
    workflows: Bodies
    is_dead: Callable[[Owner], bool]
    provisions: Provisions
    tracing: Tracing
    ttl: float = 15.0
    poll: float = 1.0
    recoveries: int = 10
    recover: bool = True
    retention: float | None = None
    tags: frozenset[str] | None = None
    concurrency: int | None = None

    def can_run(self, workflow: str) -> bool:
        """Whether this process knows the workflow and has what it needs."""
        if workflow not in self.workflows:
            return False
        return self.tags is None or self.workflows.get(workflow).needs <= self.tags

    def runnable(self) -> list[str]:
        return [name for name in self.workflows.names() if self.can_run(name)]

    def queues(self) -> dict[str, Queue]:
        """The queues of the workflows known here, by name."""
        found = (self.workflows.get(name).queue for name in self.workflows.names())
        return {queue.name: queue for queue in found if queue is not None}


@dataclass(slots=True)
class _Active:
    """`is_behind`: somebody wrote to the stream after the run had written that it is at rest, and before it had ended here. `question`
    is done when the run asks something, if anybody wants to know."""

    run: Run
    task: asyncio.Task[None]
    is_behind: bool = False
    question: asyncio.Future[None] | None = None


@dataclass
class Runs:
    """`rested` is called after a run has come to rest and its lease is free again."""

    world: World
    children: Children
    rested: Callable[[Execution], Awaitable[None]]
    closing: bool = False
    draining: bool = False
    _active: dict[str, _Active] = field(default_factory=dict[str, _Active])
    _taking: dict[str, bool] = field(default_factory=dict[str, bool])
    _observers: dict[str, list[Observer]] = field(default_factory=dict[str, list[Observer]])
    _unheard: OrderedDict[str, deque[Progress]] = field(default_factory=OrderedDict[str, deque[Progress]])
    _opened: WeakSet[Closeable] = field(default_factory=WeakSet[Closeable])
    _changes: dict[asyncio.Future[None], str] = field(default_factory=dict[asyncio.Future[None], str])

    async def __aenter__(self) -> Runs:
        install_factory(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop every run and give its execution up: another process, or the next one here, goes on."""
        self.closing = True
        for active in self._active.values():
            active.run.stop(FluxError("this process is closing"))
        tasks = [active.task for active in self._active.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_WITHIN)
        await self._close_what_was_opened()
        remove_factory(asyncio.get_running_loop())

    async def _close_what_was_opened(self) -> None:
        """Connections that runs have opened outlive them, for the next run, but not the engine."""
        closing = [asyncio.ensure_future(thing.aclose()) for thing in self._opened]
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_WITHIN)

    async def drain(self, seconds: float) -> None:
        """Have room for nothing more, and wait until what runs has ended, for so long at most."""
        self.draining = True
        deadline = asyncio.get_running_loop().time() + seconds
        while self._active and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait([active.task for active in self._active.values()], timeout=left)

    # -- begin and end ----------------------------------------------------------------------------------------------

    def begin(self, body: Body, lease: Lease, history: list[Event]) -> None:
        """Run an execution that this process holds, from what its history says."""
        world = self.world
        run = Run(
            body,
            lease,
            history,
            store=world.store,
            codec=world.codec,
            clock=world.clock,
            publish=self._publish,
            children=self.children,
            opened=self._opened.add,
            provisions=world.provisions,
            tracing=world.tracing,
        )
        task = asyncio.get_running_loop().create_task(self._to_rest(run), name=f"flux {lease.execution_id}")
        self._active[lease.execution_id] = _Active(run, task)

    async def _to_rest(self, run: Run) -> None:
        try:
            await run.to_rest()
        except Exception:  # a fault of ours must not take the other runs down
            log.exception("execution %s: the engine failed; the execution stays as its history has it", run.id)
            run.stopped = run.stopped or FluxError("the engine failed: see the log")
        finally:
            run.trail.ended(run.execution)
            active = self._active.pop(run.id, None)
            self._tell_change()
            if run.stopped is not None and not isinstance(run.stopped, LeaseLost):
                await self._release(run)
        if run.stopped is None:
            await self.rested(run.execution)
            if active is not None and active.is_behind:
                with suppress(ExecutionBusy):
                    await self.take_up(run.id)

    async def _release(self, run: Run) -> None:
        try:
            await self.world.store.release(run.lease)
        except StoreError as exc:  # the lease will expire
            log.warning("execution %s could not be given up: %s", run.id, exc)

    # -- take up ----------------------------------------------------------------------------------------------------

    async def take_up(self, id: str) -> None:
        """Claim a RUNNING execution and go on with it. Raises ExecutionBusy when another process has it, QueueFull when it
        has to wait for its turn."""
        if self.closing:
            raise ExecutionBusy(id, "nobody: this process is closing")
        if id in self._taking:  # twice at once, each would take it from the other
            self._taking[id] = True
            raise ExecutionBusy(id, "this process, which is about to")
        self._taking[id] = False
        try:
            await self.go_on(await self._claim(id))
        finally:
            if self._taking.pop(id):  # whoever came second may have written what the first has not read
                self.refresh(id)

    async def go_on(self, lease: Lease) -> None:
        """Run an execution that this process has claimed, unless it is at rest or runs here already. Raises ExecutionBusy when
        another process has claimed it since."""
        try:
            while not await self._went_on(lease):
                pass
        except LeaseLost as exc:
            raise ExecutionBusy(lease.execution_id, "another process, which has just taken it over") from exc

    async def _went_on(self, lease: Lease) -> bool:
        """False when somebody wrote to the execution meanwhile: look again."""
        id = lease.execution_id
        history = await self.world.store.load(id)
        execution = fold(id, history)
        assert execution is not None
        if execution.status is not Status.RUNNING or id in self._active:
            await self.world.store.release(lease)
            return True
        body = self.world.workflows.get(execution.workflow)
        try:
            if lease.taken_from is not None and not await self._recovered(lease, execution, history):
                return True
        except StreamMoved:
            return False
        self.begin(body, lease, history)
        return True

    async def _claim(self, id: str) -> Lease:
        """The lease, also from an owner on this host whose process is gone."""
        claimed = await self._try_claim(id)
        if isinstance(claimed, Owner) and self.world.is_dead(claimed):
            claimed = await self._try_claim(id, dead=[claimed])
        if isinstance(claimed, Owner):
            raise ExecutionBusy(id, str(claimed))
        return claimed

    async def _try_claim(self, id: str, dead: Collection[Owner] = ()) -> Lease | Owner:
        world = self.world
        queues = world.queues().values()
        return await world.store.claim(
            id, world.owner, ttl=world.ttl, now=world.clock.now(), dead=dead, queues=list(queues)
        )

    async def _recovered(self, lease: Lease, execution: Execution, history: list[Event]) -> bool:
        """Write down that the owner before is gone. False when that has happened too often: the execution has failed."""
        world, id = self.world, execution.id
        recovered = ExecutionRecovered(at=world.clock.now(), owner=str(lease.taken_from))
        await world.store.append(id, [recovered], expected=len(history), lease=lease)
        history.append(recovered)
        if _recoveries_in_a_row(history) <= world.recoveries:
            return True
        error = RecoveryLimit(
            f"Execution {id!r} has taken its process down {world.recoveries} times in a row without finishing a call."
        )
        failed = ExecutionFailed(at=world.clock.now(), error=world.codec.encode_error(error))
        head = head_of(apply(id, execution, failed))
        await world.store.append(id, [failed], expected=len(history), lease=lease, head=head, release=True)
        return False

    @property
    def room(self) -> float:
        """How many more executions this process would take. One that waits for a child takes no room: the child may need it."""
        if self.closing or self.draining:
            return 0
        if self.world.concurrency is None:
            return inf
        coming = len(self._taking.keys() - self._active.keys())
        return self.world.concurrency - coming - sum(not each.run.awaited_children for each in self._active.values())

    # -- what is active ---------------------------------------------------------------------------------------------

    def __contains__(self, id: str) -> bool:
        return id in self._active

    @property
    def leases(self) -> list[Lease]:
        return [active.run.lease for active in self._active.values()]

    def awaited_children(self, id: str) -> tuple[str, ...]:
        """The children that an execution of this process waits for."""
        active = self._active.get(id)
        return active.run.awaited_children if active is not None else ()

    def refresh(self, id: str, last: int | None = None) -> bool:
        """Let the run of an execution read what somebody else wrote, unless it has seen fact number `last` already.
        False when the execution does not run here."""
        active = self._active.get(id)
        if active is not None and (last is None or last > active.run.journal.seq):
            active.run.journal.refresh()
            active.is_behind = active.run.execution.status.is_at_rest
        return active is not None

    def lost(self, lease: Lease) -> None:
        """Another process has taken the execution over: stop without writing."""
        active = self._active.get(lease.execution_id)
        if active is not None and active.run.lease is lease:
            active.run.stop(LeaseLost(lease.execution_id))

    def execution(self, id: str) -> Execution | None:
        """The state of an execution that runs here, as it has been written; None when it does not."""
        active = self._active.get(id)
        return None if active is None or active.is_behind else active.run.execution

    def next_question(self, id: str) -> asyncio.Future[None] | None:
        """Done when the run of this process asks something, from now on; None when the execution does not run here."""
        active = self._active.get(id)
        if active is None:
            return None
        if active.question is None:
            active.question = asyncio.get_running_loop().create_future()
        return active.question

    async def wait(
        self, id: str, timeout: float | None, question: asyncio.Future[None] | None = None
    ) -> Execution | None:
        """Until the run of this process has ended (then the execution as the run has left it), or anything has changed here,
        or `question` is asked, or `timeout` seconds have passed (then None).

        Raises what stopped the run, when it was stopped before the execution came to rest and nobody else runs it."""
        active = self._active.get(id)
        if active is None:
            await self._next_change(id, timeout)
            return None
        awaited = [active.task] if question is None else [active.task, question]
        await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if active.task.done() and isinstance(active.run.stopped, LeaseLost):
            return None
        if active.task.done() and active.run.stopped is not None:
            raise active.run.stopped
        return active.run.execution if active.task.done() else None

    def changed_elsewhere(self, id: str) -> None:
        """Another process wrote to the execution: let its run here read that, and whoever waits for it look again."""
        self.refresh(id)
        self._tell_change(id)

    def _tell_change(self, id: str | None = None) -> None:
        """Wake who waits for this execution, or, when something has changed here, for any: it may be a parent of it."""
        for change, awaited in self._changes.items():
            if id in (None, awaited) and not change.done():
                change.set_result(None)

    async def _next_change(self, id: str, timeout: float | None) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes[change] = id
        await asyncio.wait([change], timeout=timeout)
        del self._changes[change]

    # -- progress ---------------------------------------------------------------------------------------------------

    @contextmanager
    def observed(self, id: str, observer: Observer, *, questions: bool = False) -> Generator[None]:
        """Tell `observer` what the execution reports while it runs in this process; with `questions`, what it asks as well.

        What was reported before anybody listened is told first: a run does not wait for its observers."""

        def hear(progress: Progress) -> None:
            if questions or progress.asks is None:
                observer(progress)

        observers = self._observers.setdefault(id, [])
        observers.append(hear)
        for progress in self._unheard.pop(id, ()):
            hear(progress)
        try:
            yield
        finally:
            observers.remove(hear)
            if not observers:
                self._observers.pop(id, None)

    def _publish(self, progress: Progress) -> None:
        if progress.asks is not None:
            self._tell_question(progress.execution_id)
        observers = self._observers.get(progress.execution_id)
        if observers is None:
            self._keep_unheard(progress)
            return
        for observer in list(observers):
            observer(progress)

    def _tell_question(self, id: str) -> None:
        active = self._active.get(id)
        if active is not None and active.question is not None:
            active.question.set_result(None)
            active.question = None

    def _keep_unheard(self, progress: Progress) -> None:
        """Of the latest executions, the latest of what their own code reported."""
        if progress.value is None:
            return
        self._unheard.setdefault(progress.execution_id, deque(maxlen=UNHEARD)).append(progress)
        if len(self._unheard) > UNHEARD_EXECUTIONS:
            self._unheard.popitem(last=False)


def head_of(execution: Execution) -> Head:
    return Head(status=execution.status, updated_at=execution.updated_at, wake_at=execution.wake_at)


def _recoveries_in_a_row(history: list[Event]) -> int:
    """How often in a row a new owner came and nothing was finished by the one before."""
    count = 0
    for event in reversed(history):
        if isinstance(event, ExecutionRecovered):
            count += 1
        elif not isinstance(event, CallStarted):
            break
    return count
