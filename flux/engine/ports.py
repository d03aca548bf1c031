"""What the engine needs from the world, each as a small Protocol. `flux.stores`, `flux.codec` and `flux.testing` implement them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flux.domain.calls import CallId, Failure, Json
from flux.domain.events import Event
from flux.domain.execution import Execution, Status
from flux.domain.queues import Place, Queue, QueueState


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that runs executions. `host` names one space of process ids, `started` tells a reused pid apart,
    `token` two engines in one process."""

    host: str
    pid: int
    started: float
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run one execution. `epoch` grows with every claim; an append with an old one is refused.

    `taken_from` is the owner before, when it had not given the execution up: it died, or froze for too long."""

    execution_id: str
    owner: Owner
    epoch: int
    taken_from: Owner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The part of an execution's state by which it is found: kept beside the stream, written in the same transaction."""

    status: Status
    updated_at: float
    wake_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A row of a list of executions."""

    id: str
    workflow: str
    status: Status
    created_at: float
    updated_at: float
    principal: str | None = None
    parent: str | None = None
    wake_at: float | None = None
    owner: Owner | None = None
    key: str | None = None
    place: Place | None = None

    @property
    def queue(self) -> str | None:
        return self.place.queue if self.place else None

    @property
    def is_queued(self) -> bool:
        """Whether it waits for its turn."""
        return self.queue is not None and self.owner is None and self.status is Status.RUNNING


class EventStore(Protocol):
    """Streams of facts, one per execution, each numbered 1, 2, 3, ... in the order written."""

    async def create(
        self,
        id: str,
        events: Sequence[Event],
        *,
        head: Head,
        owner: Owner | None,
        ttl: float,
        key: str | None = None,
        unique_since: float | None = None,
        place: Place | None = None,
    ) -> Lease | None:
        """Begin a stream whose first fact is an ExecutionStarted, held by `owner` for `ttl` seconds (None: by nobody).

        `key` is for finding the execution again (`find_key`), `place` where it stands in a queue; then it has no owner yet.
        Returns the lease, None when there is no owner. Raises ExecutionExists when the id is taken, AlreadyQueued, and KeyTaken
        when another execution was created with the key at or after `unique_since`."""
        ...

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
        """For the owner: add facts after number `expected`, all or none, durable on return.

        Raises LeaseLost unless the lease is held, StreamMoved when the stream's last number is not `expected`.
        `head` replaces the execution's head. `release` gives the lease up in the same transaction."""
        ...

    async def post(self, id: str, events: Sequence[Event], *, seen: int, head: Head) -> None:
        """For anybody: add facts from outside the run (an answer, a request), whoever holds the execution.

        Raises StreamMoved unless the stream holds exactly `seen` lifecycle facts: journal facts, which a busy run writes
        all the time, do not get in the way. Raises ExecutionNotFound."""
        ...

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        """All facts after number `after`, in order. Raises ExecutionNotFound."""
        ...

    async def lifecycle(self, id: str) -> list[Event]:
        """The lifecycle facts alone: an execution's state is a fold of them.

        Does not read the journal facts: its cost does not grow with the number of calls. Raises ExecutionNotFound."""
        ...

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
        """Newest first. `before` is (created_at, id) of the last row of the page before."""
        ...

    async def find_key(self, key: str, *, since: float) -> Listing | None:
        """The newest execution created with `key` at or after `since`."""
        ...


class Leases(Protocol):
    async def claim(
        self,
        id: str,
        owner: Owner,
        *,
        ttl: float,
        now: float,
        dead: Collection[Owner] = (),
        queues: Collection[Queue] = (),
    ) -> Lease | Owner:
        """Take the execution if nobody holds it, its lease has expired, its owner is in `dead`, or it is this owner's own.

        Returns the lease, or who holds it. Raises ExecutionNotFound, and QueueFull when it stands in one of `queues` and that
        has no room for it."""
        ...

    async def admit(
        self,
        queue: Queue,
        owner: Owner,
        *,
        workflows: Collection[str],
        ttl: float,
        now: float,
        most: int,
        only: Collection[str] | None = None,
    ) -> list[Lease]:
        """Take the next executions that wait in a queue, as many as it has room for and `most` at most; `only` of these ids,
        when given. Those that have begun before come first, then by priority, then by age."""
        ...

    async def queues(self) -> list[QueueState]:
        """How full the queues are in which executions run or wait, by name."""
        ...

    async def renew(self, leases: Sequence[Lease], *, ttl: float, now: float) -> Mapping[str, int]:
        """Extend leases. Returns, for each execution still held, the number of its stream's last fact; the rest are lost."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the execution up if it is still held; never raises for a lost one."""
        ...

    async def due(self, *, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
        """Executions that somebody should take: RUNNING ones without an owner or with an expired lease, and parked ones
        whose `wake_at` has come. The ones held by a live lease of another owner are left out, and those that wait in a queue
        (see `admit`)."""
        ...

    async def awaited(self, *, workflows: Collection[str], limit: int) -> list[Listing]:
        """Parked executions one of whose children has ended since about the time they parked: normally the process that ends
        a child wakes its parent, this finds what a crash in between has left."""
        ...

    async def owned(self, *, workflows: Collection[str]) -> list[Listing]:
        """RUNNING executions that have an owner, whoever it is: the caller tells which owners are dead."""
        ...


Heard = Callable[[str, bool], None]
"""Told the id of an execution that another process wrote to, and whether it is there for anybody to run."""


class Store(EventStore, Leases, Protocol):
    async def remember(self, key: str, text: str) -> None:
        """Keep a small text under a key, in place of what was there."""
        ...

    async def notes(self) -> dict[str, str]:
        """All small texts, by key."""
        ...

    async def agree(self, key: str, text: str) -> str:
        """Keep a small text under a key unless there is one, and return the one that is there: of several processes all get
        the same."""
        ...

    async def recall(self, key: str) -> str | None: ...

    async def prune(self, *, before: float) -> int:
        """Delete executions that ended before that time and have no living parent, with all their facts; how many it were."""
        ...

    async def last(self, id: str) -> int:
        """The number of the stream's last fact: cheap, for followers in other processes. Raises ExecutionNotFound."""
        ...

    def listen(self, heard: Heard) -> None:
        """Call `heard` from now on, soon after the fact. Not every store can, and none promises it: a look at the database finds
        the same."""
        ...

    async def aclose(self) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch (UTC)."""
        ...

    async def sleep_until(self, when: float) -> None: ...


class Codec(Protocol):
    """Values as text and back, exactly. `owner` names the task, workflow or pause in errors."""

    def encode(self, value: Any, *, owner: str, annotation: Any = None) -> Json:
        """Raises NotStorable, which names the path inside the value, its type and the way out."""
        ...

    def decode(self, text: Json, annotation: Any = None) -> Any:
        """`annotation` helps where a value's class cannot be found by name. Raises NotReadable."""
        ...

    def describe(self, value: Any, *, limit: int = 1024) -> tuple[str, Json]:
        """For arguments: a digest of the whole value and a bounded, readable copy. Never raises; what cannot be stored
        counts by its type."""
        ...

    def isolate(self, value: Any) -> Any:
        """A copy in which lists, dicts, sets and other mutable data are the callee's own; opaque objects are passed on."""
        ...

    def encode_error(self, error: BaseException) -> Failure: ...

    def decode_error(self, failure: Failure) -> BaseException:
        """The same exception for the same failure, live and on replay; TaskFailed when its class cannot be made again."""
        ...


class SecretStore(Protocol):
    async def get(self, name: str) -> str | None:
        """The secret, None when this store has none of that name."""
        ...


@runtime_checkable
class SecretKeeper(SecretStore, Protocol):
    """One that can also be given secrets."""

    def set(self, name: str, value: str) -> None: ...


class ConfigSource(Protocol):
    async def get(self, name: str) -> Any:
        """The value, None when there is none of that name."""
        ...


class Cache(Protocol):
    """Results of tasks, across executions. It may lose what it has been given, but never give something else."""

    async def get(self, key: str, *, now: float) -> Json | None: ...

    async def put(self, key: str, value: Json, *, expires_at: float | None) -> None: ...

    async def clear(self) -> None: ...


class Vault(Protocol):
    """Makes text unreadable, and readable again for whoever has the same key. All raise KeyUnusable."""

    def check(self) -> None:
        """Raise if there is no key, before anything depends on it."""
        ...

    def seal(self, text: str) -> str: ...

    def unseal(self, token: str) -> str: ...


class OutputStorage(Protocol):
    """Keeps the results of tasks outside the history, which holds a reference: `name` and what `store` returned."""

    @property
    def name(self) -> str: ...

    async def store(self, key: str, value: Json) -> str:
        """Keep a result and return how it is found again; durable on return. `key` says for people whose it is."""
        ...

    async def retrieve(self, reference: str) -> Json:
        """Raises NotReadable when it is gone."""
        ...

    async def delete(self, reference: str) -> None: ...


class Trail(Protocol):
    """One run of an execution, as it is told to whoever collects traces."""

    def entered(self) -> AbstractContextManager[object]:
        """What is done meanwhile, here and elsewhere, belongs to the run."""
        ...

    def attempt(
        self, task: str, name: str, call: CallId, number: int, failure: Callable[[Exception], Failure]
    ) -> AbstractContextManager[object]:
        """What is done meanwhile is an attempt (from 1) of a call of `task`, whose name there is `name`. `failure` says what
        may be told of an error."""
        ...

    def ended(self, execution: Execution) -> None:
        """The run is over, and has left the execution so."""
        ...


class Tracing(Protocol):
    def current(self) -> str | None:
        """The trace that the caller is part of, as a `traceparent` of W3C Trace Context."""
        ...

    def begun(self, execution: Execution) -> Trail:
        """A run begins, or goes on with the execution. It belongs to the trace in which the execution was started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisions:
    """What tasks may ask for by their options."""

    secrets: SecretStore
    config: ConfigSource
    cache: Cache
    vault: Vault
