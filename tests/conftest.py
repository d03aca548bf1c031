"""What every test may use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trustme

from flux import Flux
from flux.stores.memory import MemoryStore
from tests.postgres import database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All that HTTP clients trust, here and in processes that tests start. Every client reads it anew, and to read all that a
    machine trusts takes longer than most tests."""
    file = tmp_path_factory.mktemp("trusted") / "authority.pem"
    trustme.CA().cert_pem.write_to_path(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


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
