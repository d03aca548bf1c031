"""An agent in processes that are killed, each at another write to the database: before it, or right after it.

Usage: killed_at.py FOLDER MODEL. Prints a line of JSON for each process that was killed: what was recorded then, and how another
process ended. What the agent is asked for, it asks with a key that says in which of the processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flux import ExecutionContext, Flux, task, workflow
from flux.domain.events import CallReturned, CallStarted
from flux.errors import ExecutionNotFound
from flux.stores import SQLiteStore
from flux.tasks.ai import agent
from flux.testing import to_the_end

FOLDER, MODEL = Path(sys.argv[1]), sys.argv[2]
KEYS = ("OLLAMA_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY")
ID = "it"


class Report(BaseModel):
    steps: list[str]


def note(done: str) -> str:
    with (FOLDER / f"{os.environ[KEYS[0]]}.ledger").open("a") as ledger:
        ledger.write(f"{done}\n")
    return f"did {done}"


@task
async def step(name: str) -> str:
    return note(name)


@task.with_options(requires_approval=True)
async def publish(name: str) -> str:
    return note(name)


worker = agent("Work.", model=MODEL, name="worker", tools=[step, publish], response_format=Report)


@workflow
async def works(ctx: ExecutionContext[None]) -> list[str]:
    return (await worker("Go.")).steps


class MortalStore:
    """Kills the process at its `last` write."""

    def __init__(self, store: SQLiteStore, last: int, *, before: bool) -> None:
        self._create, self._append, self._post = store.create, store.append, store.post
        store.create, store.append, store.post = self.create, self.append, self.post
        self._last, self._before, self._written = last, before, 0

    async def create(self, id: str, events: Any, **options: Any) -> Any:
        return await self._write(self._create(id, events, **options))

    async def append(self, id: str, events: Any, **options: Any) -> None:
        await self._write(self._append(id, events, **options))

    async def post(self, id: str, events: Any, **options: Any) -> None:
        await self._write(self._post(id, events, **options))

    async def _write(self, writing: Coroutine[Any, Any, Any]) -> Any:
        self._written += 1
        if self._before:
            self._die()
        written = await writing
        self._die()
        return written

    def _die(self) -> None:
        if self._written >= self._last:
            os.kill(os.getpid(), signal.SIGKILL)


async def live(file: Path, last: int | None, *, before: bool) -> dict[str, Any]:
    """One process: from where the history stands to the end, if it lives to see it."""
    store = await SQLiteStore.open(file)
    recorded = await recorded_in(store)
    if last is not None:
        MortalStore(store, last, before=before)
    async with Flux(store=store, workflows=[works], recover=False) as flux:
        if not recorded["facts"]:
            await flux.start(works, None, execution_id=ID)
        done = await to_the_end(flux, ID, {"approval:publish": {"approved": True}})
    await store.aclose()
    return {**recorded, "output": done.output}


async def recorded_in(store: SQLiteStore) -> dict[str, Any]:
    try:
        history = await store.load(ID)
    except ExecutionNotFound:
        history = []
    names = {fact.call: f"{fact.name} {fact.arguments}" for fact in history if isinstance(fact, CallStarted)}
    returned = [names[fact.call] for fact in history if isinstance(fact, CallReturned)]
    return {
        "facts": len(history),
        "answered": sum(name.startswith("worker:llm") for name in returned),
        "done": [name for name in ("one", "two", "three") if any(f'"{name}"' in call for call in returned)],
    }


def in_a_process(key: str, living: Any) -> int:
    """Its exit status; what it finds goes to `<key>.json`."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(dict.fromkeys(KEYS, key))
        (FOLDER / f"{key}.json").write_text(json.dumps(asyncio.run(living())))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    os.environ.update(dict.fromkeys(KEYS, "undisturbed"))
    asyncio.run(live(FOLDER / "undisturbed.db", None, before=False))  # imports much that the children need, too
    last = 0
    while True:
        last += 1
        for before in (True, False):
            name = f"{'before' if before else 'after'}-{last}"
            file = FOLDER / f"{name}.db"
            if in_a_process(f"{name}-1", lambda: live(file, last, before=before)) == 0:  # noqa: B023 - called at once
                return
            in_a_process(f"{name}-2", lambda: live(file, None, before=before))  # noqa: B023 - called at once
            print(json.dumps({"name": name, **json.loads((FOLDER / f"{name}-2.json").read_text())}))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
