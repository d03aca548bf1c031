"""Where a call stands in the call tree.

A scope numbers the calls made in it, in the order they are *named* - when the call expression is evaluated, never when it
is first awaited. Everything that may interleave gets a scope of its own: each asyncio task created inside an execution
(so `gather`, `TaskGroup` and `create_task` need nothing from the user), and each attempt of a task's body. Inside one scope
the order of calls is fixed by the code alone, which is what makes a replay find the same calls at the same places.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flux.domain.calls import CallId
from flux.engine.fence import Fence, Fences, check_open
from flux.errors import NotInWorkflow

if TYPE_CHECKING:
    from flux.engine.run import Run


@dataclass(frozen=True, slots=True)
class Site:
    """One call: its place, and the line of source that makes it."""

    scope: Scope
    id: CallId
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


class Scope:
    """`path` is the prefix of the ids of the calls made here: empty in the workflow's body, `2.` inside call 2. `fences`
    are the attempts around it, the outermost first. `task` names the task whose body this is, `call` is the call of it; None
    in the workflow's body."""

    __slots__ = ("call", "calls", "fences", "forks", "path", "run", "task")

    def __init__(
        self, run: Run, path: str = "", task: str | None = None, call: CallId | None = None, fences: Fences = ()
    ) -> None:
        self.run = run
        self.path = path
        self.task = task
        self.call = call
        self.fences = fences
        self.calls = 0
        self.forks = 0

    def name_call(self, *, depth: int = 2) -> Site:
        """The next call of this scope. `depth` is how many frames up the caller's own line is."""
        if self.fences:
            check_open(self.fences)
        id = CallId(f"{self.path}{self.calls}")
        self.calls += 1
        frame = sys._getframe(depth)  # pyright: ignore[reportPrivateUsage] - the one cheap way to know the line
        return Site(self, id, frame.f_code.co_filename, frame.f_lineno)

    def fork(self) -> Scope:
        """The scope of an asyncio task created here."""
        path = f"{self.path}f{self.forks}."
        self.forks += 1
        return Scope(self.run, path, self.task, self.call, self.fences)

    def inside(self, call: CallId, attempt: int, task: str, fence: Fence | None = None) -> Scope:
        """The scope of the body of one attempt (from 1) of `call`: what a failed attempt recorded is not the next one's."""
        fences = self.fences if fence is None else (*self.fences, fence)
        return Scope(self.run, f"{call}." if attempt == 1 else f"{call}~{attempt}.", task, call, fences)


_current: ContextVar[Scope | None] = ContextVar("flux_scope", default=None)


def current_scope() -> Scope | None:
    return _current.get()


def is_replaying() -> bool:
    """True inside an execution whose recorded outcomes have not all been delivered yet."""
    scope = _current.get()
    return scope is not None and not scope.run.journal.order.is_drained


def require_scope(what: str) -> Scope:
    scope = _current.get()
    if scope is None:
        raise NotInWorkflow(
            f"{what} was called where no workflow runs. Call it from a function decorated with @workflow; for a task's "
            "plain function, without durability, use its `.func`."
        )
    return scope


class entered:
    """`with entered(scope):` makes calls in the block stand in `scope`."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope | None) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _current.set(self._scope)

    def __exit__(self, *exc: object) -> None:
        _current.reset(self._token)


_Factory = Callable[..., "asyncio.Future[Any]"]


class ForkingTaskFactory:
    """While executions run, every asyncio task created inside one gets a forked scope at the moment of its creation.

    Forking any later would depend on timing: see `tests/engine/test_determinism.py` for the measurement. The factory chains
    to the one it found and is put back when the last engine of the loop closes."""

    def __init__(self, previous: _Factory | None) -> None:
        self.previous = previous
        self.users = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> Any:
        context: Context | None = kwargs.get("context")
        scope = _current.get() if context is None else context.get(_current)
        if scope is None:
            return self._create(loop, coro, kwargs)
        child = scope.fork()
        kwargs["context"] = forked = copy_context() if context is None else context.copy()
        forked.run(_current.set, child)
        task = self._create(loop, coro, kwargs)
        scope.run.adopt(task, child)
        return task

    def _create(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], kwargs: dict[str, Any]) -> Any:
        if self.previous is not None:
            return self.previous(loop, coro, **kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)


def install_factory(loop: asyncio.AbstractEventLoop) -> None:
    factory = loop.get_task_factory()
    if not isinstance(factory, ForkingTaskFactory):
        factory = ForkingTaskFactory(factory)
        loop.set_task_factory(cast(Any, factory))
    factory.users += 1


def remove_factory(loop: asyncio.AbstractEventLoop) -> None:
    factory = loop.get_task_factory()
    if isinstance(factory, ForkingTaskFactory):
        factory.users -= 1
        if factory.users == 0:
            loop.set_task_factory(factory.previous)
