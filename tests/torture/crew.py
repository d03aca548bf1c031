"""Worker processes, and how to ill-treat them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Crew:
    def __init__(self, maker: subprocess.Popen[str], size: int, seed: int) -> None:
        self._maker = maker
        self._chance = random.Random(seed)
        self.pids = [self._make() for _ in range(size)]
        self.kills = 0

    def _make(self) -> int:
        assert self._maker.stdin is not None
        assert self._maker.stdout is not None
        self._maker.stdin.write("\n")
        self._maker.stdin.flush()
        return int(self._maker.stdout.readline())

    def kill_one(self) -> None:
        """One of them dies on the spot, and another takes its place."""
        index = self._chance.randrange(len(self.pids))
        os.kill(self.pids[index], signal.SIGKILL)
        self.pids[index] = self._make()
        self.kills += 1

    def signal_one(self, index: int, number: signal.Signals) -> None:
        os.kill(self.pids[index], number)

    def end(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def crew(database: str, ledger: Path, size: int, seed: int = 0) -> Generator[Crew]:
    maker = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.worker", database],
        cwd=ROOT,
        env={**os.environ, "LEDGER": str(ledger)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made: Crew | None = None
    try:
        made = Crew(maker, size, seed)
        yield made
    finally:
        if made is not None:
            made.end()
        maker.kill()
        maker.communicate()
