"""One request to a server as a durable step: what is noted of it, and how it goes on after questions, tasks and crashes.

Before a request goes out that must not be made twice, that it does is written down; so is everything that a server answers
short of the end. Whoever goes on with the execution later - the same process, or another one after a crash - reads how far it
has come, and takes it up there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import mcp_types as types
from mcp import MCPError

from flux.domain.calls import Json
from flux.domain.events import CallNoted
from flux.engine.invoke import recall
from flux.engine.run import Run
from flux.engine.scope import Site
from flux.errors import (
    ConnectionLost,
    OutcomeUnknown,
    RequestRefused,
    ServerUnreachable,
    Suspend,
    TaskTimeout,
    ToolExecutionError,
    UnusableResult,
)
from flux.tasks.mcp.asking import Asking, Note, Wire, request, task_request
from flux.tasks.mcp.connection import Connection, Exchange, Pushed, Send
from flux.tasks.mcp.faults import Lost, NotSent, Slow, sorted_out
from flux.tasks.mcp.kept import keep, taken_up
from flux.tasks.mcp.questions import Answer, Question, ask, given_to, question_of

STOP_WITHIN = 3.0  # seconds that telling a server to stop may take
TRIES = 8  # to reach a server which has a task of ours under way, further and further apart
MOST_ROUNDS = 100  # of questions in one call
DECLINED_WITHIN = 3.0  # seconds that a task may take to end after its question was declined, before it is looked at
MOST_LOOKS = 30  # at a task that still asks what it has been told

REACH_WITHIN = 75.0  # seconds that a server may take to say how its work for us goes
LOOK_FOR = 45  # seconds that one of our own servers is asked to wait for news

IDEMPOTENCY_KEY = "flux/idempotencyKey"


class Peers(Protocol):
    """What a conversation needs of the client that it is held for."""

    async def connected(self, run: Run) -> Connection:
        """One that stands. Raises ServerUnreachable and the like."""
        ...

    async def current(self, connection: Connection, asking: Asking) -> Mapping[str, Any]:
        """The tool as it is now. Raises ToolChanged when it does not take this any more."""
        ...

    def finished(self, connection: Connection) -> None:
        """Nothing more is asked of it for now."""
        ...


def name_of(owner: str) -> str:
    return f"{owner}: request"


@dataclass(slots=True)
class Conversation:
    """`declined` are the questions that were: their names, by their words. `unused` are answers, by the words of the question,
    which came when the server did not wait any more; `told` counts how often a task still asks what it has been told."""

    asking: Asking
    peers: Peers
    site: Site
    note: Note = field(default_factory=Note)
    definition: Mapping[str, Any] = field(default_factory=dict[str, Any])
    declined: dict[str, str] = field(default_factory=dict[str, str])
    unused: dict[str, Answer] = field(default_factory=dict[str, Answer])
    told: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def run(self) -> Run:
        return self.site.scope.run

    async def answer(self) -> Wire:
        """What the server answers in the end. Raises the errors of `flux.errors.RemoteError`."""
        record = recall(self.site, self._name)
        self.definition = self.asking.definition
        self.note = Note.read(record.note if record is not None else None, self.run.codec)
        try:
            while True:
                reply = await self._step()
                if reply is not None:
                    return reply
        except asyncio.CancelledError:
            if not self.run.unwinding:
                await self.stop()
            raise
        except (ConnectionLost, TaskTimeout, ServerUnreachable, RequestRefused, ToolExecutionError, UnusableResult):
            self._forget()
            raise

    async def _step(self) -> Wire | None:
        if self.note.task:
            return await (self._old_task() if self.note.old else self._task())
        if self.note.handle:
            return await self._handle(self.note.handle)
        return await self._round()

    async def stop(self) -> None:
        """Tell the server to stop what it does for us by itself."""
        if self.note.task:
            await _within(STOP_WITHIN, self._stop("tasks/cancel", {"taskId": self.note.task}))
        if self.note.handle:
            arguments = {"execution_id": self.note.handle}
            await _within(STOP_WITHIN, self._stop("tools/call", {"name": "cancel_execution", "arguments": arguments}))

    async def _stop(self, method: str, params: Wire) -> None:
        connection = await self.peers.connected(self.run)
        try:
            await connection.request(request(method, params), timeout=STOP_WITHIN)
        finally:
            self.peers.finished(connection)

    @property
    def _name(self) -> str:
        return name_of(self.asking.owner)

    # -- one round --------------------------------------------------------------------------------------------------

    async def _round(self) -> Wire | None:
        """Make the request, with the answers to what was asked before. None when the server has asked something more."""
        answers = await self._answers()
        try:
            reply = await self._exchanged(answers)
        except MCPError as exc:  # it wants somebody to visit an address before
            await self._write(replace(self.note, sent=False, round=self._next_round(), links=True, asked=_links(exc)))
            return None
        match reply.get("resultType"):
            case None if isinstance(reply.get("task"), dict):
                await self._write(Note(task=str(reply["task"]["taskId"]), old=True))
                return None
            case "input_required":
                asked = cast("Mapping[str, Wire]", reply.get("inputRequests") or {})
                state: str | None = reply.get("requestState")
                await self._write(Note(round=self._next_round(), asked=asked, state=state))
                return None
            case "task":
                await self._write(Note(task=str(reply["taskId"])))
                return None
            case None | "complete":
                return await self._handled(reply)
            case other:
                raise UnusableResult(self.asking.server, f"it answered with {other!r}, which is not known here")

    def _next_round(self) -> int:
        if self.note.round >= MOST_ROUNDS:
            raise UnusableResult(self.asking.server, f"it has asked {MOST_ROUNDS} times and still wants to know more")
        return self.note.round + 1

    async def _answers(self) -> dict[str, Answer]:
        """What people answer to the questions of the last round; all are open at once."""
        if not self.note.asked:
            return {}
        questions = {
            key: self._question(request, key=f"{self.note.round} {key}", name=self._shown(key))
            for key, request in self.note.asked.items()
        }
        asking = [ask(self.site, question, server=self.asking.server) for question in questions.values()]
        given = [await asking[0]] if len(asking) == 1 else await asyncio.gather(*asking)
        answers = dict(zip(questions, given, strict=True))
        self.declined = {questions[key].message: key for key, answer in answers.items() if answer["action"] != "accept"}
        if self.note.links:
            if self.declined:
                raise ToolExecutionError(self.asking.what, "the address was not visited", self.asking.server)
            return {}
        return answers

    def _shown(self, key: str) -> str:
        return self.asking.what if self.note.links else key

    def _question(self, request: Mapping[str, Any], *, key: str, name: str) -> Question:
        return question_of(request, key=key, name=name, server=self.asking.server)

    # -- one exchange -----------------------------------------------------------------------------------------------

    async def _exchanged(self, answers: Mapping[str, Answer]) -> Wire:
        """The reply. A connection that turns out to have ended is replaced once."""
        exchange = taken_up((self.run.id, self.site.id))
        if exchange is None and self.note.sent and not self.asking.safe:
            raise self._unknown("the process that made the call has ended")
        for is_new in (False, True):
            try:
                return await self._reply(exchange or await self._sent(answers))
            except NotSent as exc:
                if is_new or not exc.stale:
                    raise ServerUnreachable(self.asking.server, str(exc)) from exc
                exchange = None
        raise AssertionError("the second try ends the loop")

    async def _reply(self, exchange: Exchange[Wire]) -> Wire:
        pushed: Pushed | None = None
        try:
            while isinstance(step := await exchange.step(self._patience), Pushed):
                pushed = step
                await self._put(exchange, pushed)
                pushed = None
        except Suspend:
            if pushed is not None and self.run.stopped is None:
                keep((self.run.id, self.site.id), exchange)
                raise
            exchange.abandon()
            raise
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        except Exception as exc:  # the SDK's errors are told apart below
            meant = self._meant(exc)
            if isinstance(meant, NotSent) and meant.stale:
                exchange.connection.release()
            self.peers.finished(exchange.connection)
            raise meant from exc
        self.peers.finished(exchange.connection)
        return step

    @property
    def _patience(self) -> float | None:
        """A task whose question was declined may wait for a better answer, and never say so."""
        return DECLINED_WITHIN if self.note.old and self.declined else self.asking.timeout

    async def _put(self, exchange: Exchange[Wire], pushed: Pushed) -> None:
        """Ask somebody what the server asks over the open call, and hand the answer back."""
        params = pushed.params.model_dump(by_alias=True, mode="json", exclude_none=True)
        key = f"pushed {self.note.round} {self.note.given}"
        question = self._question(params, key=key, name=self.asking.what)
        pushed.shown = True
        answer = await ask(self.site, question, server=self.asking.server)
        await self._write(replace(self.note, given=self.note.given + 1))
        exchange.answered()
        if answer["action"] != "accept":
            self.declined[question.message] = question.name
        if pushed.answer.done():  # the server did not wait so long
            self.unused[question.message] = answer
        else:
            pushed.answer.set_result(types.ElicitResult.model_validate(answer))

    async def _sent(self, answers: Mapping[str, Answer]) -> Exchange[Wire]:
        """A new request, on a connection that is known to stand."""
        params = dict(self.asking.params)
        if answers:
            params["inputResponses"] = answers
        if self.note.state is not None:
            params["requestState"] = self.note.state
        params["_meta"] = {IDEMPOTENCY_KEY: self.asking.key}
        connection = await self.peers.connected(self.run)
        try:
            self.definition = await self.peers.current(connection, self.asking)
            if not self.asking.safe:
                await self._write(replace(self.note, sent=True))
            as_task = connection.makes_old_tasks_of(self.asking.what)
            return self._begun(connection, task_request(params) if as_task else request(self.asking.method, params))
        except BaseException:  # whatever it was, the connection is free again
            self.peers.finished(connection)
            raise

    def _begun(self, connection: Connection, send: Send[Wire]) -> Exchange[Wire]:
        return connection.begin(send, execution=self.run.id, tell=self._tell)

    # -- the server's own task --------------------------------------------------------------------------------------

    async def _task(self) -> Wire:
        """Follow it to its end. Its questions are noted before they are asked, so that a replay asks the same ones."""
        said: str | None = None
        for key, question in (self.note.asked or {}).items():
            await self._update(key, question)
        rested = 0.0
        while True:
            task = await self._reached("tasks/get", self._of_task())
            said = self._tell_once(task.get("statusMessage"), said)
            match task.get("status"):
                case "completed":
                    return cast(Wire, task.get("result") or {})
                case "failed":
                    error = cast(Wire, task.get("error") or {})
                    said = str(error.get("message", "its task failed"))
                    raise RequestRefused(self.asking.server, said, int(error.get("code", 0)))
                case "cancelled":
                    raise ToolExecutionError(self.asking.what, "the server has cancelled its task", self.asking.server)
                case "input_required":
                    for key, question in cast("Mapping[str, Wire]", task.get("inputRequests") or {}).items():
                        await self._update(key, question)
                case _:
                    rested += await self._rest(task.get("pollIntervalMs"), rested)
                    continue
            await self._rest(task.get("pollIntervalMs"))

    async def _old_task(self) -> Wire:
        """Ask for its result: the answer comes when it has ended, and over the open call comes what it asks."""

        async def ask_for_result() -> Wire:
            exchange = taken_up((self.run.id, self.site.id))
            if exchange is None:
                exchange = self._begun(await self.peers.connected(self.run), request("tasks/result", self._of_task()))
            try:
                return await self._reply(exchange)
            except ConnectionLost as exc:
                if isinstance(exc.__cause__, Slow):
                    await self._check_slow_task()
                raise

        return await self._persistently(ask_for_result)

    async def _check_slow_task(self) -> None:
        task = await self._reached("tasks/get", self._of_task())
        if self.declined and task.get("status") == "input_required":
            raise self._declined(self._its_work)
        if not self.declined:
            await self.stop()
            raise self._too_slow()

    def _declined(self, waits: str) -> ToolExecutionError:
        said = f"{', '.join(self.declined.values())} was declined, and {waits} waits for an answer"
        return ToolExecutionError(self.asking.what, said, self.asking.server)

    def _too_slow(self) -> Exception:
        if self.asking.safe:
            return TaskTimeout(self.asking.owner, self.asking.timeout or 0.0)
        return self._unknown(f"no answer within {self.asking.timeout:g} s")

    async def _update(self, key: str, request: Wire) -> None:
        if key in self.told:
            return self._still_asks(key)
        self.told[key] = 0
        asked = dict(self.note.asked or {})
        if key not in asked:
            self.note = replace(self.note, asked={**asked, key: request})
            self.run.journal.note(self._fact(self.note.text(self.run.codec)))  # written with the question
        question = self._question(request, key=key, name=self.asking.what)
        if question.message in self.declined:
            raise self._declined(self._its_work)
        answer = await ask(self.site, question, server=self.asking.server)
        if answer["action"] != "accept":
            self.declined[question.message] = question.name
        await self._reached("tasks/update", self._of_task(inputResponses={key: answer}))
        return None

    def _still_asks(self, key: str) -> None:
        """It may not have looked yet; but it does not have to like the answer."""
        self.told[key] += 1
        if self.declined and self.told[key] > 1:
            raise self._declined(self._its_work)
        if self.told[key] > MOST_LOOKS:
            raise UnusableResult(self.asking.server, f"{self._its_work} does not take the answer to {key!r}")

    def _of_task(self, **params: Any) -> Wire:
        return {"taskId": self.note.task, **params}

    def _tell(self, value: Any) -> None:
        self.run.tell(self.asking.owner, value, call=self.site.scope.call)

    def _tell_once(self, message: Any, said: str | None) -> str | None:
        if message and message != said:
            self._tell(message)
        return message or said

    async def _rest(self, milliseconds: Any, rested: float = 0.0) -> float:
        """Wait before the next look, and return for how long. After the call's timeout the server is told to stop."""
        asked = milliseconds / 1000 if isinstance(milliseconds, int | float) else 1.0
        seconds = min(max(asked, 0.02), 5.0)
        if self.asking.timeout is not None and rested + seconds > self.asking.timeout:
            await self.stop()
            raise self._too_slow()
        await self.run.clock.sleep_until(self.run.clock.now() + seconds)
        return seconds

    # -- an execution on a server of ours ---------------------------------------------------------------------------

    async def _handled(self, reply: Wire) -> Wire | None:
        """The reply, unless it is the handle of an execution that goes on there: then None, and it is followed."""
        told: Any = reply.get("structuredContent")
        if not self.asking.is_flux or not _is_handle(told):
            return reply
        if self.declined:
            raise self._declined(f"execution {told['execution_id']}")
        await self._write(Note(handle=str(told["execution_id"])))
        return None

    async def _handle(self, execution: str) -> Wire:
        while True:
            view = await self._control("get_execution", execution_id=execution, wait_seconds=LOOK_FOR)
            match view.get("status"):
                case "completed":
                    output = view.get("output")
                    return {"structuredContent": output if isinstance(output, dict) else {"result": output}}
                case "failed" | "cancelled" as end:
                    said = str(view.get("error") or f"execution {execution} was {end}")
                    raise ToolExecutionError(self.asking.what, said, self.asking.server)
                case "paused":
                    questions = cast("list[Wire]", view.get("questions") or [])
                    await self._resume(execution, questions[0])
                case "running":
                    pass
                case _:
                    await self._rest(1000)

    async def _resume(self, execution: str, asked: Wire) -> None:
        name = str(asked.get("pause"))
        question = Question(
            key=f"{execution} {name} {self.note.given}",
            name=name,
            message=str(asked.get("message", "")),
            schema=cast(Wire, asked.get("answer_schema") or {}),
            output=asked.get("output"),
        )
        known = self.unused.pop(question.message, None)
        answer = (
            await given_to(self.site, question, server=self.asking.server) if known is None else _freed(known, question)
        )
        await self._write(replace(self.note, given=self.note.given + 1))
        await self._control("resume_execution", execution_id=execution, answer=answer, pause=name)

    async def _control(self, tool: str, **arguments: Any) -> Wire:
        reply = await self._reached("tools/call", {"name": tool, "arguments": arguments})
        if reply.get("isError"):
            content = cast("list[Wire]", reply.get("content") or [{}])
            said = str(content[0].get("text", "no reason given"))
            raise ToolExecutionError(self.asking.what, said, self.asking.server)
        return cast(Wire, reply.get("structuredContent") or {})

    # -- what the server does by itself ------------------------------------------------------------------------------

    async def _reached(self, method: str, params: Wire) -> Wire:
        """One request about what the server does for us."""

        async def ask_once() -> Wire:
            connection = await self.peers.connected(self.run)
            try:
                return await connection.request(request(method, params), timeout=REACH_WITHIN, tell=self._tell)
            finally:
                self.peers.finished(connection)

        return await self._persistently(ask_once)

    async def _persistently(self, ask_once: Callable[[], Awaitable[Wire]]) -> Wire:
        """Ask until the server is there: what it does for us goes on meanwhile."""
        pause = 0.5
        for left in reversed(range(TRIES)):
            try:
                return await ask_once()
            except Exception as exc:  # the SDK's errors are told apart below
                meant = sorted_out(exc, self.asking.server)
                if isinstance(meant, RequestRefused) and meant.code == types.INVALID_PARAMS:
                    raise self._unknown(f"the server no longer knows {self._its_work}") from exc
                if not isinstance(meant, NotSent | Lost | ServerUnreachable | ConnectionLost):
                    raise meant from exc
                if not left:
                    why = f"{self._its_work} is under way, but the server cannot be reached: {meant}"
                    raise OutcomeUnknown(self.asking.server, self.asking.what, why) from exc
            await self.run.clock.sleep_until(self.run.clock.now() + pause)
            pause = min(2 * pause, 15.0)
        raise AssertionError("the last try ends the loop")

    @property
    def _its_work(self) -> str:
        return f"its task {self.note.task}" if self.note.task else f"the execution {self.note.handle} there"

    # -- facts and faults -------------------------------------------------------------------------------------------

    async def _write(self, note: Note) -> None:
        self.note = note
        await self.run.journal.record(self._fact(note.text(self.run.codec)))

    def _forget(self) -> None:
        """What is noted does not count any more: written with the outcome that follows."""
        if self.note != Note():
            self.run.journal.note(self._fact(Json("null")))

    def _fact(self, note: Json) -> CallNoted:
        return CallNoted(at=self.run.clock.now(), call=self.site.id, name=self._name, note=note)

    def _meant(self, exc: Exception) -> Exception:
        meant = sorted_out(exc, self.asking.server)
        match meant:
            case Slow() if self.asking.safe and not self.note.task:
                return self._too_slow()
            case Lost() if self.asking.safe or self.note.task:
                return ConnectionLost(self.asking.server, str(meant))
            case Lost():
                return self._unknown(str(meant))
            case _:
                return meant

    def _unknown(self, reason: str) -> OutcomeUnknown:
        self._forget()
        return OutcomeUnknown(self.asking.server, self.asking.what, reason)


def _freed(answer: Answer, question: Question) -> Any:
    """The answer to a form, as the answer that the form was made for: those that are no objects are its one field."""
    if answer["action"] != "accept":
        raise ToolExecutionError(question.name, "the question was declined")
    content = cast(Wire, answer.get("content") or {})
    is_wrapped = content.keys() == {"answer"}
    return content["answer"] if is_wrapped and question.schema.get("type") != "object" else content


def _is_handle(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    handle = cast(Wire, told)
    live = handle.get("status") in ("running", "paused", "sleeping", "suspended")
    return live and "next" in handle and isinstance(handle.get("execution_id"), str)


def _links(exc: MCPError) -> dict[str, Wire]:
    data = cast("Mapping[str, Any]", exc.error.data or {})
    found = cast("list[Wire]", data.get("elicitations") or [])
    return {str(each.get("elicitationId", number)): {"mode": "url", **each} for number, each in enumerate(found)}


async def _within(seconds: float, work: Coroutine[Any, Any, Any]) -> None:
    """Finish something while being cancelled, or leave it: outside of the workflow, which is over."""
    task = asyncio.get_running_loop().create_task(work, context=Context())
    await asyncio.wait({task}, timeout=seconds)
    if task.done() and not task.cancelled():
        task.exception()  # looked at: that it could not be told changes nothing
