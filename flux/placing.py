"""Where an execution stands in the queue of its workflow, as the workflow's options tell it from the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flux.domain.queues import Place, Queue
from flux.errors import DefinitionError

T = TypeVar("T", str, int)

_OPTIONS = ("partition", "priority", "deduplicate")


@dataclass(frozen=True, slots=True)
class Placing:
    """The options of `workflow`: each None, a value, or a function of the input."""

    workflow: str
    queue: Queue
    partition: Any
    priority: Any
    deduplicate: Any

    @classmethod
    def of(cls, workflow: str, options: Mapping[str, Any]) -> Placing | None:
        """None for a workflow without a queue. Raises DefinitionError for options that need one."""
        queue = options.get("queue")
        given = [options.get(name) for name in _OPTIONS]
        if isinstance(queue, Queue):
            return cls(workflow, queue, *given)
        if queue is not None:
            raise DefinitionError(f"Workflow {workflow!r} has queue={queue!r}: it has to be a flux Queue.")
        for name, value in zip(_OPTIONS, given, strict=True):
            if value is not None:
                raise DefinitionError(f"Workflow {workflow!r} has {name} but no queue: add queue=Queue(...).")
        return None

    def place(self, input: Any) -> Place:
        """Raises DefinitionError when a function fails or tells something of another type."""
        return Place(
            queue=self.queue.name,
            partition=self._told("partition", str, input),
            priority=self._told("priority", int, input) or 0,
            deduplication=self._told("deduplicate", str, input),
        )

    def _told(self, option: str, wanted: type[T], input: Any) -> T | None:
        value = getattr(self, option)
        if callable(value):
            try:
                value = cast("Callable[[Any], Any]", value)(input)
            except Exception as exc:  # whatever the user's function raises, he is told which one it was
                raise DefinitionError(
                    f"The {option} of workflow {self.workflow!r} cannot be told: {type(exc).__name__}: {exc}"
                ) from exc
        if value is None or (isinstance(value, wanted) and not isinstance(value, bool)):
            return value
        raise DefinitionError(
            f"The {option} of workflow {self.workflow!r} is {value!r}: it has to be of type {wanted.__name__}."
        )
