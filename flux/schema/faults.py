"""Faults: what pydantic finds wrong with a value, by place and in the reader's words; and texts that were meant as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

Place = tuple[str | int, ...]

ABSENT: Any = object()

# The errors by which pydantic says that a text is of no use there. A type that takes some texts (dates, enums, patterns, ...)
# has other errors, and its text is never taken for JSON.
_WANTS_NO_TEXT = frozenset(
    {
        *("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type", "arguments_type"),
        *("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type", "none_required"),
        *("int_type", "int_parsing", "float_type", "float_parsing", "bool_type", "bool_parsing"),
    }
)
_SECRET = re.compile(r"secret|passw(or)?d|passphrase|token|api_?key|credential|authorization", re.IGNORECASE)
_MAX_FAULTS = 20
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    path: Place
    kind: str
    message: str
    given: Any
    found: bool
    """False when `path` is a guess: the faulty value could not be reached by it."""


def faults_of(root: Any, error: ValidationError) -> list[Fault]:
    return [_fault(root, dict(each)) for each in error.errors(include_url=False, include_context=False)]


def _fault(root: Any, each: dict[str, Any]) -> Fault:
    loc, given, kind = tuple(each["loc"]), each["input"], each["type"]
    tail = loc[-1:] if kind.startswith("missing") else ()
    place = next(_places(root, loc[: len(loc) - len(tail)], given, ()), None)
    if place is None:
        return Fault(loc, kind, _message(kind, each["msg"]), given, False)
    path, alternatives = (*place[0], *tail), place[1]
    # a fault inside one member of a union is only a fault if that member was meant
    meant = [name for depth, name in alternatives if depth < len(path)]
    suffix = f" (as {meant[-1]})" if meant else ""
    return Fault(path, kind, _message(kind, each["msg"]) + suffix, given, True)


def _places(value: Any, loc: Place, goal: Any, path: Place) -> Iterator[tuple[Place, list[tuple[int, str]]]]:
    """Where `loc` leads to `goal`. pydantic mixes names of union members into it, which are no steps into the value."""
    if not loc:
        if value is goal:
            yield path, []
        return
    head, rest = loc[0], loc[1:]
    child = _step(value, head)
    if child is not ABSENT:
        yield from _places(child, rest, goal, (*path, head))
    if isinstance(head, str):
        for place, alternatives in _places(value, rest, goal, path):
            yield place, [(len(path), head), *alternatives]


def _step(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping):
        return cast(Mapping[Any, Any], value).get(step, ABSENT)
    if isinstance(value, (list, tuple)) and isinstance(step, int):
        items = cast(Sequence[Any], value)
        return items[step] if step < len(items) else ABSENT
    return ABSENT


def with_texts_read(value: Any, faults: list[Fault]) -> Any:
    """`value` with JSON read from the texts that stand where no text is allowed; ABSENT when there is none."""
    repaired, changed = value, False
    for path, group in _by_path(faults).items():
        if all(fault.found and fault.kind in _WANTS_NO_TEXT for fault in group):
            read = _read(group[0].given)
            if read is not ABSENT and (replaced := _replaced(repaired, path, read)) is not ABSENT:
                repaired, changed = replaced, True
    return repaired if changed else ABSENT


def _read(text: Any) -> Any:
    if not isinstance(text, str):
        return ABSENT
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return ABSENT
    return ABSENT if isinstance(read, str) else read


def _replaced(value: Any, path: Place, new: Any) -> Any:
    if not path:
        return new
    inner = _replaced(_step(value, path[0]), path[1:], new)
    if inner is ABSENT or not isinstance(value, (dict, list)):
        return ABSENT
    copy: Any = cast(Any, value).copy()
    copy[path[0]] = inner
    return copy


def still_wrong(first: list[Fault], second: list[Fault]) -> list[Fault]:
    """The first faults, but for those that reading JSON has cured."""
    left = [fault.path for fault in second]
    return [fault for fault in first if any(path[: len(fault.path)] == fault.path for path in left)] or first


def _by_path(faults: list[Fault]) -> dict[Place, list[Fault]]:
    groups: dict[Place, list[Fault]] = {}
    for fault in faults:
        groups.setdefault(fault.path, []).append(fault)
    return groups


def described(faults: list[Fault], *, at: str, hide: bool) -> list[tuple[str, str]]:
    lines = [(_dotted(at, path), _line(group, hide=hide)) for path, group in _by_path(faults).items()]
    more = len(lines) - _MAX_FAULTS
    return lines if more <= 0 else [*lines[:_MAX_FAULTS], ("...", f"and {more} more")]


def _dotted(at: str, path: Place) -> str:
    return ".".join([at, *map(str, path)] if at else map(str, path))


def _line(group: list[Fault], *, hide: bool) -> str:
    said = " or ".join(dict.fromkeys(fault.message for fault in group))
    silent = hide or any(_SECRET.search(str(step)) for step in group[0].path)
    if silent or group[0].kind.startswith("missing"):
        return said
    return f"{said}; got {_shown(group[0].given)}"


def _message(kind: str, said: str) -> str:
    if kind.startswith("missing"):
        return "is required"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return "is not known here"
    said = said.removeprefix("Input ").removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said.replace("a valid dictionary", "an object").replace("a dictionary", "an object")


def _shown(value: Any) -> str:
    """Scalars in short; what is larger or may hide a secret by its kind alone."""
    match value:
        case str() if value.lstrip()[:1] in ("{", "["):
            return f"a text of {len(value)} characters"
        case int() if value.bit_length() > 128:
            return "a very large number"
        case None | bool() | int() | float() | str():
            return _cut(json.dumps(value, ensure_ascii=False))
        case Mapping():
            return "an object"
        case list() | tuple() | set() | frozenset():
            return f"a list of {len(cast(list[Any], value))}"
        case _:
            return f"a value of type {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
