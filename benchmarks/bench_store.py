"""How close the SQLite store comes to bare sqlite3, in one run on one disk: `python benchmarks/bench_store.py [folder]`.

The baseline commits one row at a time, WAL and synchronous=FULL, on one thread. The store's steps are one append of a
CallStarted and a CallReturned each, acknowledged before the next one of the same caller begins.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, CallStarted, Event, ExecutionStarted
from flux.domain.execution import Status
from flux.engine.ports import Head, Lease, Owner
from flux.stores import SQLiteStore

ROUNDS = 3
STEPS = 2_000
OWNER = Owner(host="bench", pid=1, started=0.0, token="bench")
HEAD = Head(status=Status.RUNNING, updated_at=0.0)
STARTED = ExecutionStarted(at=time.time(), workflow="bench", input=Json("null"))


def step(number: int) -> list[Event]:
    call, at = CallId(str(number)), time.time()
    arguments, value = Json('[["hello",42],{}]'), Json('{"greeting":"hello","answer":42}')
    return [
        CallStarted(at=at, call=call, name="bench.step", digest="0123456789abcdef", arguments=arguments),
        CallReturned(at=at, call=call, value=value),
    ]


def raw_commits(folder: Path) -> float:
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER, body TEXT)")
    begun = time.perf_counter()
    for number in range(STEPS):
        connection.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 100))
    taken = time.perf_counter() - begun
    connection.close()
    return STEPS / taken


async def steps_of(store: SQLiteStore, id: str, count: int) -> None:
    lease = await store.create(id, [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
    assert isinstance(lease, Lease)
    for number in range(count):
        await store.append(id, step(number), expected=1 + 2 * number, lease=lease)


async def one_caller(store: SQLiteStore, round: int) -> float:
    begun = time.perf_counter()
    await steps_of(store, f"one-{round}", STEPS)
    return STEPS / (time.perf_counter() - begun)


async def many_callers(store: SQLiteStore, round: int, callers: int) -> float:
    each = 20_000 // callers
    begun = time.perf_counter()
    await asyncio.gather(*(steps_of(store, f"{callers}-{round}-{caller}", each) for caller in range(callers)))
    return callers * each / (time.perf_counter() - begun)


async def one_step_executions(store: SQLiteStore, round: int) -> float:
    async def whole(number: int) -> None:
        id = f"short-{round}-{number}"
        lease = await store.create(id, [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
        assert isinstance(lease, Lease)
        await store.append(id, step(0), expected=1, lease=lease, head=HEAD, release=True)

    begun = time.perf_counter()
    await asyncio.gather(*map(whole, range(1_000)))
    return 1_000 / (time.perf_counter() - begun)


async def loading(store: SQLiteStore) -> float:
    lease = await store.create("long", [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
    assert isinstance(lease, Lease)
    await store.append("long", [event for n in range(10_000) for event in step(n)], expected=1, lease=lease)
    begun = time.perf_counter()
    assert len(await store.load("long")) == 20_001
    return time.perf_counter() - begun


async def measure(folder: Path) -> None:
    rates: dict[str, list[float]] = {}
    store = await SQLiteStore.open(folder / "store.db")
    for round in range(ROUNDS):
        rates.setdefault("raw sqlite3, one row a commit", []).append(raw_commits(folder))
        rates.setdefault("store, 1 caller", []).append(await one_caller(store, round))
        rates.setdefault("store, 64 callers", []).append(await many_callers(store, round, 64))
        rates.setdefault("store, 1,000 callers", []).append(await many_callers(store, round, 1_000))
        rates.setdefault("store, 1,000 one-step executions", []).append(await one_step_executions(store, round))
    seconds = await loading(store)
    await store.aclose()
    report(rates, seconds)


def report(rates: dict[str, list[float]], seconds: float) -> None:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    raw = next(iter(medians.values()))
    for name, rate in medians.items():
        print(f"{name:36} {rate:10,.0f} /s   {rate / raw:6.2f} of raw")
    print(f"{'load of 10,000 steps':36} {seconds * 1000:10.1f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        asyncio.run(measure(Path(folder)))


if __name__ == "__main__":
    main()
