"""Writes down how a workflow of this folder goes today: `python tests/histories/record.py NAME ...`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import workflows  # pyright: ignore[reportImplicitRelativeImport] - run as a script, in this folder

from flux import Flux
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, exported, to_the_end


async def record(name: str) -> None:
    workflow, input, answers = workflows.CASES[name]
    clock = FakeClock()
    async with Flux(store=MemoryStore(), clock=clock, workflows=[workflow], recover=False) as flux:
        started = await flux.start(workflow, input)
        await to_the_end(flux, started.execution_id, answers, clock=clock)
        text = exported(started.execution_id, await flux.history(started.execution_id))
    Path(__file__).with_name(f"{name}.json").write_text(text, encoding="utf-8")


for each in sys.argv[1:]:
    asyncio.run(record(each))
