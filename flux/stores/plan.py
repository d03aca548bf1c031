"""What a group of writes comes to: judged one after the other, before anything is written. The same for every database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flux.domain.events import Event, ExecutionStarted
from flux.domain.queues import Place
from flux.engine.ports import Head, Lease, Owner
from flux.errors import AlreadyQueued, ExecutionExists, ExecutionNotFound, KeyTaken, LeaseLost, StreamMoved
from flux.stores.rows import Row, is_lifecycle, storable, to_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    id: str
    rows: Sequence[Row]
    workflow: str
    created_at: float
    principal: str | None
    parent: str | None
    key: str | None
    head: Head
    owner: Owner | None
    ttl: float
    unique_since: float | None = None
    place: Place | None = None

    @property
    def lease(self) -> Lease | None:
        """What the owner gets."""
        return None if self.owner is None else Lease(execution_id=self.id, owner=self.owner, epoch=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    id: str
    rows: Sequence[Row]
    expected: int
    lease: Lease
    head: Head | None
    release: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    id: str
    rows: Sequence[Row]
    seen: int
    head: Head


Write = Create | Append | Post
Outcome = Lease | Exception | None
"""What a Create returns, what the others return, or what any of them raises."""

Mark = tuple[str, str]
"""A queue, and what an execution in it stands for."""


@dataclass(slots=True)
class Known:
    """An execution as the transaction sees it, writes of this group included. `last` is the number of its last fact,
    `lifecycle` how many lifecycle facts it has; `head` and `release` are what is to be written."""

    number: int
    epoch: int
    token: str | None
    last: int
    lifecycle: int
    head: Head | None = None
    release: bool = False


def create_of(
    id: str,
    events: Sequence[Event],
    *,
    head: Head,
    owner: Owner | None,
    ttl: float,
    key: str | None,
    unique_since: float | None,
    place: Place | None,
) -> Create:
    """The arguments of `EventStore.create` as a write. Raises StoreError for text that no database can hold."""
    started = events[0]
    if not isinstance(started, ExecutionStarted):
        raise ValueError(f"a stream begins with ExecutionStarted, not {type(started).__name__}")
    of_place = (place.queue, place.partition, place.deduplication) if place else ()
    for text in (started.workflow, started.principal, started.parent, key, *of_place):
        if text is not None:
            storable(text, "an execution's workflow, principal, parent, key or queue")
    return Create(
        id=id,
        rows=to_rows(events),
        workflow=started.workflow,
        created_at=started.at,
        principal=started.principal,
        parent=started.parent,
        key=key,
        head=head,
        owner=owner,
        ttl=ttl,
        unique_since=unique_since,
        place=place,
    )


def unique_keys(group: Sequence[Write]) -> list[tuple[str, float]]:
    """The keys that new executions of a group are to have alone, each with the time since when."""
    creates = (write for write in group if isinstance(write, Create))
    return [(one.key, one.unique_since) for one in creates if one.key is not None and one.unique_since is not None]


def marks_of(group: Sequence[Write]) -> list[Mark]:
    """What the new executions of a group stand for."""
    places = (write.place for write in group if isinstance(write, Create))
    return [(place.queue, place.deduplication) for place in places if place and place.deduplication is not None]


@dataclass(slots=True)
class Stream:
    """Appends to one stream that follow one another under one lease: accepted or refused together."""

    first: Append
    rows: list[Row]


def plain_streams(group: Sequence[Write], *, most: int) -> dict[str, Stream] | None:
    """The group by stream, when it only adds facts, `most` of them, and a single statement can judge it; else None."""
    streams: dict[str, Stream] = {}
    size = 0
    for write in group:
        if not isinstance(write, Append) or write.head is not None or write.release or not write.rows:
            return None
        size += len(write.rows)
        stream = streams.get(write.id)
        if stream is None:
            streams[write.id] = Stream(write, list(write.rows))
        elif write.lease == stream.first.lease and write.expected == stream.first.expected + len(stream.rows):
            stream.rows.extend(write.rows)
        else:
            return None
    return streams if size <= most else None


@dataclass(slots=True)
class Plan:
    """`known` are the executions that there are, `numbers` the ones for new executions, `stands` the living executions that
    stand for something in their queue, `taken` are the newest executions with a key that is to be unique.

    After `judge`: `created` is to be inserted with its numbers, `changed` to be updated, `events` to be inserted."""

    known: dict[str, Known]
    numbers: Iterator[int]
    stands: dict[Mark, str]
    taken: dict[str, str]
    created: list[tuple[Create, Known]] = field(default_factory=list[tuple[Create, Known]])
    changed: dict[str, Known] = field(default_factory=dict[str, Known])
    events: list[tuple[int, int, Row]] = field(default_factory=list[tuple[int, int, Row]])

    def judge(self, group: Sequence[Write]) -> list[Outcome]:
        return [self._judge(write) for write in group]

    def _judge(self, write: Write) -> Outcome:
        match write:
            case Create():
                return self._create(write)
            case Append():
                return self._append(write)
            case Post():
                return self._post(write)

    def _create(self, create: Create) -> Outcome:
        if create.id in self.known:
            return ExecutionExists(create.id)
        place, owner = create.place, create.owner
        mark = (place.queue, place.deduplication) if place and place.deduplication is not None else None
        key = create.key if create.unique_since is not None else None
        if mark in self.stands:
            return AlreadyQueued(self.stands[mark], mark[0])
        if key in self.taken:
            return KeyTaken(self.taken[key])
        if mark is not None:  # whoever is refused stands for nothing
            self.stands[mark] = create.id
        if key is not None:
            self.taken[key] = create.id
        known = Known(next(self.numbers), 1 if owner else 0, owner.token if owner else None, 0, 0)
        self.known[create.id] = known
        self.created.append((create, known))
        self._add_events(known, create.rows)
        return create.lease

    def _append(self, append: Append) -> Outcome:
        known, lease = self.known.get(append.id), append.lease
        if known is None or (known.epoch, known.token) != (lease.epoch, lease.owner.token):
            return LeaseLost(append.id)
        if known.last != append.expected:
            return StreamMoved(append.id, append.expected)
        self._add_events(known, append.rows)
        known.head = append.head or known.head
        if append.release:
            known.release, known.token = True, None
        self.changed[append.id] = known
        return None

    def _post(self, post: Post) -> Outcome:
        known = self.known.get(post.id)
        if known is None:
            return ExecutionNotFound(post.id)
        if known.lifecycle != post.seen:
            return StreamMoved(post.id, post.seen)
        self._add_events(known, post.rows)
        known.head = post.head
        self.changed[post.id] = known
        return None

    def _add_events(self, known: Known, rows: Sequence[Row]) -> None:
        self.events += [(known.number, seq, row) for seq, row in enumerate(rows, known.last + 1)]
        known.last += len(rows)
        known.lifecycle += sum(map(is_lifecycle, rows))
