"""Telling clients that something has changed: a list, a resource. Each era has its own way.

Clients of today listen; older ones are told on their connection, once they have shown that it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import mcp_types as types
from mcp import MCPError
from mcp.server.connection import Connection
from mcp.server.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.subscriptions import event_matches, event_to_notification

from flux.errors import StoreError
from flux.service import Flux
from flux_mcp_server import results
from flux_mcp_server._sdk import CallNext, Context, HandlerReply, connection_of, notify, push

MOST_LISTENERS = 1000
MOST_WATCHED = 100  # resources and tasks that one client may have watched at once
LOOK = 1.0  # seconds between two looks for executions that are new
MOST_UNREAD = 1000  # notices that wait for a client; one that reads no more is let go

Frame = tuple[str, dict[str, Any]]
"""A notification's method and parameters."""

Watch = Callable[[], Awaitable[None]]
"""Reports changes until there can be none any more."""


@dataclass
class Notices:
    """`watching` makes what watches a resource; `task_watching` what reports a task's states."""

    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    _older: WeakSet[Connection] = field(default_factory=WeakSet[Connection])
    _wanted: WeakKeyDictionary[Connection, dict[str, asyncio.Task[None] | None]] = field(
        default_factory=WeakKeyDictionary[Connection, dict[str, asyncio.Task[None] | None]]
    )

    async def remember(self, client: Context, call_next: CallNext) -> HandlerReply:
        """Middleware: keeps the connections of older clients, which are told of what changes."""
        if not results.is_modern(client) and client.method != "initialize":
            self._older.add(connection_of(client))
        return await call_next(client)

    # -- what has changed ---------------------------------------------------------------------------------------------

    async def tools_changed(self) -> None:
        await self._tell(ToolsListChanged())

    async def prompts_changed(self) -> None:
        await self._tell(PromptsListChanged())

    async def resources_changed(self) -> None:
        await self._tell(ResourcesListChanged())

    async def resource_updated(self, uri: str) -> None:
        await self.bus.publish(ResourceUpdated(uri))
        for connection, wanted in list(self._wanted.items()):
            if uri in wanted:
                await push(connection, "notifications/resources/updated", {"uri": uri})

    async def _tell(self, event: ServerEvent) -> None:
        await self.bus.publish(event)
        method = event_to_notification(event, {}).method
        for connection in list(self._older):
            await push(connection, method)

    async def tell_of_executions(self, flux: Flux) -> None:
        """Tell that there are other resources when an execution is new, whichever process has begun it. Ends by being cancelled."""
        newest = await _newest(flux)
        while True:
            await asyncio.sleep(LOOK)
            try:
                found = await _newest(flux)
            except StoreError:  # it is busy: look again
                continue
            if found != newest:
                newest = found
                await self.resources_changed()

    # -- older subscriptions ------------------------------------------------------------------------------------------

    def subscribe(self, client: Context, uri: str, watch: Watch | None) -> None:
        connection = connection_of(client)
        if connection not in self._wanted:
            self._wanted[connection] = {}
            connection.exit_stack.callback(self._forget, connection)
        wanted = self._wanted[connection]
        if len(wanted) >= MOST_WATCHED:
            raise MCPError(types.INVALID_PARAMS, f"More than {MOST_WATCHED} subscriptions; end some first.")
        if uri not in wanted:
            wanted[uri] = None if watch is None else asyncio.get_running_loop().create_task(_quietly(watch))

    def unsubscribe(self, client: Context, uri: str) -> None:
        _cancel(self._wanted.get(connection_of(client), {}).pop(uri, None))

    def _forget(self, connection: Connection) -> None:
        for watching in self._wanted.pop(connection, {}).values():
            _cancel(watching)


async def _newest(flux: Flux) -> str | None:
    return next((listing.id for listing in await flux.list(limit=1)), None)


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()


async def _quietly(watch: Watch) -> None:
    try:
        await watch()
    except MCPError:
        return


@dataclass(slots=True)
class Listening:
    """`subscriptions/listen`: one request is one stream of notices. `watch_resource` and `watch_task` give what to watch with, or
    raise MCPError for what the client may not see."""

    notices: Notices
    watch_resource: Callable[[str], Awaitable[Watch | None]]
    watch_task: Callable[[Context, str, Callable[[dict[str, Any]], None]], Awaitable[Watch]]
    _streams: set[asyncio.Queue[Frame | None]] = field(default_factory=set[asyncio.Queue[Frame | None]])

    async def __call__(
        self, client: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        id = client.request_id
        if id is None or len(self._streams) >= MOST_LISTENERS:
            raise MCPError(types.INVALID_REQUEST, "No more listeners are taken now.")
        asked = params.notifications
        task_ids = _task_ids(asked)
        if task_ids and results.tasks_for(client, asked=False) is None:
            raise results.missing_tasks()
        if len(task_ids) + len(asked.resource_subscriptions or ()) > MOST_WATCHED:
            raise MCPError(types.INVALID_PARAMS, f"More than {MOST_WATCHED} things to watch; name fewer.")
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: id}
        frames: asyncio.Queue[Frame | None] = asyncio.Queue(MOST_UNREAD)
        watches = [await self.watch_resource(uri) for uri in asked.resource_subscriptions or ()]
        watches += [await self.watch_task(client, task, _into(frames, meta)) for task in task_ids]
        unsubscribe = self.notices.bus.subscribe(_forward(frames, asked, meta))
        self._streams.add(frames)
        running: list[asyncio.Task[None]] = []
        try:
            await notify(client, "notifications/subscriptions/acknowledged", _acknowledged(asked, task_ids, meta))
            loop = asyncio.get_running_loop()
            running = [loop.create_task(_quietly(watch)) for watch in watches if watch is not None]
            while (frame := await frames.get()) is not None:
                await notify(client, *frame)
        finally:
            unsubscribe()
            self._streams.discard(frames)
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return types.SubscriptionsListenResult(_meta=meta)

    def close(self) -> None:
        """End every stream, each after what it has still to say."""
        for frames in list(self._streams):
            _put(frames, None)


def _task_ids(asked: types.SubscriptionFilter) -> list[str]:
    given: Any = (asked.model_extra or {}).get("taskIds") or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):  # pyright: ignore[reportUnknownVariableType]
        raise MCPError(types.INVALID_PARAMS, "taskIds has to be a list of ids.")
    return list(dict.fromkeys(given))  # pyright: ignore[reportUnknownArgumentType] - checked just now


def _acknowledged(asked: types.SubscriptionFilter, task_ids: list[str], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for and is honoured."""
    wanted = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    known = ("toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions")
    honoured = {name: wanted[name] for name in known if wanted.get(name)}
    if task_ids:
        honoured["taskIds"] = task_ids
    return {"notifications": honoured, "_meta": dict(meta)}


def _forward(
    frames: asyncio.Queue[Frame | None], asked: types.SubscriptionFilter, meta: dict[str, Any]
) -> Callable[[ServerEvent], None]:
    uris = frozenset(asked.resource_subscriptions or ())

    def forward(event: ServerEvent) -> None:
        if event_matches(asked, uris, event):
            said = event_to_notification(event, meta).model_dump(mode="json", by_alias=True, exclude_none=True)
            _put(frames, (said["method"], said["params"]))

    return forward


def _into(frames: asyncio.Queue[Frame | None], meta: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    def put(task: dict[str, Any]) -> None:
        _put(frames, ("notifications/tasks", {**task, "_meta": dict(meta)}))

    return put


def _put(frames: asyncio.Queue[Frame | None], frame: Frame | None) -> None:
    if frames.full():  # the client reads no more: it may listen again, and look for itself
        while not frames.empty():
            frames.get_nowait()
        frame = None
    frames.put_nowait(frame)
