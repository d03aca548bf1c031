"""Flux beside its peers on one PostgreSQL server, each in a database of its own: `make bench-peers`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contest import ABSURD, DBOS, FLUX, rate
from measure import Figure, rounds
from postgres import database
from raw import postgres_commits

CONTESTANTS = (FLUX, DBOS, ABSURD)
WORKLOADS = {
    "steps": ("1,000 steps in a row", 1_000),
    "rows_at_once": ("64 executions of 100 steps at once", 6_400),
}


def rates() -> Iterator[Figure]:
    for workload, (name, count) in WORKLOADS.items():
        for who in CONTESTANTS:
            with database() as url:
                yield rate(name, who, who.does(workload, count, url))


def one_round(folder: Path) -> list[Figure]:
    with database() as url:
        raw = Figure("1,000 steps in a row", postgres_commits(url), by="raw commits")
    return [raw, *rates()]


if __name__ == "__main__":
    rounds("Beside its peers on PostgreSQL", one_round)
