"""What a person sees who types in a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from flux.errors import FluxError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is needed"),
    pytest.mark.usefixtures("folder"),
]


class Terminal:
    """A process in a terminal of its own: what it shows, and what is typed."""

    def __init__(self, *arguments: str) -> None:
        self._own, other = pty.openpty()
        self.shown = ""
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flux.cli", *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)

    def until(self, text: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() > deadline or not select.select([self._own], [], [], seconds)[0]:
                raise FluxError(f"{text!r} is not shown: {self.shown}")
            self._read()

    def type(self, text: str) -> None:
        os.write(self._own, f"{text}\n".encode())

    def end(self) -> int:
        while self.process.poll() is None and select.select([self._own], [], [], 20)[0]:
            if not self._read():
                break
        return self.process.wait(timeout=20)

    def _read(self) -> bool:
        try:
            piece = os.read(self._own, 65536)
        except OSError:  # the other side has been closed
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)


def test_a_pause_is_asked_field_by_field_and_asked_again_when_the_answer_does_not_fit() -> None:
    terminal = Terminal("run", "flows.py:asks")
    terminal.until("agreed")
    terminal.type("perhaps")
    terminal.until("agreed", seconds=20)
    terminal.type("yes")
    terminal.until("size")
    terminal.type("large")
    assert terminal.end() == 0
    assert '"large"' in terminal.shown


def test_control_c_at_a_question_leaves_it_open_and_says_how_to_go_on() -> None:
    terminal = Terminal("run", "flows.py:asks", "--id", "mine")
    terminal.until("agreed")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() in (3, 130)
    assert "flux resume mine" in terminal.shown


def test_an_input_that_its_type_refuses_is_asked_for_again() -> None:
    terminal = Terminal("run", "flows.py:weighed")
    terminal.until("kilos")
    terminal.type("heavy")
    terminal.until("does not fit")
    terminal.type("2.5")
    assert terminal.end() == 0
    assert "2.50 kg" in terminal.shown


def test_prune_asks_and_no_is_the_default() -> None:
    first = Terminal("run", "flows.py:greet", "Ada", "--id", "one")
    assert first.end() == 0
    terminal = Terminal("prune", "--older-than", "0s")
    terminal.until("[y/N]")
    terminal.type("")
    assert terminal.end() == 0
    assert "Nothing is deleted" in terminal.shown
