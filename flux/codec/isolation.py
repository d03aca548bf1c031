"""Arguments of the callee's own: what it changes in them, nobody else sees.

Without this, a body that appends to its argument would see `[1, 2]` in one go and `[1]` after a replay."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, cast

from pydantic import BaseModel

from flux.codec.classes import bare_tuple, can_be_bare, is_model, is_named_tuple, is_record, state_of

_ATOMS: frozenset[type[Any]] = frozenset({type(None), bool, int, float, complex, str, bytes, range, type(...)})


def isolate(value: Any) -> Any:
    """A copy in which mutable data is new; what is shared inside `value` is shared inside the copy.

    Opaque objects, keys of dicts and members of sets are passed on as they are."""
    if type(value) in _ATOMS or _is_of_atoms(value):
        return value
    try:
        return _Copying().copy(value)
    except (RecursionError, TypeError):
        # deeper than the stack, or of a class that cannot even be looked up: no such value can be stored, so no result
        # that lasts can depend on the copy
        return value


def _is_of_atoms(value: object) -> bool:
    """A tuple of values that cannot be changed, as the arguments of most calls are."""
    return type(value) is tuple and _ATOMS.issuperset(map(type, cast("tuple[Any, ...]", value)))


class _Copying:
    """One pass over one value. `made` maps what has been met to its copy, so that cycles end."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}

    def copy(self, value: object) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        copier = _COPIERS.get(kind) or _copier_for(kind)
        if copier is None:
            return value
        key = id(value)
        if key in self.made:
            return self.made[key]
        return copier(self, value)

    def keep(self, value: Any, copy: Any) -> Any:
        self.made[id(value)] = copy
        return copy

    def list(self, value: list[Any]) -> Any:
        copy: list[Any] = self.keep(value, [])
        copy.extend([item if type(item) in _ATOMS else self.copy(item) for item in value])
        return copy

    def dict(self, value: dict[Any, Any]) -> Any:
        return self._fill(value, self.keep(value, {}))

    def ordered(self, value: OrderedDict[Any, Any]) -> Any:
        return self._fill(value, self.keep(value, OrderedDict()))

    def counter(self, value: Counter[Any]) -> Any:
        return self._fill(value, self.keep(value, Counter()))

    def default(self, value: defaultdict[Any, Any]) -> Any:
        return self._fill(value, self.keep(value, defaultdict(value.default_factory)))

    def _fill(self, value: dict[Any, Any], copy: dict[Any, Any]) -> Any:
        for name, item in value.items():
            copy[name] = item if type(item) in _ATOMS else self.copy(item)
        return copy

    def deque(self, value: deque[Any]) -> Any:
        copy: deque[Any] = self.keep(value, deque(maxlen=value.maxlen))
        copy.extend([self.copy(item) for item in value])
        return copy

    def flat(self, value: Any) -> Any:
        return self.keep(value, value.copy())

    def tuple(self, value: tuple[Any, ...]) -> Any:
        items = [self.copy(item) for item in value]
        if id(value) in self.made:  # it contains itself, by way of a list
            return self.made[id(value)]
        same = all(mine is theirs for mine, theirs in zip(items, value, strict=True))
        return self.keep(value, value if same else bare_tuple(type(value), items))

    def record(self, value: object) -> Any:
        cls: type[Any] = type(value)
        state = state_of(value)
        if cls.__dataclass_params__.frozen and all(self.copy(item) is item for item in state.values()):
            return value
        if id(value) in self.made:  # it contains itself, by way of a list
            return self.made[id(value)]
        copy = self.keep(value, object.__new__(cls))
        for name, item in state.items():
            object.__setattr__(copy, name, self.copy(item))
        return copy

    def model(self, value: BaseModel) -> Any:
        copy = self.keep(value, type(value).__new__(type(value)))
        state = cast("dict[str, Any]", BaseModel.__getstate__(value))
        parts = {name: self._part(part) for name, part in state.items()}
        BaseModel.__setstate__(copy, parts)
        return copy

    def _part(self, part: Any) -> Any:
        # not kept in `made`: some of these dicts live no longer than this, and their ids would be given out again
        return self._fill(cast("dict[Any, Any]", part), {}) if isinstance(part, dict) else part and set(part)


_Copier = Callable[[_Copying, Any], Any]

_COPIERS: dict[type[Any], _Copier] = {
    list: _Copying.list,
    dict: _Copying.dict,
    tuple: _Copying.tuple,
    set: _Copying.flat,
    bytearray: _Copying.flat,
    deque: _Copying.deque,
    OrderedDict: _Copying.ordered,
    Counter: _Copying.counter,
    defaultdict: _Copying.default,
}


def _copier_for(kind: type[Any]) -> _Copier | None:
    if is_model(kind):
        return _Copying.model
    if is_record(kind) and can_be_bare(kind):
        return _Copying.record
    return _Copying.tuple if is_named_tuple(kind) else None
