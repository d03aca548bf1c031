"""Starts workflows that have a schedule, each start once, however many processes look at the clock."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace

from flux.domain.calls import Json
from flux.domain.execution import Status
from flux.engine.body import Body, Schedule
from flux.engine.engine import Engine, Start
from flux.errors import ExecutionExists, FluxError

log = logging.getLogger("flux")

MOST_MISSED = 1000  # missed starts that are looked at, at most
PUNCTUAL = 60.0  # seconds that a start may be late and not count as missed


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleState:
    """`after` is the time of the last start that was dealt with, `next_at` of the one to come (None: never again), both in
    seconds since the epoch."""

    workflow: str
    after: float
    paused: bool = False
    next_at: float | None = None


class Scheduler:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def states(self) -> list[ScheduleState]:
        """Where each schedule of the workflows known here stands."""
        return [await self._state(body, schedule) for body, schedule in self._scheduled()]

    async def pause(self, workflow: str, *, paused: bool) -> ScheduleState:
        """Stop or restart the clock of one schedule; starts in between are not made up for. Raises WorkflowNotFound."""
        body = self._engine.world.workflows.get(workflow)
        if body.schedule is None:
            raise FluxError(f"Workflow {workflow!r} has no schedule.")
        state = await self._state(body, body.schedule)
        after = self._now() if state.paused and not paused else state.after
        await self._remember(workflow, after=after, paused=paused)
        return await self._state(body, body.schedule)

    async def start_due(self) -> None:
        """Start every workflow whose time has come."""
        for body, schedule in self._scheduled():
            state = await self._state(body, schedule)
            if state.paused or state.next_at is None or state.next_at > self._now():
                continue
            due = self._due(schedule, state.next_at)
            for moment in due:
                await self._start(body, schedule, moment)
            await self._remember(body.name, after=due[-1] if due else self._now(), paused=False)

    def _scheduled(self) -> list[tuple[Body, Schedule]]:
        workflows = self._engine.world.workflows
        bodies = [workflows.get(name) for name in workflows.names()]
        return [(body, body.schedule) for body in bodies if body.schedule is not None]

    def _due(self, schedule: Schedule, first: float) -> list[float]:
        """The starts to make now, of all that have come since the last look."""
        now = self._now()
        due = [first]
        while (following := schedule.next_after(due[-1])) is not None and following <= now and len(due) < MOST_MISSED:
            due.append(following)
        if schedule.missed == "all":
            return due
        latest = due[-1:]
        return latest if schedule.missed == "latest" or now - latest[0] <= PUNCTUAL else []

    async def _start(self, body: Body, schedule: Schedule, moment: float) -> None:
        key = f"schedule/{body.name}"
        if schedule.overlap == "skip" and await self._is_running(key):
            log.info("workflow %r is not started by its schedule: the run before has not ended", body.name)
            return
        # the id is made of the workflow and the time, so that of several processes one makes the start
        id = hashlib.blake2b(f"{key}/{moment!r}".encode(), digest_size=16).hexdigest()
        try:
            await self._engine.start(Start(workflow=body.name, input=self._input(body, schedule), id=id, key=key))
        except ExecutionExists:
            pass
        except FluxError as exc:
            log.error("workflow %r could not be started by its schedule: %s", body.name, exc)

    def _input(self, body: Body, schedule: Schedule) -> Json:
        return body.encoded(schedule.input, self._engine.world.codec)

    async def _is_running(self, key: str) -> bool:
        latest = await self._engine.store.find_key(key, since=0.0)
        return latest is not None and Status(latest.status) not in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    async def _state(self, body: Body, schedule: Schedule) -> ScheduleState:
        text = await self._engine.store.recall(f"schedule/{body.name}")
        if text is None:  # new: it counts from now on
            await self._remember(body.name, after=self._now(), paused=False)
            text = await self._engine.store.recall(f"schedule/{body.name}")
        state = ScheduleState(workflow=body.name, **json.loads(text or "{}"))
        return replace(state, next_at=schedule.next_after(state.after))

    async def _remember(self, workflow: str, *, after: float, paused: bool) -> None:
        await self._engine.store.remember(f"schedule/{workflow}", json.dumps({"after": after, "paused": paused}))

    def _now(self) -> float:
        return self._engine.world.clock.now()
