"""The MCP server: tools/list and tools/call over whatever transport, and what becomes of errors."""

from __future__ import annotations

import difflib
import logging
import uuid
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server
from mcp.server.caching import CacheableMethod, CacheHint

from flux.errors import (
    ExecutionBusy,
    ExecutionError,
    ExecutionFinished,
    ExecutionNotFound,
    FluxError,
    InvalidInput,
    NotPaused,
    NotReadable,
    NotStorable,
    PauseNotFound,
    WorkflowMismatch,
    WorkflowNotFound,
)
from flux.service import Flux
from flux_mcp_server import results
from flux_mcp_server._sdk import Context, seal_states
from flux_mcp_server.calls import Call, Desk
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.follow import Attendance
from flux_mcp_server.results import Reply

log = logging.getLogger("flux.mcp")

FRESH = 60_000  # milliseconds for which a client may keep the list of tools

INSTRUCTIONS = """\
Each workflow here is a tool. Executions are durable: finished work is never repeated, and an execution survives lost \
calls and restarts of this server. When a result has a `status` and a `next`, the work is not done: do what `next` says. \
Ask the user when an execution is paused; never make up an answer. To wait, call get_execution with wait_seconds; \
do not call the workflow again."""

_ADVICE: tuple[tuple[type[FluxError], str], ...] = (
    (ExecutionNotFound, "list_executions shows the executions there are."),
    (NotPaused, "get_execution shows how it is now."),
    (PauseNotFound, "get_execution shows its open questions; name one as `pause`."),
    (ExecutionFinished, "get_execution shows its result."),
    (ExecutionBusy, "Call get_execution with wait_seconds to follow it there."),
    (WorkflowMismatch, "Use resume_execution, which takes any execution."),
    (WorkflowNotFound, "list_workflows shows what is served here."),
    (InvalidInput, "Correct the arguments and call again; nothing has been done."),
    (NotStorable, "Nothing has been done."),
)


def make_server(flux: Flux, catalog: Catalog, *, name: str, patience: float, secret: bytes) -> Server[Any]:
    """`patience` is how many seconds a call may take before it is answered by a handle; `secret` seals what clients hand back."""
    desk = Desk(flux, Attendance(), patience, secret)
    listed = types.ListToolsResult(tools=catalog.tools)

    async def list_tools(_client: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return listed

    async def call_tool(client: Context, params: types.CallToolRequestParams) -> Reply:
        offer = catalog.get(params.name)
        if offer is None:
            raise MCPError(types.INVALID_PARAMS, _unknown(params.name, catalog.names()))
        try:
            return await offer.handler(Call.of(desk, client, params))
        except (InvalidInput, ExecutionError, NotStorable, NotReadable) as exc:
            return results.error(_advised(exc))
        except MCPError:
            raise
        except Exception as exc:  # whatever went wrong inside is for the log, not for the client
            raise _masked(exc, params.name) from exc

    hint = CacheHint(ttl_ms=FRESH, scope="private")
    cacheable: tuple[CacheableMethod, ...] = ("server/discover", "tools/list")
    server: Server[Any] = Server(
        name,
        version=version("flux-mcp-server"),
        title="Flux workflows",
        instructions=INSTRUCTIONS,
        cache_hints=dict.fromkeys(cacheable, hint),
        get_tool_input_schema=catalog.input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    seal_states(server, secret)
    return server


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"Unknown tool {name!r}." + (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")


def _advised(exc: FluxError) -> str:
    advice = next((words for kind, words in _ADVICE if isinstance(exc, kind)), "")
    return f"{exc}\n{advice}".strip()


def _masked(exc: Exception, tool: str) -> MCPError:
    reference = uuid.uuid4().hex[:8]
    log.error("internal error %s in a call of %s", reference, tool, exc_info=exc)
    return MCPError(types.INTERNAL_ERROR, f"Internal error: see the server's log, reference {reference}.")
