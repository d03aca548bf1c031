"""Queues: how many executions of a kind may run at once, and which comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flux.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Queue:
    """A line in which executions wait for their turn, over all processes that share the database.

    At most `concurrency` of its executions run at once, and at most `partition_concurrency` of those of one partition; in any
    `period` seconds at most `rate` of them begin. What is left out is not limited. An execution that is paused or sleeps
    holds no place; once it may go on it takes the next that is free, before those that have not begun. Those of higher
    priority come first, and of one priority the oldest.

    `Queue("mail", concurrency=10, rate=100, period=60)`. Raises DefinitionError."""

    name: str
    concurrency: int | None = None
    partition_concurrency: int | None = None
    rate: int | None = None
    period: float = 1.0

    def __post_init__(self) -> None:
        if not self.name:
            raise DefinitionError("A queue needs a name.")
        for limit in ("concurrency", "partition_concurrency", "rate"):
            value = getattr(self, limit)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise DefinitionError(
                    f"Queue {self.name!r} has {limit}={value!r}: it has to be a whole number, 1 or more."
                )
        if not self.period > 0:
            raise DefinitionError(
                f"Queue {self.name!r} has period={self.period!r}: it has to be a number of seconds above 0."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an execution stands in a queue. Two living executions of one `deduplication` are never in one queue."""

    queue: str
    partition: str | None = None
    priority: int = 0
    deduplication: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """How many executions of a queue run, and how many wait for their turn."""

    name: str
    running: int
    waiting: int


class Room:
    """What a queue still has room for, as it fills. `running` counts what runs by partition, `begun` what began within the
    period that ends now."""

    def __init__(self, queue: Queue, running: Mapping[str | None, int], begun: int) -> None:
        self._queue = queue
        self._running = Counter(running)
        self._begun = begun

    @property
    def is_full(self) -> bool:
        return self._queue.concurrency is not None and self._running.total() >= self._queue.concurrency

    @property
    def may_begin(self) -> bool:
        """Whether the rate allows one more that has not begun."""
        return self._queue.rate is None or self._begun < self._queue.rate

    @property
    def full_partitions(self) -> list[str]:
        most = self._queue.partition_concurrency
        return (
            []
            if most is None
            else [name for name, count in self._running.items() if name is not None and count >= most]
        )

    def take(self, partition: str | None, *, is_new: bool) -> bool:
        """Take a place for one execution, if there is one. `is_new` says that it has not begun before."""
        if self.is_full or partition in self.full_partitions or (is_new and not self.may_begin):
            return False
        self._running[partition] += 1
        self._begun += is_new
        return True
