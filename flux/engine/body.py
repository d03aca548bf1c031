"""The user's side as the engine sees it: workflows, their children, and what they tell whoever waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flux.domain.calls import CallId, Json
from flux.domain.execution import Execution
from flux.domain.queues import Place, Queue
from flux.engine.ports import Codec, OutputStorage


class Schedule(Protocol):
    """When a workflow starts by itself: see `flux.schedules`."""

    @property
    def overlap(self) -> Literal["skip", "allow"]: ...

    @property
    def missed(self) -> Literal["latest", "all", "skip"]: ...

    @property
    def input(self) -> Any: ...

    def next_after(self, moment: float) -> float | None: ...


class Body(Protocol):
    """A workflow, as the engine sees it."""

    @property
    def name(self) -> str: ...

    @property
    def output_type(self) -> Any: ...

    @property
    def timeout(self) -> float | None:
        """Seconds from the start to the end of an execution, waiting included."""
        ...

    @property
    def schedule(self) -> Schedule | None: ...

    @property
    def storage(self) -> OutputStorage | None:
        """Where outputs are kept, None for the history."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """The tags that a process must have to run it."""
        ...

    @property
    def queue(self) -> Queue | None:
        """Where executions wait for their turn, None when they need not."""
        ...

    def encoded(self, input: Any, codec: Codec) -> Json:
        """The input, checked and converted, as it is stored. Raises InvalidInput, NotStorable."""
        ...

    def place(self, input: Json, codec: Codec) -> Place | None:
        """Where an execution with that input stands in the queue. Raises DefinitionError when the workflow cannot tell."""
        ...

    def context(self, execution: Execution, codec: Codec) -> Any: ...

    async def execute(self, context: Any) -> Any: ...


class Bodies(Protocol):
    """The workflows that this process can run."""

    def get(self, name: str) -> Body:
        """Raises WorkflowNotFound."""
        ...

    def names(self) -> list[str]: ...

    def add(self, thing: Any) -> None: ...

    def __contains__(self, name: object) -> bool: ...


class Closeable(Protocol):
    """What a run opens and leaves open for the next one."""

    async def aclose(self) -> None: ...


class Children(Protocol):
    """Executions that a run starts and waits for."""

    async def begin(self, body: Body, input: Json, *, id: str, parent: Execution) -> None:
        """Start the child; when it exists already, see to it that it goes on."""
        ...

    async def rest(self, id: str) -> Execution:
        """The child once it is at rest."""
        ...

    async def unrest(self, execution: Execution) -> None:
        """Wait until a child that was at rest is so no longer, or has ended."""
        ...

    async def cancel(self, id: str) -> object: ...

    def named(self, name: str) -> Body:
        """Raises WorkflowNotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Something worth telling a person who waits: never recorded, never replayed.

    `value` is what the user's code reported; None says that `task` has finished. `call` tells the calls of one task apart, and is
    None in the workflow's body. `asks` names the pause that waits for an answer from now on."""

    execution_id: str
    task: str | None
    value: Any
    call: CallId | None = None
    asks: str | None = None
