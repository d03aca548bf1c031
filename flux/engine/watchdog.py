"""Names what blocks the event loop: a thread that notices when the loop has not turned for a while."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import FrameType

from flux.engine.attempts import CALLED
from flux.engine.run import ENTERED, Run
from flux.engine.spec import Call

log = logging.getLogger("flux")

PATIENCE = 1.0  # seconds that the loop may stand still
BEAT = 0.25  # seconds between two signs of life


class Watchdog:
    """`said` counts how often the loop was found blocked."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._beaten = time.monotonic()
        self._loop_thread = threading.get_ident()
        self._over = threading.Event()
        self.said = 0

    def beat(self) -> None:
        self._beaten = time.monotonic()

    def watch(self) -> None:
        """In a thread of its own, until it is over. Each blockage is named once."""
        named = 0.0
        while not self._over.wait(self._patience / 2):
            beaten = self._beaten
            silent = time.monotonic() - beaten
            if silent > self._patience and beaten != named:
                named = beaten
                self.said += 1
                frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage] - the one way to see it
                stack = "".join(traceback.format_stack(frame)[-8:])
                log.warning("the event loop has been blocked for %.1f s by %s:\n%s", silent, _whose(frame), stack)

    def stop(self) -> None:
        self._over.set()


def _whose(frame: FrameType | None) -> str:
    """The task that is at work there, or the workflow, or neither."""
    while frame is not None:
        if frame.f_code is CALLED:
            call: Call = frame.f_locals["call"]
            return f"task {call.name!r} of execution {call.run.id} ({call.run.body.name})"
        if frame.f_code is ENTERED:
            run: Run = frame.f_locals["self"]
            return f"the body of workflow {run.body.name!r}, execution {run.id}"
        frame = frame.f_back
    return "code outside of tasks"


@asynccontextmanager
async def watched_loop(*, patience: float = PATIENCE) -> AsyncGenerator[Watchdog]:
    """Meanwhile, log what blocks the running event loop."""
    watchdog = Watchdog(patience=patience)
    thread = threading.Thread(target=watchdog.watch, name="flux watchdog", daemon=True)
    beating = asyncio.get_running_loop().create_task(_beat(watchdog, min(BEAT, patience / 4)))
    thread.start()
    try:
        yield watchdog
    finally:
        beating.cancel()
        watchdog.stop()


async def _beat(watchdog: Watchdog, interval: float) -> None:
    while True:
        watchdog.beat()
        await asyncio.sleep(interval)
