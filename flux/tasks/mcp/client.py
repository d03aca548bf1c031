"""The client of one server: its tools, resources and prompts as durable steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import mcp_types as types

from flux.decorators import Task
from flux.domain.calls import CallId
from flux.engine.scope import Scope, Site, require_scope
from flux.errors import (
    ConnectionLost,
    DefinitionError,
    ServerUnreachable,
    TaskTimeout,
    ToolChanged,
    UnusableResult,
)
from flux.options import TaskOptions
from flux.tasks.mcp.asking import Asking, Note, Wire, request
from flux.tasks.mcp.auth import Auth
from flux.tasks.mcp.connection import PAGES, Connection, Terms, list_tools
from flux.tasks.mcp.conversation import answer_of
from flux.tasks.mcp.errand import Errand
from flux.tasks.mcp.faults import Lost, NotSent, sorted_out
from flux.tasks.mcp.pool import Pool
from flux.tasks.mcp.results import Prompt, ResourceBlock, Results
from flux.tasks.mcp.sampling import Sampling
from flux.tasks.mcp.schemas import faults_in
from flux.tasks.mcp.targets import Given, target_of
from flux.tasks.mcp.tools import CONTROLS, NoSuchTool, Tool, ToolSet, ToolSettings, digest_of_tool, plain

MOST = 8 * 2**20  # bytes of one answer
MAY_HELP = (ServerUnreachable, ConnectionLost, TaskTimeout)
"""Errors after which trying again makes sense, and does no harm."""

T = TypeVar("T")

log = logging.getLogger("flux.mcp")


class MCPClient:
    """What `mcp()` gives. It connects when something is asked that no history knows, once in each event loop."""

    def __init__(
        self, terms: Terms, *, sampling: Sampling | None, per_call: bool, settings: ToolSettings, options: TaskOptions
    ) -> None:
        self.name = terms.server
        self.sampling = sampling
        self._terms = terms
        self._pool = Pool(terms, per_call=per_call)
        self.connected = self._pool.connected
        self._settings = settings
        self._options = options
        self._results = Results(self.name, terms.most)
        self._users: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()

    async def __aenter__(self) -> MCPClient:
        loop = asyncio.get_running_loop()
        self._users[loop] = self._users.get(loop, 0) + 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        loop = asyncio.get_running_loop()
        self._users[loop] -= 1
        if not self._users[loop]:
            await self.aclose()

    async def aclose(self) -> None:
        """Close what is open in this event loop; the next call connects again."""
        await self._pool.aclose()

    # -- what it can do ---------------------------------------------------------------------------------------------

    def discover(self) -> Coroutine[Any, Any, ToolSet]:
        """The server's tools. They are recorded: a replay, also in another process, has the same ones without asking."""
        return self._tool_set(self._task("discover", self._list_tools)())

    def rediscover(self) -> Coroutine[Any, Any, ToolSet]:
        """The same anew, when the tools may have changed while the workflow was under way."""
        return self._tool_set(self._task("rediscover", self._list_tools)())

    def list_resources(self) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        return self._task("list_resources", partial(self._listed, "resources/list", "resources"))()

    def list_resource_templates(self) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        call = partial(self._listed, "resources/templates/list", "resourceTemplates")
        return self._task("list_resource_templates", call)()

    def list_prompts(self) -> Coroutine[Any, Any, list[dict[str, Any]]]:
        return self._task("list_prompts", partial(self._listed, "prompts/list", "prompts"))()

    def read_resource(self, uri: str) -> Coroutine[Any, Any, list[ResourceBlock]]:
        """What the resource holds: mostly one block, with `text` or `data`."""
        return self._task("read_resource", self._read)(uri)

    def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> Coroutine[Any, Any, Prompt]:
        return self._task("get_prompt", self._prompt)(name, dict(arguments or {}))

    # -- as tasks ---------------------------------------------------------------------------------------------------

    def _task(self, what: str, func: Callable[..., Awaitable[T]]) -> Task[..., T]:
        named: TaskOptions = {"name": f"mcp_{plain(self.name)}_{what}"}
        kept = {key: value for key, value in self._options.items() if key.startswith("retry")}
        return Task[..., T](_plain_function(func), **cast(TaskOptions, {**kept, **named}))

    async def _tool_set(self, listed: Awaitable[list[Wire]]) -> ToolSet:
        definitions = await listed
        names = {str(each["name"]) for each in definitions}
        return ToolSet(self.name, definitions, partial(self._tool, is_flux=names >= CONTROLS))

    def _tool(self, definition: Mapping[str, Any], name: str, *, is_flux: bool) -> Tool:
        return Tool(
            self.name,
            definition,
            name,
            partial(_caller, self, self._terms.target.identity, is_flux),
            settings=self._settings,
            options=self._options,
            errand=self._errand_of,
        )

    def _errand_of(self, site: Site, owner: str, note: Note) -> Errand:
        asking = Asking(
            server=self.name, owner=owner, what=owner, method="tools/call", params={}, safe=False, timeout=None, key=""
        )
        return Errand(asking, self, site, note)

    # -- what the tasks do ------------------------------------------------------------------------------------------

    async def _list_tools(self) -> list[Wire]:
        async def tools(connection: Connection) -> list[types.Tool]:
            return await list_tools(connection)

        found = await self._safely(tools)
        return [_dumped(tool) for tool in found]

    async def _listed(self, method: str, key: str) -> list[dict[str, Any]]:
        async def pages(connection: Connection) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            cursor: str | None = None
            for _ in range(PAGES):
                params = {} if cursor is None else {"cursor": cursor}
                page = await connection.request(request(method, params), self._patience)
                found += page[key]
                cursor = page.get("nextCursor")
                if not cursor:
                    return found
            raise UnusableResult(self.name, f"its list of {key} has no end: {PAGES} pages and more")

        found = await self._safely(pages)
        self._results.check_size(f"the list of {key}", found)
        return found

    async def _read(self, uri: str) -> list[ResourceBlock]:
        reply = await self._asked("resources/read", {"uri": uri}, f"resource {uri}", "read_resource")
        return self._results.of_resource(uri, reply)

    async def _prompt(self, name: str, arguments: dict[str, str]) -> Prompt:
        params = {"name": name, "arguments": arguments}
        return self._results.of_prompt(name, await self._asked("prompts/get", params, f"prompt {name}", "get_prompt"))

    async def _asked(
        self, method: Literal["resources/read", "prompts/get"], params: Wire, what: str, task: str
    ) -> Wire:
        scope = require_scope(what)
        asking = Asking(
            server=self.name,
            owner=f"mcp_{plain(self.name)}_{task}",
            what=what,
            method=method,
            params=params,
            safe=True,
            timeout=self._settings.get("timeout"),
            key=_key(scope),
        )
        return await answer_of(Errand(asking, self, scope.name_call(depth=1)))

    async def call(self, asking: Asking) -> Any:
        """One call of a tool, as the body of its task."""
        errand = Errand(asking, self, require_scope(f"Tool {asking.what!r}").name_call(depth=1))
        reply = await answer_of(errand)
        return self._results.of_tool(asking.what, reply, errand.definition.get("outputSchema"))

    # -- the server as it is now -------------------------------------------------------------------------------------

    async def current(self, connection: Connection, asking: Asking) -> Mapping[str, Any]:
        if asking.method != "tools/call":
            return asking.definition
        try:
            listed = await connection.listed()
        except Exception as exc:  # the SDK's errors are told apart below
            meant = sorted_out(exc, self.name)
            if isinstance(meant, NotSent | Lost):
                raise ServerUnreachable(self.name, str(meant)) from exc
            return asking.definition  # it does not list its tools: the call will tell
        if asking.what not in listed:
            gone = NoSuchTool(self.name, asking.what, list(listed))
            why = f"tool {asking.what!r} was there when the tools were discovered, and is gone. {gone}"
            raise ToolChanged(self.name, why)
        live = _dumped(listed[asking.what])
        if digest_of_tool(live) != digest_of_tool(asking.definition):
            self._check_it_still_fits(asking, live)
        return live

    def _check_it_still_fits(self, asking: Asking, live: Wire) -> None:
        faults = faults_in(asking.params.get("arguments", {}), live.get("inputSchema") or {})
        if faults:
            found = "; ".join(f"{path or 'arguments'}: {message}" for path, message in faults[:3])
            raise ToolChanged(
                self.name,
                f"tool {asking.what!r} has changed since the tools were discovered, and does not take these arguments any "
                f"more: {found}. `await client.rediscover()` gives the tools as they are now.",
            )
        log.warning("MCP server %r: tool %r has changed since the tools were discovered", self.name, asking.what)

    async def _safely(self, read: Callable[[Connection], Awaitable[T]]) -> T:
        """For what may be asked as often as one likes."""
        run = require_scope(f"MCP server {self.name!r}").run
        for is_new in (False, True):
            async with self.connected(run) as connection:
                try:
                    return await read(connection)
                except Exception as exc:  # the SDK's errors are told apart below
                    meant = sorted_out(exc, self.name)
                    if isinstance(meant, NotSent) and meant.stale and not is_new:
                        connection.release()
                        continue
                    if isinstance(meant, NotSent):
                        meant = ServerUnreachable(self.name, str(meant))
                    elif isinstance(meant, Lost):
                        meant = ConnectionLost(self.name, str(meant))
                    raise meant from exc
        raise AssertionError("the second try ends the loop")

    @property
    def _patience(self) -> float:
        return self._settings.get("timeout") or 3 * self._terms.connect_timeout

    def __repr__(self) -> str:
        return f"<MCP server {self.name}: {self._terms.target.identity}>"


def mcp(
    server: Given,
    *,
    name: str | None = None,
    auth: Auth | None = None,
    connection: Literal["session", "per-call"] = "session",
    connect_timeout: float = 10,
    timeout: float | None = None,
    idempotent: bool | None = None,
    retry_max_attempts: int | None = None,
    retry_delay: float | None = None,
    retry_backoff: float | None = None,
    cache: bool | float | None = None,
    sampling: Sampling | None = None,
    protocol: str = "auto",
    max_result_bytes: int = MOST,
) -> MCPClient:
    """Another MCP server, whose tools become tasks. Nothing connects before something is asked, and nothing on a replay.

    `server` is a URL; a command ("npx -y some-server"), or its words as a list; StdioServerParameters; an entry of
    `mcpServers`, or the path of a file with such entries, of which `name` says one; or a server object of this process.
    Use it as `async with mcp(...) as client:` in a workflow, or keep one at the top of a module.

    `connection="per-call"` connects anew for each call. `timeout` is how many seconds a tool may take to answer, without the
    time in which people are asked. `retry_...` and `cache` are as for every task, and hold for the tools; what is tried again
    is only what cannot do harm: see `flux.errors.RemoteError`. `idempotent` says that tools may be called twice (or not),
    whatever the server says of them. `sampling` is the agent, or the model, that answers when the server asks for the words
    of one; without it such requests are refused. `protocol` is "auto", "legacy" or a version."""
    if connection not in ("session", "per-call"):
        raise DefinitionError(f'mcp(): connection is "session" or "per-call", not {connection!r}.')
    target = target_of(server, name)
    terms = Terms(
        server=name or target.name,
        target=target,
        auth=auth,
        connect_timeout=connect_timeout,
        protocol=protocol,
        most=max_result_bytes,
        offers_sampling=sampling is not None,
    )
    options: TaskOptions = {
        "retry_max_attempts": retry_max_attempts,
        "retry_delay": retry_delay,
        "retry_backoff": retry_backoff,
        "retry_on": MAY_HELP,
        "cache": cache,
    }
    settings: ToolSettings = {"timeout": timeout, "idempotent": idempotent}
    per_call = connection == "per-call"
    return MCPClient(terms, sampling=sampling, per_call=per_call, settings=settings, options=options)


class _Calls(Protocol):
    async def call(self, asking: Asking) -> Any: ...


def _caller(
    client: _Calls, identity: str, is_flux: bool, definition: Mapping[str, Any], name: str, settings: ToolSettings
) -> Callable[..., Any]:
    """The function of a tool's task. Its values are plain where they tell it from other ones: cached results depend on it."""
    tool = str(definition["name"])
    server = getattr(client, "name", "")
    timeout = settings.get("timeout")
    safe = is_safe(definition, settings.get("idempotent")) or (is_flux and tool not in CONTROLS)

    async def call_tool(**arguments: Any) -> Any:
        scope = require_scope(f"Tool {tool!r} of {identity}")
        asking = Asking(
            server=server,
            owner=scope.task or name,
            what=tool,
            method="tools/call",
            params={"name": tool, "arguments": arguments},
            safe=safe,
            timeout=timeout,
            key=_key(scope),
            is_flux=is_flux and tool not in CONTROLS,
            definition=definition,
        )
        return await client.call(asking)

    return call_tool


def is_safe(definition: Mapping[str, Any], said: bool | None) -> bool:
    """Whether a tool may be called twice. A server that says nothing has not said yes."""
    if said is not None:
        return said
    hints = cast("Mapping[str, Any]", definition.get("annotations") or {})
    return hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True


def _key(scope: Scope) -> str:
    """The same for every attempt of a call, and after every crash."""
    head, _, last = scope.path.removesuffix(".").rpartition(".")
    place = CallId(f"{head}.{last.partition('~')[0]}")
    return blake2b(f"{scope.run.id}/{place}".encode(), digest_size=16).hexdigest()


def _plain_function(func: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """A function that may stand as the body of a task: methods and partials have no code of their own to look at."""

    async def body(*args: Any) -> T:
        return await func(*args)

    return body


def _dumped(tool: types.Tool) -> Wire:
    return tool.model_dump(by_alias=True, exclude_none=True, mode="json")
