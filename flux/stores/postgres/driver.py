"""psycopg's connection, with two short cuts for what is done all the time.

To wait for an answer, psycopg sets a timer and registers the socket with the loop anew. To send a statement, it makes a cursor and
looks for the best way to write each value. For a small statement either costs more than all else that is done for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import RV, PQGen
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

Value = int | str | None


def array(values: Iterable[Value]) -> str:
    """As PostgreSQL writes it."""
    written = [
        "NULL"
        if value is None
        else str(value)
        if isinstance(value, int)
        else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for value in values
    ]
    return "{" + ",".join(written) + "}"


@dataclass(frozen=True, slots=True)
class Statement:
    """Prepared once on each connection. Its values are $1, $2 and so on; the rows it returns are of one text each."""

    name: bytes
    text: bytes


class Connection(AsyncConnection[TupleRow]):
    """The loop watches the socket from the first answer on until the connection is closed, by whichever side."""

    _watched: int | None = None
    """As long as the loop watches it."""
    _whoever_waits: asyncio.Future[None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._statements: set[bytes] = set()

    async def send(self, statement: Statement, values: Iterable[Value]) -> list[str]:
        """Run a statement, and give what it returns."""
        texts = [None if value is None else str(value).encode() for value in values]
        async with self.lock:
            return await self.wait(self._run_statement(statement, texts))

    def _run_statement(self, statement: Statement, values: Sequence[bytes | None]) -> PQGen[list[str]]:
        if statement.name not in self._statements:
            self.pgconn.send_prepare(statement.name, statement.text)
            yield from _result(self.pgconn)
            self._statements.add(statement.name)
        self.pgconn.send_query_prepared(statement.name, values)
        result = yield from _result(self.pgconn)
        return [(result.get_value(row, 0) or b"").decode() for row in range(result.ntuples)]

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Drive what psycopg does with libpq, `gen`, to its end. Whatever is more than to wait until the server has answered
        is done in psycopg's own way: to send more than the socket takes, a timeout - and to be cancelled in the middle."""
        asked = Wait.R
        try:
            asked = next(gen)
            while asked == Wait.R and not args and not kwargs:
                await self._until_news()
                asked = gen.send(Ready.R)
        except StopIteration as end:
            return end.value
        except asyncio.CancelledError:
            _cancel_again()
        finally:
            if self.closed:  # so is the socket, whose number may be another one's by the next turn of the loop
                self._unwatch()
        self._unwatch()
        return await super().wait(_going_on(gen, asked), *args, **kwargs)

    async def close(self) -> None:
        self._unwatch()
        await super().close()

    async def _until_news(self) -> None:
        """Returns when there is something to read."""
        loop = asyncio.get_running_loop()
        self._whoever_waits = loop.create_future()
        if self._watched is None:
            loop.add_reader(self.fileno(), self._tell)
            self._watched = self.fileno()
        await self._whoever_waits

    def _tell(self) -> None:
        if self._whoever_waits is not None and not self._whoever_waits.done():
            self._whoever_waits.set_result(None)
            return
        try:  # nobody waits, or has not come to read yet: what is left in the socket would be told of in every turn
            self.pgconn.consume_input()
        except psycopg.Error:  # lost
            self._unwatch()

    def _unwatch(self) -> None:
        """Whoever waits finds out why by reading."""
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None
        if self._whoever_waits is not None and not self._whoever_waits.done():
            self._whoever_waits.set_result(None)


def _result(pgconn: PGconn) -> PQGen[PGresult]:
    (result,) = yield from execute(pgconn)
    if result.status == ExecStatus.FATAL_ERROR:
        raise error_from_result(result)
    return result


def _going_on(gen: PQGen[RV], asked: Wait) -> PQGen[RV]:
    """`gen`, which has been begun, for who begins with it."""
    try:
        while True:
            asked = gen.send((yield asked))
    except StopIteration as end:
        return end.value


def _cancel_again() -> None:
    """So that the next wait of this task is cancelled in place of the one that was."""
    task = asyncio.current_task()
    assert task is not None, "what is cancelled is a task"
    task.uncancel()
    task.cancel()
