"""Tasks of a server, by the extension and as the protocol of 2025-11-25 had them: followed to their end, never called again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from flux.errors import ConnectionLost, RequestRefused, ToolExecutionError, UnusableResult
from flux.tasks.mcp.asking import Wire, request
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.faults import Slow
from flux.tasks.mcp.kept import taken_up
from flux.tasks.mcp.listening import begun, reply_to
from flux.tasks.mcp.reaching import persistently, reached, stop

MOST_LOOKS = 30  # at a task that still asks what it has been told


@dataclass(slots=True)
class RemoteTask:
    """A task of the extension. `told` counts how often it still asks what it has been told."""

    errand: Errand
    told: dict[str, int] = field(default_factory=dict[str, int])

    async def result(self) -> Wire:
        """Follow it to its end. Its questions are noted before they are asked, so that a replay asks the same ones."""
        said: str | None = None
        for key, question in (self.errand.note.asked or {}).items():
            await self._update(key, question)
        rested = 0.0
        while True:
            task = await reached(self.errand, "tasks/get", _of_task(self.errand))
            said = self._tell_once(task.get("statusMessage"), said)
            match task.get("status"):
                case "completed":
                    return cast(Wire, task.get("result") or {})
                case "failed":
                    error = cast(Wire, task.get("error") or {})
                    why = str(error.get("message", "its task failed"))
                    raise RequestRefused(self.errand.asking.server, why, int(error.get("code", 0)))
                case "cancelled":
                    why = "the server has cancelled its task"
                    raise ToolExecutionError(self.errand.asking.what, why, self.errand.asking.server)
                case "input_required":
                    for key, question in cast("Mapping[str, Wire]", task.get("inputRequests") or {}).items():
                        await self._update(key, question)
                case _:
                    rested += await rest(self.errand, task.get("pollIntervalMs"), rested)
                    continue
            await rest(self.errand, task.get("pollIntervalMs"))

    async def _update(self, key: str, question: Wire) -> None:
        if key in self.told:
            return self._still_asks(key)
        self.told[key] = 0
        errand = self.errand
        asked = dict(errand.note.asked or {})
        if key not in asked:
            errand.write_along(replace(errand.note, asked={**asked, key: question}))
        if errand.was_declined(question):
            raise errand.not_answered(errand.its_work)
        answer = await errand.answer_to(question, key=key, name=errand.asking.what)
        await reached(errand, "tasks/update", _of_task(errand, inputResponses={key: answer}))
        return None

    def _still_asks(self, key: str) -> None:
        """It may not have looked yet; but it does not have to like the answer."""
        self.told[key] += 1
        errand = self.errand
        if errand.declined and self.told[key] > 1:
            raise errand.not_answered(errand.its_work)
        if self.told[key] > MOST_LOOKS:
            raise UnusableResult(errand.asking.server, f"{errand.its_work} does not take the answer to {key!r}")

    def _tell_once(self, message: Any, said: str | None) -> str | None:
        if message and message != said:
            self.errand.tell(message)
        return message or said


async def old_result(errand: Errand) -> Wire:
    """Ask a task of 2025-11-25 for its result: the answer comes when it has ended, and over the open call what it asks."""

    async def ask_for_result() -> Wire:
        exchange = taken_up(errand.place)
        if exchange is None:
            async with errand.peers.connected(errand.run, alone=True) as connection:
                exchange = begun(errand, connection, request("tasks/result", _of_task(errand)))
        try:
            return await reply_to(errand, exchange)
        except ConnectionLost as exc:
            if isinstance(exc.__cause__, Slow):
                await _check_slow(errand)
            raise

    return await persistently(errand, ask_for_result)


async def _check_slow(errand: Errand) -> None:
    task = await reached(errand, "tasks/get", _of_task(errand))
    if errand.declined and task.get("status") == "input_required":
        raise errand.not_answered(errand.its_work)
    if not errand.declined:
        await stop(errand)
        raise errand.too_slow()


def _of_task(errand: Errand, **params: Any) -> Wire:
    return {"taskId": errand.note.task, **params}


async def rest(errand: Errand, milliseconds: Any, rested: float = 0.0) -> float:
    """Wait before the next look, and return for how long. After the call's timeout the server is told to stop."""
    asked = milliseconds / 1000 if isinstance(milliseconds, int | float) else 1.0
    seconds = min(max(asked, 0.02), 5.0)
    if errand.asking.timeout is not None and rested + seconds > errand.asking.timeout:
        await stop(errand)
        raise errand.too_slow()
    await errand.run.clock.sleep_until(errand.run.clock.now() + seconds)
    return seconds
