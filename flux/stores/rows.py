"""A fact as a row, and back, exactly.

The one big JSON value of a fact (a result, an input, an answer) has a column of its own and is stored as the codec wrote
it; the small rest is a JSON object. A row read back is `[seq, kind, at, call, value, facts]`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any

from flux.domain import events as facts
from flux.domain.calls import Failure
from flux.domain.events import Event
from flux.errors import StoreError

Row = tuple[int, str, str | None, str | None, str | None]
"""kind, at, call, value, facts."""

FIRST_JOURNAL_KIND = 50
"""Kinds below are lifecycle facts. The partial index in migrations/ says the same number."""

_KINDS: dict[type[Event], tuple[int, str | None]] = {
    # the number in the `kind` column, and the field that has the `value` column; a number is never used again
    facts.ExecutionStarted: (1, "input"),
    facts.ExecutionRecovered: (2, None),
    facts.ExecutionParked: (3, None),
    facts.SuspendRequested: (4, None),
    facts.ExecutionSuspended: (5, None),
    facts.ExecutionResumed: (6, None),
    facts.CancelRequested: (7, None),
    facts.ExecutionCompleted: (8, "output"),
    facts.ExecutionFailed: (9, None),
    facts.ExecutionCancelled: (10, None),
    facts.PauseOpened: (11, "output"),
    facts.PauseAnswered: (12, "answer"),
    facts.PauseExpired: (13, None),
    facts.CallStarted: (50, "arguments"),
    facts.CallReturned: (51, "value"),
    facts.CallRaised: (52, None),
    facts.CallCancelled: (53, None),
    facts.AttemptFailed: (54, None),
    facts.TimerSet: (55, None),
    facts.CallNoted: (56, "note"),
}

_to_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields of one type of fact go. `small` pairs a field with its default, which is not written."""

    type: type[Event]
    kind: int
    value: str | None
    has_call: bool
    small: tuple[tuple[str, Any], ...]


def _layout(type_: type[Event], kind: int, value: str | None) -> _Layout:
    fields = dataclasses.fields(type_)
    small = tuple((field.name, field.default) for field in fields if field.name not in ("at", "call", value))
    return _Layout(type_, kind, value, any(field.name == "call" for field in fields), small)


_BY_TYPE = {type_: _layout(type_, kind, value) for type_, (kind, value) in _KINDS.items()}
_BY_KIND = {layout.kind: layout for layout in _BY_TYPE.values()}


def to_row(event: Event) -> Row:
    layout = _BY_TYPE[type(event)]
    at = event.at
    call: str | None = getattr(event, "call") if layout.has_call else None  # noqa: B009 - only some facts have one
    value: str | None = getattr(event, layout.value) if layout.value else None
    for text in (call, value):
        if text and not text.isascii():
            storable(text, f"a {layout.type.__name__}")
    small = [
        f'"{name}":{_small_to_json(field)}'
        for name, default in layout.small
        if (field := getattr(event, name)) != default
    ]
    return (
        layout.kind,
        repr(at) if isfinite(at) else _to_json(at),
        call,
        value,
        f"{{{','.join(small)}}}" if small else None,
    )


def _small_to_json(field: object) -> str:
    if isinstance(field, str):
        return encode_basestring_ascii(field)  # nearly all of them, at a fifth of the price
    return _to_json(_failure_to_dict(field) if isinstance(field, Failure) else field)


def to_rows(events: Sequence[Event]) -> list[Row]:
    return [to_row(event) for event in events]


def is_lifecycle(row: Row) -> bool:
    return row[0] < FIRST_JOURNAL_KIND


def from_row(row: Sequence[Any]) -> Event:
    _seq, kind, at, call, value, fields = row
    layout = _BY_KIND.get(kind)
    if layout is None:
        raise StoreError(f"The database holds a fact of kind {kind}, which this Flux does not know. Upgrade Flux.")
    fields["at"] = at
    if layout.has_call:
        fields["call"] = call
    if layout.value:
        fields[layout.value] = value
    for name in ("children", "forget"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if "error" in fields:
        fields["error"] = _failure_from_dict(fields["error"])
    return layout.type(**fields)


def from_json_row(row: Sequence[Any]) -> Event:
    """An event from the row that `to_row` made of it, after a way through JSON."""
    kind, at, call, value, facts = row
    return from_row((0, kind, float(at), call, value, json.loads(facts or "{}")))


def storable(text: str, what: str) -> None:
    """Text goes to the database as UTF-8, which has no lone surrogates, and without NUL. JSON writes both as escapes."""
    if "\0" in text:
        raise StoreError(f"The text of {what} holds a NUL character: it cannot be stored.")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise StoreError(f"The text of {what} holds a lone surrogate ({exc.reason}): it cannot be stored.") from exc


def _failure_to_dict(failure: Failure) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": failure.type, "message": failure.message}
    if failure.args:
        fields["args"] = failure.args
    if failure.rebuilt:
        fields["rebuilt"] = True
    if failure.traceback:
        fields["traceback"] = failure.traceback
    if failure.cause is not None:
        fields["cause"] = _failure_to_dict(failure.cause)
    return fields


def _failure_from_dict(fields: dict[str, Any]) -> Failure:
    cause = fields.get("cause")
    if cause is not None:
        fields["cause"] = _failure_from_dict(cause)
    return Failure(**fields)
