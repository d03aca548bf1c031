"""The store for tests and trials: the same promises as SQLite's, but for the one that counts when the process ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from flux.domain.events import LIFECYCLE_TYPES, Event, ExecutionStarted
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState, Room
from flux.engine.ports import Head, Heard, Lease, Listing, Owner
from flux.errors import (
    AlreadyQueued,
    ExecutionExists,
    ExecutionNotFound,
    KeyTaken,
    LeaseLost,
    QueueFull,
    StoreError,
    StreamMoved,
)


@dataclass(slots=True)
class _Stream:
    id: str
    started: ExecutionStarted
    events: list[Event]
    head: Head
    key: str | None
    place: Place | None
    admitted_at: float | None = None
    epoch: int = 0
    owner: Owner | None = None
    lease_until: float = 0.0

    def lifecycle(self) -> list[Event]:
        return [event for event in self.events if isinstance(event, LIFECYCLE_TYPES)]

    def held(self, lease: Lease) -> bool:
        return (self.epoch, self.owner) == (lease.epoch, lease.owner)

    def free_at(self, now: float) -> bool:
        return self.owner is None or self.lease_until <= now

    @property
    def is_run(self) -> bool:
        """By somebody. One at rest may have been claimed as well, to look at it."""
        return self.owner is not None and self.head.status is Status.RUNNING

    def listing(self) -> Listing:
        return Listing(
            id=self.id,
            workflow=self.started.workflow,
            status=self.head.status,
            created_at=self.started.at,
            updated_at=self.head.updated_at,
            principal=self.started.principal,
            parent=self.started.parent,
            wake_at=self.head.wake_at,
            owner=self.owner,
            key=self.key,
            place=self.place,
        )

    @property
    def turn(self) -> tuple[bool, int, float]:
        """Sorts those that wait in a queue."""
        assert self.place is not None, "it waits in a queue"
        return (self.admitted_at is None, -self.place.priority, self.started.at)


class MemoryStore:
    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._notes: dict[str, str] = {}
        self._closed = False

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
        started = events[0]
        if not isinstance(started, ExecutionStarted):
            raise ValueError(f"a stream begins with ExecutionStarted, not {type(started).__name__}")
        await self._turn()
        if id in self._streams:
            raise ExecutionExists(id)
        if place is not None and place.deduplication is not None:
            self._check_deduplication(place)
        if key is not None and unique_since is not None and (taken := await self.find_key(key, since=unique_since)):
            raise KeyTaken(taken.id)
        stream = self._streams[id] = _Stream(id, started, list(events), head, key, place)
        return _give(stream, owner, until=head.updated_at + ttl) if owner else None

    def _check_deduplication(self, place: Place) -> None:
        for other in self._in_queue(place.queue):
            if other.place and other.place.deduplication == place.deduplication and not other.head.status.is_final:
                raise AlreadyQueued(other.id, place.queue)

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
        await self._turn()
        stream = self._streams.get(id)
        if stream is None or not stream.held(lease):
            raise LeaseLost(id)
        if len(stream.events) != expected:
            raise StreamMoved(id, expected)
        stream.events.extend(events)
        stream.head = head or stream.head
        if release:
            stream.owner = None

    async def post(self, id: str, events: Sequence[Event], *, seen: int, head: Head) -> None:
        await self._turn()
        stream = self._stream(id)
        if len(stream.lifecycle()) != seen:
            raise StreamMoved(id, seen)
        stream.events.extend(events)
        stream.head = head

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        return self._stream(id).events[after:]

    async def lifecycle(self, id: str) -> list[Event]:
        return self._stream(id).lifecycle()

    async def remember(self, key: str, text: str) -> None:
        await self._turn()
        self._notes[key] = text

    async def notes(self) -> dict[str, str]:
        return dict(self._notes)

    async def agree(self, key: str, text: str) -> str:
        await self._turn()
        return self._notes.setdefault(key, text)

    async def recall(self, key: str) -> str | None:
        return self._notes.get(key)

    def drop(self, id: str) -> None:
        """Forget an execution."""
        self._streams.pop(id, None)

    async def prune(self, *, before: float) -> int:
        living = {id for id, stream in self._streams.items() if not stream.head.status.is_final}
        gone = [
            id
            for id, stream in self._streams.items()
            if id not in living and stream.head.updated_at < before and stream.started.parent not in living
        ]
        for id in gone:
            del self._streams[id]
        return len(gone)

    async def last(self, id: str) -> int:
        return len(self._stream(id).events)

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
        found = [
            listing
            for listing in self._newest_first()
            if (workflow is None or listing.workflow == workflow)
            and (status is None or listing.status in status)
            and (principal is None or listing.principal == principal)
            and (parent is None or listing.parent == parent)
            and (before is None or (listing.created_at, listing.id) < before)
        ]
        return found[:limit]

    async def find_key(self, key: str, *, since: float) -> Listing | None:
        listings = (one for one in self._newest_first() if self._streams[one.id].key == key and one.created_at >= since)
        return next(listings, None)

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
        await self._turn()
        stream = self._stream(id)
        holder = stream.owner
        if holder and holder != owner and not stream.free_at(now) and holder not in dead:
            return holder
        for queue in queues:
            if stream.place and stream.place.queue == queue.name and not self._take_place(stream, queue, now):
                raise QueueFull(id, queue.name)
        taken_from = holder if holder != owner else None
        return _give(stream, owner, until=now + ttl, taken_from=taken_from)

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
        await self._turn()
        waiting = [one for one in self._in_queue(queue.name) if one.listing().is_queued]
        wanted = [one for one in waiting if one.started.workflow in workflows and (only is None or one.id in only)]
        leases: list[Lease] = []
        for stream in sorted(wanted, key=lambda one: one.turn):
            if len(leases) < most and self._take_place(stream, queue, now):
                leases.append(_give(stream, owner, until=now + ttl))
        return leases

    def _take_place(self, stream: _Stream, queue: Queue, now: float) -> bool:
        assert stream.place is not None, "it stands in a queue"
        others = [one for one in self._in_queue(queue.name) if one is not stream]
        running = Counter(one.place.partition for one in others if one.place and one.is_run)
        begun = sum(one.admitted_at is not None and one.admitted_at > now - queue.period for one in others)
        taken = Room(queue, running, begun).take(stream.place.partition, is_new=stream.admitted_at is None)
        if taken and stream.admitted_at is None:
            stream.admitted_at = now
        return taken

    async def queues(self) -> list[QueueState]:
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for one in self._all():
            listing = one.listing()
            if listing.queue is not None:
                running[listing.queue] += one.is_run
                waiting[listing.queue] += listing.is_queued
        return [
            QueueState(name=name, running=running[name], waiting=waiting[name])
            for name in sorted(running)
            if running[name] or waiting[name]
        ]

    def _in_queue(self, name: str) -> list[_Stream]:
        return [stream for stream in self._all() if stream.place and stream.place.queue == name]

    async def renew(self, leases: Sequence[Lease], *, ttl: float, now: float) -> Mapping[str, int]:
        await self._turn()
        held: dict[str, int] = {}
        for lease in leases:
            stream = self._streams.get(lease.execution_id)
            if stream and stream.held(lease):
                stream.lease_until = now + ttl
                held[stream.id] = len(stream.events)
        return held

    async def release(self, lease: Lease) -> None:
        await self._turn()
        stream = self._streams.get(lease.execution_id)
        if stream and stream.held(lease):
            stream.owner = None

    async def due(self, *, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
        listings = [stream.listing() for stream in self._all() if stream.free_at(now)]
        found = [one for one in listings if one.workflow in workflows and _wants_a_runner(one, now)]
        found.sort(key=lambda one: (one.updated_at if one.wake_at is None else one.wake_at, one.id))
        return found[:limit]

    async def awaited(self, *, workflows: Collection[str], limit: int) -> list[Listing]:
        ended = {stream.started.parent: stream.head.updated_at for stream in self._all() if stream.head.status.is_final}
        parked = [one.listing() for one in self._all() if one.head.status in (Status.PAUSED, Status.SLEEPING)]
        found = [one for one in parked if one.workflow in workflows and ended.get(one.id, 0.0) >= one.updated_at - 60]
        return found[:limit]

    async def owned(self, *, workflows: Collection[str]) -> list[Listing]:
        listings = (stream.listing() for stream in self._all())
        found = [one for one in listings if one.owner and one.status is Status.RUNNING and one.workflow in workflows]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    def listen(self, heard: Heard) -> None:
        """There are no other processes."""

    async def aclose(self) -> None:
        self._closed = True

    async def _turn(self) -> None:
        """Every write gives the loop a turn, as a write to a disk would: races show."""
        await asyncio.sleep(0)
        self._check_open()

    def _all(self) -> Collection[_Stream]:
        self._check_open()
        return self._streams.values()

    def _stream(self, id: str) -> _Stream:
        self._check_open()
        if id not in self._streams:
            raise ExecutionNotFound(id)
        return self._streams[id]

    def _newest_first(self) -> list[Listing]:
        return sorted((one.listing() for one in self._all()), key=lambda one: (one.created_at, one.id), reverse=True)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("The store in memory has been closed.")


def _wants_a_runner(listing: Listing, now: float) -> bool:
    if listing.status in (Status.PAUSED, Status.SLEEPING):
        return listing.wake_at is not None and listing.wake_at <= now
    return listing.status is Status.RUNNING and not listing.is_queued


def _give(stream: _Stream, owner: Owner, *, until: float, taken_from: Owner | None = None) -> Lease:
    stream.epoch += 1
    stream.owner = owner
    stream.lease_until = until
    return Lease(execution_id=stream.id, owner=owner, epoch=stream.epoch, taken_from=taken_from)
