"""What workflows log, told to the clients that follow their executions and asked for it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, redirect_stdout
from contextvars import copy_context
from typing import Any, TextIO, cast, get_args
from weakref import WeakKeyDictionary

import mcp_types as types
from mcp.server.connection import Connection

from flux.engine.scope import current_scope, is_replaying
from flux_mcp_server import results
from flux_mcp_server._sdk import Context, connection_of, log_to

LEVELS: tuple[types.LoggingLevel, ...] = get_args(types.LoggingLevel)
MOST_EARLY = 50  # executions nobody follows yet, and messages of each, that are kept
MOST_UNSENT = 200  # messages that wait for one client
LONGEST_LINE = 10_000  # characters of a line that is printed
LAST_WORDS = 1.0  # seconds that a call which has its result waits for its last messages to be written

Letter = tuple[types.LoggingLevel, str, str]
"""A level, the logger's name, a text."""

Listener = Callable[[types.LoggingLevel, str, str], None]

_STEPS: tuple[tuple[int, types.LoggingLevel], ...] = (
    *((logging.CRITICAL, "critical"), (logging.ERROR, "error")),
    *((logging.WARNING, "warning"), (logging.INFO, "info"), (0, "debug")),
)
_OURS = ("flux.mcp", "mcp", "uvicorn", "httpx", "asyncio")


class Logs(logging.Handler):
    """Hears every log record that is made inside an execution, and passes it to whoever follows that execution. What a replay
    says has been said before."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._listeners: dict[str, list[Listener]] = {}
        self._unfinished: dict[str, str] = {}
        self._early: OrderedDict[str, deque[Letter]] = OrderedDict()
        self._wanted: WeakKeyDictionary[Connection, types.LoggingLevel] = WeakKeyDictionary()

    def emit(self, record: logging.LogRecord) -> None:
        scope = current_scope()
        if scope is None or is_replaying() or record.name.split(".")[0] in _OURS or record.name in _OURS:
            return
        self._pass(scope.run.id, (_level(record.levelno), record.name, record.getMessage()))

    def _pass(self, execution_id: str, letter: Letter) -> None:
        listeners = self._listeners.get(execution_id)
        if listeners is None:
            self._keep(execution_id, letter)
            return
        for listener in list(listeners):
            listener(*letter)

    def _keep(self, execution_id: str, letter: Letter) -> None:
        """An execution may say something before the call that has begun it listens."""
        kept = self._early.setdefault(execution_id, deque(maxlen=MOST_EARLY))
        kept.append(letter)
        while len(self._early) > MOST_EARLY:
            self._early.popitem(last=False)

    @contextmanager
    def installed(self) -> Generator[None]:
        """Hear what is logged and printed, as long as there are clients to tell. What users have set for their loggers holds."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            with redirect_stdout(cast("TextIO", _Printed(sys.stdout, self))):
                yield
        finally:
            root.removeHandler(self)

    def printed(self, text: str) -> None:
        """Text that was printed inside an execution, a line at a time."""
        scope = current_scope()
        if scope is None or is_replaying():
            return
        id = scope.run.id
        *lines, rest = (self._unfinished.pop(id, "") + text).split("\n")
        if rest:
            self._unfinished[id] = rest[-LONGEST_LINE:]
        for line in lines:
            if line.strip():
                self._pass(id, ("info", "stdout", line[:LONGEST_LINE]))

    def set_level(self, client: Context, level: types.LoggingLevel) -> None:
        self._wanted[connection_of(client)] = level

    def _least(self, client: Context) -> types.LoggingLevel:
        """Clients of today say with each request what they want, and the SDK sees to it."""
        return "debug" if results.is_modern(client) else self._wanted.get(connection_of(client), "info")

    @asynccontextmanager
    async def told(self, execution_id: str, client: Context) -> AsyncGenerator[None]:
        """Meanwhile, tell the client what the execution logs. Nothing is told afterwards."""
        letters = _Letters(client, self._least(client))
        with self._followed(execution_id, letters.hear):
            try:
                yield
                await letters.end()
            finally:
                await letters.close()

    @contextmanager
    def _followed(self, execution_id: str, listener: Listener) -> Generator[None]:
        listeners = self._listeners.setdefault(execution_id, [])
        listeners.append(listener)
        for letter in self._early.pop(execution_id, ()):
            listener(*letter)
        try:
            yield
        finally:
            listeners.remove(listener)
            if not listeners:
                self._listeners.pop(execution_id, None)
                self._unfinished.pop(execution_id, None)


class _Printed:
    """Standard output, which is heard."""

    def __init__(self, original: TextIO, logs: Logs) -> None:
        self._original = original
        self._logs = logs

    def write(self, text: str) -> int:
        self._logs.printed(text)
        return self._original.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class _Letters:
    """Log messages on their way to one client. Most calls have none, and cost nothing."""

    def __init__(self, client: Context, least: types.LoggingLevel) -> None:
        self._client = client
        self._least = LEVELS.index(least)
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # the writer is no part of the workflow that is heard
        self._unsent = deque[Letter]()
        self._writing: asyncio.Task[None] | None = None
        self._heard = False
        self._is_closed = False

    def hear(self, level: types.LoggingLevel, logger: str, text: str) -> None:
        """From any thread."""
        if LEVELS.index(level) >= self._least:
            self._heard = True
            self._loop.call_soon_threadsafe(self._keep, (level, logger, text), context=self._context)

    def _keep(self, letter: Letter) -> None:
        if self._is_closed:
            return
        if len(self._unsent) < MOST_UNSENT:
            self._unsent.append(letter)
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while self._unsent:
            level, logger, text = self._unsent.popleft()
            await log_to(self._client, level, text, logger)

    async def end(self) -> None:
        """Wait until what was heard is written, for a while."""
        if self._heard:
            await asyncio.sleep(0)  # what was heard a moment ago is kept now
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=LAST_WORDS)

    async def close(self) -> None:
        self._is_closed = True
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)


def _level(number: int) -> types.LoggingLevel:
    return next(name for least, name in _STEPS if number >= least)
