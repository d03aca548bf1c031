"""PostgreSQL servers of a test's own, made from the machine's binaries, to be stopped, frozen and lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest


def binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    elsewhere = shutil.which("initdb")
    if not found and elsewhere is None:
        pytest.skip("There is no initdb on this machine: install PostgreSQL's server to run this.")
    return found[-1] if found else Path(elsewhere or "").parent


class Server:
    """One server on a port of its own. PostgreSQL refuses to run as root, so then it runs as the user postgres."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def run(self, program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        user = "postgres" if os.geteuid() == 0 else None
        with (self._folder / f"{program}.log").open("wb") as log:
            subprocess.run(
                command, user=user, group=user, check=True, stdout=log, stderr=log, cwd=self._folder, timeout=60
            )

    def make(self) -> None:
        self.run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync")

    def copy(self, other: Server) -> None:
        """Become a standby of another server."""
        self.run(
            "pg_basebackup", "-D", str(self._data), "-h", "127.0.0.1", "-p", str(other.port), "-U", "postgres", "-R"
        )

    def start(self, *settings: str) -> None:
        options = " ".join(
            f"-c {each}" for each in (f"port={self.port}", f"unix_socket_directories={self._folder}", *settings)
        )
        self.run("pg_ctl", "-D", str(self._data), "-o", options, "-w", "start")

    def stop(self) -> None:
        """At once, as when its machine loses its power."""
        self.run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def promote(self) -> None:
        self.run("pg_ctl", "-D", str(self._data), "-w", "promote")

    def signal(self, number: signal.Signals) -> None:
        """To the server and all its processes: it first, so that it starts no others meanwhile."""
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().splitlines()[0]))
        postmaster.send_signal(number)
        for process in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # the process of a connection that has just closed
                process.send_signal(number)

    def end(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.signal(signal.SIGKILL)


@contextmanager
def servers(count: int) -> Generator[list[Server]]:
    folder = Path(mkdtemp(prefix="flux-pg-"))  # short: the path of a socket may not be long
    made: list[Server] = []
    try:
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            for path in (folder, own):
                if os.geteuid() == 0:
                    shutil.chown(path, "postgres", "postgres")
            made.append(Server(own))
        yield made
    finally:
        for server in made:
            server.end()
        shutil.rmtree(folder, ignore_errors=True)
