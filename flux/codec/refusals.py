"""What to do instead, for values that are more than data: one sentence for each kind, said when a value is refused."""

from __future__ import annotations

import inspect
import io
import threading
import types
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import tzinfo
from functools import partial

from pydantic import SecretBytes, SecretStr

_BUILTINS = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
_VIEWS = (KeysView, ValuesView, ItemsView)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event, threading.Semaphore)
_FUNCTIONS = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    partial,
)

_WAYS_OUT: tuple[tuple[Callable[[object], bool], str], ...] = (
    (inspect.isasyncgen, "an async generator is not a value: return `[item async for item in ...]` instead."),
    (inspect.isawaitable, "it has not been awaited: `await` it and return what it gives."),
    (lambda value: isinstance(value, _FUNCTIONS), "code is not data: store its name, or call it and store the result."),
    (inspect.ismodule, "a module is not data: store its name."),
    (lambda value: isinstance(value, type), "a class is not data: store its name, or an instance of it."),
    (lambda value: isinstance(value, io.IOBase), "an open file ends with the process: store its path or its content."),
    (lambda value: isinstance(value, _LOCKS), "a lock ends with the process: create it where it is used."),
    (lambda value: isinstance(value, SecretStr | SecretBytes), "a history is no place for a secret: store its name."),
    (lambda value: isinstance(value, tzinfo), "use zoneinfo.ZoneInfo or datetime.timezone."),
    (lambda value: isinstance(value, Iterator), "it can be read only once: return list(...) of it instead."),
    (lambda value: isinstance(value, _VIEWS), "it is a view of a dict: return list(...) of it instead."),
    (lambda value: isinstance(value, memoryview), "it is a view of memory: return bytes(...) of it instead."),
    (
        lambda value: isinstance(value, types.MappingProxyType),
        "it is a view of a dict: return dict(...) of it instead.",
    ),
)


def way_out(value: object) -> str:
    """Why such a value is refused, and what to do instead."""
    for applies, reason in _WAYS_OUT:
        if applies(value):
            return reason
    for builtin in _BUILTINS:
        if isinstance(value, builtin):
            name = builtin.__name__
            return (
                f"it is a subclass of {name} and would come back as a plain {name}: return {name}(...) of it instead."
            )
    if isinstance(value, Mapping):
        return "return dict(...) of it instead."
    return "it is not data that can be made again: return a dataclass, a pydantic model or plain values instead."
