"""What every test may use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from flux import Flux
from flux.stores.memory import MemoryStore
from tests.postgres import database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the user's database."""
    path = tmp_path / "flux.db"
    monkeypatch.setenv("FLUX_DATABASE", str(path))
    return path


@pytest.fixture
async def flux() -> AsyncIterator[Flux]:
    """An engine on a database in memory, which recovers nothing by itself."""
    async with Flux(store=MemoryStore(), recover=False) as flux:
        yield flux


@pytest.fixture(scope="session")
def postgres_database() -> Iterator[str]:
    """The URL of a PostgreSQL database for this run of the tests. Skips the tests that need it where no server answers."""
    with database() as url:
        yield url


@pytest.fixture
def postgres(postgres_database: str) -> str:
    """The URL of an empty schema."""
    return f"{postgres_database}?schema=t{uuid4().hex}"
