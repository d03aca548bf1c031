"""Who follows which execution, and who has been given what: a client that makes a lost call again is given what it lost.

What a process knows of its own calls it keeps in memory. What the others have to know stands in the database: that a call has let
go of its execution, and that an execution of another process has been seen. A call that is answered in time writes nothing.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, cast

from flux.context import ExecutionContext
from flux.errors import FluxError
from flux.service import Flux

IsGone = Callable[[], Awaitable[bool]]

Word = Literal["begun", "missed", "given", "known"]
"""Of an execution that a call has started: nobody has let go of it; somebody has, without its result; somebody was given its result;
its client has asked about it by its id, and so has not lost it."""

KEPT = 15 * 60.0  # seconds that a result waits for the caller who missed it
MOST = 10_000  # executions that a process remembers
MOST_MARKS = 1024  # of all processes, in the database: a later one takes the place of an earlier


class Attendance:
    """A client that gave up leaves an execution behind that nobody follows; when it makes the same call again, here or in another
    process, it is given that execution, not another one. So is one that ended meanwhile, for a while."""

    def __init__(self, flux: Flux) -> None:
        self._flux = flux
        self._followers: dict[str, list[IsGone]] = {}
        self._words = OrderedDict[str, Word]()
        self._marking: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def following(self, execution_id: str, is_gone: IsGone) -> AsyncGenerator[None]:
        """`is_gone` tells whether the client has left without a word."""
        followers = self._followers.setdefault(execution_id, [])
        followers.append(is_gone)
        try:
            yield
        except asyncio.CancelledError:
            self._let_go(execution_id)
            raise
        finally:
            followers.remove(is_gone)
            if not followers:
                self._followers.pop(execution_id, None)

    # -- what becomes of an execution ---------------------------------------------------------------------------------

    def begun(self, execution_id: str) -> None:
        """Some call has started the execution, whether or not it lives to follow it."""
        if execution_id not in self._words:
            self._say(execution_id, "begun")

    def _let_go(self, execution_id: str) -> None:
        """A call is cancelled, and can wait for nothing."""
        marking = asyncio.get_running_loop().create_task(self.missed(execution_id))
        self._marking.add(marking)
        marking.add_done_callback(self._marking.discard)

    async def missed(self, execution_id: str) -> None:
        """A call has ended before its execution."""
        if self._words.get(execution_id) in (None, "begun"):
            self._say(execution_id, "missed")
            await self._mark(execution_id, "missed")

    async def given(self, execution: ExecutionContext[object]) -> None:
        """Some caller has seen how the execution ended."""
        id, before = execution.execution_id, self._words.get(execution.execution_id)
        if before not in ("given", "known"):
            self._say(id, "given")
            others_would_join = (
                before == "missed" or (before is None and not _is_old(execution)) or execution.recoveries
            )
            if others_would_join:
                await self._mark(id, "given")

    async def known(self, execution_id: str) -> None:
        """The client has asked about the execution by its id: it has not lost it."""
        if self._words.get(execution_id) != "known":
            self._say(execution_id, "known")
            await self._mark(execution_id, "known")

    # -- what may be joined -------------------------------------------------------------------------------------------

    async def may_be_joined(self, execution: ExecutionContext[object]) -> bool:
        id, finished = execution.execution_id, execution.has_finished
        here = self._words.get(id)
        if here == "known" or (here == "given" and finished):
            return False
        for is_gone in list(self._followers.get(id, ())):
            if not await is_gone():
                return False
        marked = await self._marked(id)
        if marked == "known" or (marked == "given" and finished):
            return False
        its_process_died = here is None and marked is None and execution.recoveries > 0  # and the call with it
        was_missed = here in ("begun", "missed") or marked == "missed" or its_process_died
        return not finished or (was_missed and not _is_old(execution))

    # -- words and marks ----------------------------------------------------------------------------------------------

    def _say(self, execution_id: str, word: Word) -> None:
        self._words[execution_id] = word
        self._words.move_to_end(execution_id)
        while len(self._words) > MOST:
            self._words.popitem(last=False)

    async def _mark(self, execution_id: str, word: Word) -> None:
        try:
            await self._flux.engine.store.remember(_place(execution_id), f"{execution_id} {word}")
        except FluxError:  # nothing is lost but a call that could have been joined
            return

    async def _marked(self, execution_id: str) -> Word | None:
        text = await self._flux.engine.store.recall(_place(execution_id)) or "- -"
        id, word = text.split(" ")
        return cast(Word, word) if id == execution_id else None


def _is_old(execution: ExecutionContext[object]) -> bool:
    return time.time() - execution.updated_at.timestamp() > KEPT


def _place(execution_id: str) -> str:
    return f"mcp/attendance/{zlib.crc32(execution_id.encode()) % MOST_MARKS}"
