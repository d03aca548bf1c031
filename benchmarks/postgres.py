"""Empty PostgreSQL databases to measure on, on the server that FLUX_TEST_POSTGRES names, or on this machine."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from measure import Skipped
from psycopg import sql

SERVER = os.environ.get("FLUX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")


@contextmanager
def database() -> Generator[str]:
    """The URL of a new database, which is dropped at the end."""
    name = f"flux_bench_{uuid4().hex}"
    try:
        server = psycopg.connect(f"{SERVER}/postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as exc:
        raise Skipped(f"no PostgreSQL answers at {SERVER}; FLUX_TEST_POSTGRES can name another one") from exc
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield f"{SERVER}/{name}"
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
