"""Values from the command line: a workflow's INPUT, the ANSWER to a pause, how long something has been."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux.cli.loading import AnyWorkflow, Refused
from flux.decorators import UNSET
from flux.errors import InvalidInput

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def input_of(workflow: AnyWorkflow, given: str | None) -> Any:
    """The input that was given, UNSET when none was; not yet converted. Raises InvalidInput, Refused."""
    if given is None:
        return UNSET
    faults: list[InvalidInput] = []
    text = text_of(given)
    for candidate in candidates(text):
        try:
            workflow.input.validate(candidate, f"The input of workflow {workflow.name!r}")
        except InvalidInput as exc:
            faults.append(exc)
        else:
            return candidate
    raise _with_hint(faults[0], text)


def candidates(text: str) -> Sequence[Any]:
    """What a text may mean: JSON first, then the text itself."""
    try:
        return [json.loads(text), text]
    except ValueError:
        return [text]


def text_of(given: str) -> str:
    """`-` is what stdin says, `@file` what is in a file. Raises Refused."""
    if given == "-":
        return sys.stdin.read().strip()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).expanduser().read_text("utf-8").strip()
    except OSError as exc:
        raise Refused(f"Cannot read {given[1:]}: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise Refused(f"Cannot read {given[1:]}: it is no text in UTF-8.") from exc


def _with_hint(fault: InvalidInput, text: str) -> InvalidInput:
    """Most of what looks like JSON and is none has lost its quotes to the shell."""
    if not text.startswith(("{", "[")):
        return fault
    try:
        json.loads(text)
    except ValueError as exc:
        said = f"is no JSON: {exc}; put it in single quotes, in a file (@input.json), or on stdin (-)"
        return type(fault)(fault.what, [("", said)])
    return fault


def seconds_of(given: str) -> float:
    """`30d`, `12h`, `90 min`, `45s`. Raises Refused."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", given.lower())
    if found is None or found[2] not in _UNITS:
        raise Refused(f"{given!r} is no length of time: give a number and s, min, h, d or w, such as 30d.")
    return float(found[1]) * _UNITS[found[2]]
