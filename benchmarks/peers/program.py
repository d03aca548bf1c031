"""What the programs here have in common: `python with_X.py WORKLOAD COUNT PLACE` does one thing and prints what it took, as JSON.

PLACE is an empty folder, or the URL of an empty database. Only the standard library: every program runs in an environment
of its own, and this file in all of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median


class Stopwatch:
    """Seconds of a whole, and of its parts: `with watch: ...`, one part each."""

    def __init__(self) -> None:
        self.parts: list[float] = []

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.parts.append(time.perf_counter() - self._began)


def main(workloads: Mapping[str, Callable[[int, str], Stopwatch]]) -> None:
    """Does what the command line asks for. Ends at once, as in a crash: what an execution has left open, stays open."""
    workload, count, place = sys.argv[1:]
    watch = workloads[workload](int(count), place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"seconds": sum(watch.parts), "p50": median(watch.parts), "peak": peak}
    print(json.dumps(found), flush=True)
    os._exit(0)
