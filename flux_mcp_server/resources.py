"""Resources: workflows and executions as documents, and what users have declared with `@resource`."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mcp_types as types
from mcp import MCPError

from flux.context import ExecutionContext
from flux.errors import ExecutionNotFound
from flux.events import ExecutionEvent
from flux.schema import to_json_value
from flux_mcp_server import results
from flux_mcp_server.auth import Caller
from flux_mcp_server.calls import Desk
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.declared import Declared, Resource
from flux_mcp_server.task_methods import changes

PAGE = 50
EVENTS = 200  # of one page
MOST_VALUES = 100  # of a completion: the protocol's limit

JSON = "application/json"
WORKFLOW = "flux://workflows/{name}"
EXECUTION = "flux://executions/{id}"

_TEMPLATES = (
    (WORKFLOW, "workflow", "A workflow: its schemas, its questions, where it is written"),
    (EXECUTION, "execution", "An execution as it is now"),
    (f"{EXECUTION}/events", "execution-events", f"What has happened in it; {EVENTS} a page, `?after=` the last number"),
    (f"{EXECUTION}/result", "execution-result", "What the workflow returned, whole"),
)


@dataclass(frozen=True, slots=True)
class Resources:
    """`declared` gives what users have declared: after a reload it is something else."""

    desk: Desk
    catalog: Catalog
    declared: Callable[[], Declared]

    # -- what there is ------------------------------------------------------------------------------------------------

    async def list(self, cursor: str | None) -> types.ListResourcesResult:
        """What users have declared, the workflows, then the executions of the caller, newest first."""
        caller = Caller.of_request()
        first = [] if cursor is not None else [*self._own(), *self._workflows()]
        before = None if cursor is None else _position(cursor)
        principal = caller.principal if caller.is_known else None
        found = (
            await self.desk.flux.list(principal=principal, before=before, limit=PAGE + 1) if caller.may("read") else []
        )
        executions = [
            types.Resource(
                uri=results.execution_uri(listing.id),
                name=listing.id,
                title=f"{listing.workflow}: {listing.status.value}",
                mime_type=JSON,
            )
            for listing in found[:PAGE]
        ]
        last = found[PAGE - 1] if len(found) > PAGE else None
        next = None if last is None else f"{last.created_at!r} {last.id}"
        return types.ListResourcesResult(resources=[*first, *executions], next_cursor=next)

    def _own(self) -> list[types.Resource]:
        return [
            types.Resource(
                uri=each.uri, name=each.name, title=each.title, description=each.description, mime_type=each.mime_type
            )
            for each in self.declared().resources.values()
            if not each.is_template
        ]

    def _workflows(self) -> list[types.Resource]:
        return [
            types.Resource(
                uri=WORKFLOW.format(name=name),
                name=name,
                title=served.title,
                description=served.summary,
                mime_type=JSON,
            )
            for name, served in sorted(self.catalog.served.items())
            if not served.is_hidden
        ]

    def templates(self) -> types.ListResourceTemplatesResult:
        ours = [
            types.ResourceTemplate(uri_template=uri, name=name, description=said, mime_type=JSON)
            for uri, name, said in _TEMPLATES
        ]
        theirs = [
            types.ResourceTemplate(
                uri_template=each.uri,
                name=each.name,
                title=each.title,
                description=each.description,
                mime_type=each.mime_type,
            )
            for each in self.declared().resources.values()
            if each.is_template
        ]
        return types.ListResourceTemplatesResult(resource_templates=[*ours, *theirs])

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, uri: str) -> types.ReadResourceResult:
        """Raises MCPError when there is no such resource, or it is another's."""
        for resource in self.declared().resources.values():
            arguments = resource.arguments(uri)
            if arguments is not None:
                return types.ReadResourceResult(contents=[await _read(resource, uri, arguments)])
        content = await self._document(uri)
        text = json.dumps(content, ensure_ascii=False, indent=2)
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=JSON, text=text)])

    async def _document(self, uri: str) -> Any:
        kind, parts, query = _parsed(uri)
        match kind, parts:
            case "workflows", [name] if name in self.catalog.served:
                return self.catalog.described(name)
            case "executions", [id]:
                return self._execution(await self._owned(uri, id))
            case "executions", [id, "events"]:
                return self._events(await self._owned(uri, id, events=True), query.get("after", "0"))
            case "executions", [id, "result"]:
                execution = await self._owned(uri, id)
                if execution.has_succeeded:
                    return to_json_value(execution.output)
                raise _not_found(uri, f"The execution has no result: it is {execution.status.value}.")
            case _:
                raise _not_found(uri)

    async def _owned(self, uri: str, id: str, *, events: bool = False) -> ExecutionContext[Any]:
        caller = Caller.of_request()
        caller.require("read")
        try:
            return await self.desk.owned(id, caller, events=events)
        except ExecutionNotFound:
            raise _not_found(uri) from None

    def _execution(self, execution: ExecutionContext[Any]) -> Any:
        shown: Any = results.view(execution, self.catalog.guide).structured_content
        return shown

    def _events(self, execution: ExecutionContext[Any], after: str) -> dict[str, Any]:
        if not after.isdecimal():
            raise MCPError(types.INVALID_PARAMS, "`after` has to be the number of an event.")
        found = [event for event in execution.events if event.number > int(after)]
        page: dict[str, Any] = {"events": [self._event(event, execution) for event in found[:EVENTS]]}
        if len(found) > EVENTS:
            last = found[EVENTS - 1].number
            page["next"] = f"{results.execution_uri(execution.execution_id)}/events?after={last}"
        return page

    def _event(self, event: ExecutionEvent, execution: ExecutionContext[Any]) -> dict[str, Any]:
        value = event.value
        return {
            "number": event.number,
            "type": event.type.value,
            "name": event.name,
            "source_id": event.source_id,
            "time": results.time_text(event.time.timestamp()),
            "value": self.catalog.error_text(execution, value)
            if isinstance(value, BaseException)
            else to_json_value(value),
        }

    # -- changes ------------------------------------------------------------------------------------------------------

    def execution_in(self, uri: str) -> str | None:
        """The execution that the resource tells of."""
        try:
            kind, parts, _ = _parsed(uri)
        except MCPError:
            return None
        return parts[0] if kind == "executions" and parts else None

    async def follow(self, uri: str, since: ExecutionContext[Any], updated: Callable[[str], Any]) -> None:
        """Calls `updated` each time the execution of this resource has changed since it was so, until it has ended."""
        async for _ in changes(self.desk.flux, since.execution_id, since=since):
            await updated(uri)

    # -- completion ---------------------------------------------------------------------------------------------------

    async def values(self, template: str, argument: str, begun: str) -> list[str]:
        """What the argument of a template may be, of what begins like this."""
        if template == WORKFLOW and argument == "name":
            return sorted(name for name in self.catalog.served if name.startswith(begun))
        if template.startswith(EXECUTION) and argument == "id":
            caller = Caller.of_request()
            principal = caller.principal if caller.is_known else None
            found = await self.desk.flux.list(principal=principal, limit=1000) if caller.may("read") else []
            return [listing.id for listing in found if listing.id.startswith(begun)]
        return []


def completion(values: Sequence[str]) -> types.Completion:
    return types.Completion(values=list(values[:MOST_VALUES]), total=len(values), has_more=len(values) > MOST_VALUES)


def _parsed(uri: str) -> tuple[str, list[str], dict[str, str]]:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise _not_found(uri) from None
    if parts.scheme != "flux":
        raise _not_found(uri)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return parts.netloc, [part for part in parts.path.split("/") if part], query


async def _read(
    resource: Resource, uri: str, arguments: dict[str, str]
) -> types.TextResourceContents | types.BlobResourceContents:
    made = resource.func(**arguments)
    value = await made if inspect.isawaitable(made) else made
    if isinstance(value, bytes):
        blob = base64.b64encode(value).decode()
        return types.BlobResourceContents(uri=uri, mime_type=resource.mime_type, blob=blob)
    if isinstance(value, str):
        return types.TextResourceContents(uri=uri, mime_type=resource.mime_type or "text/plain", text=value)
    text = json.dumps(to_json_value(value), ensure_ascii=False)
    return types.TextResourceContents(uri=uri, mime_type=resource.mime_type or JSON, text=text)


def _position(cursor: str) -> tuple[float, str]:
    at, _, id = cursor.partition(" ")
    try:
        return float(at), id
    except ValueError:
        raise MCPError(types.INVALID_PARAMS, "The cursor is none of ours.") from None


def _not_found(uri: str, why: str = "No such resource.") -> MCPError:
    return MCPError(types.INVALID_PARAMS, f"{uri}: {why}", {"uri": uri})
