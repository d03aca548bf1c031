"""For tests, ours and our users': a clock that only moves when told, and a database that dies on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from flux.context import ExecutionContext
from flux.decorators import Workflow
from flux.domain.events import Event
from flux.domain.execution import fold
from flux.engine.ports import Head, Lease, Store
from flux.errors import StoreError
from flux.service import Flux
from flux.stores.memory import MemoryStore
from flux.stores.rows import from_json_row, to_row

if TYPE_CHECKING:
    from flux.tasks.ai.scripted import ScriptedModel as ScriptedModel
    from flux.tasks.ai.scripted import ScriptedRequest as ScriptedRequest
    from flux.tasks.ai.scripted import no_model_requests as no_model_requests
    from flux.tasks.ai.scripted import tool_call as tool_call

MOMENTS = 3000  # see `FakeClock.advance`


class FakeClock:
    """Time stands still until `advance`. `start` and all times are seconds since the epoch."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._now = start
        self._sleepers: dict[asyncio.Future[None], float] = {}

    def now(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        if when > self._now:
            rung: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sleepers[rung] = when
            rung.add_done_callback(self._sleepers.pop)
            await rung

    async def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Move the time on, waking each sleeper at its own moment and letting what it wakes run.

        What happens by the clock again and again would take long to live through: after MOMENTS moments the time goes on in
        as many larger steps."""
        goal = self._now + seconds + 60 * minutes + 3600 * hours + 86400 * days
        moments, step = 0, 0.0
        await settle()
        while (first := self._first()) is not None and first[0] <= goal:
            moments += 1
            if moments == MOMENTS:
                step = (goal - self._now) / MOMENTS
            await self._ring(max(first[0], min(self._now + step, goal)), first[1])
        self._now = goal

    async def advance_to_next(self) -> None:
        """Move the time on to the next moment for which somebody waits."""
        first = self._first()
        if first is not None:
            await self._ring(*first)

    @property
    def has_sleepers(self) -> bool:
        return self._first() is not None

    def _first(self) -> tuple[float, asyncio.Future[None]] | None:
        waiting = ((when, rung) for rung, when in self._sleepers.items() if not rung.done())
        return min(waiting, key=lambda sleeper: sleeper[0], default=None)

    async def _ring(self, when: float, rung: asyncio.Future[None]) -> None:
        self._now = max(self._now, when)
        rung.set_result(None)
        await settle()


async def settle(turns: int = 50) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


Stores = Callable[[], AbstractAsyncContextManager[Store]]
"""Opens an empty database, a new one each time. A clock that stands still is for one in memory: a disk takes real time."""


@asynccontextmanager
async def in_memory() -> AsyncGenerator[Store]:
    yield MemoryStore()


async def store_holding(execution_id: str, history: Sequence[Event]) -> MemoryStore:
    """A database in which the execution stands as its first facts have it, and whose process is gone."""
    store = MemoryStore()
    await fill(store, execution_id, history)
    return store


async def fill(store: Store, execution_id: str, history: Sequence[Event]) -> None:
    state = fold(execution_id, history)
    if state is None:
        raise ValueError("a history begins with ExecutionStarted")
    head = Head(status=state.status, updated_at=state.updated_at, wake_at=state.wake_at)
    await store.create(execution_id, history, head=head, owner=None, ttl=0)


def exported(execution_id: str, history: Sequence[Event]) -> str:
    """A history as text, for a file beside a test: see `imported`."""
    rows = ",\n".join(json.dumps(to_row(event)) for event in history)
    return f'{{"execution_id": {json.dumps(execution_id)}, "facts": [\n{rows}\n]}}\n'


def imported(text: str) -> tuple[str, list[Event]]:
    """The execution's id and the history that `exported` wrote: `replayed_from` goes on from it with today's code."""
    document = json.loads(text)
    return document["execution_id"], [from_json_row(row) for row in document["facts"]]


async def to_the_end(
    flux: Flux, execution_id: str, answers: Mapping[str, Any] | None = None, *, clock: FakeClock | None = None
) -> ExecutionContext[Any]:
    """Drive an execution until it has finished: give each pause the answer of its name, and let each sleep pass."""
    execution = await flux.get(execution_id)
    while not execution.has_finished:
        await _step(flux, execution, answers, clock)
        execution = await flux.get(execution_id)
    return execution


async def _step(
    flux: Flux, execution: ExecutionContext[Any], answers: Mapping[str, Any] | None, clock: FakeClock | None
) -> None:
    if execution.is_running:
        await _let_it_run(flux, execution.execution_id, clock)
    elif execution.pauses:
        pause = execution.pauses[0]
        await flux.answer(execution.execution_id, (answers or {}).get(pause.name), pause=pause.id)
    else:
        await _let_it_sleep(execution, clock)
        await flux.go_on(execution.execution_id)


async def _let_it_sleep(execution: ExecutionContext[Any], clock: FakeClock | None) -> None:
    if clock is not None and execution.wake_at is not None:
        await clock.advance(seconds=max(0.0, execution.wake_at.timestamp() - clock.now()))


async def _let_it_run(flux: Flux, execution_id: str, clock: FakeClock | None) -> None:
    if execution_id not in flux.engine.runs:
        await flux.go_on(execution_id)
    if clock is None:
        await flux.wait(execution_id)
        return
    await settle()
    if clock.has_sleepers:
        await clock.advance_to_next()


async def crash_at_every_fact(
    workflow: Workflow[Any, Any],
    input: Any = None,
    *,
    answers: Mapping[str, Any] | None = None,
    stores: Stores = in_memory,
) -> ExecutionContext[Any]:
    """Run a workflow, then again from each point at which its process could have died; all must end the same.

    `answers` are for its pauses, by name; `stores` opens a database for each life. Returns the uncrashed execution with its
    events. Raises AssertionError, which names the fact after which the "crash" made a difference. Sleeps pass at once."""
    whole = await _uncrashed(workflow, input, answers, stores)
    history = [event.fact for event in whole.events]
    for length in range(1, len(history)):
        again = await replayed_from(workflow, whole.execution_id, history[:length], answers=answers, stores=stores)
        if again.status is not whole.status or repr(again.output) != repr(whole.output):
            raise AssertionError(
                f"after a crash behind fact {length} ({history[length - 1]}) the workflow ends as {again.status} with "
                f"{again.output!r}, without one as {whole.status} with {whole.output!r}"
            )
    return whole


async def always_replay(
    workflow: Workflow[Any, Any], input: Any = None, *, answers: Mapping[str, Any] | None = None
) -> ExecutionContext[Any]:
    """Run a workflow through as many processes as it writes down steps: each dies after its
    first, with the next one in flight. Returns the finished
    execution with its events. Raises AssertionError when one gets no further than the one before."""
    id, clock = "always", FakeClock()
    store = FailingStore()
    store.fails = True
    async with Flux(workflows=[workflow], store=store, clock=clock, recover=False) as flux:
        await flux.start(workflow, input, execution_id=id)
    history = await store.load(id)
    while True:
        lived, history = history, await _one_life(workflow, id, history, answers)
        last = fold(id, history)
        if last is not None and last.status.is_final:
            return await replayed_from(workflow, id, history)
        if len(history) <= len(lived):
            raise AssertionError(f"a new process gets no further than fact {len(history)} ({history[-1]})")


async def _one_life(
    workflow: Workflow[Any, Any], id: str, history: Sequence[Event], answers: Mapping[str, Any] | None
) -> list[Event]:
    """What the history is after a process has written once more, or has come to rest and been answered."""
    clock, store = FakeClock(history[-1].at), MortalStore()
    await store.take(id, history)
    async with Flux(workflows=[workflow], store=store, clock=clock, recover=False) as flux:
        while not store.fails and len(await store.load(id)) == len(history):
            await _step(flux, await flux.get(id), answers, clock)
    return await store.load(id)


async def replayed_from(
    workflow: Workflow[Any, Any],
    execution_id: str,
    history: Sequence[Event],
    *,
    answers: Mapping[str, Any] | None = None,
    stores: Stores = in_memory,
) -> ExecutionContext[Any]:
    """Go on from a history, as a new process would, and return the finished execution with its events."""
    clock = FakeClock(history[-1].at) if stores is in_memory else None
    async with stores() as store, Flux(workflows=[workflow], store=store, clock=clock, recover=False) as flux:
        await fill(store, execution_id, history)
        await to_the_end(flux, execution_id, answers, clock=clock)
        return await flux.get(execution_id, events=True)


async def _uncrashed(
    workflow: Workflow[Any, Any], input: Any, answers: Mapping[str, Any] | None, stores: Stores
) -> ExecutionContext[Any]:
    clock = FakeClock() if stores is in_memory else None
    async with stores() as store, Flux(workflows=[workflow], store=store, clock=clock, recover=False) as flux:
        execution = await flux.start(workflow, input)
        await to_the_end(flux, execution.execution_id, answers, clock=clock)
        return await flux.get(execution.execution_id, events=True)


class FailingStore(MemoryStore):
    """A database in memory that refuses to write while `fails` is true, as a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    async def append(
        self,
        id: str,
        events: Sequence[Event],
        *,
        expected: int,
        lease: Lease,
        head: Head | None = None,
        release: bool = False,
    ) -> None:
        if self.fails:
            raise StoreError("the disk is full")
        await super().append(id, events, expected=expected, lease=lease, head=head, release=release)


class MortalStore(FailingStore):
    """A database whose process dies once it has written."""

    async def take(self, execution_id: str, history: Sequence[Event]) -> None:
        """Hold an execution as another process has left it."""
        await fill(self, execution_id, history)

    async def append(
        self,
        id: str,
        events: Sequence[Event],
        *,
        expected: int,
        lease: Lease,
        head: Head | None = None,
        release: bool = False,
    ) -> None:
        await super().append(id, events, expected=expected, lease=lease, head=head, release=release)
        self.fails = True


def __getattr__(name: str) -> Any:
    if name in ("ScriptedModel", "ScriptedRequest", "no_model_requests", "tool_call"):
        from flux.tasks.ai import scripted  # noqa: PLC0415 - of the optional extra `ai`, and slow to import

        return getattr(scripted, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
