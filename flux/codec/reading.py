"""Values put together again. Stored text is not trusted: it may name classes of data and nothing else (`flux.codec.classes`)."""

from __future__ import annotations

import base64
import ipaddress
import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from json import JSONDecodeError, JSONDecoder
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AnyHttpUrl, AnyUrl, BaseModel, FileUrl, HttpUrl
from pydantic_core import PydanticUndefined

from flux.codec.classes import (
    Known,
    bare_tuple,
    can_be_bare,
    is_enum,
    is_model,
    is_named_tuple,
    is_record,
    name_of,
    type_named,
)
from flux.codec.failures import error_of
from flux.domain.calls import Failure, Json
from flux.errors import NotReadable

TEXTS: dict[str, type[Any]] = {
    "decimal": Decimal,
    "uuid": UUID,
    "IPv4Address": ipaddress.IPv4Address,
    "IPv6Address": ipaddress.IPv6Address,
    "IPv4Network": ipaddress.IPv4Network,
    "IPv6Network": ipaddress.IPv6Network,
    "AnyUrl": AnyUrl,
    "AnyHttpUrl": AnyHttpUrl,
    "HttpUrl": HttpUrl,
    "FileUrl": FileUrl,
}
"""Classes for which `cls(str(value))` is the value again."""

PATHS: dict[str, type[pathlib.PurePath]] = {
    cls.__name__: cls
    for cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}


def decode(text: Json, annotation: Any = None) -> Any:
    try:
        raw_decode = _decoder(annotation)
    except TypeError:  # an annotation that cannot be hashed
        raw_decode = _decoder.__wrapped__(annotation)
    return _decode(text, raw_decode)


def _decode(text: Json, raw_decode: Callable[[str], tuple[Any, int]]) -> Any:
    try:
        value, end = raw_decode(text)
    except JSONDecodeError as exc:
        raise NotReadable(f"The stored value is no JSON: {exc}") from exc
    except RecursionError as exc:
        raise NotReadable("The stored value is nested too deep to be read here.") from exc
    if end != len(text):
        raise NotReadable(f"The stored value has more text after its end, at character {end}.")
    return value


@lru_cache(maxsize=1024)
def _decoder(annotation: Any) -> Callable[[str], tuple[Any, int]]:
    """`json` hands every object over when its inside is complete: reading is bottom up, and needs no stack of ours."""
    known = Known(annotation)

    def untagged(node: dict[str, Any]) -> Any:
        return _read(node, known) if "$" in node else node

    return JSONDecoder(object_hook=untagged).raw_decode


def _read(node: dict[str, Any], known: Known) -> Any:
    try:
        read = _READERS.get(node["$"])
        if read is not None:
            return read(node, known)
    except NotReadable:
        raise
    except Exception as exc:  # the class's own code may raise anything
        raise NotReadable(f"A stored {node.get('c', node['$'])} cannot be read: {exc!r}") from exc
    raise NotReadable(f"The stored value has the tag {node['$']!r}, which this version of Flux does not know.")


def _read_str(value: str) -> str:
    return base64.b64decode(value).decode("utf-8", "surrogatepass")


def _read_timezone(parts: list[Any]) -> timezone:
    return timezone(timedelta(*parts[:3]), *parts[3:])


def _read_moment(node: dict[str, Any], cls: type[Any]) -> Any:
    value = cls.fromisoformat(node["v"])
    zone: str | list[Any] | None = node.get("tz")
    if zone is not None:
        tz: tzinfo = ZoneInfo(zone) if isinstance(zone, str) else _read_timezone(zone)
        value = value.replace(tzinfo=tz)
    return value.replace(fold=1) if node.get("fold") else value


def _read_counter(node: dict[str, Any], known: Known) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    for key, count in node["v"]:
        counter[key] = count
    return counter


def _read_enum(node: dict[str, Any], known: Known) -> Any:
    members = known.find(node["c"], is_enum).__members__
    if node["v"] not in members:
        raise NotReadable(f"{node['c']} no longer has the member {node['v']!r}.")
    return members[node["v"]]


def _read_named_tuple(node: dict[str, Any], known: Known) -> Any:
    cls = known.find(node["c"], is_named_tuple)
    values = _matched(node, cls._fields, lambda name: cls._field_defaults.get(name, MISSING))
    return bare_tuple(cls, [values[name] for name in cls._fields])


def _read_record(node: dict[str, Any], known: Known) -> Any:
    cls = known.find(node["c"], is_record)
    if not can_be_bare(cls):
        raise NotReadable(f"{node['c']} is built on another type now and cannot be made again.")
    declared = {field.name: field for field in fields(cls)}

    def default(name: str) -> Any:
        field = declared[name]
        if not field.init:
            return _ABSENT
        return field.default if field.default_factory is MISSING else field.default_factory()

    value = object.__new__(cls)
    for name, item in {**_matched(node, declared, default), **node.get("x", {})}.items():
        object.__setattr__(value, name, item)
    return value


def _read_model(node: dict[str, Any], known: Known) -> Any:
    cls: type[BaseModel] = known.find(node["c"], is_model)
    declared = cls.model_fields

    def default(name: str) -> Any:
        field = declared[name]
        return MISSING if field.is_required() else field.get_default(call_default_factory=True, validated_data={})

    values = _matched(node, declared, default)
    extra = node.get("x")
    if extra and cls.model_config.get("extra") != "allow":
        raise NotReadable(f"{node['c']} no longer takes extra fields, but the stored value has {sorted(extra)}.")
    value = cls.__new__(cls)
    state = {
        "__dict__": values,
        "__pydantic_extra__": (extra or {}) if cls.model_config.get("extra") == "allow" else None,
        "__pydantic_private__": _private(cls, node.get("p", {})),
        "__pydantic_fields_set__": set(node["set"]) if "set" in node else {*node["v"], *(extra or ())},
    }
    BaseModel.__setstate__(value, state)  # what copying and pickling use: no validator and no `model_post_init` runs
    return value


def _private(cls: type[BaseModel], stored: dict[str, Any]) -> dict[str, Any] | None:
    """Private attributes; one that the class got later has its default."""
    if not cls.__private_attributes__:
        return None
    gone = stored.keys() - cls.__private_attributes__.keys()
    if gone:
        raise NotReadable(f"{name_of(cls)} no longer has {', '.join(sorted(gone))}.")
    defaults = {
        name: attribute.get_default() for name, attribute in cls.__private_attributes__.items() if name not in stored
    }
    return stored | {name: value for name, value in defaults.items() if value is not PydanticUndefined}


_ABSENT: Any = object()


def _matched(node: dict[str, Any], declared: Iterable[str], default: Callable[[str], Any]) -> dict[str, Any]:
    """The stored fields in the order of the class as it is today. Raises NotReadable when the two have grown apart."""
    stored: dict[str, Any] = node["v"]
    values = {name: stored[name] if name in stored else default(name) for name in declared}
    gone = stored.keys() - values.keys()
    if gone:
        raise NotReadable(f"{node['c']} no longer has the field {', '.join(map(repr, sorted(gone)))}.")
    new = [name for name, value in values.items() if value is MISSING]
    if new:
        raise NotReadable(
            f"{node['c']} now needs {', '.join(map(repr, new))}, which a stored value does not have. Give it a default."
        )
    return {name: value for name, value in values.items() if value is not _ABSENT}


def _read_failure(node: dict[str, Any]) -> Failure:
    cause = node.get("cause")
    return Failure(
        type=node["type"],
        message=node["message"],
        args=Json(node["args"]),
        rebuilt=node.get("rebuilt", False),
        traceback=node.get("traceback", ""),
        cause=_read_failure(cause) if cause else None,
    )


def _value(make: Callable[[Any], Any]) -> Callable[[dict[str, Any], Known], Any]:
    return lambda node, known: make(node["v"])


_READERS: dict[str, Callable[[dict[str, Any], Known], Any]] = {
    "int": _value(lambda text: int(text, 16)),
    "float": _value(float),
    "str": _value(_read_str),
    "bytes": _value(base64.b64decode),
    "bytearray": _value(lambda text: bytearray(base64.b64decode(text))),
    "complex": _value(lambda parts: complex(*parts)),
    "fraction": _value(lambda parts: Fraction(*parts)),
    "range": _value(lambda parts: range(*parts)),
    "date": _value(date.fromisoformat),
    "timedelta": _value(lambda parts: timedelta(*parts)),
    "timezone": _value(_read_timezone),
    "zoneinfo": _value(ZoneInfo),
    "datetime": lambda node, known: _read_moment(node, datetime),
    "time": lambda node, known: _read_moment(node, time),
    "path": lambda node, known: PATHS[node["c"]](node["v"]),
    "dict": _value(dict),
    "tuple": _value(tuple),
    "set": _value(set),
    "frozenset": _value(frozenset),
    "deque": lambda node, known: deque(node["v"], node["n"]),
    "OrderedDict": _value(OrderedDict),
    "Counter": _read_counter,
    "defaultdict": lambda node, known: defaultdict(type_named(node["f"]), node["v"]),
    "enum": _read_enum,
    "flag": lambda node, known: known.find(node["c"], is_enum)(node["v"]),
    "namedtuple": _read_named_tuple,
    "dataclass": _read_record,
    "model": _read_model,
    "error": _value(lambda node: error_of(_read_failure(node), decode=decode)),
    **{tag: _value(cls) for tag, cls in TEXTS.items()},
}
