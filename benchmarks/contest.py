"""Flux and its peers do the same thing in turn: each in a process and an environment of its own, on empty ground."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from measure import Figure, Skipped

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".venv" / "peers"
FOUND_IN_TIME = 300.0


@dataclass(frozen=True, slots=True)
class Took:
    """What one program said of one workload."""

    count: int
    seconds: float
    p50: float
    peak: float


@dataclass(frozen=True)
class Contestant:
    """A program in `peers/`. `counts` has smaller numbers for what would take it minutes."""

    name: str
    program: str
    package: str
    environment: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def python(self) -> str:
        """The interpreter of its environment; ours has none of its own."""
        if self.environment is None:
            return sys.executable
        python = PEERS / self.environment / "bin" / "python"
        if not python.exists():
            raise Skipped("the peers are not installed: `make bench-peers` does it")
        return str(python)

    @cached_property
    def title(self) -> str:
        """Its name and the version that is measured."""
        asked = f"from importlib.metadata import version; print(version({self.package!r}))"
        return f"{self.name} {subprocess.check_output([self.python, '-c', asked], text=True).strip()}"

    def does(self, workload: str, count: int, place: str) -> Took:
        count = self.counts.get(workload, count)
        command = [self.python, str(HERE / "peers" / self.program), workload, str(count), place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=FOUND_IN_TIME)
        if done.returncode:
            raise RuntimeError(f"{self.title}, {workload}:\n{done.stderr}")
        return Took(count, **json.loads(done.stdout.splitlines()[-1]))


FLUX = Contestant("Flux", "with_flux.py", "flux-mcp-server")
DBOS = Contestant("DBOS", "with_dbos.py", "dbos", "dbos")
LANGGRAPH = Contestant("LangGraph", "with_langgraph.py", "langgraph", "langgraph")
LLAMA = Contestant(
    "llama workflows",
    "with_llama.py",
    "llama-index-workflows",
    "llama",
    counts={"fan": 300, "at_once": 300, "record": 2_000, "replay": 2_000},
)
ABSURD = Contestant("absurd", "with_absurd.py", "absurd-sdk", "absurd")


def rate(name: str, of: Contestant, took: Took) -> Figure:
    return Figure(name, took.count / took.seconds, by=of.title)
