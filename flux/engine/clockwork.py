"""What happens by the clock: leases are renewed, and executions that are due are taken up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Sequence

from flux.engine.engine import Engine
from flux.engine.ports import Listing
from flux.engine.scheduler import Scheduler
from flux.errors import StoreError

log = logging.getLogger("flux")

FAMILY = 30.0  # seconds between two looks for parents whose child ended while nobody was there to wake them
OLD = 3600.0  # seconds between two looks for executions that ended too long ago to be kept
GIVE_WAY = 0.03  # seconds, at most, before a look that others are told to take as well: whoever wrote is served first
BATCH = 100  # executions taken up at one look
AT_ONCE = 8  # of them that are claimed side by side: the database has a few connections for that


class Clockwork:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._scheduler = Scheduler(engine)
        self._next_family = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Clockwork:
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._renew_for_ever(), name="flux leases"))
        self._tasks.append(loop.create_task(self._admit_for_ever(), name="flux queues"))
        if self._engine.world.recover:
            self._tasks.append(loop.create_task(self._take_up_for_ever(), name="flux due executions"))
        if self._engine.world.recover and self._engine.world.retention is not None:
            self._tasks.append(loop.create_task(self._prune_for_ever(), name="flux old executions"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _renew_for_ever(self) -> None:
        while True:
            await self._pause(self._engine.world.ttl / 5)
            try:
                await self.renew()
            except StoreError as exc:
                log.warning("leases could not be renewed: %s", exc)

    async def _take_up_for_ever(self) -> None:
        while True:
            try:
                while await self.take_up():
                    pass
                await self._scheduler.start_due()
            except StoreError as exc:
                log.warning("could not look for executions that are due: %s", exc)
            await self._stirred()

    async def _admit_for_ever(self) -> None:
        while True:
            await self._pause(self._engine.world.poll)
            try:
                await self._engine.admission.all()
            except StoreError as exc:
                log.warning("could not look for executions whose turn has come: %s", exc)

    async def _prune_for_ever(self) -> None:
        while True:
            try:
                await self.prune()
            except StoreError as exc:
                log.warning("could not delete old executions: %s", exc)
            await self._pause(OLD)

    async def renew(self) -> None:
        """Keep what this process runs; let go of what it has lost; hear what others wrote to it."""
        engine = self._engine
        leases = engine.runs.leases
        if not leases:
            return
        held = await engine.store.renew(leases, ttl=engine.world.ttl, now=engine.world.clock.now())
        for lease in leases:
            last = held.get(lease.execution_id)
            if last is None:
                engine.runs.lost(lease)
            else:
                engine.runs.refresh(lease.execution_id, last)

    async def take_up(self) -> bool:
        """Go on with what is due: timers that have rung, executions whose owner is dead or has lost its lease. Returns whether
        there may be more of it."""
        engine = self._engine
        workflows = engine.world.runnable()
        is_more = False
        if engine.runs.room > 0:
            due = await engine.store.due(workflows=workflows, now=engine.world.clock.now(), limit=BATCH)
            is_more = await self._take_up(due) and len(due) == BATCH
            await self._take_up(await self._orphaned(workflows))
        if engine.world.clock.now() >= self._next_family:
            self._next_family = engine.world.clock.now() + FAMILY
            for row in await engine.store.awaited(workflows=workflows, limit=BATCH):
                await engine.wake_parent(row.id)
        return is_more

    async def _take_up(self, rows: Sequence[Listing]) -> bool:
        """A few at a time. Who has room for all begins anywhere: other processes, told at the same moment, do so elsewhere.
        Returns whether any goes on here."""
        engine = self._engine
        left = random.sample(rows, len(rows)) if engine.runs.room >= len(rows) else list(rows)
        taken: list[bool] = []
        while left and (room := engine.runs.room) > 0:
            count = int(min(room, AT_ONCE))  # what finds no room is not looked at again
            some, left = left[:count], left[count:]
            taken += await asyncio.gather(*map(engine.take_up, some))
        return any(taken)

    async def _orphaned(self, workflows: Collection[str]) -> list[Listing]:
        """What processes of this machine held that are gone."""
        owned = await self._engine.store.owned(workflows=workflows)
        return [row for row in owned if row.owner is not None and self._engine.world.is_dead(row.owner)]

    async def prune(self) -> None:
        """Delete what ended longer ago than it is to be kept."""
        world = self._engine.world
        assert world.retention is not None, "there is a time after which nothing is kept"
        count = await self._engine.store.prune(before=world.clock.now() - world.retention)
        if count:
            log.info("%d executions that ended more than %g days ago are deleted", count, world.retention / 86_400)

    async def _stirred(self) -> None:
        """Until it is time to look again, or somebody says that there is something to see."""
        stirred = self._engine.stirred
        pause = asyncio.ensure_future(self._pause(self._engine.world.poll))
        told = asyncio.ensure_future(stirred.wait())
        try:
            await asyncio.wait([pause, told], return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
            told.cancel()
        if stirred.is_set():
            stirred.clear()
            await asyncio.sleep(random.uniform(0, GIVE_WAY))

    async def _pause(self, seconds: float) -> None:
        clock = self._engine.world.clock
        await clock.sleep_until(clock.now() + seconds)
