"""What the SQLite store promises beyond every store: one file, many processes, nothing acknowledged is ever lost."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, CallStarted, CancelRequested, Event, ExecutionStarted
from flux.domain.execution import Status
from flux.engine.ports import Head, Lease, Owner
from flux.errors import FluxError, LeaseLost, SchemaTooNew, StoreError, StreamMoved
from flux.stores import MemoryStore, SQLiteStore, open_store
from flux.stores.rows import to_rows
from flux.stores.sqlite import reads, writes
from flux.stores.sqlite.connection import Connection
from flux.stores.sqlite.opening import open_writer

pytestmark = pytest.mark.anyio

ALICE = Owner(host="here", pid=1, started=1.5, token="alice")
HEAD = Head(status=Status.RUNNING, updated_at=100.0)
STARTED = ExecutionStarted(at=100.0, workflow="order", input=Json("null"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flux.db"


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """A file, but no database."""
    path = tmp_path / "diary.txt"
    path.write_text("Dear diary, " * 1000)
    return path


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = await SQLiteStore.open(path)
    yield store
    await store.aclose()


def returned(number: int, value: str = "null") -> CallReturned:
    return CallReturned(at=100.0 + number, call=CallId(str(number)), value=Json(value))


def step(number: int) -> list[Event]:
    at, call = 1764042685.1234567 + number, CallId(f"f1.{number}")
    arguments, value = Json('[["hello",42],{}]'), Json('{"greeting":"hello","answer":42}')
    return [
        CallStarted(at=at, call=call, name="shop.tasks.charge", digest="0123456789abcdef", arguments=arguments),
        CallReturned(at=at, call=call, value=value),
    ]


async def held(store: SQLiteStore, id: str) -> Lease:
    lease = await store.create(id, [STARTED], head=HEAD, owner=ALICE, ttl=30.0)
    assert lease is not None
    return lease


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


# --- opening


async def test_what_was_written_is_there_after_reopening(path: Path) -> None:
    async with open_store(str(path)) as store:
        lease = await store.create("a", [STARTED], head=HEAD, owner=ALICE, ttl=30.0, key="k")
        assert lease is not None
        await store.append("a", [returned(1)], expected=1, lease=lease)
    async with open_store(f"sqlite:///{path}") as store:
        assert await store.load("a") == [STARTED, returned(1)]
        await store.append("a", [returned(2)], expected=2, lease=lease)
        assert await store.find_key("k", since=0.0) is not None
    assert integrity(path) == "ok"


async def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there yet" / "flux.db"
    async with open_store(f"sqlite:///{path}") as store:
        await store.find()
    assert path.exists()


async def test_a_relative_path_is_under_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///data/flux.db") as store:
        await store.find()
    assert (tmp_path / "data" / "flux.db").exists()


@pytest.mark.parametrize("url", ["memory:", "memory://", ":memory:", "sqlite:///:memory:"])
async def test_memory_has_no_file(url: str) -> None:
    async with open_store(url) as store:
        assert isinstance(store, MemoryStore)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:secret@here/0", "Supported: sqlite:///"),
        ("mysql://me:secret@here/flux", "Supported: sqlite:///"),
        ("sqlite://flux.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("", "empty URL"),
    ],
)
async def test_a_url_that_is_not_supported_says_what_is(url: str, says: str) -> None:
    with pytest.raises(FluxError, match=says) as refused:
        async with open_store(url):
            pass
    assert "secret" not in str(refused.value)


async def test_a_file_of_another_kind_is_left_alone(diary: Path) -> None:
    before = (diary.stat().st_mtime_ns, diary.stat().st_size)
    with pytest.raises(StoreError, match="some other kind of file"):
        await SQLiteStore.open(diary)
    assert (diary.stat().st_mtime_ns, diary.stat().st_size) == before


async def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (day)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        await SQLiteStore.open(path)


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder"):
        await SQLiteStore.open(tmp_path)


async def test_a_file_in_the_way_of_the_folder_is_told(diary: Path) -> None:
    with pytest.raises(StoreError, match="folder of the database"):
        await SQLiteStore.open(diary / "flux.db")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, not even from root")
async def test_a_place_that_takes_no_files_is_told() -> None:
    with pytest.raises(StoreError, match="who may write"):
        await SQLiteStore.open("/proc/flux.db")


async def test_a_newer_schema_is_refused(path: Path, store: SQLiteStore) -> None:
    await store.aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(SchemaTooNew, match="999"):
        await SQLiteStore.open(path)


async def test_many_may_open_a_new_file_at_once(path: Path) -> None:
    stores = await asyncio.gather(*(SQLiteStore.open(path) for _ in range(8)))
    leases = await asyncio.gather(*(held(store, f"s{number}") for number, store in enumerate(stores)))
    assert len(await stores[0].find()) == len(leases)
    await asyncio.gather(*(store.aclose() for store in stores))


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
async def test_the_file_is_in_wal_mode_and_synchronous_as_asked(path: Path, synchronous: str, level: int) -> None:
    connection = open_writer(path, "full" if synchronous == "full" else "normal")
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "busy_timeout")
    ]
    connection.close()
    assert found == ["wal", level, 30_000]


async def test_opening_waits_for_whoever_reads_a_file_that_is_not_in_wal_mode_yet(path: Path) -> None:
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM sqlite_schema").fetchall()
    opening = asyncio.create_task(SQLiteStore.open(path))
    done, _ = await asyncio.wait([opening], timeout=0.1)
    assert not done
    reader.close()
    store = await opening
    await store.aclose()


# --- several at one file


async def test_of_two_stores_at_one_place_exactly_one_wins(path: Path, store: SQLiteStore) -> None:
    lease = await held(store, "a")
    other = await SQLiteStore.open(path)
    for round in range(10):
        writers = [
            one.append("a", [returned(n)], expected=1 + round, lease=lease) for n, one in enumerate((store, other))
        ]
        found = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(one) for one in found if one] == [StreamMoved]
    assert await other.last("a") == 11
    await other.aclose()


async def test_a_claim_in_another_process_fences_this_one(path: Path, store: SQLiteStore) -> None:
    lease = await held(store, "a")
    other = await SQLiteStore.open(path)
    bob = Owner(host="here", pid=2, started=0.0, token="bob")
    assert await other.claim("a", bob, ttl=30.0, now=100.0) == ALICE
    assert isinstance(await other.claim("a", bob, ttl=30.0, now=100.0, dead=[ALICE]), Lease)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=1, lease=lease)
    await other.aclose()


PREAMBLE = """
import asyncio, os, sys
from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, CancelRequested, ExecutionStarted
from flux.domain.execution import Status
from flux.engine.ports import Head, Owner
from flux.errors import StreamMoved
from flux.stores import SQLiteStore

path, me = sys.argv[1:]
owner = Owner(host="here", pid=os.getpid(), started=0.0, token=me)
head = Head(status=Status.RUNNING, updated_at=1.0)
started = ExecutionStarted(at=1.0, workflow="w", input=Json("null"))

async def writer(store, id, count):
    lease = await store.create(id, [started], head=head, owner=owner, ttl=60.0)
    for n in range(count):
        await store.append(id, [CallReturned(at=1.0, call=CallId(str(n)), value=Json("1"))], expected=n + 1, lease=lease)
        os.write(1, f"{id} {n + 2}\\n".encode())
"""
HAMMER = """
async def poster(store):
    for n in range(60):
        while True:
            seen = len(await store.lifecycle("shared"))
            try:
                await store.post("shared", [CancelRequested(at=float(n), reason=me)], seen=seen, head=head)
                break
            except StreamMoved:
                pass

async def main():
    store = await SQLiteStore.open(path)
    await asyncio.gather(poster(store), *(writer(store, f"{me}-{n}", 100) for n in range(8)))
    await store.aclose()

asyncio.run(main())
"""
VICTIM = """
async def main():
    store = await SQLiteStore.open(path)
    await asyncio.gather(*(writer(store, f"{me}-{n}", 1_000_000) for n in range(8)))

asyncio.run(main())
"""


def begin(script: str, path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PREAMBLE + script, str(path), name]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


async def test_processes_that_hammer_one_file_lose_nothing(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.create("shared", [STARTED], head=HEAD, owner=None, ttl=30.0)
        processes = [begin(HAMMER, path, name) for name in ("one", "two")]
        for process in processes:
            await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0
        posted = [event for event in await store.load("shared") if isinstance(event, CancelRequested)]
        assert sorted(str(event.reason) for event in posted) == ["one"] * 60 + ["two"] * 60
        assert {await store.last(f"{name}-{n}") for name in ("one", "two") for n in range(8)} == {101}
    assert integrity(path) == "ok"


async def test_a_kill_loses_no_acknowledged_append(path: Path) -> None:
    for round in range(3):
        process = begin(VICTIM, path, f"r{round}")
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(200 + 170 * round)]
        process.kill()
        rest, _ = await asyncio.to_thread(process.communicate, timeout=60)
        acknowledged = dict(
            line.split() for line in [*lines, *rest.splitlines()] if line.endswith("\n") or line[-2:-1] != " "
        )
        async with open_store(str(path)) as store:
            for id, seq in acknowledged.items():
                assert await store.last(id) >= int(seq)
                assert len(await store.load(id)) == await store.last(id)
        assert integrity(path) == "ok"


# --- faults


def writing(store: SQLiteStore) -> Connection:
    return store._write_connection  # pyright: ignore[reportPrivateUsage] - to make its database fail


async def refusals(appends: list[asyncio.Future[None]]) -> list[str]:
    return [str(one) for one in await asyncio.gather(*appends, return_exceptions=True) if isinstance(one, StoreError)]


def appends_to(
    store: SQLiteStore, leases: list[Lease], expected: int, value: str = "null"
) -> list[asyncio.Future[None]]:
    return [
        asyncio.ensure_future(store.append(lease.execution_id, [returned(1, value)], expected=expected, lease=lease))
        for lease in leases
    ]


async def test_a_full_disk_is_told_to_everybody_and_the_writer_goes_on_when_it_clears(store: SQLiteStore) -> None:
    leases = [await held(store, f"s{n}") for n in range(10)]

    def leave_room(connection: sqlite3.Connection, pages: int) -> None:
        (used,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {used + pages}").fetchone()

    await writing(store).run(leave_room, 2)
    told = await refusals(appends_to(store, leases, 1, value="x" * 10_000))
    assert len(told) == 10
    assert "disk is full" in told[0]
    assert {await store.last(lease.execution_id) for lease in leases} == {1}
    await writing(store).run(leave_room, 1_000)
    assert await refusals(appends_to(store, leases, 1, value="x" * 10_000)) == []


async def test_a_database_locked_for_too_long_is_told_and_forgotten(path: Path, store: SQLiteStore) -> None:
    lease = await held(store, "a")
    await writing(store).run(lambda connection: connection.execute("PRAGMA busy_timeout = 20").fetchone())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for release in (False, True):
        with pytest.raises(StoreError, match=r"locked.*who|locked.*see"):
            await store.append("a", [returned(1)], expected=1, lease=lease, release=release)
    with pytest.raises(StoreError, match="locked"):
        await store.claim("a", ALICE, ttl=30.0, now=100.0)
    other.close()
    await store.append("a", [returned(1)], expected=1, lease=lease)


async def test_a_short_lock_is_waited_for(path: Path, store: SQLiteStore) -> None:
    lease = await held(store, "a")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    [append] = appends_to(store, [lease], 1)
    assert await store.last("a") == 1
    other.execute("COMMIT")
    other.close()
    await append
    assert await store.last("a") == 2


async def test_a_value_that_sqlite_cannot_take_harms_nobody_else(store: SQLiteStore) -> None:
    leases = [await held(store, f"s{n}") for n in range(3)]
    await writing(store).run(lambda connection: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5_000))
    appends = [appends_to(store, [lease], 1, "x" * (9_000 if n == 1 else 9))[0] for n, lease in enumerate(leases)]
    told = await refusals(appends)
    assert len(told) == 1
    assert "larger than SQLite can hold" in told[0]
    assert [await store.last(f"s{n}") for n in range(3)] == [2, 1, 2]


async def test_a_history_longer_than_the_longest_text_of_sqlite_is_read_in_smaller_pages(path: Path) -> None:
    connection = open_writer(path, "normal")
    history_of(connection, 1_000)
    whole = reads.load(connection, "a1000", 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5_000)
    assert reads.load(connection, "a1000", 0) == whole
    connection.close()


async def test_text_that_is_not_text_is_refused_before_it_meets_others(store: SQLiteStore) -> None:
    lease = await held(store, "a")
    with pytest.raises(StoreError, match="surrogate"):
        await store.append("a", [returned(1, '"\ud800"')], expected=1, lease=lease)
    with pytest.raises(StoreError, match="surrogate"):
        await held(store, "\ud800")


async def test_no_value_of_a_user_gets_into_the_log(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lease = await held(store, "a")
    await store.append("a", [returned(1, '"secret"')], expected=1, lease=lease)
    await store.load("a")
    assert "secret" not in caplog.text


async def test_closing_commits_what_was_handed_in(path: Path, store: SQLiteStore) -> None:
    lease = await held(store, "a")
    appends = appends_to(store, [lease], 1)
    await asyncio.sleep(0)
    await asyncio.gather(store.aclose(), store.aclose())
    assert await refusals(appends) == []
    async with open_store(str(path)) as again:
        assert await again.last("a") == 2


async def test_a_loop_that_is_never_idle_does_not_keep_a_commit_waiting(store: SQLiteStore) -> None:
    lease = await held(store, "a")

    async def five_appends() -> None:
        for number in range(5):
            await store.append("a", [returned(number)], expected=1 + number, lease=lease)

    appends, turns = asyncio.create_task(five_appends()), 0
    while not appends.done() and turns < 1_000:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        await asyncio.sleep(0)
        turns += 1
    await appends
    assert turns < 500


# --- what it costs


async def test_a_small_step_takes_less_than_500_bytes_of_disk(path: Path) -> None:
    async with open_store(str(path)) as store:
        lease = await store.create("a", [STARTED], head=HEAD, owner=ALICE, ttl=30.0)
        assert lease is not None
        for number in range(0, 2_000, 20):
            steps = [event for n in range(number, number + 20) for event in step(n)]
            await store.append("a", steps, expected=1 + 2 * number, lease=lease)
    assert path.stat().st_size / 2_000 < 500


class Counter:
    """Counts the instructions of SQLite's virtual machine, hundred by hundred: work that no other load disturbs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.count = 0
        connection.set_progress_handler(self._more, 100)

    def _more(self) -> int:
        self.count += 1
        return 0

    def of(self, work: Callable[[], object]) -> int:
        self.count = 0
        work()
        return self.count


def history_of(connection: sqlite3.Connection, steps: int) -> Lease:
    rows = to_rows([STARTED, *(event for number in range(steps) for event in step(number))])
    fields = {"workflow": "order", "created_at": 1.0, "principal": None, "parent": None, "key": None}
    create = writes.Create(id=f"a{steps}", rows=rows, head=HEAD, owner=ALICE, ttl=30.0, **fields)  # pyright: ignore[reportArgumentType] - as declared
    [lease] = writes.write_group(connection, [create])
    assert isinstance(lease, Lease)
    return lease


def test_the_work_of_an_append_does_not_grow_with_the_history(path: Path) -> None:
    connection = open_writer(path, "normal")
    counter = Counter(connection)

    def work_of_append(steps: int) -> int:
        lease = history_of(connection, steps)
        rows = to_rows([returned(n) for n in range(100)])
        append = writes.Append(
            id=lease.execution_id, rows=rows, expected=1 + 2 * steps, lease=lease, head=None, release=False
        )
        return counter.of(lambda: writes.write_group(connection, [append]))

    short, long = work_of_append(10), work_of_append(10_000)
    assert 0 < long < 1.3 * short
    connection.close()


def test_the_work_of_loading_grows_with_the_history_and_no_faster(path: Path) -> None:
    connection = open_writer(path, "normal")
    counter = Counter(connection)
    history_of(connection, 1_000)
    history_of(connection, 10_000)
    short = counter.of(lambda: reads.load(connection, "a1000", 0))
    long = counter.of(lambda: reads.load(connection, "a10000", 0))
    assert 0 < long < 11 * short
    connection.close()


def test_lifecycle_does_not_read_the_journal(path: Path) -> None:
    connection = open_writer(path, "normal")
    counter = Counter(connection)
    history_of(connection, 10_000)
    assert counter.of(lambda: reads.lifecycle(connection, "a10000")) <= 3
    connection.close()


def test_due_does_not_read_what_is_over(path: Path) -> None:
    connection = open_writer(path, "normal")
    counter = Counter(connection)
    over = Head(status=Status.COMPLETED, updated_at=1.0)
    fields = {"workflow": "order", "created_at": 1.0, "principal": None, "parent": None, "key": None}
    group = [
        writes.Create(id=str(n), rows=to_rows([STARTED]), head=over, owner=None, ttl=0.0, **fields)  # pyright: ignore[reportArgumentType] - as declared
        for n in range(1_000)
    ]
    writes.write_group(connection, group)
    assert counter.of(lambda: reads.due(connection, ["order"], 100.0, 10)) <= 5
    connection.close()
