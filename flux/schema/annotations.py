"""What a workflow's annotations and docstring say, found at run time: the types of its input and output, and their descriptions."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NewType, NotRequired, Required, TypeVar

import typing_extensions

from flux.context import ExecutionContext
from flux.errors import DefinitionError


def input_type(func: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> Any:
    """The T of the first parameter's `ExecutionContext[T]`; Any when it says nothing, NoneType when there is none.

    `localns` are names that `func`'s annotations may use beside those of its module and its closure (`local_types`)."""
    inner = inspect.unwrap(func)
    first = next(iter(_signature(inner).parameters.values()), None)
    if first is None:
        return type(None)
    if first.annotation is first.empty:
        return Any
    annotation = _bare(_resolved(inner, first.annotation, localns))
    if annotation is ExecutionContext or annotation in (Any, object):
        return Any
    if typing.get_origin(annotation) is not ExecutionContext:
        raise DefinitionError(
            f"{_named(inner)}: the first parameter of a workflow is its context. "
            f"Write `{first.name}: ExecutionContext[{said(annotation)}]` and read `{first.name}.input`."
        )
    (declared,) = typing.get_args(annotation)
    return Any if isinstance(declared, TypeVar) else declared


def output_type(func: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> Any:
    """The return annotation; Any when there is none."""
    inner = inspect.unwrap(func)
    annotation = _signature(inner).return_annotation
    return Any if annotation is inspect.Signature.empty else _resolved(inner, annotation, localns)


def parameter_types(func: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The annotation of each parameter; Any where there is none. `localns` as in `input_type`."""
    inner = inspect.unwrap(func)
    return {
        name: Any if parameter.annotation is parameter.empty else _resolved(inner, parameter.annotation, localns)
        for name, parameter in _signature(inner).parameters.items()
    }


def local_types(func: Callable[..., Any], frame: types.FrameType | None) -> dict[str, Any]:
    """The types that the functions around `func` have defined by now, for annotations written as text.

    `frame` is where `func` is being decorated. Only types and modules are kept, so that no data stays alive by this."""
    file = getattr(getattr(inspect.unwrap(func), "__code__", None), "co_filename", None)
    found: dict[str, Any] = {}
    while frame is not None and frame.f_code.co_name != "<module>":
        if frame.f_code.co_filename == file:
            found = {name: value for name, value in frame.f_locals.items() if _is_type(value)} | found
        frame = frame.f_back
    return found


def docstring(target: Callable[..., Any] | type) -> tuple[str, dict[str, str]]:
    """What a docstring says: its description, and a description for each parameter or attribute."""
    described, documented = _parsed(inspect.cleandoc(target.__doc__ or ""))
    return described, dict(documented)


@lru_cache(maxsize=1000)
def _parsed(text: str) -> tuple[str, dict[str, str]]:
    if not text:
        return "", {}
    import docstring_parser  # noqa: PLC0415 - start-up time: where nothing is said there is nothing to read

    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    documented = {param.arg_name: param.description or "" for param in parsed.params}
    return (parsed.description or "").strip(), {name: said for name, said in documented.items() if said}


def portable(annotation: Any, localns: Mapping[str, Any] | None = None) -> Any:
    """The same type without `typing.TypedDict`, which pydantic does not take before Python 3.12."""
    return annotation if sys.version_info >= (3, 12) else _with_twins(annotation, localns, {})


def _with_twins(annotation: Any, localns: Mapping[str, Any] | None, seen: dict[Any, Any]) -> Any:
    if typing.is_typeddict(annotation) and type(annotation).__module__ == "typing":
        if annotation not in seen:
            seen[annotation] = annotation  # a recursive one stays as it is; pydantic says why it cannot be used
            seen[annotation] = _twin(annotation, localns, seen)
        return seen[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is Literal:
        return annotation
    changed = tuple(_with_twins(arg, localns, seen) for arg in args)
    if all(new is old for new, old in zip(changed, args, strict=True)):
        return annotation
    if origin is types.UnionType:
        return typing.Union[changed]  # noqa: UP007 - they are computed
    return origin[changed[0]] if len(changed) == 1 else origin[changed]


def _twin(declared: Any, localns: Mapping[str, Any] | None, seen: dict[Any, Any]) -> Any:
    hints = typing.get_type_hints(declared, localns=dict(localns or {}), include_extras=True)
    fields: dict[str, Any] = {}
    for name, hint in hints.items():
        hint = _with_twins(hint, localns, seen)
        if typing.get_origin(hint) not in (Required, NotRequired):
            hint = Required[hint] if name in declared.__required_keys__ else NotRequired[hint]
        fields[name] = hint
    twin: Any = typing_extensions.TypedDict(declared.__name__, fields)  # pyright: ignore[reportArgumentType] - computed
    twin.__doc__, twin.__module__, twin.__qualname__ = declared.__doc__, declared.__module__, declared.__qualname__
    return twin


def _resolved(func: Callable[..., Any], annotation: Any, localns: Mapping[str, Any] | None) -> Any:
    # ExecutionContext is offered last of all: linters like to move its import under TYPE_CHECKING
    module = {"ExecutionContext": ExecutionContext, **getattr(func, "__globals__", {})}
    known = {**(localns or {}), **_closure(func)}
    carrier = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(carrier, module, known, include_extras=True)["it"]
    except (NameError, AttributeError, SyntaxError, TypeError) as exc:
        raise _unreadable(func, f"the annotation {annotation!r}", exc) from exc


def _signature(func: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(func)
    except NameError as exc:  # from Python 3.14 on annotations are evaluated when they are asked for
        raise _unreadable(func, "its annotations", exc) from exc


def _unreadable(func: Callable[..., Any], what: str, error: Exception) -> DefinitionError:
    return DefinitionError(
        f"{_named(func)}: {what} cannot be read: {error}. The names are needed at run time: "
        "import them outside `if TYPE_CHECKING`, and define them before the workflow."
    )


def _closure(func: Callable[..., Any]) -> dict[str, Any]:
    code, cells = getattr(func, "__code__", None), getattr(func, "__closure__", None) or ()
    found: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars if code else (), cells, strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _is_type(value: Any) -> bool:
    kinds = (type, types.ModuleType, types.UnionType, NewType, TypeVar)
    return isinstance(value, kinds) or typing.get_origin(value) is not None


def _named(func: Callable[..., Any]) -> str:
    return getattr(func, "__qualname__", repr(func))


def said(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
