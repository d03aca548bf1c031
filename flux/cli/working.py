"""`flux worker`: a process that runs executions, whoever began them, and offers nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterable, Sequence

from flux.cli import screen
from flux.cli.loading import AnyWorkflow, Refused
from flux.discovery import discover
from flux.service import Flux
from flux.settings import Settings

CLOSE_WITHIN = 6.0  # seconds after which the process ends, whatever a thread of a task does


def work(
    paths: Sequence[str], *, concurrency: int | None, tags: str | None, drain: float, database: str | None
) -> None:
    """Until SIGTERM or Control-C: then nothing new is taken, and what runs has `drain` seconds. Raises Refused when there is
    nothing to run."""
    settings = Settings.load(database=database, concurrency=concurrency, worker_tags=tags)
    found = discover(paths)
    for problem in found.problems:
        screen.say(f"{problem.path}: {problem.summary}", "red")
    if not found.workflows:
        raise Refused(f"There are no workflows in {', '.join(paths)}: `flux workflows PATH` shows what a file holds.")
    asyncio.run(_serve(found.workflows, settings, drain))


async def _serve(workflows: Iterable[AnyWorkflow], settings: Settings, drain: float) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stopping.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    async with Flux(settings=settings, workflows=workflows) as flux:
        able = [name for name in flux.workflows.names() if flux.engine.world.can_run(name)]
        screen.say(f"This worker runs {', '.join(able) or 'nothing'} (process {os.getpid()}).")
        for each in flux.workflows:
            if each.name not in able:
                screen.say(f"Not {each.name}: it needs {', '.join(sorted(each.needs))} (--tags).", "yellow")
        await stopping.wait()
        screen.say("The worker stops.")
        await flux.drain(drain)
        _leave_within(CLOSE_WITHIN)


def _leave_within(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, args=(0,))
    timer.daemon = True
    timer.start()
