"""Looking at a server outside of every workflow."""

from __future__ import annotations

from typing import Any

from flux.engine.ports import SecretStore
from flux.tasks.mcp.client import MOST
from flux.tasks.mcp.connection import Connection, Terms, list_tools
from flux.tasks.mcp.pool import not_open
from flux.tasks.mcp.targets import Given, target_of


async def tools_of(server: Given, secrets: SecretStore) -> list[dict[str, Any]]:
    """Its tools, as they go over the wire. Raises the errors of `flux.errors.RemoteError`."""
    target = target_of(server, None)
    terms = Terms(server=target.name, target=target, auth=None, connect_timeout=30, protocol="auto", most=MOST)
    connection = Connection(terms, secrets)
    try:
        await connection.ready()
        tools = await list_tools(connection)
    except Exception as exc:  # the SDK's errors are told apart below
        raise not_open(exc, terms.server) from exc
    finally:
        await connection.aclose()
    return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in tools]
