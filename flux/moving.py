"""Moves everything from one database to another, of the same kind or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from flux.domain.events import Event
from flux.domain.execution import Status
from flux.engine.ports import Head, Listing, Owner, Store
from flux.errors import ExecutionExists, FluxError
from flux.host import is_dead
from flux.provisions import Beside
from flux.settings import Settings
from flux.storage import SpillingStore
from flux.stores import open_store

PAGE = 500
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """`known` executions had arrived before."""

    executions: int
    known: int


async def move(source: Settings, target: Settings, *, tell: Callable[[int], None]) -> Moved:
    """Copy all executions with their histories, and the notes of schedules. `tell` hears how many have arrived.

    May be repeated: what has arrived is left. Raises FluxError when a process runs something in the source, and when an
    execution of the same id but another history is in the target."""
    async with _opened(source) as old, _opened(target) as new:
        await _check_at_rest(old)
        executions = known = 0
        async for row in _all(old):
            arrived = await _copy(row, await _history(old, row.id, source), new, target)
            executions, known = executions + 1, known + (not arrived)
            tell(executions)
        for key, text in (await old.notes()).items():
            await new.remember(key, text)
    return Moved(executions=executions, known=known)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Store]:
    async with open_store(settings.database, synchronous=settings.synchronous) as store:
        values = Beside.of(settings.database).values()
        yield store if values is None else cast(Store, SpillingStore(store, values, limit=settings.inline_limit))


async def _check_at_rest(store: Store) -> None:
    held = [row for row in await store.find(status=[Status.RUNNING], limit=100_000) if _is_held(row.owner)]
    if held:
        named = ", ".join(row.id for row in held[:MOST_NAMED]) + (", ..." if len(held) > MOST_NAMED else "")
        raise FluxError(
            f"{len(held)} executions run there ({named}): stop the servers and workers on the old database first. What they "
            "give up is moved as it stands, and goes on in the new one."
        )


def _is_held(owner: Owner | None) -> bool:
    return owner is not None and not is_dead(owner)


async def _all(store: Store) -> AsyncGenerator[Listing]:
    before: tuple[float, str] | None = None
    while page := await store.find(before=before, limit=PAGE):
        for row in page:
            yield row
        before = (page[-1].created_at, page[-1].id)


async def _history(store: Store, id: str, settings: Settings) -> list[Event]:
    events = await store.load(id)
    values = Beside.of(settings.database).values()
    if values is None:
        return events
    return await asyncio.to_thread(lambda: [values.inlined(event) for event in events])


async def _copy(row: Listing, history: list[Event], new: Store, target: Settings) -> bool:
    """False when it is there already."""
    head = Head(status=row.status, updated_at=row.updated_at, wake_at=row.wake_at)
    try:
        await new.create(row.id, history, head=head, owner=None, ttl=0, key=row.key, place=row.place)
    except ExecutionExists:
        if await _history(new, row.id, target) != history:
            raise FluxError(
                f"Execution {row.id!r} is in the new database already, with another history: it has gone on there, or is "
                "another one. Nothing of it has been changed."
            ) from None
        return False
    return True
