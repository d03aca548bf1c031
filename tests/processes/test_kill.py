"""Real processes on a real file, really killed: finished work is never repeated, work in flight at most once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from flux import Flux
from flux.domain.events import CallReturned, CallStarted
from tests.processes.program import asks

PROGRAM = Path(__file__).with_name("program.py")
pytestmark = pytest.mark.anyio


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    monkeypatch.setenv("LEDGER", str(path))
    return path


def spawn(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


def kill_after_lines(
    process: subprocess.Popen[str], ledger: Path, lines: int, pause: float, number: int = signal.SIGKILL
) -> None:
    """A signal once the ledger has so many lines and a moment more has passed."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= lines:
            time.sleep(pause)  # somewhere between two writes: that is the point
            break
    process.send_signal(number)
    process.communicate(timeout=10)


async def finished_before_the_kill(id: str) -> set[str]:
    async with Flux(recover=False) as flux:
        history = await flux.history(id)
    done = {event.call for event in history if isinstance(event, CallReturned)}
    return {
        f"{event.name} {(event.arguments or '').strip('{}').rpartition(':')[2]}"
        for event in history
        if isinstance(event, CallStarted) and event.call in done
    }


@pytest.mark.parametrize(("name", "size"), [("in_a_row", 100), ("at_once", 50)])
@pytest.mark.parametrize("seed", range(3))
async def test_a_killed_run_goes_on_where_it_was(name: str, size: int, seed: int, ledger: Path) -> None:
    chance = random.Random(f"{name}{seed}")
    process = spawn("start", name, "run", str(size))
    kill_after_lines(process, ledger, chance.randrange(1, size - 10), chance.random() * 0.003)
    finished = await finished_before_the_kill("run")

    assert output(spawn("resume", name, "run")).startswith("completed")

    times = Counter(ledger.read_text().splitlines())
    assert len(times) == size
    assert {line for line in finished if times[line] != 1} == set()
    assert max(times.values()) <= 2
    if name == "in_a_row":
        assert sum(times.values()) <= size + 1  # one was in flight, at most


async def test_control_c_leaves_an_execution_that_can_go_on(ledger: Path) -> None:
    process = spawn("start", "in_a_row", "stopped", "1000")
    kill_after_lines(process, ledger, 20, 0.0, number=signal.SIGINT)
    assert process.returncode not in (0, None)
    async with Flux(recover=False) as flux:
        assert (await flux.get("stopped")).is_running
    assert output(spawn("resume", "in_a_row", "stopped")).startswith("completed")
    assert sum(Counter(ledger.read_text().splitlines()).values()) <= 1001


async def test_an_execution_that_was_killed_before_its_first_step_is_not_lost(ledger: Path) -> None:
    process = spawn("start", "asks", "early", "0")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None and not ledger.exists():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    async with Flux(recover=False) as flux:
        assert (await flux.get("early")).input == 0


def test_of_two_processes_that_answer_at_once_exactly_one_goes_on(ledger: Path) -> None:
    with spawn("answer", "asks", "left") as left, spawn("answer", "asks", "right") as right:
        for round in range(40):
            assert asks.run(0, execution_id=f"ask{round}").is_paused
            bad, good = sorted(answered_at_once([left, right], f"ask{round}"))
            assert good in ("completed left", "completed right")
            assert bad in ("NotPaused", "PauseNotFound", "ExecutionFinished")
    assert Counter(ledger.read_text().splitlines()) == {"step 0": 40, "step 1": 40}


def answered_at_once(processes: Sequence[subprocess.Popen[str]], id: str) -> list[str]:
    """What each says."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{id}\n")
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes if process.stdout is not None]
