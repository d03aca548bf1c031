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
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types

from flux.context import ExecutionContext, OpenPause
from flux.decorators import UNSET, Workflow
from flux.domain.execution import Status
from flux.errors import (
    ExecutionExists,
    ExecutionFinished,
    InvalidAnswer,
    InvalidInput,
    NotPaused,
    PauseNotFound,
    WorkflowMismatch,
)
from flux.schema import to_json_value
from flux.service import Flux
from flux_mcp_server import asking, results
from flux_mcp_server._sdk import Context
from flux_mcp_server.follow import Attendance, Relay, at_rest, relayed, unbroken
from flux_mcp_server.results import Reply

PRINCIPAL = "local"
"""Who calls, as long as nobody is identified."""

JOIN_WITHIN = 24 * 3600.0  # seconds for which a call that was lost may be made again and find its execution
MOST_TRIES = 3  # answers to one question that may be wrong before the question becomes a handle

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


@dataclass(slots=True, kw_only=True)
class Call:
    """`given` are answers that came with the call: by the pause's id when they answer our question, else by name."""

    desk: Desk
    client: Context
    tool: str
    arguments: dict[str, Any]
    deadline: float
    execution_id: str | None = None
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
            given=dict(params.input_responses or {}),
        )
        if params.request_state is not None:
            call._take_state(json.loads(params.request_state))
        return call

    @property
    def flux(self) -> Flux:
        return self.desk.flux

    @property
    def idempotency_key(self) -> str | None:
        key = (self.client.meta or {}).get(IDEMPOTENCY_KEY)
        return key if isinstance(key, str) and key else None

    async def report(self, progress: float, message: str) -> None:
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
    key = _digest(PRINCIPAL, call.tool, call.arguments)
    known = await call.flux.joinable(key, since=time.time() - JOIN_WITHIN)
    if known is not None and await call.desk.attendance.may_be_joined(known):
        return known.execution_id
    return await unbroken(_begun(call, workflow, input, key=key))


async def _begun(
    call: Call, workflow: Workflow[Any, Any], input: Any, *, id: str | None = None, key: str | None
) -> str:
    started = await call.flux.start(workflow, input, principal=PRINCIPAL, execution_id=id, key=key)
    call.desk.attendance.begun(started.execution_id)
    return started.execution_id


async def _named_by_key(call: Call, key: str, workflow: Workflow[Any, Any], input: Any) -> str:
    id = _unguessable(call.desk.secret, PRINCIPAL, call.tool, key)
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
    execution = await call.flux.get(id)
    if workflow is not None and execution.workflow_name != workflow:
        raise WorkflowMismatch(id, belongs_to=execution.workflow_name, asked=workflow)
    if answer is not UNSET or pause is not None or execution.is_paused:
        await unbroken(call.flux.answer(id, None if answer is UNSET else answer, pause=pause))
    elif not execution.has_finished:
        await unbroken(call.flux.go_on(id))
    return id


# -- from there to a reply ---------------------------------------------------------------------------------------------


async def converse(call: Call, execution_id: str, *, ending: Ending, resume_tool: Callable[[str], str]) -> Reply:
    """Follow the execution until it ends, needs somebody who cannot be asked here, or the call's time is up."""
    attendance = call.desk.attendance
    with attendance.following(execution_id, call.is_gone):
        async with relayed(call.flux, execution_id, call.report) as relay:
            conversation = _Conversation(call, execution_id, resume_tool, relay)
            execution_or_reply = await conversation.to_reply()
        if not isinstance(execution_or_reply, ExecutionContext):
            return execution_or_reply
        attendance.delivered(execution_id)
        return ending(execution_or_reply)


@dataclass(slots=True)
class _Conversation:
    """The questions of one call. `unused` are the pauses not to be asked again, each with the reason."""

    call: Call
    execution_id: str
    resume_tool: Callable[[str], str]
    relay: Relay
    unused: dict[str, str] = field(default_factory=dict[str, str])
    faults: dict[str, str] = field(default_factory=dict[str, str])

    async def to_reply(self) -> ExecutionContext[Any] | Reply:
        """The execution if it has ended, else what to tell the client."""
        while True:
            execution = await at_rest(self.call.flux, self.execution_id, deadline=self.call.deadline)
            if execution.has_finished:
                return execution
            if execution.status is not Status.PAUSED:
                return self._handle(execution)
            if await self._use_given(execution):
                continue
            match results.way_to_ask(self.call.client):
                case "in the result":
                    return self._questions(execution) or self._handle(execution)
                case "over the call" if await self._push(execution):
                    continue
                case _:
                    return self._handle(await self.call.flux.get(self.execution_id))

    def _handle(self, execution: ExecutionContext[Any]) -> Reply:
        open_now = {pause.id for pause in execution.pauses}
        unused = [reason for id, reason in self.unused.items() if id in open_now]
        resume_tool = self.resume_tool(execution.workflow_name)
        return results.handle(execution, resume_tool=resume_tool, progress=self.relay.last, unused=unused)

    def _askable(self, execution: ExecutionContext[Any]) -> list[tuple[OpenPause, asking.Form]]:
        forms = [(pause, asking.form_of(pause)) for pause in execution.pauses if pause.id not in self.unused]
        return [(pause, form) for pause, form in forms if form is not None]

    def _words(self, execution: ExecutionContext[Any], pause: OpenPause) -> str:
        return asking.words_of(execution, pause, self.faults.get(pause.id))

    # -- answers that came with the call ------------------------------------------------------------------------------

    async def _use_given(self, execution: ExecutionContext[Any]) -> bool:
        """Whether an answer was taken."""
        taken = False
        for pause, form in self._askable(execution):
            given = self.call.given.pop(pause.id, None) or self.call.given.pop(pause.name, None)
            if isinstance(given, types.ElicitResult) and await self._use(pause, form, given):
                taken = True
        return taken

    async def _use(self, pause: OpenPause, form: asking.Form, given: types.ElicitResult) -> bool:
        if given.action != "accept":
            word = "declined to answer" if given.action == "decline" else "dismissed the question"
            self.unused[pause.id] = f"The user {word} {pause.name!r}; it stays open."
            return False
        try:
            answer = form.answer(given.content)
            await unbroken(self.call.flux.answer(self.execution_id, answer, pause=pause.id))
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
        requests: dict[str, types.ElicitRequest] = {}
        for pause, form in self._askable(execution):
            key = pause.name if pause.name not in asked else f"{pause.name} {pause.id}"
            asked[key] = pause.id
            requests[key] = asking.request_for(form, self._words(execution, pause))
        return results.questions(requests, self.call.state(self.execution_id, asked), execution) if asked else None

    async def _push(self, execution: ExecutionContext[Any]) -> bool:
        """Ask the first question over the open call. False when there is nothing more to be asked in this call."""
        askable = self._askable(execution)
        seconds = self.call.deadline - time.monotonic()
        if not askable or seconds <= 0:
            return False
        pause, form = askable[0]
        answer = await asking.pushed(
            self.call.client,
            self.call.flux,
            self.execution_id,
            pause,
            form=form,
            message=self._words(execution, pause),
            seconds=seconds,
        )
        if answer is not None:
            await self._use(pause, form, answer)
            return True
        latest = await self.call.flux.get(self.execution_id)
        return all(each.id != pause.id for each in latest.pauses)
