"""Executions that are not worth a disk: kept in memory, beside the ones that are kept for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from flux.domain.events import Event, ExecutionStarted
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState
from flux.engine.ports import Head, Heard, Lease, Listing, Owner, Store
from flux.stores.memory import MemoryStore

KEPT = 1000  # ended executions that are still known; of more, the oldest are forgotten


class TransientStore:
    """Streams of workflows for which `is_transient` says so are in memory, all others in `durable`. One view of both."""

    def __init__(self, durable: Store, is_transient: Callable[[str], bool]) -> None:
        self._durable = durable
        self._memory = MemoryStore()
        self._is_transient = is_transient
        self._here: dict[str, bool] = {}  # ids in memory, in the order begun, and whether they have ended

    def _of(self, id: str) -> Store:
        return self._memory if id in self._here else self._durable

    # -- streams ----------------------------------------------------------------------------------------------------

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
        transient = isinstance(started, ExecutionStarted) and self._is_transient(started.workflow)
        store = self._memory if transient else self._durable
        lease = await store.create(
            id, events, head=head, owner=owner, ttl=ttl, key=key, unique_since=unique_since, place=place
        )
        if transient:
            self._here[id] = False
            await self._forget()
        return lease

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
        await self._of(id).append(id, events, expected=expected, lease=lease, head=head, release=release)
        if id in self._here and head is not None:
            self._here[id] = head.status.is_final

    async def post(self, id: str, events: Sequence[Event], *, seen: int, head: Head) -> None:
        await self._of(id).post(id, events, seen=seen, head=head)

    async def load(self, id: str, *, after: int = 0) -> list[Event]:
        return await self._of(id).load(id, after=after)

    async def lifecycle(self, id: str) -> list[Event]:
        return await self._of(id).lifecycle(id)

    async def last(self, id: str) -> int:
        return await self._of(id).last(id)

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
        found: list[Listing] = []
        for store in self._stores:
            found += await store.find(
                workflow=workflow, status=status, principal=principal, parent=parent, before=before, limit=limit
            )
        return sorted(found, key=lambda row: (row.created_at, row.id), reverse=True)[:limit]

    async def find_key(self, key: str, *, since: float) -> Listing | None:
        return await self._memory.find_key(key, since=since) or await self._durable.find_key(key, since=since)

    async def _forget(self) -> None:
        over = len(self._here) - KEPT
        if over >= KEPT // 10:  # now and then, so that it costs little
            for id in [id for id, ended in self._here.items() if ended][:over]:
                del self._here[id]
                self._memory.drop(id)

    # -- leases -----------------------------------------------------------------------------------------------------

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
        return await self._of(id).claim(id, owner, ttl=ttl, now=now, dead=dead, queues=queues)

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
        return await self._durable.admit(queue, owner, workflows=workflows, ttl=ttl, now=now, most=most, only=only)

    async def queues(self) -> list[QueueState]:
        return await self._durable.queues()

    async def renew(self, leases: Sequence[Lease], *, ttl: float, now: float) -> Mapping[str, int]:
        held: dict[str, int] = {}
        for store in self._stores:
            own = [lease for lease in leases if self._of(lease.execution_id) is store]
            if own:
                held |= await store.renew(own, ttl=ttl, now=now)
        return held

    async def release(self, lease: Lease) -> None:
        await self._of(lease.execution_id).release(lease)

    async def due(self, *, workflows: Collection[str], now: float, limit: int) -> list[Listing]:
        here = await self._memory.due(workflows=workflows, now=now, limit=limit)
        return [*here, *await self._durable.due(workflows=workflows, now=now, limit=limit)]

    async def awaited(self, *, workflows: Collection[str], limit: int) -> list[Listing]:
        here = await self._memory.awaited(workflows=workflows, limit=limit)
        return [*here, *await self._durable.awaited(workflows=workflows, limit=limit)]

    async def owned(self, *, workflows: Collection[str]) -> list[Listing]:
        return [*await self._memory.owned(workflows=workflows), *await self._durable.owned(workflows=workflows)]

    # -- the rest ---------------------------------------------------------------------------------------------------

    @property
    def _stores(self) -> tuple[Store, ...]:
        return (self._memory, self._durable) if self._here else (self._durable,)

    async def remember(self, key: str, text: str) -> None:
        await self._durable.remember(key, text)

    async def notes(self) -> dict[str, str]:
        return await self._durable.notes()

    async def agree(self, key: str, text: str) -> str:
        return await self._durable.agree(key, text)

    async def recall(self, key: str) -> str | None:
        return await self._durable.recall(key)

    async def prune(self, *, before: float) -> int:
        return await self._memory.prune(before=before) + await self._durable.prune(before=before)

    def listen(self, heard: Heard) -> None:
        self._durable.listen(heard)

    async def aclose(self) -> None:
        await self._durable.aclose()
