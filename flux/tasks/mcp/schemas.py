"""JSON Schemas of other people: checked against, never trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

import jsonschema
import jsonschema.exceptions
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

MOST_FAULTS = 10

_NO_OTHER_DOCUMENTS: Any = cast(Any, Registry)()


def faults_in(value: Any, schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and why `value` does not fit, as (path, message); nothing for a schema that is itself none.

    A reference to another document is not followed."""
    chosen: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        errors = list(chosen(schema, registry=_NO_OTHER_DOCUMENTS).iter_errors(value))
    except (jsonschema.SchemaError, Unresolvable, TypeError, ValueError, AttributeError, RecursionError):
        return []
    return [_fault(error) for error in errors[:MOST_FAULTS]]


def _fault(error: Any) -> tuple[str, str]:
    if error.context and error.validator in ("anyOf", "oneOf"):
        best: Any = cast(Any, jsonschema.exceptions).best_match(
            error.context
        )  # of the alternatives, the one that was meant
        error = best if best is not None and len(best.absolute_path) > len(error.absolute_path) else error
    steps: list[str | int] = list(error.absolute_path)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    message = str(error.message)
    return path.lstrip("."), message if len(message) <= 300 else f"{message[:300]} ..."


def digest_of(*schemas: Any) -> str:
    text = json.dumps(schemas, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def properties_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: Any = schema.get("properties")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def required_of(schema: Mapping[str, Any]) -> list[str]:
    found: Any = schema.get("required")
    return cast("list[str]", found) if isinstance(found, list) else []


def is_closed(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False
