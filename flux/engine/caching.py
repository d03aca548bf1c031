"""Cached tasks: under what their results are kept, and how they are found again."""

from __future__ import annotations

import dis
import inspect
import logging
from collections.abc import Callable, Iterator
from hashlib import sha256
from types import CodeType, FunctionType
from typing import Any, cast

from flux.domain.calls import Returned
from flux.engine.spec import Call
from flux.errors import FluxError

log = logging.getLogger("flux")


async def remembered(call: Call) -> Returned | None:
    """What an earlier call gave, in this execution or another. Raises NotStorable for arguments that are no key."""
    run = call.run
    value = await run.provisions.cache.get(_key(call), now=run.clock.now())
    if value is None:
        return None
    try:
        run.codec.decode(value, call.spec.output_type)
    except FluxError as exc:
        log.info("%s: a cached result can no longer be read, so it is made again: %s", call.owner, exc)
        return None
    return Returned(value)


async def remember(call: Call, outcome: Returned) -> None:
    """Keep a result. Without the cache the task is only slower, so that a full disk is no failure."""
    run, seconds = call.run, call.spec.cache
    assert seconds is not None, "only cached tasks are remembered"
    expires_at = None if seconds == float("inf") else run.clock.now() + seconds
    try:
        await run.provisions.cache.put(_key(call), outcome.value, expires_at=expires_at)
    except OSError as exc:
        log.warning("%s: its result could not be cached: %s", call.owner, exc)


def _key(call: Call) -> str:
    """The function, by its full name and its code, and the arguments, whole."""
    spec = call.spec
    arguments = call.run.codec.encode(
        spec.arguments(call.args, call.kwargs), owner=f"the arguments of {call.owner}, whose results are cached"
    )
    func = inspect.unwrap(spec.func)
    name = f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', type(func).__qualname__)}"
    return f"{name} {code_digest(func)} {sha256(arguments.encode()).hexdigest()}"


def code_digest(func: Callable[..., Any]) -> str:
    """A digest of what a function does: its code, its defaults and the plain values that it was defined around. Where it
    stands in its file does not count, nor what it calls."""
    return sha256("\0".join(_parts(func)).encode("utf-8", "surrogatepass")).hexdigest()


def _parts(func: Callable[..., Any]) -> Iterator[str]:
    if not isinstance(func, FunctionType):
        func = type(func).__call__
    if not isinstance(func, FunctionType):
        return
    yield from _parts_of_code(func.__code__)
    for value in (*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).items()):
        yield from _parts_of_value(value)
    rebound = {step.argval for step in dis.get_instructions(func) if step.opname == "STORE_DEREF"}
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        if name not in rebound:
            yield from _parts_of_cell(cell)


def _parts_of_cell(cell: Any) -> Iterator[str]:
    try:
        value = cell.cell_contents
    except ValueError:  # not bound yet
        return
    yield from _parts_of_code(value.__code__) if isinstance(value, FunctionType) else _parts_of_value(value)


def _parts_of_code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags))
    for value in code.co_consts:
        yield from _parts_of_code(value) if isinstance(value, CodeType) else _parts_of_value(value)


def _parts_of_value(value: object) -> Iterator[str]:
    """Values that cannot change and look the same in every process; of others only the type."""
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            yield f"{type(value).__name__} {value!r}"
        case tuple():
            members = cast("tuple[object, ...]", value)
            yield f"tuple {len(members)}"
            for member in members:
                yield from _parts_of_value(member)
        case frozenset():
            members = cast("frozenset[object]", value)
            yield from sorted("\0".join(_parts_of_value(member)) for member in members)
        case _:
            yield type(value).__qualname__
