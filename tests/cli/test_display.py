"""What is told, line by line, where there is no terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flux.cli.display import Lines


@dataclass(frozen=True)
class Told:
    task: str | None
    value: Any = None


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
