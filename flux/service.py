"""Flux: the composition root. Here, and only here, the engine meets a database, a clock and the user's workflows."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar, cast

from flux.clock import SystemClock
from flux.codec.classes import type_named
from flux.context import ExecutionContext
from flux.decorators import UNSET, Unset, Workflow
from flux.domain.calls import Json, Pause
from flux.domain.events import Event
from flux.domain.execution import Execution, Status
from flux.domain.queues import QueueState
from flux.engine.clockwork import Clockwork
from flux.engine.engine import Engine, Start
from flux.engine.ports import Clock, Listing, SecretStore, Store
from flux.engine.runs import Observer, World
from flux.engine.scheduler import Scheduler, ScheduleState
from flux.errors import ExecutionFinished, ExecutionNotFound, FluxError, InvalidAnswer, NotReadable, WorkflowMismatch
from flux.host import is_dead, this_process
from flux.provisions import Beside
from flux.registry import Registry
from flux.schema import value_type
from flux.settings import MEMORY, Settings
from flux.storage import SpillingStore, StoredCodec
from flux.stores import open_store
from flux.stores.transient import TransientStore
from flux.tracing import OpenTelemetry

T = TypeVar("T")
R = TypeVar("R")

AnyWorkflow = Workflow[Any, Any]


class Flux:
    """The engine with everything it needs, as one `async with`.

    `database` is a path or a URL, by default the one in the user's data folder (or FLUX_DATABASE). With `recover` (what a
    server wants) executions whose process died are taken up, and timers that are due ring; without it only what is
    started or resumed here runs here. `secrets` is where tasks find theirs: by default the environment, then the encrypted
    file beside the database."""

    def __init__(
        self,
        database: str | os.PathLike[str] | None = None,
        *,
        workflows: Iterable[AnyWorkflow] = (),
        recover: bool = True,
        settings: Settings | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        secrets: SecretStore | None = None,
    ) -> None:
        self.settings = settings or Settings.load(database=database)
        self.workflows: Registry[AnyWorkflow] = Registry(workflows)
        self._recover = recover
        self._store = store
        self._clock = clock or SystemClock()
        self._beside = Beside.of(MEMORY if store is not None else self.settings.database)
        self._values = self._beside.values()
        self._provisions = self._beside.provisions(secrets)
        self._codec = StoredCodec(self._values)
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None

    async def __aenter__(self) -> Flux:
        async with AsyncExitStack() as stack:
            store = self._store or await stack.enter_async_context(
                open_store(self.settings.database, synchronous=self.settings.synchronous)
            )
            if self._values is not None:
                store = cast(Store, SpillingStore(store, self._values, limit=self.settings.inline_limit))
            world = World(
                store=TransientStore(store, self._is_transient),
                codec=self._codec,
                clock=self._clock,
                owner=this_process(),
                workflows=self.workflows,
                is_dead=is_dead,
                provisions=self._provisions,
                tracing=OpenTelemetry(),
                ttl=self.settings.lease_seconds,
                poll=self.settings.poll_seconds,
                recoveries=self.settings.max_recoveries,
                recover=self._recover,
                retention=self.settings.retention,
                # a script runs what it is told to
                tags=self.settings.worker_tags if self._recover else None,
                concurrency=self.settings.concurrency if self._recover else None,
            )
            self._engine = await stack.enter_async_context(Engine(world))
            await stack.enter_async_context(Clockwork(self._engine))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        self._engine = None

    # -- verbs ------------------------------------------------------------------------------------------------------

    async def start(
        self,
        workflow: Workflow[T, R] | str,
        input: T | Any | Unset = UNSET,
        *,
        execution_id: str | None = None,
        principal: str | None = None,
        key: str | None = None,
        unique_since: float | None = None,
        priority: int | None = None,
    ) -> ExecutionContext[T]:
        """Begin an execution and return at once: it is durable, and running or in its queue.

        The input is validated and converted first: raises InvalidInput, and nothing has begun. `execution_id` is a name of
        the caller's choice, and must be new: ExecutionExists. `principal` is who asks. `key` is what repeated requests have in common:
        when another execution was begun with it at or after `unique_since` (seconds since the epoch), nothing begins: KeyTaken.
        `priority` stands in for the workflow's own. When the queue holds a living execution that stands for the same
        (`deduplicate`), that one is returned."""
        known = self._known(workflow)
        encoded = known.encoded(input, self._codec)
        start = Start(
            workflow=known.name,
            input=encoded,
            id=execution_id,
            principal=principal,
            key=key,
            unique_since=unique_since,
            priority=priority,
        )
        return self._context(await self.engine.start(start))

    async def run(
        self, workflow: Workflow[T, R] | str, input: T | Any | Unset = UNSET, *, execution_id: str | None = None
    ) -> ExecutionContext[T]:
        """Start and wait until the execution is at rest: completed, failed, paused, ..."""
        started = await self.start(workflow, input, execution_id=execution_id)
        return await self.wait(started.execution_id)

    async def wait(
        self,
        execution_id: str,
        *,
        timeout: float | None = None,
        until: Callable[[ExecutionContext[Any]], bool] | None = None,
    ) -> ExecutionContext[Any]:
        """The execution once it is at rest, or as it is after `timeout` seconds, or once it is as `until` says: that is asked when
        the execution has asked something, and now and then while another process runs it."""

        def is_so(execution: Execution) -> bool:
            return until is not None and until(self._context(execution))

        return self._context(await self.engine.wait(execution_id, timeout=timeout, until=is_so if until else None))

    async def answer(self, execution_id: str, answer: Any = None, *, pause: str | None = None) -> ExecutionContext[Any]:
        """Answer an open pause and return at once: the answer is durable, and the execution goes on.

        `pause` is the pause's name or id; it may be left out when only one is open. Raises InvalidAnswer when the answer
        does not fit the pause's type, NotPaused, PauseNotFound, ExecutionFinished."""

        def fitting(asked: Pause) -> Json:
            return self._codec.encode(self._checked(asked, answer), owner=f"the answer to pause {asked.name!r}")

        return self._context(await self.engine.answer(execution_id, fitting, pause=pause))

    async def go_on(self, execution_id: str) -> ExecutionContext[Any]:
        """Let a suspended, sleeping or interrupted execution go on, and return at once."""
        return self._context(await self.engine.resume(execution_id))

    async def resume(
        self, execution_id: str, answer: Any = UNSET, *, pause: str | None = None
    ) -> ExecutionContext[Any]:
        """Answer the pause, or take up an execution that was suspended or interrupted; then wait until it is at rest.

        Without an answer, one open pause is answered with None. A finished execution comes back as it is, unless an
        answer was given: ExecutionFinished."""
        execution = await self.engine.get(execution_id)
        if execution.status.is_final:
            if answer is not UNSET or pause is not None:
                raise ExecutionFinished(execution_id, execution.status.value)
            return self._context(execution)
        if answer is not UNSET or pause is not None or execution.status is Status.PAUSED:
            await self.answer(execution_id, None if answer is UNSET else answer, pause=pause)
        else:
            await self.go_on(execution_id)
        return await self.wait(execution_id)

    async def wake(self, execution_id: str) -> None:
        """Let an execution and its children go on whose timers have rung: for who runs one execution, without `recover`, and
        so looks at the clock for it. Raises ExecutionNotFound."""
        await self.engine.wake_family(execution_id)

    async def cancel(self, execution_id: str, *, reason: str | None = None) -> ExecutionContext[Any]:
        """Ask the execution to end as cancelled; it does so within seconds. A finished one stays as it is."""
        return self._context(await self.engine.cancel(execution_id, reason=reason))

    async def suspend(self, execution_id: str) -> ExecutionContext[Any]:
        """Ask the execution to stop at its next call, until it is resumed. Raises ExecutionFinished."""
        return self._context(await self.engine.suspend(execution_id))

    async def retry(self, execution_id: str) -> ExecutionContext[Any]:
        """Let a failed execution go on from its failure, and return at once: finished work stays. Raises NotFailed."""
        return self._context(await self.engine.retry(execution_id))

    async def fork(
        self, execution_id: str, *, at: int | None = None, new_id: str | None = None
    ) -> ExecutionContext[Any]:
        """Begin a new execution from the first `at` facts of another's history (`ctx.events` numbers them), by default
        from all but its end, and return at once. Raises ValueError when there is no such fact, ExecutionExists."""
        return self._context(await self.engine.fork(execution_id, at=at, as_id=new_id))

    async def prune(self, *, older_than: float) -> int:
        """Delete executions that ended more than `older_than` seconds ago, unless a living parent may still ask for them.

        Returns how many were deleted."""
        return await self.engine.store.prune(before=self._clock.now() - older_than)

    async def get(self, execution_id: str, *, events: bool = False) -> ExecutionContext[Any]:
        """The execution as it is now; with `events`, with its whole history. Raises ExecutionNotFound."""
        execution = await self.engine.get(execution_id)
        return self._context(execution, await self.history(execution_id) if events else ())

    async def history(self, execution_id: str, *, after: int = 0) -> list[Event]:
        """The facts themselves, in order, from number `after` + 1. Raises ExecutionNotFound."""
        return await self.engine.store.load(execution_id, after=after)

    async def exists(self, execution_id: str) -> bool:
        try:
            await self.engine.get(execution_id)
        except ExecutionNotFound:
            return False
        return True

    async def list(
        self,
        *,
        workflow: str | None = None,
        status: Status | str | Collection[Status] | None = None,
        principal: str | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[Listing]:
        """Executions, newest first. `before` is (created_at, id) of the last one of the page before."""
        wanted = {Status(status)} if isinstance(status, str) else status
        return await self.engine.find(workflow=workflow, status=wanted, principal=principal, before=before, limit=limit)

    async def drain(self, seconds: float) -> None:
        """Begin and take up nothing more here, and wait until what runs has come to rest, for so long at most. What still
        runs then is given up by closing, for others to go on with."""
        await self.engine.runs.drain(seconds)

    async def queues(self) -> list[QueueState]:
        """The queues in which executions run or wait, and how many of either, by name."""
        return await self.engine.store.queues()

    async def agree(self, key: str, text: str) -> str:
        """A text that all processes on the database agree on: the first one's, under that key, for good."""
        return await self.engine.store.agree(key, text)

    async def schedules(self) -> list[ScheduleState]:
        """Where the schedules of the workflows known here stand."""
        return await Scheduler(self.engine).states()

    async def pause_schedule(self, workflow: str) -> ScheduleState:
        """Start the workflow no more by its schedule, in any process, until it is resumed. Raises WorkflowNotFound."""
        return await Scheduler(self.engine).pause(workflow, paused=True)

    async def resume_schedule(self, workflow: str) -> ScheduleState:
        """Let a paused schedule go on from now; what it would have started meanwhile is not made up for."""
        return await Scheduler(self.engine).pause(workflow, paused=False)

    @contextmanager
    def observed(self, execution_id: str, observer: Observer, *, questions: bool = False) -> Generator[None]:
        """Tell `observer` what the execution reports (`progress`, finished tasks) while it runs in this process; with
        `questions`, also when it asks something."""
        with self.engine.runs.observed(execution_id, observer, questions=questions):
            yield

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise FluxError("Flux is not open: use it as `async with Flux(...) as flux:`.")
        return self._engine

    def _is_transient(self, workflow: str) -> bool:
        return workflow in self.workflows and self.workflows.get(workflow).is_transient

    # -- between the user's words and the engine's -------------------------------------------------------------------

    def _known(self, workflow: AnyWorkflow | str) -> AnyWorkflow:
        """The workflow by object or by name. A workflow that is handed in is served from then on."""
        if isinstance(workflow, str):
            return self.workflows.get(workflow)
        self.workflows.add(workflow)
        return workflow

    def _context(self, execution: Execution, history: Sequence[Event] = ()) -> ExecutionContext[Any]:
        workflow = self.workflows.get(execution.workflow) if execution.workflow in self.workflows else None
        return ExecutionContext(
            execution,
            self._codec,
            input_type=workflow.input_type if workflow else Any,
            output_type=workflow.output_type if workflow else Any,
            history=history,
        )

    def _checked(self, asked: Pause, answer: Any) -> Any:
        """The answer as the pause's own type where that can be found, else checked against its schema."""
        what = f"The answer to pause {asked.name!r}"
        if asked.response is not None:
            try:
                found = type_named(self._codec.decode(asked.response))
            except NotReadable:
                pass  # its module is not loaded here; the schema still is
            else:
                return value_type(found).validate(answer, what, error=InvalidAnswer)
        if asked.schema is not None:
            _check_schema(what, answer, self._codec.decode(asked.schema))
        return answer


def _check_schema(what: str, answer: Any, schema: dict[str, Any]) -> None:
    import jsonschema  # noqa: PLC0415 - only answers of types without a name need it, and it takes a while to import

    errors: Iterable[jsonschema.ValidationError] = cast(Any, jsonschema.Draft202012Validator(schema)).iter_errors(
        answer
    )
    faults = [(error.json_path.removeprefix("$").lstrip("."), error.message) for error in errors]
    if faults:
        raise InvalidAnswer(what, faults)


# -- for code without an event loop ------------------------------------------------------------------------------------


class _Blocking:
    """Runs a workflow to rest on a loop of its own: in this thread, or beside the loop that runs here already."""

    def run(self, workflow: AnyWorkflow, input: Any, execution_id: str | None) -> ExecutionContext[Any]:
        async def to_rest(flux: Flux) -> ExecutionContext[Any]:
            if execution_id is not None and await flux.exists(execution_id):
                return await self._found(flux, workflow, execution_id, is_new=input is not UNSET)
            return await flux.run(workflow, input, execution_id=execution_id)

        return self._with_flux(workflow, to_rest)

    def resume(self, workflow: AnyWorkflow, execution_id: str, answer: Any, pause: str | None) -> ExecutionContext[Any]:
        return self._with_flux(workflow, lambda flux: self._go_on(flux, workflow, execution_id, answer, pause))

    async def _found(
        self, flux: Flux, workflow: AnyWorkflow, execution_id: str, *, is_new: bool
    ) -> ExecutionContext[Any]:
        """An execution that is there already goes on, if nothing is missing. A pause that takes any answer is left, unless
        nothing was given that could have meant a new execution."""
        execution = await flux.get(execution_id)
        takes_any = len(execution.pauses) == 1 and execution.pauses[0].schema is None
        if execution.is_paused and (is_new or not takes_any):
            return execution
        return await self._go_on(flux, workflow, execution_id, UNSET, None)

    async def _go_on(
        self, flux: Flux, workflow: AnyWorkflow, execution_id: str, answer: Any, pause: str | None
    ) -> ExecutionContext[Any]:
        execution = await flux.get(execution_id)
        if execution.workflow_name != workflow.name:
            raise WorkflowMismatch(execution_id, belongs_to=execution.workflow_name, asked=workflow.name)
        return await flux.resume(execution_id, answer, pause=pause)

    def _with_flux(
        self, workflow: AnyWorkflow, work: Callable[[Flux], Awaitable[ExecutionContext[Any]]]
    ) -> ExecutionContext[Any]:
        async def main() -> ExecutionContext[Any]:
            async with Flux(workflows=[workflow], recover=False) as flux:
                execution = await work(flux)
                return await flux.get(execution.execution_id, events=True)

        return run_blocking(main)


def run_blocking(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`asyncio.run`, also where a loop is running (a notebook): then in a thread of its own."""
    if not _is_in_a_loop():
        return asyncio.run(main())
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="flux run") as pool:
        return pool.submit(contextvars.Context().run, asyncio.run, main()).result()


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


Workflow.runner = _Blocking()
