"""psycopg's connection, with a cheaper way to wait for the server: its own sets a timer and registers the socket with the
loop anew for each answer, which costs more than all else that is done for a small statement."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.abc import RV, PQGen
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait


class Connection(AsyncConnection[TupleRow]):
    """The loop watches the socket from the first answer on until the connection is closed, by whichever side."""

    _socket: int | None = None
    """As long as the loop watches it."""
    _awaiting: asyncio.Future[None] | None = None

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """Drive what psycopg does with libpq, `gen`, to its end. Whatever is more than to wait until the server has answered
        is done in psycopg's own way: to send more than the socket takes, a timeout - and to be cancelled in the middle."""
        asked = Wait.R
        try:
            asked = next(gen)
            while asked == Wait.R and not args and not kwargs:
                await self._news()
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

    async def _news(self) -> None:
        """Returns when there is something to read."""
        loop = asyncio.get_running_loop()
        self._awaiting = loop.create_future()
        if self._socket is None:
            loop.add_reader(self.fileno(), self._tell)
            self._socket = self.fileno()
        await self._awaiting

    def _tell(self) -> None:
        if self._awaiting is not None and not self._awaiting.done():
            self._awaiting.set_result(None)
            return
        try:  # nobody waits, or has not come to read yet: what is left in the socket would be told of in every turn
            self.pgconn.consume_input()
        except psycopg.Error:  # lost
            self._unwatch()

    def _unwatch(self) -> None:
        """Whoever waits finds out why by reading."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket = None
        if self._awaiting is not None and not self._awaiting.done():
            self._awaiting.set_result(None)


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
