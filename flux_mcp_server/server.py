"""The MCP server: tools/list and tools/call over whatever transport, and what becomes of errors."""

from __future__ import annotations

import difflib
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, cast

import mcp_types as types
from mcp import MCPError
from mcp.server import Server
from mcp.server.caching import CacheableMethod, CacheHint
from pydantic import ValidationError

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
from flux_mcp_server import prompts, results, task_methods, tasks
from flux_mcp_server._sdk import CallNext, Context, DualServer, HandlerReply, add_middleware, connection_of, seal_states
from flux_mcp_server.attendance import Attendance
from flux_mcp_server.auth import SCOPES, Caller, Scope
from flux_mcp_server.calls import Call, Desk
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.declared import Declared
from flux_mcp_server.limits import Limits
from flux_mcp_server.logs import Logs
from flux_mcp_server.notices import Listening, Notices, Watch
from flux_mcp_server.resources import Resources, completion
from flux_mcp_server.results import Reply
from flux_mcp_server.task_methods import TaskMethods, changes

log = logging.getLogger("flux.mcp")

FRESH = 60_000  # milliseconds for which a client may keep the list of tools

_CACHEABLE: tuple[CacheableMethod, ...] = (
    *("server/discover", "tools/list", "prompts/list"),
    "resources/templates/list",
)
_UNCACHEABLE: dict[CacheableMethod, CacheHint] = {
    "resources/list": CacheHint(ttl_ms=0, scope="private"),
    "resources/read": CacheHint(ttl_ms=0, scope="private"),
}

INSTRUCTIONS = """\
Each workflow here is a tool. Executions are durable: finished work is never repeated, and an execution survives lost \
calls and restarts of this server. When a result has a `status` and a `next`, the work is not done: do what `next` says. \
Ask the user when an execution is paused; never make up an answer. To wait, call get_execution with wait_seconds; \
do not call the workflow again."""

NO_SESSIONS = "This server keeps no sessions, so it could not tell you later. Read the resource again instead."

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


@dataclass(slots=True)
class Served:
    """A server and what it goes by. `declared` is changed by a reload."""

    flux: Flux
    server: Server[Any]
    catalog: Catalog
    notices: Notices
    listening: Listening
    logs: Logs
    declared: Declared

    def needs(self, method: str, name: str) -> Scope | None:
        """The scope without which the method is refused."""
        if method != "tools/call":
            return task_methods.SCOPES.get(method)
        offer = self.catalog.get(name)
        return None if offer is None else offer.scope


def make_server(
    flux: Flux, catalog: Catalog, *, name: str, patience: float, secret: bytes, declared: Declared | None = None
) -> Server[Any]:
    """`patience` is how many seconds a call may take before it is answered by a handle; `secret` seals what clients hand back."""
    return assemble(flux, catalog, name=name, patience=patience, secret=secret, declared=declared).server


def assemble(
    flux: Flux,
    catalog: Catalog,
    *,
    name: str,
    patience: float,
    secret: bytes,
    declared: Declared | None = None,
    limits: Limits | None = None,
) -> Served:
    desk = Desk(flux, Attendance(flux), patience, secret, Logs())
    methods = TaskMethods(desk, catalog.ending)
    resources = Resources(desk, catalog, lambda: served.declared)
    notices = Notices()
    surface = _Surface(desk, catalog, methods, resources, notices, limits or Limits(), lambda: served.declared)
    listening = Listening(notices, surface.watch_resource, surface.watch_task)
    server = DualServer(
        name,
        version=version("flux-mcp-server"),
        title="Flux workflows",
        instructions=INSTRUCTIONS,
        cache_hints=dict.fromkeys(_CACHEABLE, CacheHint(ttl_ms=FRESH, scope="private")) | _UNCACHEABLE,
        get_tool_input_schema=catalog.input_schema,
        on_list_tools=surface.list_tools,
        on_call_tool=cast("Any", surface.call_tool),
        on_list_resources=surface.list_resources,
        on_list_resource_templates=surface.list_templates,
        on_read_resource=surface.read_resource,
        on_subscribe_resource=surface.subscribe,
        on_unsubscribe_resource=surface.unsubscribe,
        on_subscriptions_listen=listening,
        on_list_prompts=surface.list_prompts,
        on_get_prompt=surface.get_prompt,
        on_completion=surface.complete,
    )
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, surface.set_level)
    methods.register(server)
    add_middleware(server, without_faults)
    add_middleware(server, notices.remember)
    add_middleware(server, older_tasks)
    add_middleware(server, KeptList(catalog))
    seal_states(server, secret)
    served = Served(flux, server, catalog, notices, listening, desk.logs, declared or Declared())
    return served


async def without_faults(client: Context, call_next: CallNext) -> HandlerReply:
    """What goes wrong inside is for the log: the SDK would tell older clients of it, word for word."""
    try:
        return await call_next(client)
    except (MCPError, ValidationError):  # of the parameters: it has answers for both
        raise
    except Exception as exc:  # a fault of ours, or of the database
        raise _masked(exc, client.method) from exc


class OlderTask(Exception):
    """Answers a call by a task of the older form, which the SDK would not let pass as the result of a call."""

    def __init__(self, reply: dict[str, Any]) -> None:
        super().__init__("a task")
        self.reply = reply


async def older_tasks(client: Context, call_next: CallNext) -> HandlerReply:
    try:
        return await call_next(client)
    except OlderTask as exc:
        return exc.reply


@dataclass(slots=True)
class KeptList:
    """The list of tools as the SDK has checked and written it: of a hundred workflows that takes longer than all else. It is the same
    for all whose version and scopes are, until the tools change."""

    catalog: Catalog
    _tools: Sequence[types.Tool] = ()
    _made: dict[Any, HandlerReply] = field(default_factory=dict[Any, HandlerReply])

    async def __call__(self, client: Context, call_next: CallNext) -> HandlerReply:
        if client.method != "tools/list" or "cursor" in (client.params or {}):
            return await call_next(client)
        if self._tools is not self.catalog.tools:
            self._tools, self._made = self.catalog.tools, {}
        made, caller = self._made, Caller.of_request()
        key = (client.protocol_version, *(caller.may(scope) for scope in SCOPES))
        if key not in made:
            made[key] = await call_next(client)
        return made[key]


@dataclass(frozen=True, slots=True)
class _Surface:
    """Every method that is not about tasks."""

    desk: Desk
    catalog: Catalog
    tasks: TaskMethods
    resources: Resources
    notices: Notices
    limits: Limits
    declared: Callable[[], Declared]

    # -- tools --------------------------------------------------------------------------------------------------------

    async def list_tools(self, _client: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self.catalog.tools_for(Caller.of_request()))

    async def call_tool(self, client: Context, params: types.CallToolRequestParams) -> Reply:
        offer = self.catalog.get(params.name)
        if offer is None:
            raise MCPError(types.INVALID_PARAMS, _unknown(params.name, self.catalog.names()))
        call = Call.of(self.desk, client, params)
        call.caller.require(offer.scope)
        try:
            with nullcontext() if offer.scope == "control" else self.limits.admitted(call.caller):
                reply = await offer.handler(call)
        except (InvalidInput, ExecutionError, NotStorable, NotReadable) as exc:
            return results.error(_advised(exc))
        except MCPError:
            raise
        except Exception as exc:  # whatever went wrong inside is for the log, not for the client
            raise _masked(exc, f"a call of {params.name}") from exc
        if isinstance(reply, dict) and "task" in reply:
            self.tasks.watch_for(client, reply["task"]["taskId"])
            raise OlderTask(reply)
        return results.for_era(client, reply)

    # -- resources ----------------------------------------------------------------------------------------------------

    async def list_resources(
        self, _client: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        return await self.resources.list(None if params is None else params.cursor)

    async def list_templates(
        self, _client: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        return self.resources.templates()

    async def read_resource(
        self, _client: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        try:
            return await self.resources.read(str(params.uri))
        except MCPError:
            raise
        except Exception as exc:  # a user's resource, or a value that cannot be read back
            raise _masked(exc, f"a reading of {params.uri}") from exc

    async def subscribe(self, client: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        uri = str(params.uri)
        if not connection_of(client).has_standalone_channel:
            raise MCPError(types.METHOD_NOT_FOUND, NO_SESSIONS, client.method)
        watch = await self.watch_resource(uri)
        if watch is None and self.resources.execution_in(uri) is not None:
            raise MCPError(types.INVALID_PARAMS, f"{uri}: No such resource.", {"uri": uri})
        self.notices.subscribe(client, uri, watch)
        return types.EmptyResult()

    async def unsubscribe(self, client: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self.notices.unsubscribe(client, str(params.uri))
        return types.EmptyResult()

    async def watch_resource(self, uri: str) -> Watch | None:
        """From how it is now. None for what does not change by itself, or is not there for the caller."""
        execution_id, caller = self.resources.execution_in(uri), Caller.of_request()
        if execution_id is None or not caller.may("read"):
            return None
        try:
            execution = await self.desk.owned(execution_id, caller)
        except ExecutionNotFound:
            return None

        async def watch() -> None:
            with suppress(ExecutionNotFound):  # it is deleted meanwhile
                await self.resources.follow(uri, execution, self.notices.resource_updated)

        return watch

    async def watch_task(self, _client: Context, task_id: str, put: Callable[[dict[str, Any]], None]) -> Watch:
        caller = Caller.of_request()
        try:
            await self.desk.owned(task_id, caller)
        except ExecutionNotFound:
            raise MCPError(types.INVALID_PARAMS, f"No task {task_id!r}.") from None

        async def watch() -> None:
            async for execution in changes(self.desk.flux, task_id):
                put(tasks.detailed(execution, self.catalog.ending, kept=self.desk.kept))

        return watch

    # -- prompts, completion, logging ---------------------------------------------------------------------------------

    async def list_prompts(
        self, _client: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=prompts.listed(self.declared()))

    async def get_prompt(self, client: Context, params: types.GetPromptRequestParams) -> prompts.Got:
        try:
            return await prompts.got(self.declared(), client, params)
        except MCPError:
            raise
        except Exception as exc:  # a user's code may raise anything
            raise _masked(exc, f"the prompt {params.name}") from exc

    async def complete(self, _client: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        name, begun = params.argument.name, params.argument.value
        if isinstance(params.ref, types.PromptReference):
            known = prompts.completed(self.declared(), params.ref.name, name)
            values = [value for value in known if value.startswith(begun)]
        else:
            values = await self.resources.values(str(params.ref.uri), name, begun)
        return types.CompleteResult(completion=completion(values))

    async def set_level(self, client: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        if results.is_modern(client):
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", "logging/setLevel")
        self.desk.logs.set_level(client, params.level)
        return types.EmptyResult()


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"Unknown tool {name!r}." + (f" Did you mean {' or '.join(map(repr, near))}?" if near else "")


def _advised(exc: FluxError) -> str:
    advice = next((words for kind, words in _ADVICE if isinstance(exc, kind)), "")
    return f"{exc}\n{advice}".strip()


def _masked(exc: Exception, what: str) -> MCPError:
    reference = uuid.uuid4().hex[:8]
    log.error("internal error %s in %s", reference, what, exc_info=exc)
    return MCPError(types.INTERNAL_ERROR, f"Internal error: see the server's log, reference {reference}.")
