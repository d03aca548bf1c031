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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

Unit = Literal["/s", "s", "ms", "MiB", "bytes", "times"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of one round. `of` names the figure of the same round that it is compared with."""

    name: str
    value: float
    unit: Unit = "/s"
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of all rounds."""

    name: str
    unit: Unit
    of: str | None
    values: list[float]

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one benchmark found, or why it measured nothing."""

    title: str
    rows: list[Row]
    skipped: str | None = None

    def ratio(self, row: Row) -> float | None:
        """What part of its baseline a row is."""
        base = next((base for base in self.rows if base.name == row.of), None)
        return base and row.median / base.median


class Skipped(Exception):
    """A round cannot be measured on this machine; the message says what is missing."""


def rounds(title: str, one_round: Callable[[Path], Sequence[Figure]], *, count: int = 3) -> None:
    """The whole of a benchmark's script."""
    options = argparse.ArgumentParser(description=title)
    options.add_argument("folder", nargs="?", default=".", help="where to write: its disk is the one measured")
    options.add_argument("--rounds", type=int, default=count)
    options.add_argument("--json", action="store_true", help="the figures of every round, for programs")
    asked = options.parse_args()
    measured = measure(title, one_round, count=asked.rounds, folder=asked.folder)
    print(json.dumps(asdict(measured)) if asked.json else as_text(measured))


def measure(title: str, one_round: Callable[[Path], Sequence[Figure]], *, count: int, folder: str) -> Measured:
    found: dict[str, Row] = {}
    for _ in range(count):
        with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as empty:
            try:
                figures = one_round(Path(empty).resolve())
            except Skipped as exc:
                return Measured(title, [], skipped=str(exc))
        for each in figures:
            found.setdefault(each.name, Row(each.name, each.unit, each.of, [])).values.append(each.value)
    return Measured(title, list(found.values()))


def from_json(text: str) -> Measured:
    """What a script printed under `--json`."""
    found = json.loads(text)
    return Measured(found["title"], [Row(**row) for row in found["rows"]], found["skipped"])


def as_text(measured: Measured) -> str:
    lines = [f"{row.name:44} {amount(row):>14} {beside(measured, row)}".rstrip() for row in measured.rows]
    return f"Skipped: {measured.skipped}" if measured.skipped else "\n".join(lines)


def as_markdown(measured: Measured) -> str:
    if measured.skipped:
        return f"Skipped: {measured.skipped}"
    lines = [f"| {row.name} | {amount(row)} | {beside(measured, row)} |" for row in measured.rows]
    return "\n".join(["| | median | beside |", "|---|---:|---|", *lines])


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
