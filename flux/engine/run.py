"""The life of one execution in this process: replay what is recorded, go on, and end at rest."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, cast

from flux.domain.calls import CallId, Json
from flux.domain.events import (
    CancelRequested,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionParked,
    ExecutionSuspended,
    PauseAnswered,
    SuspendRequested,
)
from flux.domain.execution import Execution
from flux.engine.body import Body, Children, Closeable, Progress
from flux.engine.fence import is_undoing
from flux.engine.journal import Journal
from flux.engine.masking import masked
from flux.engine.ports import Clock, Codec, EventStore, Lease, Provisions, Tracing
from flux.engine.scope import Scope, current_scope, entered, is_replaying
from flux.engine.tags import KEPT, tagged
from flux.engine.waits import Waits
from flux.errors import FluxError, NonDeterminismError, Suspend, WorkflowTimeout

log = logging.getLogger("flux")


CANCEL_WITHIN = (
    5.0  # seconds that a cancelled body may take to clean up, twice: then it is cancelled again, then left behind
)
UNWIND = 3.0  # seconds that a body which is being stopped may take before it is left behind


class Run:
    def __init__(
        self,
        body: Body,
        lease: Lease,
        history: Sequence[Event],
        *,
        store: EventStore,
        codec: Codec,
        clock: Clock,
        publish: Callable[[Progress], None],
        children: Children,
        provisions: Provisions,
        tracing: Tracing,
        opened: Callable[[Closeable], None],
    ) -> None:
        self.opened = opened  # for what outlives the run: it is closed with the engine
        self.children = children
        self.provisions = provisions
        self.body = body
        self.lease = lease
        self.codec = codec
        self.clock = clock
        self.publish = publish
        self.journal = Journal(store, clock, lease, history, notice=self._notice, broken=self._broken)
        self.trail = tracing.begun(self.execution)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.context: Any = None  # what the body is given
        self.unwinding = False
        self.stopped: Exception | None = None  # why the run ended here without its execution having come to rest
        self.mismatch: NonDeterminismError | None = None
        self._main: asyncio.Task[Any] | None = None
        self._waits = Waits(clock)
        self._answers: dict[CallId, Json] = {}
        self._overdue = False
        self._timers: list[asyncio.TimerHandle] = []
        self._timeout: WorkflowTimeout | None = None

    @property
    def execution(self) -> Execution:
        return self.journal.execution

    @property
    def id(self) -> str:
        return self.lease.execution_id

    # -- from start to rest -----------------------------------------------------------------------------------------

    async def to_rest(self) -> None:
        """Run until the execution has ended, is parked, or the run is stopped. Never raises for what the workflow does."""
        scope = Scope(self)
        loop = asyncio.get_running_loop()
        self._main = main = loop.create_task(self._enter(scope), context=Context())
        self.adopt(main, scope)
        if self.execution.cancel_requested:
            self._cancel_within(CANCEL_WITHIN)
        alarm = loop.create_task(self._ring_at_deadline(), context=Context()) if self._deadline is not None else None
        try:
            while not self.stopped:
                await self._until_done_or_quiet(main)
                if self.stopped:
                    break
                if main.done() or self._overdue:
                    return await self._finish(main)
                if await self._park():
                    return await self._leave(main)
        except Suspend:
            pass  # the journal cannot write any more; `stopped` says why
        finally:
            if alarm is not None:
                alarm.cancel()
            for timer in self._timers:
                timer.cancel()
            await self._unwind()
            await self.journal.aclose()

    async def _enter(self, scope: Scope) -> Any:
        with entered(scope), self.trail.entered():
            self.context = self.body.context(self.execution, self.codec)
            try:
                result = await self.body.execute(self.context)
            except SystemExit as exc:  # a workflow cannot end the process of all the others
                raise RuntimeError(f"workflow {self.body.name!r} called sys.exit({exc.code!r})") from exc
            self.journal.check_end(scope)
            return result

    async def _until_done_or_quiet(self, main: asyncio.Task[Any]) -> None:
        await asyncio.wait([main, self._waits.until_quiet()], return_when=asyncio.FIRST_COMPLETED)

    async def _finish(self, main: asyncio.Task[Any]) -> None:
        await self._unwind()  # asyncio tasks that the body left behind
        while not await self.journal.conclude(await self._conclusion(main)):
            pass

    async def _conclusion(self, main: asyncio.Task[Any]) -> Event:
        """How the execution ends. A cancelled one ends as cancelled, whatever its body made of that."""
        now = self.clock.now()
        if self.execution.cancel_requested:
            return ExecutionCancelled(at=now, reason=self.execution.cancel_reason)
        error = self._timeout or _error_of(main, self.body.name)
        error = self.mismatch or error
        if error is None:
            try:
                return ExecutionCompleted(at=now, output=await self._output(main.result()))
            except FluxError as exc:
                error = exc
        return ExecutionFailed(at=now, error=self.codec.encode_error(error))

    async def _output(self, value: Any) -> Json:
        owner = f"the result of workflow {self.body.name!r}"
        output = self.codec.encode(value, owner=owner, annotation=self.body.output_type)
        if self.body.storage is None:
            return output
        reference = await self.body.storage.store(self.id, output)
        return tagged(KEPT, f"{self.body.storage.name}:{reference}")

    # -- parking ----------------------------------------------------------------------------------------------------

    async def _park(self) -> bool:
        """Write that the execution is at rest. False when something came in between: then the run goes on."""
        now = self.clock.now()
        if self.execution.suspend_requested:
            event: Event = ExecutionSuspended(at=now)
        else:
            wakes = self._waits.wakes
            if self._deadline is not None:
                wakes.append(self._deadline)
            event = ExecutionParked(at=now, wake_at=min(wakes, default=None), children=self.awaited_children)
        return await self.journal.conclude(event, unless=lambda: not self._waits.is_quiet)

    @property
    def awaited_children(self) -> tuple[str, ...]:
        return self._waits.children

    async def _leave(self, main: asyncio.Task[Any]) -> None:
        await self._unwind()
        if main.done() and not main.cancelled():
            error = main.exception()
            if error is None or not is_suspension(error):
                log.warning(
                    "workflow %r caught the signal that parks it: catch Exception, not BaseException, around pauses and tasks",
                    self.body.name,
                )

    async def _unwind(self) -> None:
        """Take the body off the stack: nothing of it stays in memory."""
        self.unwinding = True
        self._waits.end_all()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + UNWIND
        await self._wait_for_tasks(0.05)
        while self._waits.tasks and loop.time() < deadline:
            for task in self._waits.tasks:
                task.cancel()
            await self._wait_for_tasks(0.5)
        for task in self._waits.tasks:
            log.warning("a task of execution %s ignores its cancellation: %r", self.id, task)

    async def _wait_for_tasks(self, seconds: float) -> None:
        if self._waits.tasks:
            await asyncio.wait(self._waits.tasks, timeout=seconds)

    def stop(self, reason: Exception) -> None:
        """Leave the execution as it is, for another run or another process to go on with."""
        self.stopped = self.stopped or reason
        self.unwinding = True
        if self._main is not None:
            self._main.cancel()
        self._waits.wake()

    # -- what the outside says --------------------------------------------------------------------------------------

    def _notice(self, event: Event) -> None:
        match event:
            case PauseAnswered():
                if not self._waits.arrive(event.call, event.answer):
                    self._answers[event.call] = event.answer
            case CancelRequested():
                self.interrupt()
                self._cancel_within(CANCEL_WITHIN)
            case SuspendRequested():
                self._waits.look()
            case _:
                pass

    def interrupt(self) -> None:
        """Cancel the body where it stands."""
        if self._main is not None:
            self._main.cancel()

    @property
    def _deadline(self) -> float | None:
        return None if self.body.timeout is None else self.execution.began_at + self.body.timeout

    async def _ring_at_deadline(self) -> None:
        assert self._deadline is not None, "there is no alarm without a deadline"
        await self.clock.sleep_until(self._deadline)
        self._timeout = WorkflowTimeout(self.body.name, self.body.timeout or 0.0)
        self.interrupt()
        self._cancel_within(CANCEL_WITHIN)

    def _cancel_within(self, seconds: float) -> None:
        """A cancelled body may clean up, but not for ever."""
        loop = asyncio.get_running_loop()
        self._timers += (
            loop.call_later(seconds, self.interrupt),
            loop.call_later(2 * seconds, self._end_overdue),
        )

    def _end_overdue(self) -> None:
        self._overdue = True
        self._waits.wake()

    def _broken(self, exc: Exception) -> None:
        self.stop(exc)

    def tell(self, task: str | None, value: Any, *, call: CallId | None) -> None:
        """Publish progress of a call, from any thread. What a replay says has been said before."""
        if is_replaying():
            return
        progress = Progress(execution_id=self.id, task=task, call=call, value=masked(value, self.codec))
        if threading.get_ident() == self._thread:
            self.publish(progress)
        else:
            self._loop.call_soon_threadsafe(self.publish, progress)

    def asks(self, pause: str) -> None:
        """Publish that a question is open: whoever follows need not wait until all else is quiet."""
        self.publish(Progress(execution_id=self.id, task=None, value=f"waits for an answer: {pause}", asks=pause))

    def report(self, name: str, exc: Exception) -> None:
        """Something failed that must not change how the execution goes."""
        said = self.codec.encode_error(exc).message  # without the secrets that it may tell
        log.warning("execution %s: the rollback of %r failed: %s: %s", self.id, name, type(exc).__name__, said)

    # -- asyncio tasks of this run ----------------------------------------------------------------------------------

    def adopt(self, task: asyncio.Task[Any], scope: Scope) -> None:
        """Count an asyncio task created inside this execution; `scope` is where its calls stand."""
        self._waits.adopt(task)
        for fence in scope.fences:
            fence.adopt(task)
        self.journal.alone = self._waits.count == 1
        task.add_done_callback(lambda task: self._left(task, scope))

    def _left(self, task: asyncio.Task[Any], scope: Scope) -> None:
        self._waits.drop(task)
        self.journal.alone = self._waits.count <= 1
        succeeded = not task.cancelled() and task.exception() is None
        if succeeded and task is not self._main and not self.unwinding:
            try:
                self.journal.check_end(scope)
            except NonDeterminismError as exc:
                self.fail(exc)

    def fail(self, error: NonDeterminismError) -> None:
        """End the execution with this error, whatever the body makes of it."""
        if self.mismatch is None:
            self.mismatch = error
            if self._main is not None and asyncio.current_task() is not self._main:
                self._main.cancel()

    def check_going(self) -> None:
        """For every new step: raise what keeps the run from making it."""
        if self.unwinding:
            raise Suspend
        if self.mismatch is not None:
            raise self.mismatch
        if self.execution.cancel_requested and not self._is_undoing:
            raise asyncio.CancelledError

    @property
    def _is_undoing(self) -> bool:
        """Whether a rollback asks: it may do what it has to when nothing else may."""
        scope = current_scope()
        return scope is not None and is_undoing(scope.fences)

    async def ready(self) -> None:
        """Before every new step: wait while the execution is to be suspended, and raise what keeps the run from going on."""
        if self.execution.suspend_requested:
            await self.wait_to_be_suspended()
        self.check_going()

    # -- waiting ----------------------------------------------------------------------------------------------------

    def answer_of(self, pause: CallId) -> Json | None:
        """An answer that came before the workflow waited for it."""
        return self._answers.pop(pause, None)

    async def wait_for_answer(self, pause: CallId, expires_at: float | None) -> Json | None:
        """The answer to a pause that has been opened, None when it has expired."""
        answer = self.answer_of(pause)
        if answer is not None:
            return answer
        self.check_going()
        return await self._waits.until(pause, expires_at)

    async def wait_until(self, call: CallId, wake_at: float) -> None:
        """Sleep until `wake_at`; the execution may be parked and taken up again meanwhile."""
        if wake_at > self.clock.now():
            self.check_going()
            await self._waits.until(call, wake_at)

    async def wait_for_child(self, call: CallId, child: str) -> None:
        """Wait until a child execution has ended; while it is at rest itself, this one may be parked."""
        self.check_going()
        await self._waits.for_child(call, child, rest=self.children.rest, unrest=self.children.unrest)

    async def wait_to_be_suspended(self) -> None:
        """Make no further call while somebody has asked for the execution to be suspended."""
        self.check_going()
        await self._waits.for_ever()

    async def wait_to_be_cancelled(self) -> None:
        """Stand where a cancelled call stood: the code that cancelled it will do so again."""
        await asyncio.get_running_loop().create_future()


ENTERED = Run._enter.__code__  # pyright: ignore[reportPrivateUsage] - ours
"""The code that calls a workflow's body: by it the watchdog knows whose frames are on the stack."""


def is_suspension(error: BaseException) -> bool:
    """True for Suspend, alone or anywhere in an exception group."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).subgroup(Suspend) is not None
    return isinstance(error, Suspend)


def _error_of(main: asyncio.Task[Any], name: str) -> BaseException | None:
    if main.cancelled():
        return FluxError(f"Workflow {name!r} was cancelled by its own code.")
    return main.exception()
