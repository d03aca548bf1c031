"""What is told, line by line, where there is no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from flux.cli.display import Bars, Lines


@dataclass(frozen=True)
class Told:
    task: str | None
    value: Any = None
    call: str | None = None


def test_a_sleep_is_told_once_however_often_the_clock_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    first = datetime(2030, 1, 1, tzinfo=UTC)
    for until in (first, first, first, first + timedelta(hours=1), None, None):
        lines.sleeping(until)
    assert capsys.readouterr().err.count("sleeping") == 3


def test_of_progress_by_numbers_every_tenth_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for current in range(100):
        lines.hear(Told("load", {"current": current, "total": 100}))
    lines.hear(Told("load"))
    assert capsys.readouterr().err.splitlines()[-2:] == ["load: 90 of 100", "load finished"]
    for current in range(100):
        lines.hear(Told("load", current / 100))
    assert len(capsys.readouterr().err.splitlines()) == 10


SPOKEN = [
    *({"token": f"{word} "} for word in ("It is a fine day and the box,\nas far as I can see,", *["empty"] * 20)),
    {"type": "tool_start", "tool": "look"},
    {"type": "tool_done", "tool": "look"},
    {"reasoning": "Hm."},
]


def test_what_an_agent_says_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for value in (*SPOKEN, None):
        lines.hear(Told("writer", value, "1"))
    first, second, rest, *others = capsys.readouterr().err.splitlines()
    assert first == "writer: It is a fine day and the box,"
    assert second == "writer: as far as I can see, empty empty empty empty empty empty empty empty empty empty"
    assert rest == "writer: " + "empty " * 9 + "empty"
    assert others == ["writer: calls look", "writer: has called look", "writer: thinks: Hm.", "writer finished"]


def test_concurrent_agents_of_one_name_do_not_talk_into_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for call in ("1", "2"):
        lines.hear(Told("writer", {"token": f"I am {call}"}, call))
    for call in ("1", "2"):
        lines.hear(Told("writer", {"token": f" of 2 ({call})"}, call))
        lines.hear(Told("writer", None, call))
    said = [line for line in capsys.readouterr().err.splitlines() if "finished" not in line]
    assert said == ["writer: I am 1 of 2 (1)", "writer: I am 2 of 2 (2)"]


def test_concurrent_calls_of_one_task_have_a_bar_each() -> None:
    bars = Bars("flow")
    for call, value in (("1", 0.2), ("2", 0.4), ("1", 0.3), ("3", 0.9), ("3", None)):
        bars.hear(Told("load", value, call))
    for word in ("It ", "is ", "a\n", "fine day."):
        bars.hear(Told("writer", {"token": word}, "4"))
    console = Console(width=120, record=True, file=StringIO())
    console.print(bars.renderable())
    shown = console.export_text()
    assert [line.split()[-1] for line in shown.splitlines() if "load" in line] == ["30%", "40%"]
    assert "It is a fine day." in shown
