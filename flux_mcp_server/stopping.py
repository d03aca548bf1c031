"""When the system says stop, and how to leave what does not listen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def stop_on_signals(stopping: asyncio.Event, *, then: Callable[[], None]) -> Generator[None]:
    """SIGINT and SIGTERM set `stopping`, and call `then`."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        then()

    def heard(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(stop)

    previous = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave_within(seconds: float) -> None:
    """End the process if it has not ended by then: a thread of a task may not listen to anybody."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(0)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
