"""Memory that outlives executions: values by key, apart for each agent and scope."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import aiosqlite

from flux.decorators import Task
from flux.engine.scope import current_scope
from flux.schema import to_json_value


class MemoryProvider(Protocol):
    """Where long-term memory is kept. Values are JSON as text, in ASCII."""

    async def get(self, agent: str, scope: str, key: str) -> str | None: ...

    async def set(self, agent: str, scope: str, key: str, value: str) -> None: ...

    async def delete(self, agent: str, scope: str, key: str) -> bool:
        """Whether there was anything to delete."""
        ...

    async def keys(self, agent: str, scope: str) -> list[str]: ...

    async def scopes(self, agent: str) -> list[str]: ...


def long_term_memory(provider: MemoryProvider, agent: str, scope: str = "default") -> LongTermMemory:
    """A memory for `agent(..., long_term_memory=...)`, which gets tools to recall, store, forget and list.

    `agent` and `scope` (a user, a project, ...) say whose memory it is: what is stored under others is not seen."""
    return LongTermMemory(provider=provider, agent=agent, scope=scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTermMemory:
    """Made by `long_term_memory`. Its verbs are recorded calls inside a workflow, and plain ones outside."""

    provider: MemoryProvider
    agent: str
    scope: str

    async def memorize(self, key: str, value: Any) -> None:
        """Keep a value, any that JSON can hold, in the place of what was under the key before."""
        await self._done(self._store, key, json.dumps(to_json_value(value)))

    async def recall(self, key: str | None = None) -> Any:
        """The value under `key`, None when there is none; without a key all of them, as a dict."""
        return await self._done(self._recall, key)

    async def forget(self, key: str) -> bool:
        """Whether there was anything to forget."""
        return await self._done(self._forget, key)

    async def keys(self) -> list[str]:
        return await self._done(self._list)

    async def scopes(self) -> list[str]:
        """The scopes in which the agent has memories."""
        return await self._done(self._scopes)

    async def _done(self, func: Any, *args: Any) -> Any:
        if current_scope() is None:
            return await func(*args)
        name = f"{func.__name__.strip('_')}_memory"
        return await Task[..., Any](func, name=name)(*args)

    async def _store(self, key: str, value: str) -> None:
        await self.provider.set(self.agent, self.scope, key, value)

    async def _recall(self, key: str | None) -> Any:
        if key is not None:
            found = await self.provider.get(self.agent, self.scope, key)
            return None if found is None else json.loads(found)
        keys = await self.provider.keys(self.agent, self.scope)
        return {name: await self._recall(name) for name in keys}

    async def _forget(self, key: str) -> bool:
        return await self.provider.delete(self.agent, self.scope, key)

    async def _list(self) -> list[str]:
        return await self.provider.keys(self.agent, self.scope)

    async def _scopes(self) -> list[str]:
        return await self.provider.scopes(self.agent)

    def tools(self) -> list[Task[..., Any]]:
        """What an agent calls."""

        async def recall_memory(key: str | None = None) -> Any:
            """Recall what was stored in long-term memory, in this conversation or an earlier one.

            Args:
                key: The key of what to recall; without one, all of it.
            """
            return await self._recall(key)

        async def store_memory(key: str, value: Any) -> str:
            """Store a fact in long-term memory, to be found again in later conversations.

            Args:
                key: A short name for the fact; what was stored under it before is replaced.
                value: The fact, as text or any JSON.
            """
            await self._store(key, json.dumps(to_json_value(value)))
            return f"Stored under {key!r}."

        async def forget_memory(key: str) -> str:
            """Remove a fact from long-term memory.

            Args:
                key: The key it was stored under.
            """
            return f"Forgot {key!r}." if await self._forget(key) else f"There is nothing under {key!r}."

        async def list_memory_keys() -> list[str]:
            """List the keys of all facts in long-term memory."""
            return await self._list()

        return [Task(func) for func in (recall_memory, store_memory, forget_memory, list_memory_keys)]


# -- providers ----------------------------------------------------------------------------------------------------------


def in_memory() -> InMemory:
    """Memory that lasts as long as the process: for tests and for trying out."""
    return InMemory()


@dataclass
class InMemory:
    _values: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])

    async def get(self, agent: str, scope: str, key: str) -> str | None:
        return self._values.get((agent, scope, key))

    async def set(self, agent: str, scope: str, key: str, value: str) -> None:
        self._values[agent, scope, key] = value

    async def delete(self, agent: str, scope: str, key: str) -> bool:
        return self._values.pop((agent, scope, key), None) is not None

    async def keys(self, agent: str, scope: str) -> list[str]:
        return sorted(key for owner, place, key in self._values if (owner, place) == (agent, scope))

    async def scopes(self, agent: str) -> list[str]:
        return sorted({place for owner, place, _ in self._values if owner == agent})


def sqlite(path: str | Path) -> SqliteMemory:
    """Memory in an SQLite file, which is made when it is first needed."""
    return SqliteMemory(Path(path))


_TABLE = """CREATE TABLE IF NOT EXISTS memory (
    agent TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (agent, scope, key)
) WITHOUT ROWID"""


@dataclass(frozen=True)
class SqliteMemory:
    """A connection for each verb: they are rare beside model requests, and none is left open on a loop that has ended."""

    path: Path

    async def get(self, agent: str, scope: str, key: str) -> str | None:
        rows = await self._rows("SELECT value FROM memory WHERE agent = ? AND scope = ? AND key = ?", agent, scope, key)
        return rows[0][0] if rows else None

    async def set(self, agent: str, scope: str, key: str, value: str) -> None:
        await self._rows("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", agent, scope, key, value)

    async def delete(self, agent: str, scope: str, key: str) -> bool:
        gone = "DELETE FROM memory WHERE agent = ? AND scope = ? AND key = ? RETURNING key"
        return bool(await self._rows(gone, agent, scope, key))

    async def keys(self, agent: str, scope: str) -> list[str]:
        rows = await self._rows("SELECT key FROM memory WHERE agent = ? AND scope = ? ORDER BY key", agent, scope)
        return [row[0] for row in rows]

    async def scopes(self, agent: str) -> list[str]:
        rows = await self._rows("SELECT DISTINCT scope FROM memory WHERE agent = ? ORDER BY scope", agent)
        return [row[0] for row in rows]

    async def _rows(self, statement: str, *values: str) -> list[Any]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        async with self._connected() as connection:
            await connection.execute(_TABLE)
            await connection.execute("BEGIN IMMEDIATE")
            rows = await (await connection.execute(statement, values)).fetchall()
            await connection.commit()
            return list(rows)

    def _connected(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        return cast("Any", aiosqlite.connect(self.path, timeout=30, isolation_level=None))
