"""Values taken apart, into what `json` takes; see `flux.codec` for the form. Every refusal happens here."""

from __future__ import annotations

import base64
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from enum import Enum, Flag
from fractions import Fraction
from functools import cached_property
from json import JSONEncoder
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from flux.codec.classes import (
    Kind,
    Known,
    can_be_bare,
    is_enum,
    is_model,
    is_named_tuple,
    is_record,
    register_plain,
    state_of,
    type_ref,
)
from flux.codec.failures import failure_of, text_of
from flux.codec.reading import PATHS, TEXTS, decode
from flux.codec.refusals import way_out
from flux.domain.calls import Failure, Json
from flux.errors import NotReadable, NotStorable

MAX_DEPTH = 100
"""How many values may stand inside each other: well below what the interpreter's stack takes."""

MAX_ERRORS = 4
"""How many exceptions may stand inside each other's arguments (groups of groups)."""

_PLAIN_INT = 1 << 2048  # below 640 digits, the lowest limit an interpreter can be set to for reading decimal text
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # JSON would read the two as one character

Node = Any
"""A value taken apart: what `json` takes."""

dumps = JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
dumps_sorted = JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=True).encode


_TOO_DEEP = f"it is nested more than {MAX_DEPTH} levels deep; store a flatter form, such as a list of (parent, item)."


def encode(value: object, *, owner: str, annotation: Any = None) -> Json:
    return _encode(value, owner, annotation, errors=0)


def encode_facts(value: object, errors: int = 0) -> Json:
    """For what belongs to an exception, which itself stands inside `errors` others."""
    return _encode(value, "an exception", None, errors=errors + 1)


def _encode(value: object, owner: str, annotation: Any, *, errors: int) -> Json:
    try:
        scalar = _SCALARS.get(type(value))
        node = Writing(annotation, errors=errors).node(value) if scalar is None else scalar(value)
        return Json(dumps(node))
    except _Refused as refused:
        raise NotStorable(owner, refused.path, _type_name(refused.value), refused.reason) from None
    except RecursionError:
        raise NotStorable(owner, "", _type_name(value), _TOO_DEEP) from None
    except Exception as exc:  # the value's own code may raise anything
        raise NotStorable(owner, "", _type_name(value), f"taking it apart raised {exc!r}.") from exc


class _Refused(Exception):
    """On its way up it collects the place of the value: each container adds its part in front."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.value = value
        self.reason = reason
        self.path = ""

    def under(self, part: str) -> None:
        self.path = part + self.path


class Writing:
    """Takes one value apart. `active` are the values around the one being written."""

    def __init__(self, annotation: Any = None, *, errors: int = 0) -> None:
        self.active: set[int] = set()
        self.known = Known(annotation)
        self.errors = errors

    def node(self, value: object) -> Node:
        kind = type(value)
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(value)
        active, key = self.active, id(value)
        if key in active:
            return self.refuse(value, "it contains itself; store ids instead of references.")
        if len(active) >= MAX_DEPTH:
            return self.refuse(value, _TOO_DEEP)
        active.add(key)
        node = (_WRITERS.get(kind) or _writer_for(value))(value, self)
        active.discard(key)  # not needed after a refusal: it ends the whole writing
        return node

    def refuse(self, value: object, reason: str) -> Node:
        raise _Refused(value, reason)

    def ref(self, value: object, kind: Kind) -> Node:
        cls = type(value)
        try:
            return self.known.ref(cls, kind)
        except NotReadable as exc:
            reason = f"{exc} Define the class at the top of a module, or name it in the return annotation."
            raise _Refused(value, reason) from exc

    def items(self, values: Iterable[object], part: str = "[{}]") -> list[Node]:
        nodes: list[Node] = []
        try:
            for value in values:
                scalar = _SCALARS.get(type(value))
                nodes.append(scalar(value) if scalar is not None else self.node(value))
        except _Refused as refused:
            refused.under(part.format(len(nodes)))
            raise
        return nodes

    def fields(self, values: Mapping[str, object], part: Callable[[str], str] | None = None) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        name = ""
        try:
            for name, value in values.items():
                scalar = _SCALARS.get(type(value))
                nodes[name] = scalar(value) if scalar is not None else self.node(value)
        except _Refused as refused:
            refused.under((part or _field_part)(name))
            raise
        return nodes

    def pairs(self, values: Mapping[Any, object]) -> list[Node]:
        nodes: list[Node] = []
        keys = self.items(values, ".keys()[{}]")
        for key, name, value in zip(values, keys, values.values(), strict=True):
            try:
                nodes.append([name, self.node(value)])
            except _Refused as refused:
                refused.under(_key_part(key))
                raise
        return nodes

    def unordered(self, values: Mapping[Any, Any]) -> list[Node]:
        """Pairs whose order is kept, but does not count when two values are compared."""
        return self.pairs(values)

    def error(self, error: BaseException) -> Node:
        if self.errors > MAX_ERRORS:
            return self.refuse(error, f"more than {MAX_ERRORS} exceptions stand inside each other.")
        nested = self.errors

        def encode(value: Any) -> Json:
            return encode_facts(value, nested)

        return {"$": "error", "v": _failure_node(failure_of(error, encode=encode, decode=decode))}


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _field_part(name: str) -> str:
    return f".{name}" if name.isidentifier() else _key_part(name)


def _key_part(key: object) -> str:
    text = text_of(key, repr)
    return f"[{text[:40]}]" if len(text) <= 40 else f"[{text[:39]}…]"


Writer = Callable[[Any, Writing], Node]


def _int(value: int) -> Node:
    return value if -_PLAIN_INT < value < _PLAIN_INT else {"$": "int", "v": hex(value)}


def _float(value: float) -> Node:
    return value if math.isfinite(value) else {"$": "float", "v": repr(value)}


def _str(value: str) -> Node:
    return value if value.isascii() or not _SURROGATES.search(value) else {"$": "str", "v": _base64_text(value)}


def _base64_text(value: str) -> str:
    return _base64(value.encode("utf-8", "surrogatepass"))


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _timedelta(value: timedelta) -> Node:
    return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}


def _as_is(value: Any) -> Node:
    return value


def _text(tag: str) -> Callable[[Any], Node]:
    return lambda value: {"$": tag, "v": str(value)}


_SCALARS: dict[type[Any], Callable[[Any], Node]] = {
    type(None): _as_is,
    bool: _as_is,
    int: _int,
    float: _float,
    str: _str,
    bytes: lambda value: {"$": "bytes", "v": _base64(value)},
    bytearray: lambda value: {"$": "bytearray", "v": _base64(value)},
    complex: lambda value: {"$": "complex", "v": [_float(value.real), _float(value.imag)]},
    Fraction: lambda value: {"$": "fraction", "v": [_int(value.numerator), _int(value.denominator)]},
    range: lambda value: {"$": "range", "v": [_int(value.start), _int(value.stop), _int(value.step)]},
    date: lambda value: {"$": "date", "v": value.isoformat()},
    timedelta: _timedelta,
    **{cls: _text(tag) for tag, cls in TEXTS.items()},
    **{cls: lambda value: {"$": "path", "c": type(value).__name__, "v": _str(str(value))} for cls in PATHS.values()},
}
"""What holds no other values, and is never refused."""


def _write_dict(value: dict[Any, Any], writing: Writing) -> Node:
    if "$" in value:
        return {"$": "dict", "v": writing.unordered(value)}
    for key in value:
        if type(key) is not str or not (key.isascii() or not _SURROGATES.search(key)):
            return {"$": "dict", "v": writing.unordered(value)}
    return writing.fields(value, _key_part)


def _write_set(value: set[Any] | frozenset[Any], writing: Writing) -> Node:
    # sorted, so that equal sets have equal text
    return {"$": type(value).__name__, "v": sorted(writing.items(value, "[*]"), key=dumps_sorted)}


def _write_deque(value: deque[Any], writing: Writing) -> Node:
    return {"$": "deque", "v": writing.items(value), "n": value.maxlen}


def _write_defaultdict(value: defaultdict[Any, Any], writing: Writing) -> Node:
    try:
        factory = type_ref(value.default_factory)
    except NotReadable:
        reason = "its factory is no class that can be found by name; return dict(...) of it."
        return writing.refuse(value, reason)
    return {"$": "defaultdict", "v": writing.unordered(value), "f": factory}


def _write_timezone(value: timezone, writing: Writing) -> Node:
    return {"$": "timezone", "v": _offset(value)}


def _write_zone(value: ZoneInfo, writing: Writing) -> Node:
    if not value.key:
        return writing.refuse(value, _NO_KEY)
    return {"$": "zoneinfo", "v": value.key}


_NO_KEY = "a zone read from a file has no name; use ZoneInfo(name)."


def _offset(value: timezone) -> list[Any]:
    offset = value.utcoffset(None)
    name = value.tzname(None)
    parts: list[Any] = [offset.days, offset.seconds, offset.microseconds]
    return parts if timezone(offset).tzname(None) == name else [*parts, name]


def _write_moment(value: datetime | time, writing: Writing) -> Node:
    zone = value.tzinfo
    node: dict[str, Node] = {"$": type(value).__name__}
    if zone is None or (type(zone) is timezone and len(_offset(zone)) == 3):
        node["v"] = value.isoformat()
    else:
        node["v"] = value.replace(tzinfo=None).isoformat()
        node["tz"] = _zone(zone)
        if not node["tz"]:
            return writing.refuse(value, f"its tzinfo is {zone!r}; use zoneinfo.ZoneInfo(name) or datetime.timezone.")
    if value.fold:
        node["fold"] = 1
    return node


def _zone(zone: tzinfo) -> Node:
    if type(zone) is timezone:
        return _offset(zone)
    return zone.key if type(zone) is ZoneInfo else None


def _write_enum(value: Enum, writing: Writing) -> Node:
    cls = type(value)
    node = {"$": "enum", "c": writing.ref(value, is_enum)}
    if cls.__members__.get(value.name) is value:
        return {**node, "v": value.name}
    if isinstance(value, Flag) and cls(value.value) is value:
        return {**node, "$": "flag", "v": _int(value.value)}
    return writing.refuse(value, "it is no named member of its Enum.")


def _write_named_tuple(value: Any, writing: Writing) -> Node:
    if getattr(value, "__dict__", None):
        return writing.refuse(value, "it has attributes beside its fields; make it a dataclass.")
    values: dict[str, Any] = dict(zip(value._fields, tuple(value), strict=True))
    return {"$": "namedtuple", "c": writing.ref(value, is_named_tuple), "v": writing.fields(values)}


def _write_record(value: object, writing: Writing) -> Node:
    cls: type[Any] = type(value)
    if not can_be_bare(cls):
        return writing.refuse(
            value, "a dataclass built on another type cannot be made again; hold that value in a field."
        )
    node: dict[str, Node] = {"$": "dataclass", "c": writing.ref(value, is_record)}
    state = _without_cached(cls, state_of(value))
    state.pop("__orig_class__", None)  # typing's note of how a generic was called; no part of the value
    own: dict[str, Any] = {}
    for field in fields(cls):
        if field.name in state:
            own[field.name] = state.pop(field.name)
        elif field.init:
            return writing.refuse(value, f"its field {field.name!r} has been deleted.")
    node["v"] = writing.fields(own)
    if state:
        node["x"] = _write_dict(state, writing)
    return node


def _without_cached(cls: type[Any], state: dict[str, Any]) -> dict[str, Any]:
    """Without what cached properties keep on the instance: they make it again."""
    return {name: value for name, value in state.items() if not _is_cached(cls, name)}


def _is_cached(cls: type[Any], name: str) -> bool:
    found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return isinstance(found, cached_property)


def _write_model(value: BaseModel, writing: Writing) -> Node:
    cls = type(value)
    state: Mapping[str, Any] = BaseModel.__getstate__(value)
    own = _without_cached(cls, state["__dict__"])
    if own.keys() != cls.model_fields.keys():
        return writing.refuse(value, f"its fields are not those of its class: {sorted(own.keys() ^ cls.model_fields)}.")
    node: dict[str, Node] = {"$": "model", "c": writing.ref(value, is_model), "v": writing.fields(own)}
    extra: Mapping[str, Any] | None = state["__pydantic_extra__"]
    if extra:
        node["x"] = _write_dict(dict(extra), writing)
    if state["__pydantic_private__"]:
        node["p"] = writing.fields(state["__pydantic_private__"])
    if state["__pydantic_fields_set__"] != own.keys() | (extra or {}).keys():
        node["set"] = sorted(state["__pydantic_fields_set__"])
    return node


def _write_error(value: BaseException, writing: Writing) -> Node:
    return writing.error(value)


def _failure_node(failure: Failure) -> Node:
    node: dict[str, Node] = {"type": failure.type, "message": _str(failure.message), "args": failure.args}
    if failure.rebuilt:
        node["rebuilt"] = True
    if failure.traceback:
        node["traceback"] = _str(failure.traceback)
    if failure.cause:
        node["cause"] = _failure_node(failure.cause)
    return node


def _refuse(value: object, writing: Writing) -> Node:
    return writing.refuse(value, way_out(value))


_WRITERS: dict[type[Any], Writer] = {
    dict: _write_dict,
    list: lambda value, writing: writing.items(value),
    tuple: lambda value, writing: {"$": "tuple", "v": writing.items(value)},
    set: _write_set,
    frozenset: _write_set,
    deque: _write_deque,
    OrderedDict: lambda value, writing: {"$": "OrderedDict", "v": writing.pairs(value)},
    Counter: lambda value, writing: {"$": "Counter", "v": writing.unordered(value)},
    defaultdict: _write_defaultdict,
    datetime: _write_moment,
    time: _write_moment,
    timezone: _write_timezone,
    ZoneInfo: _write_zone,
}


def _writer_for(value: object) -> Writer:
    cls = type(value)
    if isinstance(value, BaseException):
        return _write_error
    if is_enum(cls):
        return _write_enum
    if is_model(cls):
        return _write_model
    if is_record(cls):
        return _write_record
    if is_named_tuple(cls):
        return _write_named_tuple
    return _refuse


register_plain(
    [deque, OrderedDict, Counter, date, datetime, time, timedelta, Fraction, *TEXTS.values(), *PATHS.values()]
)
