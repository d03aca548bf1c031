"""One run's memory: what its calls did before, and the one place that writes what they do now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, replace

from flux.domain.calls import CallId, Failure, Json, Outcome, Raised, Returned
from flux.domain.events import (
    LIFECYCLE_TYPES,
    AttemptFailed,
    CallCancelled,
    CallNoted,
    CallRaised,
    CallReturned,
    CallStarted,
    Event,
    ExecutionResumed,
    PauseAnswered,
    PauseExpired,
    PauseOpened,
    TimerSet,
)
from flux.domain.execution import Execution, apply
from flux.engine.order import HOPS, Order
from flux.engine.ports import Clock, EventStore, Head, Lease
from flux.engine.scope import Scope, Site
from flux.errors import NonDeterminismError, StoreError, StreamMoved, Suspend

LINGER = 0.05  # seconds that a fact which nobody waits for may stay unwritten

_LIFECYCLE = frozenset(LIFECYCLE_TYPES)
_OUTCOMES = frozenset((CallReturned, CallRaised, CallCancelled))


@dataclass(slots=True)
class Record:
    """What the history holds of one call."""

    name: str
    digest: str = ""
    arguments: str | None = None
    outcome: Outcome | None = None
    commit: float | CallId | None = None  # which brought the outcome: its time, or the call alone
    attempts: int = 0
    error: Failure | None = None
    retry_at: float = 0.0
    gave_up: bool = False
    wake_at: float | None = None
    note: Json | None = None

    @property
    def is_finished(self) -> bool:
        return self.commit is not None

    @property
    def was_cancelled(self) -> bool:
        return self.is_finished and self.outcome is None


class Journal:
    """`notice` is told of facts that somebody else wrote to the stream while this run held it; `broken` is called once,
    when nothing can be written any more."""

    def __init__(
        self,
        store: EventStore,
        clock: Clock,
        lease: Lease,
        history: Sequence[Event],
        *,
        notice: Callable[[Event], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._notice = notice
        self._report_broken = broken
        self._seq = len(history)
        self._pending: list[Event] = []
        self._awaiting: list[asyncio.Future[None]] = []  # that what is pending is written
        self._writer: asyncio.Task[None] | None = None
        self._stream = asyncio.Lock()  # who writes or reads on: two at once would each count the same facts
        self._linger: asyncio.TimerHandle | None = None
        self._stale = False
        self._commit_at = 0.0
        self.alone = True  # no other asyncio task of the run can see in which order outcomes arrive
        self.error: Exception | None = None

        self._records: dict[CallId, Record] = {}
        execution: Execution | None = None
        for event in history:
            if type(event) in _LIFECYCLE:
                execution = apply(lease.execution_id, execution, event)
            _remember(self._records, event)
            self._commit_at = max(self._commit_at, event.at)
        assert execution is not None, "a stream begins with ExecutionStarted"
        self.execution = execution
        _forget_what_is_over(self._records)
        self._furthest = _furthest(self._records)
        # a record moves to the end of the dict when it is finished: so they stand in the order of their outcomes
        finished = ((id, record.commit) for id, record in self._records.items() if record.commit is not None)
        self.order = Order(finished)

    # -- what was ---------------------------------------------------------------------------------------------------

    def recall(self, site: Site, name: str, digest: str = "", arguments: str | None = None) -> Record | None:
        """What the history holds at this place, None when no call was made there before.

        Raises NonDeterminismError when another call stands there: the code must not go on and do the wrong thing."""
        record = self._records.pop(site.id, None)
        if record is not None and (record.name != name or (record.digest and digest and record.digest != digest)):
            raise NonDeterminismError(_mismatch(site, record, name, arguments))
        return record

    def check_end(self, scope: Scope) -> None:
        """Raise NonDeterminismError when `scope` has come to its end without making a call that the history holds."""
        last_call = self._furthest.get(scope.path, -1)
        if last_call >= scope.calls:
            id = CallId(f"{scope.path}{last_call}")
            record = self._records[id]
            raise NonDeterminismError(
                f"expected {_shown(record.name, record.arguments)} as call {id}, got the end of the code around it: a "
                f"recorded call is no longer made. {REPAIR}"
            )
        last_fork = self._furthest.get(f"{scope.path}f", -1)
        if last_fork >= scope.forks:
            raise NonDeterminismError(
                f"expected {last_fork + 1} or more concurrent branches, got {scope.forks}: a branch with recorded calls is "
                f"no longer started. {REPAIR}"
            )

    @property
    def seq(self) -> int:
        """The number of the last fact that this run has seen."""
        return self._seq

    async def facts(self) -> Sequence[Event]:
        """The whole history as it stands in the store by now: a load, for what has to look back beyond its own place."""
        return await self._store.load(self.execution.id)

    # -- what happens now -------------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Write a fact that nobody waits for: with the next commit, or a moment later."""
        self._pending.append(event)
        if self._linger is None and self._writer is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._wake_writer)

    async def record(self, *events: Event) -> None:
        """Write facts; they are durable on return, and every outcome recorded before them has been delivered.

        Raises Suspend when nothing can be written any more: the run is over, here."""
        await self.written(*events)
        if not self.order.is_drained:
            await self.order.drained()

    async def written(self, *events: Event) -> None:
        """Write facts; they are durable on return. Raises Suspend as `record` does."""
        self._pending.extend(events)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaiting.append(written)
        self._wake_writer()
        await written
        if self.error is not None:
            raise Suspend

    async def conclude(self, event: Event, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Write the fact that ends the run and give the lease up with it. False when somebody wrote to the stream first, or when
        `unless` says so once all else is written: the run must look again before it ends. Raises Suspend as `record` does."""
        await self._idle()
        async with self._stream:
            if self.error is not None:
                raise Suspend
            if unless():
                return False
            return await self._concluded(event)

    async def _concluded(self, event: Event) -> bool:
        batch = [*self._pending, event]
        self._pending.clear()
        try:
            await self._append(batch, release=True)
        except StreamMoved:
            self._pending[:0] = batch[:-1]
            await self._catch_up()
            return False
        except StoreError as exc:
            self._break(exc)
            raise Suspend from exc
        return True

    def refresh(self) -> None:
        """Read what somebody else wrote, soon."""
        self._stale = True
        self._wake_writer()

    async def aclose(self) -> None:
        """Write what is pending, if it can be."""
        if self.error is None and self._pending:
            self._wake_writer()
        await self._idle()

    # -- the writer -------------------------------------------------------------------------------------------------

    def _wake_writer(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._writer is None and self.error is None:
            # a context of its own: the writer is no part of the workflow, and cancelling a call must not stop it
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=Context())
        elif self.error is not None:
            self._settle(self._take_awaiting())

    async def _write(self) -> None:
        try:
            while self._pending or self._stale:
                await self._write_batch()
        finally:
            self._writer = None

    async def _write_batch(self) -> None:
        awaiting: list[asyncio.Future[None]] = []
        try:
            async with self._stream:
                awaiting = self._take_awaiting()
                batch, self._pending = self._pending, []
                if self._stale:
                    self._stale = False
                    await self._catch_up()
                while batch and not await self._append_or_catch_up(batch):
                    pass
        except Exception as exc:  # noqa: BLE001 - whatever it was, nobody may take these facts for durable
            self._break(exc)
            return
        finally:
            self._settle(awaiting)
        if not self.alone:
            # outcomes of two commits must not meet in one turn of the loop: a replay keeps them apart, too
            for _ in range(HOPS):
                await asyncio.sleep(0)

    async def _append_or_catch_up(self, batch: list[Event]) -> bool:
        try:
            await self._append(batch)
        except StreamMoved:
            await self._catch_up()
            return False
        return True

    async def _append(self, batch: list[Event], *, release: bool = False) -> None:
        stamped = self._stamped(batch)
        state = self.execution
        for event in stamped:
            if type(event) in _LIFECYCLE:
                state = apply(state.id, state, event)
        head = None
        if state is not self.execution:
            head = Head(status=state.status, updated_at=state.updated_at, wake_at=state.wake_at)
        await self._store.append(state.id, stamped, expected=self._seq, lease=self._lease, head=head, release=release)
        self._seq += len(stamped)
        self.execution = state

    def _stamped(self, batch: list[Event]) -> list[Event]:
        """Outcomes of one commit carry one time, later than any before: see `order.py`."""
        self._commit_at = max(self._clock.now(), self._commit_at + 1e-5)
        return [replace(event, at=self._commit_at) if type(event) in _OUTCOMES else event for event in batch]

    async def _catch_up(self) -> None:
        for event in await self._store.load(self.execution.id, after=self._seq):
            self._seq += 1
            self.execution = apply(self.execution.id, self.execution, event)
            self._notice(event)

    async def _idle(self) -> None:
        while self._writer is not None:
            await asyncio.wait([self._writer])

    def _take_awaiting(self) -> list[asyncio.Future[None]]:
        awaiting, self._awaiting = self._awaiting, []
        return awaiting

    def _settle(self, awaiting: list[asyncio.Future[None]]) -> None:
        for written in awaiting:
            if not written.done():
                written.set_result(None)

    def _break(self, exc: Exception) -> None:
        if self.error is None:
            self.error = exc
            self._pending.clear()
            self._settle(self._take_awaiting())
            self._report_broken(exc)


REPAIR = (
    "The workflow's code has changed since this execution began, or it decides by something that is not recorded (time, "
    "randomness, the environment, which of two finished first). Put the old code back and resume, or move the decision "
    "into a @task; a new version belongs under a new workflow name. To replace `asyncio.wait` and `as_completed`, use "
    "`parallel` or `map`."
)


def _mismatch(site: Site, record: Record, name: str, arguments: str | None) -> str:
    if record.name == name:
        expected, got = _shown(name, record.arguments), _shown(name, arguments)
        if expected == got:
            got += " with other arguments"
    else:
        expected, got = _shown(record.name, record.arguments), _shown(name, arguments)
    return f"expected {expected} as call {site.id}, got {got} at {site.where}. {REPAIR}"


def _shown(name: str, arguments: str | None) -> str:
    return repr(name) if arguments is None else f"{name!r} {arguments}"


def _remember(records: dict[CallId, Record], event: Event) -> None:
    match event:
        case CallStarted():
            records[event.call] = Record(event.name, event.digest, event.arguments)
        case CallReturned():
            _finish(records, event.call, event.at, Returned(event.value))
        case CallRaised():
            _finish(records, event.call, event.at, Raised(event.error))
        case CallCancelled():
            _finish(records, event.call, event.at, None)
        case AttemptFailed():
            record = records[event.call]
            record.attempts, record.error, record.retry_at = event.attempt, event.error, event.retry_at
            record.gave_up = event.final
        case PauseOpened():
            records[event.call] = Record(event.name, wake_at=event.expires_at)
        case PauseExpired():
            outcome = Returned(Json("null")) if event.error is None else Raised(event.error)
            _finish(records, event.call, event.call, outcome)
        case PauseAnswered():
            # from outside: no commit of the run's, whatever its time
            _finish(records, event.call, event.call, Returned(event.answer))
        case ExecutionResumed():
            for call in event.forget:
                _make_again(records, call)
        case TimerSet():
            records[event.call] = Record(event.name, wake_at=event.wake_at)
        case CallNoted():
            record = records.setdefault(event.call, Record(event.name))
            record.note = None if event.note == "null" else event.note
        case _:
            pass


def _make_again(records: dict[CallId, Record], call: CallId) -> None:
    """The outcome of the call does not count any more, and whether it may be made is asked anew."""
    known = records[call]
    records[call] = Record(known.name, known.digest, known.arguments)
    for asked in [id for id in records if id.startswith(f"{call}~0.")]:
        del records[asked]


def _finish(records: dict[CallId, Record], call: CallId, commit: float | CallId, outcome: Outcome | None) -> None:
    record = records[call]
    if record.is_finished:  # an answer and the expiry of its pause may cross: the first counts
        return
    records[call] = records.pop(call)
    record.commit, record.outcome = commit, outcome


def _forget_what_is_over(records: dict[CallId, Record]) -> None:
    """Drop the calls made inside calls that have finished, and inside attempts that have failed: nobody asks for them."""
    over = [id for id in records if any(_is_over(records, above) for above in _calls_above(id))]
    for id in over:
        del records[id]


def _is_over(records: dict[CallId, Record], scope: tuple[CallId, int]) -> bool:
    call, attempt = scope
    record = records.get(call)
    return record is not None and (record.is_finished or 0 < attempt <= record.attempts)


def _calls_above(id: CallId) -> Iterator[tuple[CallId, int]]:
    """The calls, with the number of the attempt, in whose bodies call `id` was made: `2~3.f0.1` is in attempt 3 of `2`.
    Attempt 0 is what comes before the first: the question whether it may be made."""
    for scope in _scopes_above(id):
        before, _, last = scope.rpartition(".")
        if not last.startswith("f"):
            place, _, attempt = last.partition("~")
            yield CallId(f"{before}.{place}" if before else place), int(attempt or 1)


def _furthest(records: Iterable[CallId]) -> dict[str, int]:
    """The highest number of a call in each scope, by the scope's path, and of a fork, by the path and `f`."""
    furthest: dict[str, int] = {}
    for id in records:
        for place in (id, *_scopes_above(id)):
            cut = place.rfind(".") + 1
            path, last = place[:cut], place[cut:]
            if last.startswith("f"):
                path, last = f"{path}f", last[1:]
            number = int(last.partition("~")[0])
            if number > furthest.get(path, -1):
                furthest[path] = number
    return furthest


def _scopes_above(id: CallId) -> Iterator[str]:
    scope = id.rpartition(".")[0]
    while scope:
        yield scope
        scope = scope.rpartition(".")[0]
