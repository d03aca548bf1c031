"""A PostgreSQL database, shared by processes on as many machines as like to. Needs the extra `postgres`."""

from flux.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
