"""What the PostgreSQL store promises beyond every store: many machines, lost connections, and nothing acknowledged ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.domain.calls import CallId, Json
from flux.domain.events import CallReturned, ExecutionCancelled, ExecutionStarted
from flux.domain.execution import Status
from flux.engine.ports import Head, Lease, Owner
from flux.errors import LeaseLost, SchemaTooNew, StoreError, StreamMoved
from flux.settings import Settings
from flux.stores.postgres import PostgresStore, connections, opening

pytestmark = pytest.mark.anyio

ALICE = Owner(host="here", pid=1, started=1.5, token="alice")
HEAD = Head(status=Status.RUNNING, updated_at=100.0)
STARTED = ExecutionStarted(at=100.0, workflow="order", input=Json("null"))


@pytest.fixture
async def store(postgres: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(postgres)
    yield store
    await store.aclose()


def returned(number: int) -> CallReturned:
    return CallReturned(at=100.0 + number, call=CallId(str(number)), value=Json("null"))


async def held(store: PostgresStore, id: str) -> Lease:
    lease = await store.create(id, [STARTED], head=HEAD, owner=ALICE, ttl=30.0)
    assert lease is not None
    return lease


async def run_sql(url: str, statement: str) -> list[Any]:
    """As the administrator of the database would, in no schema of ours."""
    async with await psycopg.AsyncConnection.connect(url.partition("?")[0], autocommit=True) as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


def schema(url: str) -> str:
    return urlsplit(url).query.removeprefix("schema=")


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the server tells nobody of this
            await asyncio.sleep(0.01)


async def listening(url: str, stores: int) -> None:
    """Once so many stores listen."""
    listeners = f"SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%{schema(url)}%'"

    async def listen() -> bool:
        return len(await run_sql(url, listeners)) == stores

    await until(listen)


# --- a proxy that cuts lines


class Proxy:
    """Stands between a store and its server, and can cut the line at the worst moment."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lines: set[asyncio.StreamWriter] = set()
        self.cut_after: bytes | None = None
        self.is_down = False
        self.cuts = 0

    async def handle(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.is_down:
            to_client.close()
            return
        server, to_server = await asyncio.open_connection(*self._server)
        self._lines |= {to_client, to_server}
        await asyncio.gather(self._pass(client, to_server, to_client), self._pass(server, to_client, to_server))

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                to.write(data)
                await to.drain()
                if self.cut_after is not None and self.cut_after in data:
                    # the server gets it all and does it, and nobody hears that it has
                    self.cut_after = None
                    self.cuts += 1
                    back.transport.abort()
                    return
        except OSError:
            pass
        finally:
            to.close()

    def cut_all(self) -> None:
        for line in self._lines:
            line.transport.abort()
        self._lines.clear()


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[Proxy, str]]:
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        user = f"{parts.username}@" if parts.username else ""
        yield proxy, f"postgresql://{user}127.0.0.1:{port}{parts.path}?{parts.query}&sslmode=disable"
        proxy.cut_all()
        server.close()


# --- doubt


async def test_a_write_whose_answer_was_lost_is_neither_lost_nor_made_twice(postgres: str) -> None:
    async with proxied(postgres) as (proxy, url):
        store = await PostgresStore.open(url)
        lease = await held(store, "a")
        facts = [returned(number) for number in range(40)]
        # facts alone are one statement, and commit with it; it is prepared when it is first used
        await store.append("a", facts[:1], expected=1, lease=lease)
        proxy.cut_after = b"append1\0"
        await store.append("a", facts[1:2], expected=2, lease=lease)
        await store.append("a", facts[2:20], expected=3, lease=lease)
        proxy.cut_after = b"append\0"
        await store.append("a", facts[20:], expected=21, lease=lease)
        proxy.cut_after = b"COMMIT"
        created = await held(store, "b")
        proxy.cut_after = b"COMMIT"
        cancelled = ExecutionCancelled(at=200.0)
        await store.post("b", [cancelled], seen=1, head=Head(status=Status.CANCELLED, updated_at=200.0))
        proxy.cut_after = b"COMMIT"
        await store.append("a", [returned(40)], expected=41, lease=lease, head=HEAD, release=True)
        assert proxy.cuts == 5
        assert await store.load("a") == [STARTED, *facts, returned(40)]
        assert await store.load("b") == [STARTED, cancelled]
        assert created.epoch == 1
        with pytest.raises(StreamMoved):  # and doubt does not turn the refusals of others into consent
            await store.post("b", [cancelled], seen=1, head=HEAD)
        await store.aclose()


async def test_lines_that_are_cut_are_made_again(postgres: str) -> None:
    async with proxied(postgres) as (proxy, url):
        store = await PostgresStore.open(url)
        lease = await held(store, "a")
        for number in range(1, 6):
            proxy.cut_all()
            await store.append("a", [returned(number)], expected=number, lease=lease)
            proxy.cut_all()
            assert await store.last("a") == number + 1
        await store.aclose()


async def test_a_server_that_is_away_for_good_is_an_error_that_says_so(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    monkeypatch.setattr(connections, "ANSWER_WITHIN", 1.0)
    async with proxied(postgres) as (proxy, url):
        store = await PostgresStore.open(url)
        lease = await held(store, "a")
        proxy.is_down = True
        proxy.cut_all()
        with pytest.raises(StoreError, match="Could not write to the database postgresql://"):
            await store.append("a", [returned(1)], expected=1, lease=lease)
        proxy.is_down = False
        await store.append("a", [returned(1)], expected=1, lease=lease)
        await store.aclose()


# --- other processes


async def test_a_process_hears_at_once_what_another_one_writes(postgres: str) -> None:
    news: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    one, other = await PostgresStore.open(postgres), await PostgresStore.open(postgres)
    other.listen(lambda id, is_free: news.put_nowait((id, is_free)))
    await listening(postgres, 1)
    lease = await held(one, "a")
    await one.append("a", [returned(1)], expected=1, lease=lease)  # no news: it concerns nobody else
    await one.append("a", [ExecutionCancelled(at=1.0)], expected=2, lease=lease, head=HEAD, release=True)
    assert await asyncio.wait_for(news.get(), 10) == ("a", True)
    await one.create("b", [STARTED], head=HEAD, owner=None, ttl=0)
    assert await asyncio.wait_for(news.get(), 10) == ("b", True)
    done = Head(status=Status.COMPLETED, updated_at=1.0)
    await one.post("b", [ExecutionCancelled(at=1.0)], seen=1, head=done)
    assert await asyncio.wait_for(news.get(), 10) == ("b", False)
    await one.aclose()
    await other.aclose()


async def test_an_answer_given_in_one_process_goes_on_in_another_that_looks_only_once_in_ten_minutes(
    postgres: str,
) -> None:
    @task
    async def ask() -> str:
        return str(await pause("sure"))

    @workflow.with_options(needs=["people"])
    async def asks(ctx: ExecutionContext[None]) -> list[str]:
        first = await ask()
        return [first, await ask()]

    slow = Settings.load(database=postgres, poll_seconds=600.0, lease_seconds=600.0)
    able = replace(slow, worker_tags=frozenset(["people"]))
    async with Flux(settings=able, workflows=[asks]), Flux(settings=slow, workflows=[asks]) as front:
        await listening(postgres, 2)
        async with asyncio.timeout(20):
            await front.start(asks, execution_id="a")
            assert (await front.wait("a")).is_paused
            await front.answer("a", "yes")
            assert (await front.wait("a")).is_paused
            await front.answer("a", "really")
            assert (await front.wait("a")).output == ["yes", "really"]
            assert "a" not in front.engine.runs


# --- opening


async def test_several_processes_that_open_an_empty_database_at_once_make_it_once(postgres: str) -> None:
    stores = await asyncio.gather(*[PostgresStore.open(postgres) for _ in range(6)])
    await held(stores[0], "a")
    assert await stores[5].last("a") == 1
    await asyncio.gather(*[store.aclose() for store in stores])


async def test_what_a_newer_flux_or_another_program_has_made_is_left_alone(postgres: str) -> None:
    store = await PostgresStore.open(postgres)
    await store.aclose()
    await run_sql(postgres, f'UPDATE "{schema(postgres)}".version SET number = 99')
    with pytest.raises(SchemaTooNew, match="written by a newer Flux"):
        await PostgresStore.open(postgres)
    await run_sql(postgres, f'DROP TABLE "{schema(postgres)}".version')
    with pytest.raises(StoreError, match="belongs to another program"):
        await PostgresStore.open(postgres)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:s3cret@127.0.0.1:1/flux", "Check that the server runs"),
        ("postgresql://me:s3cret@127.0.0.1/flux?connect=x", "not one of PostgreSQL"),
        ("postgresql://me:s3cret/s3cret@127.0.0.1/flux", "not one of PostgreSQL"),
        ("postgresql://me@127.0.0.1:s3cret/flux", "not one of PostgreSQL"),
        ("postgresql://me:s3cret@[127.0.0.1/flux", "not one of PostgreSQL"),
    ],
)
async def test_a_database_that_cannot_be_opened_says_why_and_never_the_password(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says) as refused:
        await PostgresStore.open(url)
    assert "s3cret" not in str(refused.value)


async def test_a_database_that_is_not_there_is_named_with_what_to_do(postgres: str) -> None:
    parts = urlsplit(postgres)
    with pytest.raises(StoreError, match=r"nowhere.*does not exist.*createdb"):
        await PostgresStore.open(parts._replace(path="/nowhere").geturl())


async def test_a_process_frozen_in_the_middle_of_a_write_does_not_keep_others_from_its_execution(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "IDLE_SECONDS", 0.3)
    frozen, other = await PostgresStore.open(postgres), await PostgresStore.open(postgres)
    lease = await held(frozen, "a")
    async with await opening.Target.of(postgres).connect() as connection:
        await connection.execute("BEGIN")
        await connection.execute("SELECT FROM executions WHERE id = 'a' FOR NO KEY UPDATE")
        async with asyncio.timeout(10):
            taken = await other.claim("a", replace(ALICE, token="bob"), ttl=30.0, now=200.0)
        assert isinstance(taken, Lease)
        with pytest.raises(psycopg.Error):
            await connection.execute("COMMIT")
    with pytest.raises(LeaseLost):
        await frozen.append("a", [returned(1)], expected=1, lease=lease)
    await frozen.aclose()
    await other.aclose()


@pytest.mark.parametrize("writes", [False, True])
async def test_whoever_is_cancelled_at_whichever_moment_ends(store: PostgresStore, *, writes: bool) -> None:
    async def for_ever() -> None:
        while True:
            await (store.remember("note", "text") if writes else store.find(limit=1))

    for turns in range(40):
        working = asyncio.ensure_future(for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working], timeout=5)
        assert working.cancelled(), f"the cancellation {turns} turns after the beginning was lost"
