"""Classes by name: how stored text says which class a value had, and which classes it may name at all.

A class is written as `module:qualname`. Text that comes out of a database must not be able to call anything, so a name only
ever finds what was defined as data (a pydantic model, a dataclass, an Enum, a namedtuple) or an exception: names are looked
up in the dictionaries of modules and classes, never with getattr, and the result is checked for its kind.

A script's own classes live in `__main__`. They are written under the name the script has when it is imported, and found
under both, so that a server reads what `python orders.py` wrote."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from importlib import import_module
from pathlib import PurePath
from typing import Any, Literal, TypeGuard, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel

from flux.errors import NotReadable

Ref = str | list[Any] | int | bool | None
"""A class as the codec writes it: a name, or a list for a parametrised one."""

Kind = Callable[[Any], bool]


def is_model(thing: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def is_record(thing: Any) -> TypeGuard[type[Any]]:
    return isinstance(thing, type) and is_dataclass(thing)


def is_enum(thing: Any) -> TypeGuard[type[Enum]]:
    return isinstance(thing, type) and issubclass(thing, Enum)


def is_named_tuple(thing: Any) -> TypeGuard[type[tuple[Any, ...]]]:
    return isinstance(thing, type) and issubclass(thing, tuple) and hasattr(cast("Any", thing), "_fields")


def is_exception(thing: Any) -> TypeGuard[type[Exception]]:
    return isinstance(thing, type) and issubclass(thing, Exception)


def is_data(thing: Any) -> TypeGuard[type[Any]]:
    return is_model(thing) or is_record(thing) or is_enum(thing) or is_named_tuple(thing)


KINDS: dict[Kind, str] = {
    is_model: "a pydantic model",
    is_record: "a dataclass",
    is_enum: "an Enum",
    is_named_tuple: "a namedtuple",
    is_exception: "an exception",
    is_data: "a class of data",
}


def name_of(cls: type[Any]) -> str:
    module = cls.__module__
    if module == "__main__":
        script = script_name()
        # a script that is also imported exists twice, as two different classes: each keeps its own name
        module = "__main__" if script in sys.modules else script
    return f"{module}:{cls.__qualname__}"


def script_name() -> str:
    """The name `__main__` would have if somebody imported it; `__main__` itself where there is no file."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else "__main__"


def locate(name: str, kind: Kind) -> Any:
    """The class of that name and kind. Raises NotReadable, which says what is wrong with it."""
    module_name, _, qualname = name.partition(":")
    if "<locals>" in qualname:
        raise NotReadable(f"{name} was defined inside a function and the annotation here does not name it.")
    found = _member(_module(module_name, name), qualname)
    if found is None and module_name == script_name():
        found = _member(sys.modules["__main__"], qualname)
    if found is None:
        raise NotReadable(f"{name} is gone: module {module_name!r} has no such class any more.")
    if not kind(found):
        raise NotReadable(f"{name} is not {KINDS[kind]} (any more).")
    return found


def _module(module_name: str, name: str) -> types.ModuleType:
    loaded = sys.modules.get(module_name)
    if loaded is not None:
        return loaded
    if module_name == script_name():
        return sys.modules["__main__"]
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise NotReadable(f"{name} is no name of a class.")
    try:
        return import_module(module_name)
    except Exception as exc:  # a module may raise anything while it is imported
        raise NotReadable(f"{name} cannot be read: importing {module_name!r} failed: {exc!r}") from exc


def _member(module: types.ModuleType, qualname: str) -> Any:
    """Walks the plain dictionaries: no descriptor and no `__getattr__` may run on behalf of stored text."""
    first, *rest = qualname.split(".")
    found = vars(module).get(first)
    for part in rest:
        found = vars(found).get(part) if isinstance(found, type) else None
    return found


class Known:
    """The classes a value may have: those an annotation names, then those with an importable name.

    The annotation comes first, so that a class defined inside a function is found through it."""

    def __init__(self, annotation: Any = None) -> None:
        self._annotation = annotation
        self._hinted: dict[str, type[Any] | None] | None = None

    def ref(self, cls: type[Any], kind: Kind) -> Ref:
        """How to write `cls` such that `find` gives the very same class. Raises NotReadable when nothing does."""
        name = name_of(cls)
        generic = _generic_ref(cls)
        ref: Ref = name if generic is None or (name in self._hints() and not _finds(generic, cls)) else generic
        if self.find(ref, kind) is not cls:
            raise NotReadable(f"{name} means another class here.")
        return ref

    def find(self, ref: Ref, kind: Kind) -> Any:
        if isinstance(ref, list):
            return _resolved(ref, kind)
        name = str(ref)
        hinted = self._hints().get(name)
        return hinted if hinted is not None and kind(hinted) else locate(name, kind)

    def _hints(self) -> dict[str, type[Any] | None]:
        if self._hinted is None:
            self._hinted = {} if self._annotation is None else _classes_in(self._annotation)
        return self._hinted


def _finds(ref: Ref, cls: type[Any]) -> bool:
    try:
        return type_named(ref) is cls
    except NotReadable:
        return False


def _classes_in(annotation: Any) -> dict[str, type[Any] | None]:
    """Every class of data that the annotation reaches, by name; two of one name cancel each other out."""
    found: dict[str, type[Any] | None] = {}
    waiting, seen = [annotation], set[int]()
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        waiting.extend(get_args(here))
        waiting.append(get_origin(here))
        waiting.append(getattr(here, "__value__", None))  # `type X = ...` of Python 3.12
        if is_data(here):
            name = name_of(here)
            found[name] = here if name not in found else None
        if is_data(here) or is_typeddict(here):
            waiting.extend(_field_types(here))
    return found


def _field_types(cls: type[Any]) -> Iterator[Any]:
    if is_model(cls):
        yield from (field.annotation for field in cls.model_fields.values())
        yield from cls.__pydantic_generic_metadata__["args"]
        return
    try:
        yield from get_type_hints(cls).values()
    except Exception:  # noqa: BLE001 - evaluates the user's annotations, of which some may name nothing at run time
        if is_dataclass(cls):
            yield from (field.type for field in fields(cls))


# -- parametrised pydantic models: `Box[int]` is a class that no module holds under its name ----------------------------

_NAMED: dict[str, Any] = {
    f"{cls.__module__}:{cls.__qualname__}": cls
    for cls in (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object)
}


def register_plain(classes: list[type[Any]]) -> None:
    """Classes of the standard library that stored text may name although they are no classes of data."""
    _NAMED.update({f"{cls.__module__}:{cls.__qualname__}": cls for cls in classes})


def _generic_ref(cls: type[Any]) -> Ref:
    if not is_model(cls):
        return None
    made = cls.__pydantic_generic_metadata__
    if made["origin"] is None:
        return None
    return [name_of(made["origin"]), *map(type_ref, made["args"])]


def type_ref(thing: Any) -> Ref:
    """A type argument or a factory, written such that `type_named` finds it. Raises NotReadable when it has no name."""
    origin = get_origin(thing)
    if thing is None or thing is type(None):
        return None
    if thing is Any or thing is Ellipsis:
        return "any" if thing is Any else "..."
    if origin is Literal:
        return ["literal", *map(_word, get_args(thing))]
    if origin in (Union, types.UnionType):
        return ["union", *map(type_ref, get_args(thing))]
    if origin is not None:
        return [str(type_ref(origin)), *map(type_ref, get_args(thing))]
    if not isinstance(thing, type):
        raise NotReadable(f"{thing!r} is no class.")
    ref = _generic_ref(thing) or name_of(thing)
    if type_named(ref) is not thing:
        raise NotReadable(f"{ref} means another class here.")
    return ref


def _word(word: Any) -> str | int | bool | None:
    if word is not None and type(word) not in (str, int, bool):
        raise NotReadable(f"Literal[{word!r}] has no name.")
    return word


def type_named(ref: Ref) -> Any:
    match ref:
        case None:
            return None
        case "any":
            return Any
        case "...":
            return Ellipsis
        case ["literal", *words]:
            return Literal[tuple(words)]  # pyright: ignore[reportInvalidTypeForm] - made at run time
        case ["union", *members]:
            return Union[tuple(map(type_named, members))]  # noqa: UP007 - made at run time
        case list():
            return _resolved(ref, is_data)
        case _:
            return _NAMED.get(str(ref)) or locate(str(ref), is_data)


def _resolved(ref: list[Any], kind: Kind) -> Any:
    origin = _NAMED.get(ref[0]) or locate(ref[0], is_data)
    made = origin[tuple(map(type_named, ref[1:]))]
    if kind is is_model and not is_model(made):
        raise NotReadable(f"{ref[0]} is not {KINDS[kind]} (any more).")
    return made


# -- what an instance holds ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def slots_of(cls: type[Any]) -> tuple[str, ...]:
    """The names of all slots of a class that hold data."""
    names: list[str] = []
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names.extend(_mangled(base, name) for name in ([slots] if isinstance(slots, str) else slots))
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _mangled(cls: type[Any], name: str) -> str:
    private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if private else name


def state_of(thing: object) -> dict[str, Any]:
    """All attributes an instance holds, in its dictionary and in its slots."""
    state: dict[str, Any] = dict(getattr(thing, "__dict__", ()))
    for name in slots_of(type(thing)):
        if hasattr(thing, name):
            state[name] = getattr(thing, name)
    return state


@lru_cache(maxsize=1024)
def can_be_bare(cls: type[Any]) -> bool:
    """Whether an empty instance can be made without running the class's own code: not so for subclasses of builtins."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def bare_tuple(cls: type[Any], items: Iterable[Any]) -> Any:
    """A namedtuple from its items, past a `__new__` of its own."""
    return cast("Any", tuple).__new__(cls, items)
