"""Opening a PostgreSQL database: connections, schema - and what to say when that fails."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flux.errors import SchemaTooNew, StoreError
from flux.stores.postgres.driver import Connection

IDLE_SECONDS = 5.0
"""How long a process that stands still in the middle of a transaction keeps others from what it has locked."""
CONNECT_SECONDS = 10
"""How long one attempt to reach the server may take."""

_LOCK = 0x464C5558  # "FLUX": the advisory lock of whoever brings the schema up to date
_log = logging.getLogger(__name__)


_MALFORMED = (
    "The database URL is not one of PostgreSQL: postgresql://user:password@host:5432/database?schema=flux. In a password "
    "@ is written %40, : is %3A and / is %2F."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database and the schema in it, out of a URL. `name` is for people: it holds no password."""

    conninfo: str
    schema: str
    name: str

    @classmethod
    def of(cls, url: str) -> Target:
        """`postgresql://user:password@host:5432/database?schema=flux`, and whatever else libpq takes. Of several hosts
        (`host1,host2`) the one that takes writes is used.

        Raises StoreError for what is no such URL."""
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query))
            schema = options.pop("schema", "flux")
            # libpq knows one spelling
            given = conninfo_to_dict(urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), "")))
        except (psycopg.ProgrammingError, ValueError):
            raise StoreError(_MALFORMED) from None
        ports = str(given.get("port", 5432))
        if "@" in parts.path or not ports.replace(",", "").isdigit():  # a part of the password, it may be
            raise StoreError(_MALFORMED)
        hosts = str(given.get("host", "localhost"))
        defaults: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "flux",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        if "," in hosts:
            defaults["target_session_attrs"] = "read-write"
        session = f"-cidle_in_transaction_session_timeout={int(IDLE_SECONDS * 1000)} -csearch_path={schema}"
        options = f"{given.get('options') or ''} {session}".strip()
        settings: dict[str, Any] = {**defaults, **given, "options": options, "client_encoding": "UTF8"}
        name = f"postgresql://{hosts}:{ports}/{given.get('dbname', '')}"
        return cls(conninfo=make_conninfo(**settings), schema=schema, name=name)

    async def connect(self) -> Connection:
        return await Connection.connect(self.conninfo, autocommit=True)


def store_error(name: str, doing: str, exc: Exception) -> StoreError:
    """`exc` as one of ours: what was tried, on which database, what the server said, what to do."""
    said = _first_line(exc) or type(exc).__name__
    state = exc.sqlstate if isinstance(exc, psycopg.Error) else None
    hint = next((hint for sign, hint in _HINTS if sign in said or state == sign), "")
    error = StoreError(f"Could not {doing} the database {name}: {said}. {hint}".rstrip())
    error.__cause__ = exc
    return error


_HINTS = (
    # a part of what the server says, in English, or its SQLSTATE
    ("password authentication failed", "Check the user and the password in the URL."),
    ("no password supplied", "Name the user and the password in the URL, or set PGPASSWORD."),
    ("does not exist", "Make it first: createdb NAME, createuser NAME."),
    ("42501", "Its user needs the right to create a schema there, once: GRANT CREATE ON DATABASE ..."),
    ("53100", "The server's disk is full: free some space; nothing is half-written."),
    ("25006", "This server only reads: name the one that takes writes, or all of them in one URL."),
    ("53300", "Raise max_connections, or run fewer processes."),
    ("have been busy", "Something holds them for long: see pg_stat_activity."),
    ("connection", "Check that the server runs and can be reached from here."),
)


def _first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0].rstrip(". ") if lines else ""


async def migrate(target: Target) -> None:
    """Bring the schema up to date: of several processes one does it, the others wait. Raises SchemaTooNew, StoreError."""
    async with await target.connect() as connection:
        if await _version(connection, target) == len(_migrations()):
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(target.schema)))
            found = await _version(connection, target)
            for script in _migrations()[found:]:
                await connection.execute(script)
            await connection.execute("CREATE TABLE IF NOT EXISTS version (number INTEGER NOT NULL)")
            await connection.execute("DELETE FROM version")
            await connection.execute("INSERT INTO version VALUES (%s)", (len(_migrations()),))
            _log.info("the schema %s of %s is now at version %d", target.schema, target.name, len(_migrations()))


async def _version(connection: AsyncConnection, target: Target) -> int:
    """The schema's version: 0 for none. Refuses newer ones, and schemas that are not ours."""
    tables = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (target.schema,))
    names = {name for (name,) in await tables.fetchall()}
    if not names:
        return 0
    if "version" not in names or "executions" not in names:
        raise StoreError(
            f"The schema {target.schema!r} of {target.name} belongs to another program. Name another one: ?schema=NAME."
        )
    found = await (await connection.execute("SELECT number FROM version")).fetchone()
    number = int(found[0]) if found else 0
    if number > len(_migrations()):
        raise SchemaTooNew(target.name, number, len(_migrations()))
    return number


def _migrations() -> list[bytes]:
    folder = resources.files("flux.stores.postgres") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [file.read_bytes() for file in files]
