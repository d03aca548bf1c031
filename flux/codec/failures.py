"""Exceptions as data, and as exceptions again.

Whether an exception can be made again is decided when it is recorded, by making it again: its class must be found by name,
and what is made must have the same type, text, arguments and attributes. Everything else becomes a TaskFailed that carries
the facts. So a workflow sees the same exception live and on replay."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from flux.codec.classes import is_exception, locate, name_of, slots_of
from flux.domain.calls import Failure, Json
from flux.errors import NotStorable, TaskFailed

MAX_CAUSES = 16
MAX_TRACEBACK = 8192
MAX_FRAMES = 64

_FLUX = str(Path(__file__).parent / "_")[:-1]  # with the separator, so that flux_mcp_server is no part of it

Encode = Callable[[Any], Json]
Decode = Callable[[Json], Any]


def failure_of(error: BaseException, *, encode: Encode, decode: Decode) -> Failure:
    """The facts of an exception and of what caused it. Never fails."""
    failure: Failure | None = None
    for link in reversed(_chain(error)):
        failure = _failure(link, failure, encode, decode)
    assert failure is not None  # a chain has at least the error itself
    return failure


def _chain(error: BaseException) -> list[BaseException]:
    """The error, its cause, the cause of that: ends at a loop, at the limit, and at facts that have their own causes."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < MAX_CAUSES and not any(link is seen for seen in chain):
        chain.append(link)
        link = None if type(link) is TaskFailed else _cause(link)
    return chain


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _failure(error: BaseException, cause: Failure | None, encode: Encode, decode: Decode) -> Failure:
    if type(error) is TaskFailed:
        return error.failure  # it only stands in for another error: that one's facts are the facts
    args, rebuilt = _stored(error, encode, decode)
    return Failure(
        type=name_of(type(error)),
        message=text_of(error),
        args=args,
        rebuilt=rebuilt,
        traceback=_traceback(error),
        cause=cause,
    )


def error_of(failure: Failure, *, decode: Decode) -> BaseException:
    """The exception that was recorded, with its causes. `flux_traceback` has the text of where it was raised first."""
    error = _made(failure, decode) if failure.rebuilt else None
    error = error or TaskFailed(failure)
    error.__cause__ = error_of(failure.cause, decode=decode) if failure.cause else None  # and hides the context
    if failure.traceback:
        with suppress(AttributeError, TypeError):
            error.__dict__["flux_traceback"] = failure.traceback
    return error


def _made(failure: Failure, decode: Decode) -> Exception | None:
    try:
        return _remade(locate(failure.type, is_exception), failure.args, decode)
    except Exception:  # noqa: BLE001 - the class may be gone or changed, and its constructor may raise anything
        return None


# -- arguments and attributes -------------------------------------------------------------------------------------------


def _stored(error: BaseException, encode: Encode, decode: Decode) -> tuple[Json, bool]:
    """What the error is made from, `[args, state, way]`, and whether making it again has worked."""
    for way in _WAYS:
        text = _written(error, way, encode)
        if text and _comes_back(error, text, way, encode, decode):
            return text, True
    return _written(error, "shown", encode), False


def _written(error: BaseException, way: str, encode: Encode) -> Json:
    try:
        args, state = _shown(error, encode) if way == "shown" else _WAYS[way].take(error, encode)
        return encode([args, state, way])
    except Exception:  # noqa: BLE001 - unstorable arguments, or the error's own `__reduce__`, which may raise anything
        return Json("")


def _comes_back(error: BaseException, text: Json, way: str, encode: Encode, decode: Decode) -> bool:
    try:
        cls: type[Exception] = locate(name_of(type(error)), is_exception)
        if cls is not type(error):
            return False
        made = _remade(cls, text, decode)
        return (
            type(made) is cls
            and text_of(made) == text_of(error)
            and encode(list(made.args)) == encode(list(error.args))
            and _written(made, way, encode) == text
        )
    except Exception:  # noqa: BLE001 - the constructor is the user's and may raise anything
        return False


def _remade(cls: type[Exception], text: Json, decode: Decode) -> Exception:
    args, state, way = decode(text)
    error = _WAYS[way].make(cls, args)
    for name, value in state.items():
        setattr(error, name, value)
    return error


Facts = tuple[list[Any], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to make an exception again: what to take from it, and what to do with that."""

    take: Callable[[Any, Encode], Facts]
    make: Callable[[Any, list[Any]], Exception]


def _called(error: BaseException, encode: Encode) -> Facts:
    """For `cls(*args)`: attributes that cannot be stored are left to the constructor."""
    args, state = _reduced(error)
    return list(args), {name: value for name, value in state.items() if _storable(value, encode)}


def _restored(error: BaseException, encode: Encode) -> Facts:
    """For a constructor that wants something else than `args`: it is left out, so every attribute has to be stored."""
    return list(error.args), _reduced(error)[1]


def _restore(cls: type[Exception], args: list[Any]) -> Exception:
    error = cls.__new__(cls, *args)
    error.args = tuple(args)
    return error


def _validated(error: Any, encode: Encode) -> Facts:
    """For pydantic's error, which is made by a function of its own."""
    if type(error) is not ValidationError:
        raise TypeError("only for pydantic's own error")
    details = [
        {name: value for name, value in line.items() if name != "msg"} for line in error.errors(include_url=False)
    ]
    return [error.title, details], {}


def _validate(cls: type[ValidationError], args: list[Any]) -> Exception:
    error = cls.from_exception_data(*args)
    error.args = ()  # as validation leaves it; this way of making one puts in what cannot be stored
    return error


def _shown(error: BaseException, encode: Encode) -> Facts:
    return list(error.args), {}


_WAYS = {
    "call": _Way(_called, lambda cls, args: cls(*args)),
    "restore": _Way(_restored, _restore),
    "validation": _Way(_validated, _validate),
}


def _reduced(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and attributes an exception names itself: OSError and ImportError keep some out of sight."""
    reduced = error.__reduce__()
    args, state = error.args, dict(error.__dict__)
    if isinstance(reduced, tuple) and reduced[0] is type(error):
        args = cast("tuple[Any, ...]", reduced[1])
        state = cast("dict[str, Any] | None", reduced[2] if len(reduced) > 2 else None) or {}
    return args, {name: value for name, value in {**state, **_slots(error)}.items() if name != "flux_traceback"}


def _slots(error: BaseException) -> dict[str, Any]:
    return {name: getattr(error, name) for name in slots_of(type(error)) if hasattr(error, name)}


def _storable(value: Any, encode: Encode) -> bool:
    try:
        encode(value)
    except NotStorable:
        return False
    return True


# -- texts --------------------------------------------------------------------------------------------------------------


def text_of(thing: object, render: Callable[[object], str] = str) -> str:
    """`str(thing)`, which never fails."""
    try:
        return str.__str__(render(thing))
    except Exception as exc:  # noqa: BLE001 - a `__str__` may raise anything
        return f"<{type(thing).__qualname__}: its text cannot be made ({type(exc).__qualname__})>"


def _traceback(error: BaseException) -> str:
    """Where it was raised, innermost last. For an error that was recorded before: where it was raised then."""
    earlier = getattr(error, "__dict__", {}).get("flux_traceback")
    if isinstance(earlier, str):
        return earlier
    if error.__traceback__ is None:
        return ""
    try:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_FLUX)] or list(frames)
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(own[-MAX_FRAMES:])]
        text = "".join([*lines, *traceback.format_exception_only(type(error), error)])
    except Exception:  # noqa: BLE001 - prints the error, whose `__str__` may raise anything
        return ""
    return text if len(text) <= MAX_TRACEBACK else "…" + text[1 - MAX_TRACEBACK :]
