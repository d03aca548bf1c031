"""From Python annotations to checked values and JSON Schema: the one room that knows how pydantic is asked.

What a workflow's annotations say is found with `input_type` and `output_type`; a `ValueType` checks and converts values;
`input_schema`, `output_schema` and `json_schema` describe them to clients; `to_json_value` shows a value as such a client
sees it.
"""

from __future__ import annotations

import base64
import difflib
import inspect
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python

from flux.errors import DefinitionError, InvalidInput
from flux.schema.annotations import docstring, input_type, local_types, output_type, parameter_types, portable, said
from flux.schema.faults import ABSENT, described, faults_of, still_wrong, with_texts_read
from flux.schema.inlining import JsonSchema, children, inlined

__all__ = [
    "InputSchema",
    "JsonSchema",
    "ValueType",
    "docstring",
    "input_schema",
    "input_type",
    "json_schema",
    "local_types",
    "object_with",
    "output_schema",
    "output_type",
    "parameter_types",
    "to_json_value",
    "value_type",
]

Mode = Literal["validation", "serialization"]

WRAPPED = "input"
"""The one argument of a workflow whose input is no object with named properties."""


class ValueType:
    """One annotation, able to check and convert values. Nothing is built before it is needed."""

    def __init__(self, annotation: Any, localns: Mapping[str, Any] | None = None) -> None:
        self.annotation = annotation
        self._localns = localns
        self._schemas: dict[Mode, JsonSchema] = {}

    def __repr__(self) -> str:
        return f"ValueType({said(self.annotation)})"

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        try:
            adapter = _adapter(portable(self.annotation, self._localns))
            adapter.rebuild(_types_namespace=dict(self._localns or {}))
        except (PydanticUserError, NameError) as exc:
            raise DefinitionError(f"{said(self.annotation)} cannot be used as a type: {exc}") from exc
        return adapter

    def validate(self, value: Any, what: str, *, at: str = "", error: type[InvalidInput] = InvalidInput) -> Any:
        """`value` as the annotation has it: instances stay, JSON is converted. Raises `error`, which names every fault.

        A text where no text is allowed is tried once more as JSON, since some clients send objects that way.
        `what` names the value, `at` is put before the path of each fault."""
        try:
            return self.adapter.validate_python(value)
        except ValidationError as exc:
            faults = faults_of(value, exc)
        repaired = with_texts_read(value, faults)
        if repaired is not ABSENT:
            try:
                return self.adapter.validate_python(repaired)
            except ValidationError as exc:
                faults = still_wrong(faults, faults_of(repaired, exc))
        raise error(what, described(faults, at=at, hide=self._holds_secrets))

    def json_schema(self, mode: Mode = "validation") -> JsonSchema:
        """The caller's own, to be changed at will."""
        if mode not in self._schemas:
            self._schemas[mode] = self._generated(mode)
        return deepcopy(self._schemas[mode])

    def _generated(self, mode: Mode) -> JsonSchema:
        try:
            generated = self.adapter.json_schema(mode=mode, schema_generator=_Generator)
        except PydanticUserError as exc:
            raise DefinitionError(f"{said(self.annotation)} has no JSON Schema: {exc}") from exc
        return inlined(generated)

    def to_json_value(self, value: Any) -> Any:
        """As the serialization schema says. See `to_json_value`."""
        try:
            # only in "python" mode are bytes left for us to write as base64
            mode = "python" if self._holds_bytes else "json"
            dumped = self.adapter.dump_python(value, mode=mode, by_alias=True, fallback=_as_text, warnings=False)
        except (PydanticSerializationError, UnicodeDecodeError, ValueError, TypeError):
            dumped = value  # a value that is not what was declared is still shown
        return _jsonable(dumped)

    @cached_property
    def admits_none(self) -> bool:
        try:
            self.adapter.validate_python(None)
        except ValidationError:
            return False
        return True

    @cached_property
    def _holds_secrets(self) -> bool:
        return _mentions(self.json_schema(), "format", "password")

    @cached_property
    def _holds_bytes(self) -> bool:
        return _mentions(self.json_schema("serialization"), "format", "base64url")


def to_json_value(value: Any, annotation: Any = Any) -> Any:
    """`value` as JSON, by alias, the way `output_schema(annotation)` describes it.

    For showing, not for storing: bytes become URL-safe base64, NaN and infinities null, the unknown its `str()`."""
    return _jsonable(value) if annotation is Any else value_type(annotation).to_json_value(value)


def value_type(annotation: Any, localns: Mapping[str, Any] | None = None) -> ValueType:
    """The ValueType of an annotation, which may be one already. Those who have the same annotation share it: to build one takes
    milliseconds, and a server has a thousand of them."""
    if isinstance(annotation, ValueType):
        return annotation
    if localns:
        return ValueType(annotation, localns)
    try:
        return _shared(annotation, repr(annotation))  # for `int | str` is equal to `str | int`, and has another meaning
    except TypeError:  # it cannot be hashed
        return ValueType(annotation)


@lru_cache(maxsize=2048)
def _shared(annotation: Any, _spelled: str) -> ValueType:
    return ValueType(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, ser_json_bytes="base64"))
    except PydanticUserError as exc:
        if exc.code != "type-adapter-config-unused":  # a model, dataclass or TypedDict brings its own
            raise
        return TypeAdapter(annotation)


def _jsonable(value: Any) -> Any:
    try:
        return to_jsonable_python(value, by_alias=True, bytes_mode="base64", inf_nan_mode="null", fallback=_as_text)
    except (PydanticSerializationError, UnicodeDecodeError, ValueError):
        return _as_text(value)  # cyclic values, models that write their bytes as text


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.urlsafe_b64encode(value).decode()
    return str(value)


def _mentions(node: Any, key: str, value: str) -> bool:
    if isinstance(node, dict):
        entries = cast(dict[str, Any], node)
        return entries.get(key) == value or any(_mentions(child, key, value) for child in entries.values())
    return isinstance(node, list) and any(_mentions(child, key, value) for child in cast(list[Any], node))


def json_schema(annotation: Any, mode: Mode = "validation") -> JsonSchema:
    """JSON Schema 2020-12 as clients like it: everything inline but true recursion, `null` on one level, no made-up titles.

    `annotation` may be a ValueType."""
    return value_type(annotation).json_schema(mode)


class InputSchema(NamedTuple):
    """How a workflow's input looks as the arguments of a tool.

    An object with named properties (model, dataclass, TypedDict) gives its own properties. Anything else, `dict[str, X]` too
    as it has no names to offer, is `wrapped` as the one property `input`, optional where None is allowed. No input, no properties."""

    schema: JsonSchema
    wrapped: bool

    @property
    def path(self) -> str:
        """Where the input stands among the arguments: for `ValueType.validate(..., at=...)`."""
        return WRAPPED if self.wrapped and self.names else ""

    @property
    def names(self) -> list[str]:
        return list(self.schema.get("properties", {}))

    def unwrap(self, arguments: Mapping[str, Any], what: str) -> Any:
        """The input, not yet validated. Raises InvalidInput for arguments that nobody would read."""
        faults = [(name, self._unknown(name)) for name in arguments if name not in self.names and not self._open]
        if self.wrapped and WRAPPED not in arguments and WRAPPED in self.schema.get("required", ()):
            faults.append((WRAPPED, "is required"))
        if faults:
            raise InvalidInput(what, faults)
        return arguments.get(WRAPPED) if self.wrapped else dict(arguments)

    def wrap(self, value: Any) -> dict[str, Any]:
        """The arguments that stand for an input which is JSON already (`to_json_value`)."""
        if not self.wrapped:
            return dict(value)
        return {WRAPPED: value} if self.names else {}

    @property
    def _open(self) -> bool:
        return self.schema.get("additionalProperties", False) is not False or "patternProperties" in self.schema

    def _unknown(self, name: str) -> str:
        known = ", ".join(self.names) or "none"
        near = difflib.get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"is not an argument; known: {known}{hint}"


def input_schema(annotation: Any) -> InputSchema:
    """The arguments by which a workflow with this input is called. `annotation` may be a ValueType."""
    declared = value_type(annotation)
    if declared.annotation in (None, type(None)):
        return InputSchema({"type": "object", "properties": {}, "additionalProperties": False}, True)
    schema = declared.json_schema()
    if schema.get("type") == "object" and "properties" in schema:
        return InputSchema(schema, False)
    if not schema:
        schema = {"description": "The workflow's input: any JSON value."}
    return InputSchema(object_with(WRAPPED, schema, required=not declared.admits_none), True)


def output_schema(annotation: Any) -> JsonSchema | None:
    """What `to_json_value` makes of a workflow's output; None when its return annotation promises nothing."""
    declared = value_type(annotation)
    if declared.annotation in (Any, object, None, type(None)):
        return None
    return declared.json_schema("serialization") or None


def object_with(name: str, schema: JsonSchema, *, required: bool = True) -> JsonSchema:
    """The schema of an object whose only property is `name`. Recursive definitions stay at the root, where references look."""
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer: JsonSchema = {"type": "object", "properties": {name: inner}, "additionalProperties": False}
    if required:
        outer["required"] = [name]
    if "$defs" in schema:
        outer["$defs"] = schema["$defs"]
    return outer


class _Generator(GenerateJsonSchema):
    """pydantic's, without the titles it makes up, with the descriptions that docstrings hold."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - the base class has it so

    @cached_property
    def _enums(self) -> set[str]:
        return set()

    def generate(self, schema: core_schema.CoreSchema, mode: Mode = "validation") -> JsonSchema:
        generated = super().generate(schema, mode)
        self._drop_enum_titles(generated)  # pydantic writes them last of all
        return generated

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchema:
        return {}  # a class only Python knows: clients can be told nothing about it

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchema:
        # a text that comes in is taken as it is; pydantic has `Base64Bytes` for more
        return {**super().bytes_schema(schema), "format": "base64url" if self.mode == "serialization" else "binary"}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchema:
        return _documented(super().model_schema(schema), schema["cls"])

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchema:
        return _documented(super().dataclass_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchema:
        generated = super().typed_dict_schema(schema)
        declared = schema.get("cls")
        return generated if declared is None else _documented(generated, declared)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchema:
        self._enums.add(schema["cls"].__name__)
        return super().enum_schema(schema)

    def _drop_enum_titles(self, node: JsonSchema) -> None:
        if "enum" in node and node.get("title") in self._enums:
            del node["title"]
        for child in children(node):
            self._drop_enum_titles(child)


def _documented(schema: JsonSchema, cls: type) -> JsonSchema:
    config: Mapping[str, Any] = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None) or {}
    if schema.get("title") == cls.__name__ and not config.get("title"):
        del schema["title"]
    described, attributes = _class_docs(cls)
    if schema.get("description") == inspect.cleandoc(cls.__doc__ or ""):
        schema.pop("description", None)
        if described:
            schema["description"] = described
    names = {_alias(field): name for name, field in getattr(cls, "model_fields", {}).items()}
    for key, declared in schema.get("properties", {}).items():
        said = attributes.get(names.get(key, key)) or attributes.get(key)
        if said and "description" not in declared:
            declared["description"] = said
    return schema


def _class_docs(cls: type) -> tuple[str, dict[str, str]]:
    described, attributes = "", dict[str, str]()
    for base in reversed(cls.__mro__[:-1]):
        described, own = docstring(base)
        attributes |= own
    return described, attributes


def _alias(field: Any) -> Any:
    return field.alias if isinstance(field.alias, str) else field.validation_alias
