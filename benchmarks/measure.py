"""What every benchmark here is made of: rounds of figures, their medians, and how these are told.

A benchmark is a function that measures everything once, baseline and all, in an empty folder, and `rounds` of it:

    def one_round(folder: Path) -> list[Figure]:
        raw = Figure("raw sqlite3 commits", sqlite_commits(folder))
        return [raw, Figure("steps in a row", steps_in_a_row(folder), of=raw.name)]

    if __name__ == "__main__":
        rounds("The engine on a file", one_round)

The script then takes `[FOLDER] [--rounds N] [--json]`: a folder on the disk to measure, and JSON for `report.py` instead of a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

Unit = Literal["/s", "s", "ms", "MiB", "bytes", "times"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one round. `of` names the figure of the same round that it is compared with.

    Figures of several contestants have the same name, and say in `by` whose they are: they are told side by side.
    """

    name: str
    value: float
    unit: Unit = "/s"
    of: str | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of all rounds."""

    name: str
    unit: Unit
    of: str | None
    by: str
    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one benchmark found, or why it measured nothing."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list[str])
    skipped: str | None = None

    def ratio(self, row: Row) -> float | None:
        """What part of its baseline a row is."""
        base = next((base for base in self.rows if base.name == row.of), None)
        return base and row.median / base.median


class Skipped(Exception):
    """A round cannot be measured on this machine; the message says what is missing."""


Round = Callable[[Path], Sequence[Figure]]


def rounds(title: str, one_round: Round, *, count: int = 3, notes: Sequence[str] = ()) -> None:
    """The whole of a benchmark's script."""
    options = argparse.ArgumentParser(description=title)
    options.add_argument("folder", nargs="?", default=".", help="where to write: its disk is the one measured")
    options.add_argument("--rounds", type=int, default=count)
    options.add_argument("--json", action="store_true", help="the figures of every round, for programs")
    asked = options.parse_args()
    measured = Measured(title, [], list(notes))
    try:
        measured.rows.extend(measure(one_round, count=asked.rounds, folder=asked.folder))
    except Skipped as exc:
        measured = Measured(title, [], skipped=str(exc))
    print(json.dumps(asdict(measured)) if asked.json else as_text(measured))


def measure(one_round: Round, *, count: int, folder: str) -> Iterable[Row]:
    found: dict[tuple[str, str], Row] = {}
    for _ in range(count):
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as empty:
            for each in one_round(Path(empty).resolve()):
                new = Row(each.name, each.unit, each.of, each.by, [])
                found.setdefault((each.name, each.by), new).values.append(each.value)
    return found.values()


def from_json(text: str) -> Measured:
    """What a script printed under `--json`."""
    found = json.loads(text)
    return Measured(found["title"], [Row(**row) for row in found["rows"]], found["notes"], found["skipped"])


def as_text(measured: Measured) -> str:
    """The table for a terminal: that of the report, in columns."""
    if measured.skipped:
        return f"Skipped: {measured.skipped}"
    head, *body = cells(measured)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in (head, *body)
    ]
    return "\n".join([*lines, *measured.notes])


def as_markdown(measured: Measured) -> str:
    if measured.skipped:
        return f"Skipped: {measured.skipped}"
    head, *body = cells(measured)
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    return "\n".join(["\n".join(lines), *measured.notes])


def cells(measured: Measured) -> list[list[str]]:
    """A table, its head first."""
    if any(row.by for row in measured.rows):
        return side_by_side(measured.rows)
    return [
        ["", "median", "beside its baseline"],
        *[[row.name, amount(row), beside(measured, row)] for row in measured.rows],
    ]


def side_by_side(rows: Sequence[Row]) -> list[list[str]]:
    """A line for each name, a column for each contestant."""
    names, contestants = dict.fromkeys(row.name for row in rows), dict.fromkeys(row.by for row in rows)
    found = {(row.name, row.by): amount(row) for row in rows}
    return [["", *contestants], *[[name, *[found.get((name, by), "") for by in contestants]] for name in names]]


def amount(row: Row) -> str:
    return f"{number(row.median)} {row.unit}"


def beside(measured: Measured, row: Row) -> str:
    ratio = measured.ratio(row)
    return "" if ratio is None else f"{number(ratio)} of {row.of}"


def number(value: float) -> str:
    """Three digits that count, and none that a second run would change."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 1 else f"{value:.3g}".rstrip(".")
