"""One request to a server under way: what is asked, how far it has come, and how that is written down."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flux.domain.calls import CallId, Json
from flux.domain.events import CallNoted
from flux.engine.invoke import recall
from flux.engine.run import Run
from flux.engine.scope import Site
from flux.errors import ConnectionLost, OutcomeUnknown, TaskTimeout, ToolExecutionError
from flux.tasks.mcp.asking import Asking, Note
from flux.tasks.mcp.connection import Connection
from flux.tasks.mcp.faults import Lost, Slow, sorted_out
from flux.tasks.mcp.questions import Answer, ask, question_of
from flux.tasks.mcp.sampling import METHOD, Sampling, sampled


class Peers(Protocol):
    """What an errand needs of the client that it is for."""

    @property
    def sampling(self) -> Sampling | None: ...

    def connected(self, run: Run, *, alone: bool = False) -> AbstractAsyncContextManager[Connection]:
        """One that stands. `alone`: for a call over which the server may ask. Raises ServerUnreachable and the like."""
        ...

    async def current(self, connection: Connection, asking: Asking) -> Mapping[str, Any]:
        """The tool as it is now. Raises ToolChanged when it does not take this any more."""
        ...


def name_of(owner: str) -> str:
    return f"{owner}: request"


@dataclass(slots=True)
class Errand:
    """`definition` is the tool as it is now. `declined` are the questions that were: their names, by their words. `unused` are
    answers, by the words of the question, which came when the server did not wait any more."""

    asking: Asking
    peers: Peers
    site: Site
    note: Note = field(default_factory=Note)
    definition: Mapping[str, Any] = field(default_factory=dict[str, Any])
    declined: dict[str, str] = field(default_factory=dict[str, str])
    unused: dict[str, Answer] = field(default_factory=dict[str, Answer])

    @property
    def run(self) -> Run:
        return self.site.scope.run

    @property
    def place(self) -> tuple[str, CallId]:
        return self.run.id, self.site.id

    @property
    def its_work(self) -> str:
        """What the server does for us by itself."""
        return f"its task {self.note.task}" if self.note.task else f"the execution {self.note.handle} there"

    def tell(self, value: Any) -> None:
        self.run.tell(self.asking.owner, value, call=self.site.scope.call)

    # -- what is written down ---------------------------------------------------------------------------------------

    def recall(self) -> None:
        """Take it up where it was left."""
        record = recall(self.site, name_of(self.asking.owner))
        self.definition = self.asking.definition
        self.note = Note.read(record.note if record is not None else None, self.run.codec)

    async def write(self, note: Note) -> None:
        self.note = note
        await self.run.journal.record(self._fact(note.text(self.run.codec)))

    def write_along(self, note: Note) -> None:
        """It is on disk with whatever is recorded next."""
        self.note = note
        self.run.journal.note(self._fact(note.text(self.run.codec)))

    def forget(self) -> None:
        """What is noted does not count any more: written with the outcome that follows."""
        if self.note != Note():
            self.run.journal.note(self._fact(Json("null")))

    def _fact(self, note: Json) -> CallNoted:
        return CallNoted(at=self.run.clock.now(), call=self.site.id, name=name_of(self.asking.owner), note=note)

    # -- what the server asks ---------------------------------------------------------------------------------------

    async def answer_to(self, request: Mapping[str, Any], *, key: str, name: str) -> Answer:
        """What somebody answers, or a model where the server asks for one."""
        sampling = self.peers.sampling
        if request.get("method") == METHOD and sampling is not None:
            return await sampled(self.site, sampling, request.get("params") or {}, key=key, server=self.asking.server)
        question = question_of(request, key=key, name=name, server=self.asking.server)
        answer = await ask(self.site, question, server=self.asking.server)
        if answer["action"] != "accept":
            self.declined[question.message] = name
        return answer

    def was_declined(self, request: Mapping[str, Any]) -> bool:
        """The same words, under whichever key."""
        params: Mapping[str, Any] = request.get("params") or {}
        return str(params.get("message", "")) in self.declined

    # -- how it fails -----------------------------------------------------------------------------------------------

    def meant(self, exc: Exception) -> Exception:
        meant = sorted_out(exc, self.asking.server)
        match meant:
            case Slow() if self.asking.safe and not self.note.task:
                return self.too_slow()
            case Lost() if self.asking.safe or self.note.task:
                return ConnectionLost(self.asking.server, str(meant))
            case Lost():
                return self.unknown(str(meant))
            case _:
                return meant

    def too_slow(self) -> Exception:
        if self.asking.safe:
            return TaskTimeout(self.asking.owner, self.asking.timeout or 0.0)
        return self.unknown(f"no answer within {self.asking.timeout:g} s")

    def unknown(self, reason: str) -> OutcomeUnknown:
        self.forget()
        return OutcomeUnknown(self.asking.server, self.asking.what, reason)

    def not_answered(self, waits: str) -> ToolExecutionError:
        said = f"{', '.join(self.declined.values())} was declined, and {waits} waits for an answer"
        return ToolExecutionError(self.asking.what, said, self.asking.server)
