"""The options of tasks: typed once, checked where the task is defined, and made into what the engine goes by."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from math import inf
from string import Formatter
from typing import Any, TypedDict, cast

from flux.domain.calls import RetryPolicy
from flux.engine.offers import TaskMetadata, takes
from flux.engine.ports import OutputStorage
from flux.engine.spec import INJECTED, Spec
from flux.errors import DefinitionError

__all__ = ["TaskMetadata", "TaskOptions", "formatted", "spec_of"]

Errors = type[BaseException] | tuple[type[BaseException], ...]
Predicate = Callable[..., bool | Awaitable[bool]]


class TaskOptions(TypedDict, total=False):
    """Every option may be None, which means: as if it had not been given. Times are in seconds.

    `name` may use the arguments: `name="charge {customer}"`. `retry_max_attempts` counts the attempts after the first; the
    wait before them is `retry_delay`, then `retry_backoff` times longer each, up to `retry_max_delay`, less a part that is
    left to chance, `retry_jitter` of it at most. Only errors in `retry_on` and not in `no_retry_on` are tried again.
    `timeout` is for each attempt, without the time it waits for people, timers and child workflows. `fallback` and
    `rollback` are called with the task's arguments once it has failed for good; its result is then the fallback's.

    `cache` keeps results for other executions too, for ever or for so many seconds. `metadata`, `secret_requests` and
    `config_requests` give the function a keyword `metadata`, `secrets` or `config`. `output_storage` keeps the result outside
    the history. `sensitive` keeps arguments and results from being read in it. `requires_approval` asks a person first,
    always or when a function of the arguments says so."""

    name: str | None
    retry_max_attempts: int | None
    retry_delay: float | None
    retry_backoff: float | None
    retry_max_delay: float | None
    retry_jitter: float | None
    retry_on: Errors | None
    no_retry_on: Errors | None
    timeout: float | None
    fallback: Callable[..., Any] | None
    rollback: Callable[..., Any] | None
    cache: bool | float | None
    metadata: bool | None
    secret_requests: Iterable[str] | None
    config_requests: Iterable[str] | None
    output_storage: OutputStorage | None
    sensitive: bool | None
    requires_approval: bool | Predicate | None


def spec_of(func: Callable[..., Any], name: str, given: TaskOptions) -> Spec:
    """What the engine goes by. Raises DefinitionError for options that make no sense, alone or together."""
    reading = _Reading(name, given)
    signature = inspect.signature(func)
    spec = Spec(
        name=reading.text("name") or name,
        func=func,
        parameters=tuple(signature.parameters),
        signature=signature,
        retry=reading.retry(),
        retry_on=reading.errors("retry_on") or (Exception,),
        no_retry_on=reading.errors("no_retry_on"),
        timeout=reading.number("timeout", 0.0) or None,
        fallback=reading.function("fallback"),
        rollback=reading.function("rollback"),
        cache=reading.cache(),
        metadata=bool(given.get("metadata")),
        secrets=reading.names("secret_requests"),
        config=reading.names("config_requests"),
        storage=given.get("output_storage"),
        sensitive=bool(given.get("sensitive")),
        approval=reading.approval(),
    )
    _check_together(spec, signature)
    return spec


def formatted(template: str, arguments: Mapping[str, Any], what: str) -> str:
    """The template with the arguments filled in. Raises DefinitionError when they do not have what it uses."""
    try:
        return template.format(**arguments)
    except (KeyError, IndexError, AttributeError, ValueError, TypeError) as exc:
        raise DefinitionError(
            f"{what} is {template!r}, which cannot be made of the arguments {sorted(arguments)}: {type(exc).__name__}: {exc}"
        ) from exc


class _Reading:
    """Reads the options of task `task`, one kind of value at a time."""

    def __init__(self, task: str, given: TaskOptions) -> None:
        self._task = task
        self._given = cast("dict[str, Any]", given)
        unknown = sorted(self._given.keys() - TaskOptions.__annotations__.keys())
        if unknown:
            raise self._wrong(
                f"has no option {', '.join(unknown)}; there are {', '.join(TaskOptions.__annotations__)}."
            )

    def _wrong(self, why: str) -> DefinitionError:
        return DefinitionError(f"Task {self._task!r} {why}")

    def _get(self, option: str, default: Any = None) -> Any:
        value = self._given.get(option)
        return default if value is None else value

    def text(self, option: str) -> str | None:
        value = self._get(option)
        if value is not None and not (isinstance(value, str) and value):
            raise self._wrong(f"has {option}={value!r}: it has to be a text.")
        return value

    def number(self, option: str, default: float, *, most: float = inf) -> float:
        value = self._get(option, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            bounds = "0 or more" if most == inf else f"from 0 to {most:g}"
            raise self._wrong(f"has {option}={value!r}: it has to be a number, {bounds}.")
        return value

    def retry(self) -> RetryPolicy:
        count = self._get("retry_max_attempts", 0)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise self._wrong(f"has retry_max_attempts={count!r}: it has to be a whole number, 0 or more.")
        return RetryPolicy(
            max_attempts=count,
            delay=self.number("retry_delay", 1.0),
            backoff=self.number("retry_backoff", 2.0),
            max_delay=self.number("retry_max_delay", 600.0),
            jitter=self.number("retry_jitter", 0.0, most=1.0),
        )

    def errors(self, option: str) -> tuple[type[BaseException], ...]:
        value = self._get(option, ())
        found: tuple[Any, ...] = tuple(cast("Iterable[Any]", value)) if isinstance(value, tuple | list) else (value,)
        for each in found:
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise self._wrong(f"has {option}={value!r}: it has to be a class of exceptions, or a tuple of them.")
        return found

    def function(self, option: str) -> Callable[..., Any] | None:
        """A task given as fallback or rollback runs as part of the call it belongs to."""
        value = self._get(option)
        if value is not None and not callable(value):
            raise self._wrong(f"has {option}={value!r}: it has to be a function.")
        return getattr(value, "func", value) if hasattr(value, "spec") else value

    def cache(self) -> float | None:
        value = self._get("cache", False)
        if isinstance(value, bool):
            return inf if value else None
        if self.number("cache", 0.0) == 0:
            raise self._wrong("has cache=0: it has to be True, or for how many seconds a result is good.")
        return float(value)

    def names(self, option: str) -> tuple[str, ...]:
        value = self._get(option, ())
        if isinstance(value, str) or not all(isinstance(name, str) and name for name in value):
            raise self._wrong(f"has {option}={value!r}: it has to be a list of names.")
        return tuple(dict.fromkeys(value))

    def approval(self) -> bool | Callable[..., Any]:
        value = self._get("requires_approval", False)
        if not isinstance(value, bool) and not callable(value):
            raise self._wrong(
                f"has requires_approval={value!r}: it has to be True or a function of the task's arguments."
            )
        return value if isinstance(value, bool) else cast("Callable[..., Any]", self.function("requires_approval"))


def _check_together(spec: Spec, signature: inspect.Signature) -> None:
    asked = {"metadata": spec.metadata, "secrets": spec.secrets, "config": spec.config}
    for parameter in INJECTED:
        if asked[parameter] and not takes(signature, parameter):
            raise DefinitionError(
                f"Task {spec.name!r} asks for {parameter}, so its function needs a parameter `{parameter}`."
            )
    if spec.sensitive and spec.cache is not None:
        raise DefinitionError(f"Task {spec.name!r} is sensitive: its results may not be cached.")
    if "{" in spec.name:
        _check_template(spec.name, signature, f"The name of task {spec.name!r}")
    for name in spec.config:
        _check_template(name, signature, f"The configuration name {name!r} of task {spec.name!r}")


def _check_template(template: str, signature: inspect.Signature, what: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as exc:
        raise DefinitionError(
            f"{what} is no template: {exc}. A brace that stands for itself is written twice."
        ) from exc
    for field in fields:
        root = re.split(r"[.\[]", field)[0]
        if root in INJECTED or not root.isidentifier() or not takes_as_argument(signature, root):
            known = [name for name in signature.parameters if name not in INJECTED]
            raise DefinitionError(f"{what} uses {root!r}, which is none of its arguments {known}.")


def takes_as_argument(signature: inspect.Signature, name: str) -> bool:
    return name in signature.parameters or takes(signature, name)
