"""JSON Schema made plain for clients: definitions put where they are used, `null` on one level, `enum` for every fixed value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

JsonSchema = dict[str, Any]

_NAMED_SCHEMAS = ("properties", "patternProperties", "dependentSchemas", "$defs")
_LISTED_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE_SCHEMAS = ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")


def inlined(schema: JsonSchema) -> JsonSchema:
    definitions = {f"#/$defs/{name}": value for name, value in schema.get("$defs", {}).items()}
    recursive = {ref for ref in definitions if ref in _reachable(definitions[ref], definitions)}
    root: JsonSchema = {key: value for key, value in schema.items() if key != "$defs"}
    kept: JsonSchema = {}
    if root.get("$ref") in recursive:  # clients want to see at the root that it is an object
        kept = definitions[root.pop("$ref")]
    tidy = _expanded({**kept, **root}, definitions, recursive)
    needed = {
        ref.removeprefix("#/$defs/"): _expanded(definitions[ref], definitions, recursive)
        for ref in sorted(_reachable(tidy, definitions) & recursive)
    }
    return {**tidy, "$defs": needed} if needed else tidy


def _reachable(schema: JsonSchema, definitions: dict[str, JsonSchema]) -> set[str]:
    seen: set[str] = set()
    todo = [schema]
    while todo:
        for ref in _references(todo.pop()):
            if ref not in seen:
                seen.add(ref)
                todo.append(definitions[ref])
    return seen


def _references(node: JsonSchema) -> Iterator[str]:
    if "$ref" in node:
        yield node["$ref"]
    for child in children(node):
        yield from _references(child)


def children(node: JsonSchema) -> Iterator[JsonSchema]:
    for key, value in node.items():
        if key in _NAMED_SCHEMAS:
            yield from value.values()
        elif key in _LISTED_SCHEMAS:
            yield from value
        elif key in _SINGLE_SCHEMAS and isinstance(value, dict):
            yield cast(JsonSchema, value)


def _expanded(node: JsonSchema, definitions: dict[str, JsonSchema], recursive: set[str]) -> JsonSchema:
    ref = node.get("$ref")
    if ref is not None and ref not in recursive:
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _expanded({**definitions[ref], **beside}, definitions, recursive)

    def expand(child: Any) -> Any:
        return _expanded(cast(JsonSchema, child), definitions, recursive) if isinstance(child, dict) else child

    done: JsonSchema = {}
    for key, value in node.items():
        if key in _NAMED_SCHEMAS:
            done[key] = {name: expand(child) for name, child in value.items()}
        elif key in _LISTED_SCHEMAS:
            done[key] = [expand(child) for child in value]
        elif key in _SINGLE_SCHEMAS:
            done[key] = expand(value)
        else:
            done[key] = value
    return _simplified(done)


def _simplified(node: JsonSchema) -> JsonSchema:
    node.pop("discriminator", None)  # OpenAPI's, and it points at definitions that are inline now
    if "const" in node:
        node["enum"] = [node.pop("const")]
    return _flattened(node) if "anyOf" in node else node


def _flattened(node: JsonSchema) -> JsonSchema:
    choices: list[JsonSchema] = []
    for choice in node["anyOf"]:
        for each in choice["anyOf"] if list(choice) == ["anyOf"] else [choice]:
            if each not in choices:
                choices.append(each)
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    given = [choice for choice in choices if choice != {"type": "null"}]
    if len(given) == 1 and len(choices) == 2 and given[0].get("type") in ("string", "integer", "number", "boolean"):
        return {**_nullable(given[0]), **beside}
    return {"anyOf": choices, **beside}


def _nullable(scalar: JsonSchema) -> JsonSchema:
    both = {**scalar, "type": [scalar["type"], "null"]}
    if "enum" in scalar:
        both["enum"] = [*scalar["enum"], None]
    return both
