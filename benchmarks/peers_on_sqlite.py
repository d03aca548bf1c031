"""Flux beside its peers on SQLite files of one disk, each with the durability it really gives: `make bench-peers`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from contest import DBOS, FLUX, LANGGRAPH, LLAMA, Contestant, Took, rate
from measure import Figure, rounds
from raw import sqlite_commits

CONTESTANTS = (FLUX, DBOS, LANGGRAPH, LLAMA)
WORKLOADS = {
    "steps": ("1,000 steps in a row", 1_000),
    "fan": ("fan-out of 1,000", 1_000),
    "at_once": ("1,000 one-step executions at once", 1_000),
}
IN_TURN = 300
LONG = 10_000


def alone(who: Contestant, workload: str, count: int, folder: Path) -> Took:
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        return who.does(workload, count, empty)


def rates(folder: Path) -> Iterator[Figure]:
    for workload, (name, count) in WORKLOADS.items():
        for who in CONTESTANTS:
            yield rate(name, who, alone(who, workload, count, folder))


def turns(folder: Path) -> Iterator[Figure]:
    for who in CONTESTANTS:
        took = alone(who, "in_turn", IN_TURN, folder)
        yield rate("one-step executions in turn", who, took)
        yield Figure("one of them, p50", took.p50 * 1000, "ms", by=who.title)


def long_ones(folder: Path) -> Iterator[Figure]:
    """One execution of many steps, and its replay in a new process."""
    for who in CONTESTANTS:
        with tempfile.TemporaryDirectory(dir=folder) as kept:
            recorded = who.does("record", LONG, kept)
            yield Figure("peak memory of 10,000 steps", recorded.peak, "MiB", by=who.title)
            yield rate("replay of 10,000 recorded steps", who, who.does("replay", LONG, kept))


def one_round(folder: Path) -> list[Figure]:
    raw = Figure("1,000 steps in a row", sqlite_commits(folder), by="raw commits")
    return [raw, *rates(folder), *turns(folder), *long_ones(folder)]


if __name__ == "__main__":
    less = (
        "llama workflows is so slow that it does less: fan-out and executions at once of 300, and 2,000 recorded steps."
    )
    rounds("Beside its peers on SQLite", one_round, notes=["", less])
