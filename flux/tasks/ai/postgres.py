"""Long-term memory in PostgreSQL: one memory for processes on many machines."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

from flux.errors import FluxError

if TYPE_CHECKING:
    from psycopg import AsyncConnection

_TABLE = """CREATE TABLE IF NOT EXISTS flux_memory (
    agent text COLLATE "C" NOT NULL, scope text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, value text NOT NULL,
    PRIMARY KEY (agent, scope, key)
)"""
_TURN = "SELECT pg_advisory_xact_lock(hashtext('flux_memory'))"  # two that make the same table at once fail


def postgresql(url: str) -> PostgresMemory:
    """Memory in the table `flux_memory` of a PostgreSQL database, which is made when it is first needed.

    `url` is `postgresql://user:password@host/database`. Needs the extra `postgres`. Raises FluxError without it."""
    try:
        import psycopg as _  # noqa: F401, PLC0415 - optional extra: not everybody has a PostgreSQL
    except ImportError as exc:
        raise FluxError("postgresql() needs the extra: pip install 'flux-mcp-server[postgres]'.") from exc
    return PostgresMemory(url)


@dataclass(frozen=True)
class PostgresMemory:
    """A connection for each verb: they are rare beside model requests, and none is left open on a loop that has ended."""

    url: str = field(repr=False)  # a password may stand in it

    async def get(self, agent: str, scope: str, key: str) -> str | None:
        found = "SELECT value FROM flux_memory WHERE (agent, scope, key) = (%s, %s, %s)"
        rows = await self._rows(found, agent, scope, key)
        return rows[0][0] if rows else None

    async def set(self, agent: str, scope: str, key: str, value: str) -> None:
        put = "INSERT INTO flux_memory VALUES (%s, %s, %s, %s) ON CONFLICT (agent, scope, key) DO UPDATE SET value = excluded.value"
        await self._rows(f"{put} RETURNING key", agent, scope, key, value)

    async def delete(self, agent: str, scope: str, key: str) -> bool:
        gone = "DELETE FROM flux_memory WHERE (agent, scope, key) = (%s, %s, %s) RETURNING key"
        return bool(await self._rows(gone, agent, scope, key))

    async def keys(self, agent: str, scope: str) -> list[str]:
        found = "SELECT key FROM flux_memory WHERE (agent, scope) = (%s, %s) ORDER BY key"
        return [row[0] for row in await self._rows(found, agent, scope)]

    async def scopes(self, agent: str) -> list[str]:
        found = "SELECT DISTINCT scope FROM flux_memory WHERE agent = %s ORDER BY scope"
        return [row[0] for row in await self._rows(found, agent)]

    async def _rows(self, statement: LiteralString, *values: str) -> list[tuple[Any, ...]]:
        from psycopg.errors import UndefinedTable  # noqa: PLC0415 - of the optional extra

        try:
            return await self._done(statement, *values)
        except UndefinedTable:
            async with self._connected() as connection:
                await connection.execute(_TURN)
                await connection.execute(_TABLE)
            return await self._done(statement, *values)

    async def _done(self, statement: LiteralString, *values: str) -> list[tuple[Any, ...]]:
        async with self._connected() as connection:
            return await (await connection.execute(statement, values)).fetchall()

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction, too: it ends with the block."""
        from psycopg import AsyncConnection  # noqa: PLC0415 - of the optional extra

        async with await AsyncConnection.connect(self.url) as connection:
            yield connection
