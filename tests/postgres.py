"""A PostgreSQL database for one test, on the server that FLUX_TEST_POSTGRES names, or on this machine."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

SERVER = os.environ.get("FLUX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")


@contextmanager
def database() -> Generator[str]:
    """The URL of a new database, which is dropped at the end. Skips the test where no server answers."""
    name = f"flux_test_{uuid4().hex}"
    try:
        server = psycopg.connect(f"{SERVER}/postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as exc:
        pytest.skip(f"No PostgreSQL answers at {SERVER}; FLUX_TEST_POSTGRES can name another one. {exc}")
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield f"{SERVER}/{name}"
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
