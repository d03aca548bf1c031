"""What is written, and how: tables and colours for people, plain lines and JSON for pipes.

Results go to stdout. What is said about them (progress, questions, errors, what to do next) goes to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

from rich import box
from rich.console import Console
from rich.json import JSON
from rich.table import Table
from rich.text import Text

from flux.domain.execution import Status

Cell = str | Text

STYLES: dict[str, str] = {
    "running": "blue",
    "queued": "cyan",
    "interrupted": "yellow",
    "paused": "yellow",
    "sleeping": "cyan",
    "suspended": "yellow",
    "completed": "green",
    "done": "green",
    "failed": "red",
    "cancelled": "magenta",
    "waiting": "dim",
}

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def out() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(message: Cell, style: str = "") -> None:
    """A line to the person, not part of the result."""
    err().print(message if isinstance(message, Text) else Text(printable(message), style))


def print_json(value: Any) -> None:
    """For machines: always the same text."""
    sys.stdout.write(f"{json.dumps(value, ensure_ascii=False, indent=2)}\n")


def print_value(value: Any) -> None:
    """A result: a text as it is, anything else as JSON, nothing for None."""
    if isinstance(value, str):
        sys.stdout.write(f"{value}\n")
    elif value is not None:
        if sys.stdout.isatty():
            out().print(JSON(json.dumps(value), ensure_ascii=False))
        else:
            print_json(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, flexible: str = "") -> None:
    """In a terminal a table that fits its width, where the column `flexible` gives way; elsewhere lines with tabs."""
    if not sys.stdout.isatty():
        lines = [columns, *([_plain(cell) for cell in row] for row in rows)]
        sys.stdout.writelines("\t".join(line) + "\n" for line in lines)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True, ratio=1 if column == flexible else None)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    out().print(table)


def print_fields(fields: Sequence[tuple[str, Cell]]) -> None:
    """Names and values, one below the other; a long value goes on below its beginning."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if sys.stdout.isatty():
        for name, value in fields:
            table.add_row(name, value)
        out().print(table)
        return
    sys.stdout.writelines(f"{name}\t{_plain(value)}\n" for name, value in fields)


def status_text(status: str) -> Text:
    return Text(status, STYLES.get(status, ""))


def ending(status: Status) -> tuple[str, str]:
    """A mark and a style for an execution that has come to rest."""
    marks = {Status.COMPLETED: "✓", Status.FAILED: "✗", Status.CANCELLED: "✗", Status.PAUSED: "‖"}
    return marks.get(status, "·"), STYLES[status.value]


def _plain(cell: Cell) -> str:
    return printable(cell.plain if isinstance(cell, Text) else cell).replace("\t", " ").replace("\n", " ")


def printable(text: str) -> str:
    """Values come from anywhere: none of them may move the cursor or colour the screen."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def bounded(text: str, limit: int) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else f"{one_line[: limit - 1]}…"


def compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(stored: str | None) -> Any:
    """A stored value as plain JSON, without its classes: it can be shown where the workflow's code is not at hand."""
    return None if stored is None else _untagged(json.loads(stored))


def _untagged(node: Any) -> Any:
    if isinstance(node, list):
        return [_untagged(each) for each in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    entries = cast("dict[str, Any]", node)
    match entries.get("$"):
        case None:
            return {key: _untagged(value) for key, value in entries.items()}
        case "dict":
            return {compact(_untagged(key)): _untagged(value) for key, value in entries["v"]}
        case "sealed":
            return "[sealed]"
        case "spilled" | "kept":
            return "[kept in a file]"
        case tag:
            return _untagged(entries.get("v", f"[{tag}]"))


# -- time ----------------------------------------------------------------------------------------------------------------


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def local_time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def ago(moment: datetime) -> str:
    """How long ago; pipes get the time itself, which is still true later."""
    if not sys.stdout.isatty():
        return moment.isoformat(timespec="seconds")
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return "now" if seconds < 1 else f"{_rounded(seconds)} ago"


def lasted(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _rounded(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds / size:.0f} {unit}"


# -- commands to go on with ----------------------------------------------------------------------------------------------


def command(*words: str, database: str | None) -> str:
    """A command that the person can copy."""
    return shlex.join(["flux", *words, *(["--database", database] if database is not None else [])])
