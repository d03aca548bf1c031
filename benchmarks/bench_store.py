"""How close the SQLite store comes to bare sqlite3, in one run on one disk: `python benchmarks/bench_store.py [folder]`.

The baseline commits one row at a time, WAL and synchronous=FULL, on one thread. The store's steps are one append of a
CallStarted and a CallReturned each, acknowledged before the next one of the same caller begins.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from measure import Figure, rounds
from raw import SQLITE_COMMITS, sqlite_commits

from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, CallStarted, Event, ExecutionStarted
from flux.domain.execution import Status
from flux.engine.ports import Head, Lease, Owner
from flux.stores import SQLiteStore

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


async def steps_of(store: SQLiteStore, id: str, count: int) -> None:
    lease = await store.create(id, [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
    assert isinstance(lease, Lease)
    for number in range(count):
        await store.append(id, step(number), expected=1 + 2 * number, lease=lease)


async def many_callers(store: SQLiteStore, callers: int, *, steps: int) -> float:
    each = steps // callers
    began = time.perf_counter()
    await asyncio.gather(*(steps_of(store, f"{callers}-{caller}", each) for caller in range(callers)))
    return callers * each / (time.perf_counter() - began)


async def one_step_executions(store: SQLiteStore) -> float:
    async def whole(number: int) -> None:
        id = f"short-{number}"
        lease = await store.create(id, [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
        assert isinstance(lease, Lease)
        await store.append(id, step(0), expected=1, lease=lease, head=HEAD, release=True)

    began = time.perf_counter()
    await asyncio.gather(*map(whole, range(1_000)))
    return 1_000 / (time.perf_counter() - began)


async def loading(store: SQLiteStore) -> float:
    lease = await store.create("long", [STARTED], head=HEAD, owner=OWNER, ttl=60.0)
    assert isinstance(lease, Lease)
    await store.append("long", [event for n in range(10_000) for event in step(n)], expected=1, lease=lease)
    began = time.perf_counter()
    assert len(await store.load("long")) == 20_001
    return (time.perf_counter() - began) * 1000


async def on_a_file(file: Path) -> list[Figure]:
    store = await SQLiteStore.open(file)
    try:
        return [
            Figure("store, 1 caller", await many_callers(store, 1, steps=2_000), of=SQLITE_COMMITS),
            Figure("store, 64 callers", await many_callers(store, 64, steps=20_000), of=SQLITE_COMMITS),
            Figure("store, 1,000 callers", await many_callers(store, 1_000, steps=20_000), of=SQLITE_COMMITS),
            Figure("store, 1,000 one-step executions", await one_step_executions(store), of=SQLITE_COMMITS),
            Figure("load of 10,000 steps", await loading(store), "ms"),
        ]
    finally:
        await store.aclose()


def one_round(folder: Path) -> list[Figure]:
    return [Figure(SQLITE_COMMITS, sqlite_commits(folder)), *asyncio.run(on_a_file(folder / "store.db"))]


if __name__ == "__main__":
    rounds("The SQLite store", one_round)
