"""The methods of tasks, in both forms: get, update, cancel; and result, list for 2025-11-25."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value

from flux.context import ExecutionContext
from flux.engine.body import Progress
from flux.errors import ExecutionFinished, ExecutionNotFound, InvalidAnswer, NotPaused, PauseNotFound, StoreError
from flux.service import Flux
from flux_mcp_server import asking, results, tasks
from flux_mcp_server._sdk import Context, connection_of, push
from flux_mcp_server.auth import Caller, Scope
from flux_mcp_server.calls import Desk
from flux_mcp_server.follow import unbroken

SCOPES: Mapping[str, Scope] = {
    "tasks/get": "read",
    "tasks/update": "run",
    "tasks/cancel": "control",
    "tasks/result": "read",
}
PAGE = 50
LOOK = 0.5  # seconds between two looks at an execution that nothing is heard of
SOON = 0.05  # seconds at least between two things said of one execution


class TaskParams(types.RequestParams):
    task_id: str


class UpdateParams(TaskParams):
    input_responses: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskMethods:
    """`ending` is what a workflow's tool answers once its execution has ended."""

    desk: Desk
    ending: tasks.Ending

    def register(self, server: Server[Any]) -> None:
        server.extensions[results.TASKS] = {}
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", UpdateParams, self.update)
        server.add_request_handler("tasks/cancel", TaskParams, self.cancel)
        server.add_request_handler("tasks/result", TaskParams, self.result)
        server.add_request_handler("tasks/list", types.PaginatedRequestParams, self.list)

    async def get(self, client: Context, params: TaskParams) -> dict[str, Any]:
        execution = await self._known(client, params)
        if not results.is_modern(client):
            return tasks.status(execution, kept=self.desk.kept)
        return tasks.detailed(execution, self.ending, kept=self.desk.kept)

    async def update(self, client: Context, params: UpdateParams) -> dict[str, Any]:
        """Answers to some of the questions. Keys that ask nothing, or nothing any more, are passed over."""
        if not results.is_modern(client):
            raise _unknown_method("tasks/update")
        execution = await self._known(client, params)
        asked = tasks.questions(execution)
        for key, given in params.input_responses.items():
            if key in asked:
                await self._answer(execution.execution_id, asked[key], given)
        return {}

    async def _answer(self, execution_id: str, question: asking.Question, given: Any) -> None:
        response = asking.response_to(question.request, given)
        if isinstance(response, types.ElicitResult) and response.action != "accept":
            return  # the question stays open, for whoever else may answer it
        if question.opens_page:
            return
        try:
            answer = question.answer(response)
            await unbroken(self.desk.flux.answer(execution_id, answer, pause=question.pause.id))
        except InvalidAnswer as exc:
            raise MCPError(types.INVALID_PARAMS, str(exc)) from None
        except (NotPaused, PauseNotFound, ExecutionFinished):
            pass  # somebody else was quicker

    async def cancel(self, client: Context, params: TaskParams) -> dict[str, Any]:
        execution = await self._known(client, params)
        if results.is_modern(client):
            await unbroken(self.desk.flux.cancel(execution.execution_id, reason="the client cancelled the task"))
            return {}
        if execution.has_finished:
            raise MCPError(types.INVALID_PARAMS, f"The task has ended already: it is {execution.status.value}.")
        await unbroken(self.desk.flux.cancel(execution.execution_id, reason="the client cancelled the task"))
        return tasks.status(await self._ended_within(execution.execution_id, seconds=2.0), kept=self.desk.kept)

    async def _ended_within(self, execution_id: str, *, seconds: float) -> ExecutionContext[Any]:
        return await self.desk.flux.wait(execution_id, timeout=seconds)

    async def result(self, client: Context, params: TaskParams) -> dict[str, Any]:
        """The older form: wait for the end, and meanwhile ask the user what the task asks."""
        if not results.knows_older_tasks(client):
            raise _unknown_method("tasks/result")
        execution = await self._known(client, params)
        declined: set[str] = set()
        async for changed in changes(self.desk.flux, execution.execution_id):
            execution = changed
            if not execution.has_finished:
                await self._ask(client, execution, declined)
        ended = self.ending(execution)
        related = {tasks.RELATED: {"taskId": execution.execution_id}}
        dumped = ended.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {**dumped, "_meta": {**(ended.meta or {}), **related}}

    async def _ask(self, client: Context, execution: ExecutionContext[Any], declined: set[str]) -> None:
        for key, question in tasks.questions(execution).items():
            if key in declined or not asking.can_take(client, question.request):
                continue
            id = execution.execution_id
            related = asking.related_to_task(question, id)
            answer = await asking.pushed(client, self.desk.flux, id, related, seconds=None)
            if answer is None:
                return
            if isinstance(answer, types.ElicitResult) and answer.action != "accept":
                declined.add(key)
                continue
            with suppress(MCPError):  # an answer that does not fit is asked for again
                await self._answer(id, question, answer)
            return

    async def list(self, client: Context, params: types.PaginatedRequestParams) -> dict[str, Any]:
        if not results.knows_older_tasks(client):
            raise _unknown_method("tasks/list")
        caller = Caller.of_request()
        before = None if params.cursor is None else _position(params.cursor)
        principal = caller.principal if caller.is_known else None
        found = await self.desk.flux.list(principal=principal, before=before, limit=PAGE + 1)
        shown = [tasks.status(await self.desk.flux.get(listing.id), kept=self.desk.kept) for listing in found[:PAGE]]
        last = found[PAGE - 1] if len(found) > PAGE else None
        return {"tasks": shown, **({} if last is None else {"nextCursor": f"{last.created_at!r} {last.id}"})}

    async def _known(self, client: Context, params: TaskParams) -> ExecutionContext[Any]:
        """Raises MCPError for clients that know no tasks, and for tasks that are not theirs."""
        if results.is_modern(client):
            if results.tasks_for(client, asked=False) is None:
                raise results.missing_tasks()
            _check_header(client, params.task_id)
        elif not results.knows_older_tasks(client):
            raise _unknown_method(client.method)
        caller = Caller.of_request()
        caller.require(SCOPES[client.method])
        try:
            execution = await self.desk.owned(params.task_id, caller)
        except ExecutionNotFound:
            raise MCPError(types.INVALID_PARAMS, f"No task {params.task_id!r}.") from None
        await self.desk.attendance.known(execution.execution_id)
        return execution

    def watch_for(self, client: Context, execution_id: str) -> None:
        """Tell a client of the older form of the task's states, until it ends or the client is gone."""
        connection = connection_of(client)

        async def tell() -> None:
            async for execution in changes(self.desk.flux, execution_id):
                await push(connection, "notifications/tasks/status", tasks.status(execution, kept=self.desk.kept))

        telling = asyncio.get_running_loop().create_task(tell(), name=f"status of task {execution_id}")
        connection.exit_stack.callback(telling.cancel)


def _check_header(client: Context, task_id: str) -> None:
    """Over HTTP the name in the header has to be the one in the body: what routes by the one must not be led astray."""
    if client.request is None:
        return
    given = client.request.headers.get(MCP_NAME_HEADER)
    if given is None or decode_header_value(given) != task_id:
        raise MCPError(types.HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} has to be the task's id.")


def _unknown_method(method: str) -> MCPError:
    return MCPError(types.METHOD_NOT_FOUND, "Method not found", method)


def _position(cursor: str) -> tuple[float, str]:
    at, _, id = cursor.partition(" ")
    try:
        return float(at), id
    except ValueError:
        raise MCPError(types.INVALID_PARAMS, "The cursor is none of ours.") from None


async def changes(
    flux: Flux, execution_id: str, *, since: ExecutionContext[Any] | None = None
) -> AsyncGenerator[ExecutionContext[Any]]:
    """The execution now, unless it is as it was `since` then, and each time it has changed, until it has ended.

    Raises ExecutionNotFound."""
    news = asyncio.Event()

    def hear(_: Progress) -> None:
        news.set()

    seen = None if since is None else _mark(since)
    with flux.observed(execution_id, hear, questions=True):
        while True:
            news.clear()
            try:
                execution = await flux.get(execution_id)
            except StoreError:  # it is busy: look again
                await asyncio.sleep(LOOK)
                continue
            if _mark(execution) != seen:
                seen = _mark(execution)
                yield execution
            if execution.has_finished:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await news.wait()
            await asyncio.sleep(SOON)


def _mark(execution: ExecutionContext[Any]) -> object:
    return execution.status, execution.updated_at, [pause.id for pause in execution.pauses]
