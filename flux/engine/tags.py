"""What stands in a history in place of a value: text that no value is ever written as, told apart by its tag."""

from __future__ import annotations

import json
from typing import Literal, cast

from flux.domain.calls import Json

Tag = Literal["sealed", "kept", "spilled"]

SEALED: Tag = "sealed"
"""Encrypted: the result of a sensitive task."""
KEPT: Tag = "kept"
"""In the task's own storage, as `storage:reference`."""
SPILLED: Tag = "spilled"
"""In a file beside the database, because it is large."""

REDACTED = "[redacted]"
REDACTED_JSON = Json(json.dumps(REDACTED))

_BEGINNINGS: dict[str, Tag] = {f'{{"$":"{tag}",': tag for tag in (SEALED, KEPT, SPILLED)}


def tagged(tag: Tag, text: str) -> Json:
    return Json(f'{{"$":"{tag}","v":{json.dumps(text)}}}')


def tag_of(value: Json) -> Tag | None:
    if not value.startswith('{"$":"'):
        return None
    return next((tag for beginning, tag in _BEGINNINGS.items() if value.startswith(beginning)), None)


def untagged(tag: Tag, value: Json) -> str:
    """The text that `tagged` was given."""
    assert tag_of(value) == tag
    return cast(str, json.loads(value)["v"])
