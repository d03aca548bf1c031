"""Registry: named things, each name once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from flux.errors import DuplicateWorkflow, WorkflowNotFound


class Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str:
        """Where it was written, as "path:line"."""
        ...


N = TypeVar("N", bound=Named)


class Registry(Generic[N]):
    """The workflows that are known here. Iterates sorted by name."""

    def __init__(self, things: Iterable[N] = ()) -> None:
        self._things: dict[str, N] = {}
        for thing in things:
            self.add(thing)

    def add(self, thing: N) -> None:
        """Twice the same object is fine. Raises DuplicateWorkflow for another one of that name."""
        known = self._things.setdefault(thing.name, thing)
        if known is not thing:
            raise DuplicateWorkflow(thing.name, known.source, thing.source)

    def replace(self, things: Iterable[N]) -> None:
        """Know these, and no others. Raises DuplicateWorkflow, and then knows what it did before."""
        self._things = Registry(things)._things

    def get(self, name: str) -> N:
        """Raises WorkflowNotFound, which lists the known names."""
        try:
            return self._things[name]
        except KeyError:
            raise WorkflowNotFound(name, self.names()) from None

    def names(self) -> list[str]:
        return sorted(self._things)

    def __iter__(self) -> Iterator[N]:
        return iter([self._things[name] for name in self.names()])

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __repr__(self) -> str:
        return f"Registry({', '.join(self.names())})"
