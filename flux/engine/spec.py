"""A task and one call of it, as the engine sees them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from flux.domain.calls import NO_RETRY, RetryPolicy
from flux.engine.ports import OutputStorage
from flux.engine.run import Run
from flux.engine.scope import Site

INJECTED = ("metadata", "secrets", "config")
"""Parameters that a task gets from the engine, not from its caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """`timeout` and `cache` are in seconds: per attempt, and how long a result is good for; None for no limit and for no cache.
    `approval` says whether a person has to agree first, or is asked that with the arguments."""

    name: str
    func: Callable[..., Any]
    parameters: tuple[str, ...]
    signature: inspect.Signature | None = None
    output_type: Any = Any
    retry: RetryPolicy = NO_RETRY
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    no_retry_on: tuple[type[BaseException], ...] = ()
    timeout: float | None = None
    fallback: Callable[..., Any] | None = None
    rollback: Callable[..., Any] | None = None
    cache: float | None = None
    metadata: bool = False
    secrets: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    storage: OutputStorage | None = None
    sensitive: bool = False
    approval: bool | Callable[..., Any] = False

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What each parameter gets, defaults too, without what the engine injects. Raises TypeError for what does not fit."""
        signature = self.signature or inspect.signature(self.func)
        bound = signature.bind_partial(*args, **kwargs)
        bound.apply_defaults()
        given = {name: value for name, value in bound.arguments.items() if name not in INJECTED}
        more = next((name for name, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
        return {**given, **cast("dict[str, Any]", given.pop(more, {}))} if more else given


@dataclass(frozen=True, slots=True)
class Call:
    """`offers` is what its functions are given besides the arguments, where they have a parameter for it."""

    spec: Spec
    site: Site
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    offers: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def run(self) -> Run:
        return self.site.scope.run

    @property
    def owner(self) -> str:
        return f"task {self.name!r}"

    @property
    def bound(self) -> Mapping[str, Any]:
        """The arguments by parameter name, positional ones beyond the named under their numbers."""
        names = self.spec.parameters
        positional = {names[i] if i < len(names) else f"*{i}": value for i, value in enumerate(self.args)}
        return {**positional, **self.kwargs} if self.kwargs else positional
