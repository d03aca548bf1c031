"""A connection that waits and sends in its own way is interrupted, lost and closed as psycopg's are."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from importlib.util import find_spec

import psycopg
import pytest

from flux.stores.postgres.driver import Connection, Statement, array
from flux.stores.postgres.opening import Target

pytestmark = pytest.mark.anyio

LOOPS = [
    pytest.param({"use_uvloop": False}, id="asyncio"),
    pytest.param(
        {"use_uvloop": True}, id="uvloop", marks=pytest.mark.skipif(not find_spec("uvloop"), reason="not here")
    ),
]
FOR_EVER = "SELECT pg_sleep(600)"


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """How a loop watches a socket is its own affair."""
    return "asyncio", request.param


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection]:
    async with await Connection.connect(Target.of(postgres).conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def other(postgres: str) -> AsyncIterator[Connection]:
    async with await Connection.connect(Target.of(postgres).conninfo, autocommit=True) as connection:
        yield connection


async def one(connection: Connection) -> int:
    row = await (await connection.execute("SELECT 1")).fetchone()
    assert row is not None
    return row[0]


async def is_asked(connection: Connection, other: Connection) -> None:
    """Until the server is busy with what `connection` has asked for."""
    busy = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    async with asyncio.timeout(10):
        while not (await other.execute(busy, (connection.info.backend_pid,))).rowcount:
            pass


async def test_who_is_cancelled_in_the_middle_has_the_server_stop_and_the_connection_goes_on(
    connection: Connection, other: Connection
) -> None:
    asking = asyncio.create_task(connection.execute(FOR_EVER))
    await is_asked(connection, other)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await one(connection) == 1


async def test_a_timeout_around_a_wait_is_a_timeout(connection: Connection) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.execute(FOR_EVER)
    assert await one(connection) == 1


async def test_whoever_waits_when_the_connection_is_closed_is_told(connection: Connection, other: Connection) -> None:
    asking = asyncio.create_task(connection.execute(FOR_EVER))
    await is_asked(connection, other)
    await connection.close()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(asking, 10)


async def test_whoever_waits_when_the_server_ends_the_connection_is_told_why(
    connection: Connection, other: Connection
) -> None:
    asking = asyncio.create_task(connection.execute(FOR_EVER))
    await is_asked(connection, other)
    await other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.errors.AdminShutdown):
        await asyncio.wait_for(asking, 10)


async def test_whoever_waits_when_the_line_is_cut_is_told(connection: Connection, other: Connection) -> None:
    asking = asyncio.create_task(connection.execute(FOR_EVER))
    await is_asked(connection, other)
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(asking, 10)


async def test_a_connection_that_is_lost_while_nobody_waits_is_known_to_be_and_no_longer_watched(
    connection: Connection, other: Connection
) -> None:
    assert await one(connection) == 1
    watched = connection.fileno()
    await other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    async with asyncio.timeout(10):
        while not connection.closed:  # noqa: ASYNC110 - psycopg tells nobody
            await asyncio.sleep(0)
    assert not asyncio.get_running_loop().remove_reader(watched)
    with pytest.raises(psycopg.OperationalError):
        await one(connection)


async def test_a_new_connection_may_have_the_number_of_one_that_was_lost(postgres: str, other: Connection) -> None:
    for _ in range(3):
        lost = await Connection.connect(Target.of(postgres).conninfo, autocommit=True)
        assert await one(lost) == 1
        with pytest.raises(psycopg.OperationalError):
            await lost.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert await one(other) == 1


async def test_what_is_too_long_for_one_packet_arrives_and_so_does_a_pipeline(connection: Connection) -> None:
    text = "x" * 20_000_000
    found = await (await connection.execute("SELECT %s", (text,))).fetchone()
    assert found == (text,)
    async with connection.pipeline():
        asked = [await connection.execute("SELECT %s || %s", (str(number), text)) for number in range(3)]
    assert [(await each.fetchall())[0][0][0] for each in asked] == ["0", "1", "2"]
    assert await one(connection) == 1


async def test_a_statement_that_is_kept_takes_and_returns_what_it_is_given(connection: Connection) -> None:
    both = Statement(
        b"both", b"SELECT text FROM (VALUES ($1::int, $2), ($3, $4)) AS given (number, text) ORDER BY number"
    )
    assert await connection.send(both, (1, "é", 2, "")) == ["é", ""]
    assert await connection.send(both, (70_000, "'\\\"", None, "last")) == ["'\\\"", "last"]
    none = Statement(b"none", b"SELECT text FROM (VALUES ($1)) AS given (text) WHERE text <> $1")
    assert await connection.send(none, ("x",)) == []


@pytest.mark.parametrize(
    "texts", [[], ["a"], ["", " ", None, "NULL", "null"], ['"', "\\", '\\"', "{a,b}", "é\n,", "'"]]
)
async def test_an_array_arrives_as_it_was(connection: Connection, texts: list[str | None]) -> None:
    echo = Statement(b"echo", b"SELECT coalesce(text, '<none>') FROM unnest($1::text[]) AS text")
    assert await connection.send(echo, [array(texts)]) == ["<none>" if text is None else text for text in texts]
    numbers = Statement(b"numbers", b"SELECT sum(number)::text FROM unnest($1::bigint[]) AS number")
    assert await connection.send(numbers, [array([1, -(2**40)])]) == [str(1 - 2**40)]


@pytest.mark.parametrize("text", [b"no statement at all", b"DELETE FROM nothing", b"SELECT 1 / 0"])
async def test_a_statement_that_fails_raises_what_the_server_says_each_time(
    connection: Connection, text: bytes
) -> None:
    for _ in range(2):
        with pytest.raises((psycopg.ProgrammingError, psycopg.DataError)):
            await connection.send(Statement(b"wrong", text), ())
        assert await one(connection) == 1
