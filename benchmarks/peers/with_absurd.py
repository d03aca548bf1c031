"""absurd: functions in PostgreSQL and a small SDK. A step's result is committed before it is handed on.

A worker of its SDK has one connection, and asks for work every so often; here it never waits between two questions. Many
executions at once are run by eight workers, threads with a connection each.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absurd_sdk import Absurd
from program import Stopwatch, main

WORKERS = 8


def application(url: str) -> Absurd:
    absurd = Absurd(url, queue_name="bench")

    @absurd.register_task("in_a_row")
    def in_a_row(count: int, ctx: Any) -> None:
        for number in range(count):
            ctx.step("step", lambda number=number: number)

    return absurd


def work_until_done(absurd: Absurd, ids: list[str]) -> None:
    """What `start_worker` does, without its pauses, until the executions named have ended."""
    for id in ids:
        while (found := absurd.fetch_task_result(id)) is None or found.state != "completed":
            absurd.work_batch(claim_timeout=600)


def steps(url: str, count: int) -> Stopwatch:
    absurd = application(url)
    watch = Stopwatch()
    with watch:
        work_until_done(absurd, [absurd.spawn("in_a_row", count)["task_id"]])
    return watch


def rows_at_once(url: str, count: int) -> Stopwatch:
    """64 executions that share `count` steps."""
    workers = [application(url) for _ in range(WORKERS)]
    watch = Stopwatch()
    with watch, ThreadPoolExecutor(WORKERS) as pool:
        ids = [workers[0].spawn("in_a_row", count // 64)["task_id"] for _ in range(64)]
        list(pool.map(work_until_done, workers, [ids] * WORKERS))
    return watch


def on_absurd(workload: Callable[[str, int], Stopwatch]) -> Callable[[int, str], Stopwatch]:
    def run(count: int, place: str) -> Stopwatch:
        absurdctl = Path(sys.executable).parent / "absurdctl"
        subprocess.run([absurdctl, "init", "-d", place], check=True, stdout=subprocess.DEVNULL)
        Absurd(place).create_queue("bench")
        return workload(place, count)

    return run


if __name__ == "__main__":
    main({each.__name__: on_absurd(each) for each in (steps, rows_at_once)})
