"""Which questions a workflow may ask, found by looking at its code: nothing is run.

From the workflow's function on, every function, task and workflow that it names is looked into, however often removed. What
cannot be seen - a pause chosen by a string, called through a container - is not found; the generic tool still answers it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

from flux.decorators import Task, Workflow
from flux.engine.approval import Approval
from flux.errors import FluxError
from flux.tasks import pause

MOST_FUNCTIONS = 500  # looked into for one workflow

UNKNOWN: Any = object()
"""Stands for the type of an answer that the code does not tell."""

_NEVER_ASK = sys.stdlib_module_names | {"flux", "pydantic", "pydantic_core", "anyio", "mcp", "httpx"}
_TYPE_EXPRESSIONS = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List),
    *(ast.BinOp, ast.BitOr, ast.Load),
)


@dataclass(frozen=True, slots=True)
class Question:
    """One call of `pause`, or of a task that needs approval.

    `name` is None where it is computed; `response` is Any without a type, UNKNOWN where it is computed."""

    name: str | None
    response: Any


def questions_of(workflow: Workflow[Any, Any]) -> list[Question]:
    """What the workflow may ask, in the order the code is read."""
    found: list[Question] = []
    seen: set[CodeType] = set()
    todo: list[Any] = [workflow]
    while todo and len(seen) < MOST_FUNCTIONS:
        thing = todo.pop(0)
        function = _function(thing)
        if function is None or function.__code__ in seen:
            continue
        found += _approvals(thing, function)
        seen.add(function.__code__)
        named = list(_objects_named_by(function))
        if any(each is pause for each in named):
            found += _questions_in(function)
        todo += named
    return found


def named_by(workflow: Workflow[Any, Any]) -> Iterator[Any]:
    """What the workflow's own function names."""
    function = _function(workflow)
    return iter(()) if function is None else _objects_named_by(function)


def _function(thing: Any) -> FunctionType | None:
    """The Python function behind a task, a workflow, a method, a partial; None for what cannot ask."""
    while not isinstance(thing, FunctionType):
        if isinstance(thing, Task | Workflow | partial):
            thing = cast(Any, thing).func
        elif isinstance(thing, MethodType):
            thing = thing.__func__
        else:
            return None
    function = inspect.unwrap(thing)
    is_foreign = (getattr(function, "__module__", None) or "").partition(".")[0] in _NEVER_ASK
    return None if is_foreign or not isinstance(function, FunctionType) else function


# -- what a function names ---------------------------------------------------------------------------------------------


def _objects_named_by(function: FunctionType) -> Iterator[Any]:
    names = dict.fromkeys(_names(function.__code__))
    namespace = _namespace(function)
    for name in names:
        found = namespace.get(name, sys.modules.get(name))
        if found is None:
            continue
        yield from _held(found)
        if isinstance(found, ModuleType | type):
            yield from _attributes(found, names)


def _held(found: Any) -> Iterable[Any]:
    """A list or a dict of steps stands for its steps."""
    if isinstance(found, dict):
        return list(cast("dict[Any, Any]", found).values())[:MOST_FUNCTIONS]
    if isinstance(found, list | tuple):
        return cast("list[Any]", found)[:MOST_FUNCTIONS]
    return (found,)


def _attributes(owner: ModuleType | type, names: Mapping[str, None]) -> Iterator[Any]:
    """Any of the names might be an attribute of the module or class: looking into one too many does no harm."""
    for name in names:
        value: Any = inspect.getattr_static(owner, name, None)
        if isinstance(value, staticmethod | classmethod):
            value = cast(Any, value).__func__
        if isinstance(value, FunctionType | Task | Workflow | ModuleType):
            yield value
        if isinstance(value, ModuleType):  # `flux.tasks.pause`
            yield from (found for each in names if _function(found := vars(value).get(each)) or found is pause)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _namespace(function: FunctionType) -> dict[str, Any]:
    if not function.__closure__:
        return function.__globals__
    return {**function.__globals__, **inspect.getclosurevars(function).nonlocals}


# -- tasks that need approval ------------------------------------------------------------------------------------------


def _approvals(thing: Any, function: FunctionType) -> Iterator[Question]:
    if isinstance(thing, Task):
        try:
            spec = cast("Task[..., Any]", thing).spec
        except FluxError:  # its options are wrong: that is told where it is called
            return
        if spec.approval:
            yield Question(None if "{" in spec.name else f"approval:{spec.name}", Approval)
    if _passes("requires_approval", function.__code__):  # `pay.with_options(requires_approval=True)`
        yield Question(None, Approval)


def _passes(keyword: str, code: CodeType) -> bool:
    """Whether some call in the code has this keyword argument."""
    constants = code.co_consts
    return any(
        _passes(keyword, each) if isinstance(each, CodeType) else isinstance(each, tuple) and keyword in each
        for each in constants
    )


# -- calls of pause ----------------------------------------------------------------------------------------------------


def _questions_in(function: FunctionType) -> list[Question]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # typed into a prompt, made by exec
        return [Question(None, UNKNOWN)]
    namespace = {**_namespace(function), **_imported_inside(tree)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [_question(call, namespace) for call in calls if _value(call.func, namespace) is pause]
    return found or [Question(None, UNKNOWN)]  # named but not called here: passed on, renamed


def _question(call: ast.Call, namespace: Mapping[str, Any]) -> Question:
    name = call.args[0] if call.args else _keyword(call, "name")
    given = _keyword(call, "response")
    is_open = any(keyword.arg is None for keyword in call.keywords)  # **options
    response = (UNKNOWN if is_open else Any) if given is None else _value(given, namespace)
    return Question(name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None, response)


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _value(expression: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """What a name or the expression of a type stands for, UNKNOWN if that cannot be told without running code."""
    if not all(isinstance(node, _TYPE_EXPRESSIONS) for node in ast.walk(expression)):
        return UNKNOWN
    code = compile(ast.Expression(expression), "<a pause's response>", "eval")
    try:
        return eval(code, {"__builtins__": vars(builtins), **namespace})
    except Exception:  # noqa: BLE001 - whatever the user's names do when they are looked up: then it is not known
        return UNKNOWN


def _imported_inside(tree: ast.AST) -> dict[str, Any]:
    """What the function imports for itself, as far as it is loaded."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            module = sys.modules.get(node.module or "")
            found |= {alias.asname or alias.name: getattr(module, alias.name, UNKNOWN) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or name] = sys.modules.get(name, UNKNOWN)
    return found


def is_known(question: Question) -> bool:
    return question.response is not UNKNOWN and question.response is not Any
