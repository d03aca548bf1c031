"""What executions log, on its way to a client that follows them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flux_mcp_server import logs
from flux_mcp_server._sdk import Context

pytestmark = pytest.mark.anyio


@pytest.mark.one_server
async def test_what_is_said_at_the_very_end_of_a_call_is_not_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    async def tell(_client: Context, _level: str, text: Any, _logger: str) -> None:
        told.append(text)

    monkeypatch.setattr(logs, "log_to", tell)
    monkeypatch.setattr(logs, "current_scope", lambda: SimpleNamespace(run=SimpleNamespace(id="e")))
    monkeypatch.setattr(logs, "is_replaying", lambda: False)
    heard, client = logs.Logs(), cast(Context, SimpleNamespace(protocol_version="2026-07-28"))
    with suppress(ConnectionError):
        async with heard.told("e", client):
            heard.printed("late\n")
            raise ConnectionError
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == []
