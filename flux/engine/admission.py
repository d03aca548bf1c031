"""Queues, as this process sees them: who has to wait, and whose turn it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from flux.domain.execution import Execution
from flux.domain.queues import Place, Queue
from flux.engine.runs import Runs, World

BATCH = 100  # executions taken from a queue at once


class Admission:
    """`look` reads an execution's state by its id."""

    def __init__(self, world: World, runs: Runs, look: Callable[[str], Awaitable[Execution]]) -> None:
        self._world = world
        self._runs = runs
        self._look = look
        self._begun_here: set[str] = set()  # and not admitted yet

    async def place(self, execution: Execution, priority: int | None) -> Place | None:
        """Where a new execution has to wait; None when it need not.

        A child is named by its call and never stands for another. When an execution it is part of has a place in the same
        queue, it needs none of its own: it would wait for that one's end, and that one for it."""
        queue = self._queue_of(execution)
        if queue is None or await self._is_inside(queue, execution.parent):
            return None
        place = self._world.workflows.get(execution.workflow).place(execution.input, self._world.codec)
        assert place is not None, "a workflow with a queue has a place in it"
        return replace(
            place,
            priority=place.priority if priority is None else priority,
            deduplication=place.deduplication if execution.parent is None else None,
        )

    async def begin(self, execution: Execution) -> None:
        """Run a new execution that has a place in a queue, now or when its turn has come."""
        self._begun_here.add(execution.id)
        await self.next(execution)

    async def next(self, execution: Execution) -> None:
        """Look for the next in the queue of an execution, which has begun to wait or has come to rest."""
        queue = self._queue_of(execution)
        if queue is not None:
            await self._admit(queue)

    async def all(self) -> None:
        """Look for the next in every queue: other processes make room too."""
        for queue in self._world.queues().values():
            await self._admit(queue)

    async def _admit(self, queue: Queue) -> None:
        world = self._world
        room = self._runs.room
        if room <= 0 or not (world.recover or self._begun_here):
            return
        leases = await world.store.admit(
            queue,
            world.owner,
            workflows=[name for name in world.runnable() if world.workflows.get(name).queue == queue],
            ttl=world.ttl,
            now=world.clock.now(),
            most=int(min(room, BATCH)),
            only=None if world.recover else self._begun_here,
        )
        for lease in leases:
            self._begun_here.discard(lease.execution_id)
            await self._runs.go_on(lease)

    async def _is_inside(self, queue: Queue, id: str | None) -> bool:
        while id is not None:
            execution = await self._look(id)
            if self._queue_of(execution) == queue:
                return True
            id = execution.parent
        return False

    def _queue_of(self, execution: Execution) -> Queue | None:
        workflows = self._world.workflows
        return workflows.get(execution.workflow).queue if execution.workflow in workflows else None
