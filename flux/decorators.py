"""`@task` and `@workflow`: from a function to something the engine can run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from functools import cached_property, partial, update_wrapper
from types import MethodType
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import anyio.to_thread

from flux import schema
from flux.context import ExecutionContext
from flux.domain.calls import Json
from flux.domain.execution import Execution
from flux.domain.queues import Place, Queue
from flux.engine.branches import Branches, policy, run_branches, stream_branches
from flux.engine.invoke import invoke
from flux.engine.offers import secrets_for, takes
from flux.engine.ports import Codec, OutputStorage
from flux.engine.scope import Site, require_scope
from flux.engine.spec import Call, Spec
from flux.engine.subflow import output_of, run_child
from flux.errors import DefinitionError
from flux.options import TaskOptions, formatted, spec_of
from flux.placing import Placing
from flux.schedules import Schedule

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


class Task(Generic[P, R]):
    """A step of a workflow. Calling it names the call at once; awaiting it gives the recorded outcome, or makes it."""

    def __init__(self, func: Callable[..., Any], **options: Unpack[TaskOptions]) -> None:
        if inspect.isasyncgenfunction(func) or inspect.isgeneratorfunction(func):
            raise DefinitionError(
                f"Task {_name(func)!r} is a generator: return a list instead, a result is recorded whole."
            )
        self.func = func
        self.options: TaskOptions = options
        self._spec = spec_of(func, _name(func), options)
        self._frame_types = schema.local_types(func, sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - local classes
        self._self: Any = None
        update_wrapper(cast(Any, self), func)

    @cached_property
    def spec(self) -> Spec:
        return replace(self._spec, output_type=schema.output_type(self.func, self._frame_types))

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def description(self) -> str | None:
        return inspect.getdoc(self.func)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self._call(args, kwargs, depth=3)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, depth: int) -> Coroutine[Any, Any, R]:
        scope = require_scope(f"Task {self.name!r}")
        site = scope.name_call(depth=depth)
        spec = self.spec
        name = spec.name
        if "{" in name:
            name = formatted(name, spec.arguments(args, kwargs), "The name of a task")
        return invoke(Call(spec, site, name, args, kwargs))

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_concurrent: int | None = None,
        raise_on_error: bool = True,
        min_successes: int | None = None,
        max_failures: int | None = None,
    ) -> Coroutine[Any, Any, list[R]]:
        """Call the task once for each item, concurrently; the results in the order of the items.

        `items` may be an iterator, sync or async: it is asked for an item when there is room for it. The rest is as in
        `flux.tasks.parallel`."""
        rules = policy(raise_on_error=raise_on_error, min_successes=min_successes, max_failures=max_failures)
        return run_branches(self._calls(items), max_concurrent=max_concurrent, policy=rules)

    def map_stream(self, items: Iterable[Any] | AsyncIterable[Any], *, max_concurrent: int = 100) -> AsyncGenerator[R]:
        """Call the task once for each item; the results as they come, in the same order on every replay.

        Nothing is kept of a result that has been taken: for more items than fit into memory. Stop early with
        `contextlib.aclosing`. The first failure is raised, and cancels the rest."""
        return stream_branches(self._calls(items), max_concurrent=max_concurrent)

    def _calls(self, items: Iterable[Any] | AsyncIterable[Any]) -> Branches:
        if isinstance(items, AsyncIterable):
            return (self._call((item,), {}, depth=3) async for item in items)
        return (self._call((item,), {}, depth=3) for item in items)

    def with_options(self, **options: Unpack[TaskOptions]) -> Task[P, R]:
        """The same task with some options changed."""
        changed = Task[P, R](self.func, **{**self.options, **options})
        changed._frame_types = self._frame_types
        return changed

    @overload
    def __get__(self, instance: None, owner: type) -> Task[P, R]: ...
    @overload
    def __get__(
        self: Task[Concatenate[Any, Q], R], instance: object, owner: type
    ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class _TaskDecorator:
    """`@task`, or `@task.with_options(...)`."""

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R]) -> Task[P, R]: ...
    def __call__(self, func: Callable[..., Any]) -> Task[..., Any]:
        return Task(_decorated(func, "task"))

    def with_options(self, **options: Unpack[TaskOptions]) -> _TaskWithOptions:
        return _TaskWithOptions(options)


class _TaskWithOptions:
    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    @overload
    def __call__(self, func: Callable[P, Coroutine[Any, Any, R]]) -> Task[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R]) -> Task[P, R]: ...
    def __call__(self, func: Callable[..., Any]) -> Task[..., Any]:
        return Task(_decorated(func, "task"), **self._options)


task = _TaskDecorator()


class WorkflowOptions(TypedDict, total=False):
    """`name` is what the workflow is called by and must stay the same while executions of it live; `title` and
    `description` are for people and models; `version` is recorded for people. `schedule` (`flux.cron`, `interval`, `once`)
    starts it by itself, wherever it is served. `timeout` is in seconds from start to end, waiting included.
    `secret_requests` gives the function a keyword `secrets`, which is fetched anew for every run. Executions of a workflow
    with durability "transient" are kept in memory: cheap, and gone with the process. `output_storage` keeps results outside the
    history.

    `needs` are tags that a process must have to run it (`flux worker --tags gpu`). `queue` lets executions wait for their turn
    (`flux.Queue`). There, `partition`, `priority` (higher first, 0 by default) and `deduplicate` are told by functions of the
    input, a priority also by a number: at most one living execution of each `deduplicate` text is in the queue, and
    starting another returns that one.

    The rest says how an MCP server offers it. `read_only`, `idempotent`, `destructive` and `open_world` tell its nature, as far
    as it is known. `task` is whether a client that knows tasks gets one: "auto" when the workflow takes longer than a moment,
    "required" always, "never". `input_schema` takes the place of the schema made from the input's type, word for word.
    `icons` are objects with `src`, and `mimeType` and `sizes` if known. A `hidden` one is not listed, but can be called.
    `errors` are those that clients are told of where the server masks all others."""

    name: str
    title: str
    description: str
    version: str
    tags: Iterable[str]
    schedule: Schedule | None
    timeout: float | None
    secret_requests: Iterable[str] | None
    durability: Literal["durable", "transient"]
    output_storage: OutputStorage | None
    needs: Iterable[str]
    queue: Queue | None
    partition: Callable[[Any], str | None] | None
    priority: int | Callable[[Any], int] | None
    deduplicate: Callable[[Any], str | None] | None
    read_only: bool
    idempotent: bool
    destructive: bool
    open_world: bool
    task: Literal["auto", "required", "never"]
    input_schema: Mapping[str, Any]
    icons: Iterable[Mapping[str, Any]]
    hidden: bool
    errors: Iterable[type[BaseException]]


class Runner(Protocol):
    """Runs a workflow to rest for code that has no event loop. `flux.service` provides it."""

    def run(self, workflow: Workflow[Any, Any], input: Any, execution_id: str | None) -> ExecutionContext[Any]: ...

    def resume(
        self, workflow: Workflow[Any, Any], execution_id: str, answer: Any, pause: str | None
    ) -> ExecutionContext[Any]: ...


class Unset(Enum):
    """Tells "nothing was given" from None."""

    UNSET = "unset"


UNSET = Unset.UNSET


class Workflow(Generic[T, R]):
    """A function whose executions survive: every @task called in it is recorded, and never repeated once finished."""

    runner: ClassVar[Runner]

    def __init__(self, func: Callable[..., Any], **options: Unpack[WorkflowOptions]) -> None:
        self.func = func
        self.options: WorkflowOptions = options
        self._frame_types = schema.local_types(func, sys._getframe(1))  # pyright: ignore[reportPrivateUsage] - local classes
        unknown = sorted(options.keys() - WorkflowOptions.__annotations__.keys())
        if unknown:
            known = ", ".join(WorkflowOptions.__annotations__)
            raise DefinitionError(f"Workflow {self.name!r} has no option {', '.join(unknown)}; there are {known}.")
        signature = inspect.signature(func)
        self._takes_context = any(name != "secrets" for name in signature.parameters)
        self._placing = Placing.of(self.name, options)
        self._secrets = tuple(options.get("secret_requests") or ())
        if self._secrets and not takes(signature, "secrets"):
            raise DefinitionError(f"Workflow {self.name!r} asks for secrets: its function needs a parameter `secrets`.")
        if options.get("durability", "durable") not in ("durable", "transient"):
            raise DefinitionError(f'Workflow {self.name!r} has another durability than "durable" or "transient".')
        if self.is_transient and self.schedule is not None:
            raise DefinitionError(f"Workflow {self.name!r} is transient: with a schedule it has to be durable.")
        if self.is_transient and (self.queue is not None or options.get("needs")):
            raise DefinitionError(f"Workflow {self.name!r} is transient: with a queue or needs it has to be durable.")
        if isinstance(options.get("needs"), str):
            raise DefinitionError(
                f"Workflow {self.name!r} has needs={options.get('needs')!r}: it has to be a list of tags."
            )
        update_wrapper(cast(Any, self), func)

    @property
    def name(self) -> str:
        return self.options.get("name") or _name(self.func)

    @property
    def title(self) -> str | None:
        return self.options.get("title")

    @property
    def description(self) -> str | None:
        return self.options.get("description") or inspect.getdoc(self.func)

    @property
    def version(self) -> str | None:
        return self.options.get("version")

    @property
    def tags(self) -> frozenset[str]:
        return frozenset(self.options.get("tags", ()))

    @property
    def timeout(self) -> float | None:
        return self.options.get("timeout")

    @property
    def storage(self) -> OutputStorage | None:
        return self.options.get("output_storage")

    @property
    def is_transient(self) -> bool:
        return self.options.get("durability") == "transient"

    @property
    def schedule(self) -> Schedule | None:
        return self.options.get("schedule")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(self.options.get("needs", ()))

    @property
    def queue(self) -> Queue | None:
        return self.options.get("queue")

    def place(self, input: Json, codec: Codec) -> Place | None:
        """Where an execution with that input stands in the queue. Raises DefinitionError when the functions that tell that
        fail, or tell something of another type."""
        return None if self._placing is None else self._placing.place(codec.decode(input, self.input_type))

    @property
    def source(self) -> str:
        """Where the function stands, as `path:line`."""
        code = inspect.unwrap(self.func).__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    @cached_property
    def input(self) -> schema.ValueType:
        """The type of the input, which checks and converts it."""
        return schema.value_type(schema.input_type(self.func, self._frame_types), self._frame_types)

    @cached_property
    def output(self) -> schema.ValueType:
        return schema.value_type(schema.output_type(self.func, self._frame_types), self._frame_types)

    @property
    def input_type(self) -> Any:
        return self.input.annotation

    @property
    def output_type(self) -> Any:
        return self.output.annotation

    def run(self, input: T | Unset = UNSET, *, execution_id: str | None = None) -> ExecutionContext[T]:
        """Run to rest - finished, failed or paused - and return the execution; a failure is in it, not raised.

        With `execution_id` the execution gets that id, or goes on when there is one of that id (without an input, past a
        pause that takes any answer, too). Works in scripts and in
        notebooks; inside an event loop it blocks, use `async with Flux()` there. Raises InvalidInput."""
        return self.runner.run(self, input, execution_id)

    def resume(self, execution_id: str, answer: Any = UNSET, *, pause: str | None = None) -> ExecutionContext[T]:
        """Go on with an execution: answer its pause, or take up one that was interrupted; run to rest.

        `pause` names the pause, by name or id, when several are open. Raises InvalidAnswer, NotPaused, PauseNotFound,
        ExecutionBusy, ExecutionNotFound."""
        return self.runner.resume(self, execution_id, answer, pause)

    def __call__(self, input: T | ExecutionContext[T] | Unset = UNSET) -> Coroutine[Any, Any, R]:
        """Inside another workflow: run this one as a child, an execution of its own, and return its output.

        Raises the exception that the child failed with, ExecutionFailure when it was cancelled, InvalidInput."""
        site = require_scope(f"Workflow {self.name!r}").name_call()
        return self._child_output(site, input)

    async def _child_output(self, site: Site, input: Any) -> R:
        run = site.scope.run
        ended = await run_child(site, self, self.encoded(input, run.codec))
        return output_of(run, ended, self.output_type)

    def map(
        self, inputs: Iterable[T], *, max_concurrent: int | None = None
    ) -> Coroutine[Any, Any, list[ExecutionContext[T]]]:
        """Inside another workflow: run this one once for each input, concurrently, each as a child.

        Returns the ended executions in the order of the inputs; one that failed has its error as `.output`."""
        children = (self._child(require_scope(f"Workflow {self.name!r}").name_call(depth=3), input) for input in inputs)
        return run_branches(children, max_concurrent=max_concurrent)

    async def _child(self, site: Site, input: Any) -> ExecutionContext[T]:
        run = site.scope.run
        ended = await run_child(site, self, self.encoded(input, run.codec))
        return self.context(ended, run.codec)

    def encoded(self, input: Any, codec: Codec) -> Json:
        """The input, checked and converted, as it is stored. Raises InvalidInput, NotStorable."""
        if isinstance(input, ExecutionContext):
            input = cast("ExecutionContext[Any]", input).input
        what = f"input of workflow {self.name!r}"
        value = self.input.validate(None if isinstance(input, Unset) else input, f"The {what}")
        return codec.encode(value, owner=f"the {what}", annotation=self.input_type)

    def with_options(self, **options: Unpack[WorkflowOptions]) -> Workflow[T, R]:
        """The same workflow with some options changed."""
        changed = Workflow[T, R](self.func, **{**self.options, **options})
        changed._frame_types = self._frame_types
        return changed

    # -- for the engine ---------------------------------------------------------------------------------------------

    def context(self, execution: Execution, codec: Codec) -> ExecutionContext[T]:
        return ExecutionContext(execution, codec, input_type=self.input_type, output_type=self.output_type)

    async def execute(self, context: ExecutionContext[T]) -> R:
        args = (context,) if self._takes_context else ()
        body = partial(self.func, *args, **await self._injected())
        if inspect.iscoroutinefunction(self.func):
            return await body()
        return await anyio.to_thread.run_sync(body)

    async def _injected(self) -> dict[str, Any]:
        if not self._secrets:
            return {}
        what = f"Workflow {self.name!r}"
        return {"secrets": await secrets_for(require_scope(what).run, self._secrets, what)}

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


class _WorkflowDecorator:
    """`@workflow`, or `@workflow.with_options(...)`."""

    @overload
    def __call__(self, func: Callable[[ExecutionContext[T]], Coroutine[Any, Any, R]]) -> Workflow[T, R]: ...
    @overload
    def __call__(self, func: Callable[[], Coroutine[Any, Any, R]]) -> Workflow[None, R]: ...
    @overload
    def __call__(self, func: Callable[[ExecutionContext[T]], R]) -> Workflow[T, R]: ...
    def __call__(self, func: Callable[..., Any]) -> Workflow[Any, Any]:
        return Workflow(_decorated(func, "workflow"))

    def with_options(self, **options: Unpack[WorkflowOptions]) -> _WorkflowWithOptions:
        return _WorkflowWithOptions(options)


class _WorkflowWithOptions:
    def __init__(self, options: WorkflowOptions) -> None:
        self._options = options

    @overload
    def __call__(
        self, func: Callable[Concatenate[ExecutionContext[T], ...], Coroutine[Any, Any, R]]
    ) -> Workflow[T, R]: ...
    @overload
    def __call__(self, func: Callable[[], Coroutine[Any, Any, R]]) -> Workflow[None, R]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[ExecutionContext[T], ...], R]) -> Workflow[T, R]: ...
    def __call__(self, func: Callable[..., Any]) -> Workflow[Any, Any]:
        return Workflow(_decorated(func, "workflow"), **self._options)


workflow = _WorkflowDecorator()


def _decorated(func: Any, what: str) -> Callable[..., Any]:
    if isinstance(func, (Task, Workflow)) or not callable(func):
        raise DefinitionError(f"@{what} decorates a function, not {func!r}.")
    if isinstance(func, type):
        raise DefinitionError(f"@{what} decorates a function, not the class {func.__name__}.")
    return cast("Callable[..., Any]", func)


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", type(func).__name__)
