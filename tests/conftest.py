"""What every test may use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flux import Flux
from flux.stores.memory import MemoryStore


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
