"""`@prompt` and `@resource`: what users offer to MCP clients besides workflows, declared next to them.

Imports nothing of the protocol: a workflow file that declares a prompt loads no server.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote

from flux.errors import DefinitionError

F = TypeVar("F", bound=Callable[..., Any])

ANSWERS = "answers"
"""A prompt's function with this parameter is given what the client has answered, None before it was asked."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`func` makes a text, a list of messages, or a result of the protocol, from arguments that are all texts."""

    func: Callable[..., Any]
    name: str
    title: str | None = None
    description: str | None = None
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        found = inspect.signature(self.func).parameters
        return {name: each for name, each in found.items() if name != ANSWERS}

    @property
    def takes_answers(self) -> bool:
        return ANSWERS in inspect.signature(self.func).parameters


@dataclass(frozen=True, slots=True)
class Resource:
    """`func` gives text, bytes, or anything that is JSON; the names in braces in `uri` are its arguments, all texts."""

    func: Callable[..., Any]
    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None

    @property
    def is_template(self) -> bool:
        return "{" in self.uri

    def arguments(self, uri: str) -> dict[str, str] | None:
        """What the names in braces stand for in this URI, None when it is another's."""
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/?#]+)", re.escape(self.uri))
        found = re.fullmatch(pattern, uri)
        return None if found is None else {name: unquote(value) for name, value in found.groupdict().items()}


def filled(uri: str, **arguments: str) -> str:
    """The URI of a template with its names filled in."""
    return re.sub(r"\{(\w+)\}", lambda match: quote(arguments[match[1]], safe=""), uri)


def prompt(
    name: str | None = None,
    *,
    title: str | None = None,
    description: str | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[F], F]:
    """Offer what the function makes of its arguments as a prompt. `choices` are what clients propose for an argument."""

    def declare(func: F) -> F:
        called = name or func.__name__
        known = Prompt(func, called, title, description or inspect.getdoc(func), dict(choices or {}))
        unknown = known.choices.keys() - known.parameters.keys()
        if unknown:
            raise DefinitionError(
                f"Prompt {called!r} has choices for {sorted(unknown)}, which are none of its parameters."
            )
        return _kept(func, known)

    return declare


def resource(
    uri: str,
    *,
    name: str | None = None,
    title: str | None = None,
    description: str | None = None,
    mime_type: str | None = None,
) -> Callable[[F], F]:
    """Offer what the function returns as a resource; with names in braces, as one for each value of them."""

    def declare(func: F) -> F:
        called = name or func.__name__
        known = Resource(func, uri, called, title, description or inspect.getdoc(func), mime_type)
        names = set(re.findall(r"\{(\w+)\}", uri))
        if names != set(inspect.signature(func).parameters):
            raise DefinitionError(f"Resource {uri!r} needs a function with the parameters {sorted(names)}.")
        return _kept(func, known)

    return declare


_MARK = "__flux_declared__"


def _kept(func: F, declared: Prompt | Resource) -> F:
    setattr(func, _MARK, [*getattr(func, _MARK, ()), declared])
    return func


@dataclass(frozen=True, slots=True)
class Declared:
    """What was found beside the workflows, each name and URI once."""

    prompts: Mapping[str, Prompt] = field(default_factory=dict[str, Prompt])
    resources: Mapping[str, Resource] = field(default_factory=dict[str, Resource])

    @classmethod
    def of(cls, things: Iterable[Prompt | Resource]) -> Declared:
        prompts: dict[str, Prompt] = {}
        resources: dict[str, Resource] = {}
        for thing in things:
            known: Any = (
                prompts.setdefault(thing.name, thing)
                if isinstance(thing, Prompt)
                else resources.setdefault(thing.uri, thing)
            )
            if known.func is not thing.func:
                raise DefinitionError(f"Two prompts or resources are called {thing.name!r}: give one another name.")
        return cls(prompts, resources)


def declared_in(files: Iterable[Path]) -> Declared:
    """What the modules that were imported from these files declare."""
    paths = {str(path) for path in files}
    modules = [module for module in list(sys.modules.values()) if _file_of(module) in paths]
    return Declared.of(thing for module in modules for thing in declared_by(module))


def declared_by(module: ModuleType) -> list[Prompt | Resource]:
    found: list[Prompt | Resource] = []
    for value in list(vars(module).values()):
        marks: Any = vars(value).get(_MARK, ()) if inspect.isfunction(value) else ()
        if marks and value.__module__ == module.__name__:
            found += cast("list[Prompt | Resource]", marks)
    return found


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__dict__", {}).get("__file__")
    return file if isinstance(file, str) else None
