"""DBOS, with its SQLite file in WAL mode (synchronous=FULL is SQLite's default), or PostgreSQL.

A step's result is durable before it is handed on. Steps in a row are plain functions, which are faster there than coroutines.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dbos import DBOS, SetWorkflowID
from program import Stopwatch, main

reached_the_end = threading.Event()
body = Stopwatch()


@DBOS.step()
def step(number: int) -> int:
    return number


@DBOS.step()
async def async_step(number: int) -> int:
    return number


@DBOS.workflow()
def in_a_row(count: int) -> None:
    for number in range(count):
        step(number)


@DBOS.workflow()
def in_a_row_then_open(count: int) -> None:
    with body:
        for number in range(count):
            step(number)
    reached_the_end.set()
    time.sleep(3600)


@DBOS.workflow()
async def fan_out(count: int) -> None:
    await asyncio.gather(*[async_step(number) for number in range(count)])


@DBOS.workflow()
def one_step(number: int) -> int:
    return step(number)


def steps(count: int) -> Stopwatch:
    watch = Stopwatch()
    with watch:
        in_a_row(count)
    return watch


def fan(count: int) -> Stopwatch:
    watch = Stopwatch()

    async def run() -> None:
        with watch:
            await fan_out(count)

    asyncio.run(run())
    return watch


def at_once(count: int) -> Stopwatch:
    watch = Stopwatch()
    with watch:
        handles = [DBOS.start_workflow(one_step, number) for number in range(count)]
        for handle in handles:
            handle.get_result()
    return watch


def rows_at_once(count: int) -> Stopwatch:
    """64 executions that share `count` steps."""
    watch = Stopwatch()
    with watch:
        handles = [DBOS.start_workflow(in_a_row, count // 64) for _ in range(64)]
        for handle in handles:
            handle.get_result()
    return watch


def in_turn(count: int) -> Stopwatch:
    watch = Stopwatch()
    for number in range(count):
        with watch:
            one_step(number)
    return watch


def record(count: int) -> Stopwatch:
    with SetWorkflowID("long"):
        DBOS.start_workflow(in_a_row_then_open, count)
    reached_the_end.wait()
    return body


def replay(count: int) -> Stopwatch:
    """`launch` has taken it up again."""
    reached_the_end.wait()
    assert len(body.parts) == 1, count
    return body


def on_dbos(workload: Callable[[int], Stopwatch]) -> Callable[[int, str], Stopwatch]:
    def run(count: int, place: str) -> Stopwatch:
        url = place
        if "://" not in place:
            file = Path(place) / "dbos.db"
            sqlite3.connect(file).execute("PRAGMA journal_mode = WAL")
            url = f"sqlite:///{file}"
        DBOS(config={"name": "bench", "system_database_url": url, "application_version": "1", "log_level": "ERROR"})
        DBOS.launch()
        return workload(count)

    return run


if __name__ == "__main__":
    main({each.__name__: on_dbos(each) for each in (steps, fan, at_once, rows_at_once, in_turn, record, replay)})
