"""One tool call: find or start its execution, follow it, ask what it asks, answer before patience ends.

A call that is cancelled or lost lets go of its execution, which runs on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import mcp_types as types

from flux.context import ExecutionContext, OpenPause
from flux.decorators import UNSET, Workflow
from flux.errors import (
    ExecutionExists,
    ExecutionFinished,
    ExecutionNotFound,
    InvalidAnswer,
    InvalidInput,
    KeyTaken,
    NotPaused,
    PauseNotFound,
    WorkflowMismatch,
)
from flux.schema import to_json_value
from flux.service import Flux
from flux_mcp_server import asking, results, tasks
from flux_mcp_server._sdk import Context, hears_progress
from flux_mcp_server.attendance import Attendance
from flux_mcp_server.auth import OPEN, Caller
from flux_mcp_server.follow import Relay, Report, at_rest, relayed, unbroken
from flux_mcp_server.logs import Logs
from flux_mcp_server.results import Guide, Reply

JOIN_WITHIN = 24 * 3600.0  # seconds for which a call that was lost may be made again and find its execution
MOST_TRIES = 3  # answers to one question that may be wrong before the question becomes a handle
SETTLE = 0.1  # seconds that a question waits for others, to be asked together
GRACE = 0.05  # seconds in which a workflow may finish, or ask, before its call is answered by a task

IDEMPOTENCY_KEY = "flux/idempotencyKey"
"""In a call's `_meta`: calls of one tool with one key are one execution."""

Ending = Callable[[ExecutionContext[Any]], types.CallToolResult]


@dataclass(frozen=True, slots=True)
class Desk:
    """What every call works with. `patience` is how many seconds a call may take, `secret` makes ids that nobody can guess."""

    flux: Flux
    attendance: Attendance
    patience: float
    secret: bytes
    logs: Logs

    @property
    def kept(self) -> tasks.Kept:
        return self.flux.settings.retention

    async def owned(self, execution_id: str, caller: Caller, *, events: bool = False) -> ExecutionContext[Any]:
        """The execution, if the caller may know of it. Raises ExecutionNotFound, for those of others too."""
        execution = await self.flux.get(execution_id, events=events)
        if not caller.may_see(execution.principal):
            raise ExecutionNotFound(execution_id)
        return execution


@dataclass(slots=True, kw_only=True)
class Call:
    """`given` are answers that came with the call: by the pause's id when they answer our question, else by name. `task` is the
    kind of task that the call is answered by when its execution takes longer than a moment."""

    desk: Desk
    client: Context
    tool: str
    arguments: dict[str, Any]
    deadline: float
    caller: Caller = OPEN
    execution_id: str | None = None
    asked_for_task: bool = False
    task: Literal["extension", "older"] | None = None
    always_task: bool = False
    given: dict[str, types.InputResponse] = field(default_factory=dict[str, types.InputResponse])
    tries: Counter[str] = field(default_factory=Counter[str])

    @classmethod
    def of(cls, desk: Desk, client: Context, params: types.CallToolRequestParams) -> Call:
        call = cls(
            desk=desk,
            client=client,
            tool=params.name,
            arguments=dict(params.arguments or {}),
            deadline=time.monotonic() + desk.patience,
            caller=Caller.of_request(),
            asked_for_task=params.task is not None,
            given=dict(params.input_responses or {}),
        )
        if params.request_state is not None:
            call._take_state(json.loads(params.request_state))
        return call

    @property
    def flux(self) -> Flux:
        return self.desk.flux

    async def owned(self, execution_id: str) -> ExecutionContext[Any]:
        return await self.desk.owned(execution_id, self.caller)

    def may_become_task(self, mode: Literal["auto", "required", "never"]) -> None:
        """Raises MCPError for a client of today that would have to know tasks, and does not."""
        kind = results.tasks_for(self.client, asked=self.asked_for_task)
        if mode == "required" and kind is None and results.is_modern(self.client):
            raise results.missing_tasks()
        if kind is not None and mode != "never":
            self.task, self.always_task = kind, mode == "required" or kind == "older"
            self.deadline = time.monotonic() + GRACE

    @property
    def idempotency_key(self) -> str | None:
        key = (self.client.meta or {}).get(IDEMPOTENCY_KEY)
        return key if isinstance(key, str) and key else None

    def of_tool(self, tool: str, arguments: dict[str, Any]) -> Call:
        """The same call as if it were one of another tool."""
        return replace(self, tool=tool, arguments=arguments)

    @property
    def report(self) -> Report | None:
        """Tells the client of progress, if it has asked for that."""
        return self._report if hears_progress(self.client) else None

    async def _report(self, progress: float, message: str) -> None:
        await self.client.session.report_progress(progress, None, message)

    async def is_gone(self) -> bool:
        """Whether the client has closed its connection: over HTTP the older protocol tells us in no other way."""
        request = self.client.request
        return request is not None and await request.is_disconnected()

    # -- the state that a client hands back ---------------------------------------------------------------------------

    def _take_state(self, state: Mapping[str, Any]) -> None:
        """The questions are known by the pauses' ids from here on: an answer never reaches a later pause of that name."""
        self.execution_id = state["execution"]
        asked: dict[str, str] = state["asked"]
        self.given = {id: self.given[key] for key, id in asked.items() if key in self.given}
        self.tries = Counter(state["tries"])

    def state(self, execution_id: str, asked: Mapping[str, str]) -> str:
        return json.dumps({"execution": execution_id, "asked": dict(asked), "tries": dict(self.tries)})


# -- which execution ---------------------------------------------------------------------------------------------------


async def execution_for(call: Call, workflow: Workflow[Any, Any], input: Any) -> str:
    """The execution that this call means: the one it asked about, the one it lost, or a new one."""
    if call.execution_id is not None:
        return call.execution_id
    if call.idempotency_key is not None:
        return await _named_by_key(call, call.idempotency_key, workflow, input)
    key = _digest(call.caller.principal, call.tool, call.arguments)
    try:
        return await unbroken(_begun(call, workflow, input, key=key, unique_since=time.time() - JOIN_WITHIN))
    except KeyTaken as exc:
        if await call.desk.attendance.may_be_joined(await call.flux.get(exc.id)):
            return exc.id
    return await unbroken(_begun(call, workflow, input, key=key))


async def _begun(
    call: Call,
    workflow: Workflow[Any, Any],
    input: Any,
    *,
    id: str | None = None,
    key: str | None,
    unique_since: float | None = None,
) -> str:
    started = await call.flux.start(
        workflow, input, principal=call.caller.principal, execution_id=id, key=key, unique_since=unique_since
    )
    call.desk.attendance.begun(started.execution_id)
    return started.execution_id


async def _named_by_key(call: Call, key: str, workflow: Workflow[Any, Any], input: Any) -> str:
    id = _unguessable(call.desk.secret, call.caller.principal, call.tool, key)
    try:
        await unbroken(_begun(call, workflow, input, id=id, key=None))
    except ExecutionExists:
        known = await call.flux.get(id)
        if to_json_value(known.input) != to_json_value(input):
            fault = (f"_meta.{IDEMPOTENCY_KEY}", "has been used for another input; use a new key for a new execution")
            raise InvalidInput(f"This call of {call.tool}", [fault]) from None
    return id


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unguessable(secret: bytes, *parts: Any) -> str:
    return hmac.new(secret, _digest(*parts).encode(), "sha256").hexdigest()[:32]


async def resume(call: Call, *, workflow: str | None, answer: Any, pause: str | None) -> str:
    """Answer the pause, or let go on what was stopped. `answer` is UNSET where none was given. Returns the execution's id."""
    if call.execution_id is not None:  # the client answers what it was asked: nothing else is to be done again
        return call.execution_id
    id: str = call.arguments["execution_id"]
    execution = await call.owned(id)
    if workflow is not None and execution.workflow_name != workflow:
        raise WorkflowMismatch(id, belongs_to=execution.workflow_name, asked=workflow)
    meant = [each for each in execution.pauses if pause is None or pause in (each.id, each.name)]
    if (
        len(meant) == 1 and meant[0].for_human
    ):  # the user is asked now, if the client can; the model's word does not count
        return id
    if answer is not UNSET or pause is not None or execution.is_paused:
        await unbroken(call.flux.answer(id, None if answer is UNSET else answer, pause=pause))
    elif not execution.has_finished:
        await unbroken(call.flux.go_on(id))
    return id


# -- from there to a reply ---------------------------------------------------------------------------------------------


async def converse(call: Call, execution_id: str, *, ending: Ending, guide: Guide) -> Reply:
    """Follow the execution until it ends, needs somebody who cannot be asked here, or the call's time is up."""
    attendance = call.desk.attendance
    async with (
        relayed(call.flux, execution_id, call.report) as relay,
        call.desk.logs.told(execution_id, call.client),
        attendance.following(execution_id, call.is_gone),
    ):
        conversation = _Conversation(call, execution_id, guide, relay)
        execution_or_reply = await conversation.to_reply()
        if not isinstance(execution_or_reply, ExecutionContext) or call.always_task:
            await attendance.missed(execution_id)
    if not isinstance(execution_or_reply, ExecutionContext):
        return execution_or_reply
    if call.always_task:
        return conversation.task(execution_or_reply)
    await attendance.given(execution_or_reply)
    return ending(execution_or_reply)


@dataclass(slots=True)
class _Conversation:
    """The questions of one call. `unused` are the pauses not to be asked again, each with the reason."""

    call: Call
    execution_id: str
    guide: Guide
    relay: Relay
    unused: dict[str, str] = field(default_factory=dict[str, str])
    faults: dict[str, str] = field(default_factory=dict[str, str])

    async def to_reply(self) -> ExecutionContext[Any] | Reply:
        """The execution if it has ended, else what to tell the client."""
        while True:
            execution = await self._next_stop()
            if execution.has_finished:
                return execution
            if not execution.pauses:
                return self._reply(execution)
            if await self._use_given(execution):
                continue
            match results.way_to_ask(self.call.client):
                case "in the result":
                    return self._questions(execution) or self._reply(execution)
                case "over the call" if self.call.task is None and await self._push(execution):
                    continue
                case _:
                    return self._reply(await self.call.flux.get(self.execution_id))

    async def _next_stop(self) -> ExecutionContext[Any]:
        """The execution when it is at rest, or asks something that the client can be asked, or as it is when time is up."""
        flux, id = self.call.flux, self.execution_id
        while True:
            stopped = await at_rest(flux, id, deadline=self.call.deadline, until=self._asks)
            if not (stopped.is_running and self._asks(stopped)):
                return stopped
            # give others that are about to ask the time to do so
            settled = await at_rest(flux, id, deadline=min(self.call.deadline, time.monotonic() + SETTLE))
            if not settled.is_running or self._asks(settled):
                return settled

    def _asks(self, execution: ExecutionContext[Any]) -> bool:
        return bool(self._askable(execution))

    def task(self, execution: ExecutionContext[Any]) -> Reply:
        return tasks.created(
            execution, older=self.call.task == "older", kept=self.call.desk.kept, progress=self.relay.last
        )

    def _reply(self, execution: ExecutionContext[Any]) -> Reply:
        """A task or a handle, for an execution that needs more than this call."""
        if self.call.task is not None:
            return self.task(execution)
        self._refuse_what_nobody_can_answer(execution)
        open_now = {pause.id for pause in execution.pauses}
        unused = [reason for id, reason in self.unused.items() if id in open_now]
        return results.handle(execution, self.guide, progress=self.relay.last, unused=unused)

    def _refuse_what_nobody_can_answer(self, execution: ExecutionContext[Any]) -> None:
        """Raises MCPError when all that is asked is for the client alone, and it cannot take it."""
        asked = [pause.output for pause in execution.pauses if pause.id not in self.unused]
        if asked and all(isinstance(each, types.CreateMessageRequest | types.ListRootsRequest) for each in asked):
            raise asking.missing_for(asked)

    def _askable(self, execution: ExecutionContext[Any]) -> list[asking.Question]:
        """The questions that are still to be asked, and that this client can take."""
        todo = [pause for pause in execution.pauses if pause.id not in self.unused]
        questions = [asking.question_of(execution, pause, self.faults.get(pause.id)) for pause in todo]
        return [each for each in questions if each is not None and asking.can_take(self.call.client, each.request)]

    # -- answers that came with the call ------------------------------------------------------------------------------

    async def _use_given(self, execution: ExecutionContext[Any]) -> bool:
        """Whether an answer was taken."""
        taken = False
        for question in self._askable(execution):
            pause = question.pause
            given = self.call.given.pop(pause.id, None) or self.call.given.pop(pause.name, None)
            if given is not None and await self._use(question, given):
                taken = True
        return taken

    async def _use(self, question: asking.Question, given: types.InputResponse) -> bool:
        pause = question.pause
        if isinstance(given, types.ElicitResult) and given.action != "accept":
            word = asking.DECLINED if given.action == "decline" else asking.DISMISSED
            self.unused[pause.id] = f"The user {word} {pause.name!r}; it stays open."
            return False
        if question.opens_page:
            self.unused[pause.id] = f"The user was sent to a page to answer {pause.name!r}."
            return True
        try:
            await unbroken(self.call.flux.answer(self.execution_id, question.answer(given), pause=pause.id))
        except InvalidAnswer as exc:
            self._refuse(pause, str(exc))
            return False
        except (NotPaused, PauseNotFound, ExecutionFinished):
            pass  # somebody else was quicker; the execution has moved all the same
        return True

    def _refuse(self, pause: OpenPause, fault: str) -> None:
        self.call.tries[pause.id] += 1
        self.faults[pause.id] = fault
        if self.call.tries[pause.id] >= MOST_TRIES:
            self.unused[pause.id] = f"The user's answers to {pause.name!r} could not be used: {fault}"

    # -- asking -------------------------------------------------------------------------------------------------------

    def _questions(self, execution: ExecutionContext[Any]) -> Reply | None:
        asked: dict[str, str] = {}
        requests: dict[str, asking.Request] = {}
        for question in self._askable(execution):
            pause = question.pause
            key = pause.name if pause.name not in asked else f"{pause.name} {pause.id}"
            asked[key] = pause.id
            requests[key] = question.request
        return results.questions(requests, self.call.state(self.execution_id, asked), execution) if asked else None

    async def _push(self, execution: ExecutionContext[Any]) -> bool:
        """Ask the first question over the open call. False when there is nothing more to be asked in this call."""
        askable = self._askable(execution)
        seconds = self.call.deadline - time.monotonic()
        if not askable or seconds <= 0:
            return False
        question, flux = askable[0], self.call.flux
        answer = await asking.pushed(self.call.client, flux, self.execution_id, question, seconds=seconds)
        if answer is not None:
            await self._use(question, answer)
            return True
        latest = await flux.get(self.execution_id)
        return all(each.id != question.pause.id for each in latest.pauses)
