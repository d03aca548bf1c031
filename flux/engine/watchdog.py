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
                log.warning("the event loop has been blocked for %.1f s by:\n%s", silent, self._stack())

    def stop(self) -> None:
        self._over.set()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage] - the one way to see it
        return "".join(traceback.format_stack(frame)[-8:])


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
