"""Asking a person in a terminal for a value that fits a JSON Schema: a pause's answer, a workflow's input."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jsonschema
from rich.text import Text

from flux.cli import screen
from flux.cli.views import type_words
from flux.context import OpenPause
from flux.schema import to_json_value

Schema = Mapping[str, Any]

_YES, _NO = ("y", "yes", "true"), ("n", "no", "false")
_LEFT_OUT = object()
_SCALARS = ("string", "number", "integer", "boolean", "null")


class _Unfit(Exception):
    """The text is no such value; says why."""


def ask(pause: OpenPause) -> Any:
    """The answer to a pause. Raises KeyboardInterrupt, EOFError when the person will not say."""
    screen.say(Text.assemble(("? ", "yellow"), (screen.printable(pause.message or pause.name), "bold")))
    if pause.output is not None:
        shown = to_json_value(pause.output)
        text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, indent=2)
        screen.say(text, "dim")
    return ask_for(pause.schema or {}, pause.name)


def ask_for(schema: Schema, name: str) -> Any:
    """An object is asked for field by field, anything else as one value."""
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if schema.get("type") != "object" or not properties:
        return _ask_value(schema, name, required=True)
    required = schema.get("required", ())
    answers = {field: _ask_value(of, field, required=field in required) for field, of in properties.items()}
    return {field: answer for field, answer in answers.items() if answer is not _LEFT_OUT}


def _ask_value(schema: Schema, name: str, *, required: bool) -> Any:
    choices: Sequence[Any] = schema.get("enum", ())
    if schema.get("description"):
        screen.say(f"  {schema['description']}", "dim")
    for number, choice in enumerate(choices, 1):
        screen.say(f"  {number}. {screen.compact(choice)}")
    while True:
        text = screen.err().input(_prompt(schema, name, required=required)).strip()
        try:
            if not text and not (required and _takes_text(schema)):
                return _nothing(schema, required=required)
            return _checked(_read(schema, text), schema)
        except _Unfit as exc:
            screen.say(f"  {exc}", "red")


def _prompt(schema: Schema, name: str, *, required: bool) -> Text:
    prompt = Text.assemble((f"  {screen.printable(name)}", "bold"), (f" ({_hint(schema)})", "dim"))
    if "default" in schema:
        prompt.append(f" [{screen.bounded(screen.compact(schema['default']), 40)}]", "cyan")
    elif not required:
        prompt.append(" [leave out]", "cyan")
    return prompt.append(": ")


def _hint(schema: Schema) -> str:
    if schema.get("enum"):
        return f"1-{len(schema['enum'])}"
    if "boolean" in _types(schema):
        return "y/n"
    words = screen.bounded(type_words(schema), 80)
    return words if _is_scalar(schema) else f"JSON: {words}"


def _nothing(schema: Schema, *, required: bool) -> Any:
    """What an empty line means."""
    if not required:
        return _LEFT_OUT
    if "default" in schema:
        return schema["default"]
    if "null" in _types(schema) or not schema:
        return None
    raise _Unfit("This is needed.")


def _read(schema: Schema, text: str) -> Any:
    choices: Sequence[Any] = schema.get("enum", ())
    if choices:
        return _chosen(choices, text)
    types = _types(schema)
    if "boolean" in types and text.lower() in _YES + _NO:
        return text.lower() in _YES
    if _takes_text(schema) and not set(types) & {"number", "integer", "boolean", "object", "array"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        if not types or "string" in types:
            return text
        raise _Unfit(f"This should be {_said(schema)}.") from None


def _chosen(choices: Sequence[Any], text: str) -> Any:
    for choice in choices:
        if text == screen.compact(choice):
            return choice
    if text.isdecimal() and 1 <= int(text) <= len(choices):
        return choices[int(text) - 1]
    raise _Unfit(f"Give one of the choices, or its number, 1 to {len(choices)}.")


def _checked(value: Any, schema: Schema) -> Any:
    validator: Any = jsonschema.Draft202012Validator(dict(schema))
    try:
        found = next(iter(validator.iter_errors(value)), None)
    except Exception:  # noqa: BLE001 - a reference to a definition elsewhere; the engine checks the whole answer
        return value
    if found is not None:
        raise _Unfit(f"This should be {_said(schema)}." if found.validator == "type" else f"{found.message}.")
    return value


def _said(schema: Schema) -> str:
    return "y or n" if _types(schema) == ["boolean"] else type_words(schema)


def _types(schema: Schema) -> list[str]:
    named: str | list[str] = schema.get("type", [])
    if named:
        return [named] if isinstance(named, str) else named
    return [name for choice in cast("list[Schema]", schema.get("anyOf", [])) for name in _types(choice)]


def _takes_text(schema: Schema) -> bool:
    return "string" in _types(schema)


def _is_scalar(schema: Schema) -> bool:
    return all(name in _SCALARS for name in _types(schema))
