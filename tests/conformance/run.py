"""What `make conformance` does: the official suites, and official clients that know tasks, against our server; these clients against
two servers on one PostgreSQL behind a proxy, where one answers; the official scenarios of clients, against `mcp()`.

`python tests/conformance/run.py FOLDER` where FOLDER has `old/` and `new/`, each with the packages of one version, and node.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.mcp.proxy import proxy  # noqa: E402
from tests.postgres import database  # noqa: E402

TASKS = (
    *("lifecycle", "capability-negotiation", "wire-fields", "request-state-removal", "mrtr-input"),
    *("request-headers", "dispatch-and-envelope", "status-notifications", "required-task-error", "mrtr-composition"),
)
SUITES: tuple[tuple[str, Sequence[str]], ...] = (
    ("old", ["--suite", "all"]),
    ("new", ["--requirements", "2025-11-25"]),
    ("new", ["--requirements", "2026-07-28"]),
    *(("new", ["--scenario", f"tasks-{name}"]) for name in TASKS),
)
CLIENTS = ("older_tasks.mjs", "tasks.mjs", "pauses.mjs", "older_pauses.mjs")
NEED_SESSIONS = {"older_tasks.mjs"}  # it is asked over the connection
REVISIONS = ("2025-11-25", "2026-07-28")
OUR_CLIENT = ROOT / "tests/tasks/mcp/conformance_client.py"
STARTS_WITHIN = 30.0  # seconds
RUNS_WITHIN = 300.0


def main(folder: Path) -> int:
    with ThreadPoolExecutor() as pool:  # both mostly wait
        running = [pool.submit(_suites, folder), pool.submit(_clients, folder)]
    failed = [name for run in running for name in run.result()]
    failed += [f"client {revision}" for revision in REVISIONS if not _is_driven(folder, revision)]
    every = len(SUITES) + 2 * len(CLIENTS) + len(REVISIONS)
    _say(f"{every - len(failed)} of {every} runs passed" + "".join(f"\n  not: {each}" for each in failed))
    return 1 if failed else 0


def _suites(folder: Path) -> list[str]:
    """Those that failed."""
    with _server() as url:
        return [f"{name} {' '.join(options)}" for name, options in SUITES if not _passes(folder, name, options, url)]


def _clients(folder: Path) -> list[str]:
    """Those that failed."""
    with _server() as url:
        failed = [script for script in CLIENTS if not _drives(folder, script, url)]
    for script in CLIENTS:
        with _replicas(keep_sessions=script in NEED_SESSIONS) as url:
            if not _drives(folder, script, url):
                failed.append(f"{script} with two servers")
    return failed


@contextmanager
def _server(*options: str) -> Generator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serving = subprocess.Popen([sys.executable, ROOT / "tests/conformance/serve.py", str(port), *options], cwd=ROOT)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        serving.terminate()
        serving.wait()


@contextmanager
def _replicas(*, keep_sessions: bool) -> Generator[str]:
    """Two servers, of which each request gets the other one than the last."""
    with database() as url:
        how = ["--database", url, *([] if keep_sessions else ["--stateless"])]
        with (
            _server(*how) as first,
            _server(*how) as second,
            proxy([first, second], keeps_sessions=keep_sessions) as behind,
        ):
            yield behind


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("The server does not start.")


def _suite(folder: Path, name: str) -> list[str | Path]:
    modules = folder.resolve() / name / "node_modules"
    node = folder.resolve() / "new/node_modules/.bin/node"
    return [node, modules / "@modelcontextprotocol/conformance/dist/index.js"]


def _passes(folder: Path, name: str, options: Sequence[str], url: str) -> bool:
    command = [*_suite(folder, name), "server"]
    ran = subprocess.run(
        [*command, "--url", url, *options], cwd=folder, capture_output=True, text=True, timeout=RUNS_WITHIN, check=False
    )
    told = [line for line in ran.stdout.splitlines() if re.match(r"Total:|Passed:", line)]
    _say(f"{name} {' '.join(options)}: {' '.join(told[-1:]) or 'no result'}")
    if ran.returncode:
        _say("\n".join(ran.stdout.splitlines()[-60:]) + ran.stderr)
    return ran.returncode == 0


def _drives(folder: Path, script: str, url: str) -> bool:
    """Whether an official client drives our workflows as its script says."""
    path = Path(__file__).with_name("clients") / script
    node = folder.resolve() / "new/node_modules/.bin/node"
    ran = subprocess.run(
        [node, path, url], cwd=folder / "new", capture_output=True, text=True, timeout=RUNS_WITHIN, check=False
    )
    _say(f"{script}: {(ran.stdout + ran.stderr).strip()}")
    return ran.returncode == 0


def _is_driven(folder: Path, revision: str) -> bool:
    """Whether `mcp()` does what a revision of the protocol requires of clients. They all run at once: they get their time."""
    command = [*_suite(folder, "new"), "client", "--command", f"{sys.executable} {OUR_CLIENT}", "--timeout", "120000"]
    ran = subprocess.run(
        [*command, "--requirements", revision],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUNS_WITHIN,
        check=False,
    )
    summary = ran.stdout.partition("=== SUITE SUMMARY ===")[2].strip()
    told = [line for line in summary.splitlines() if line.startswith("Total:")]
    _say(f"client {revision}: {' '.join(told) or 'no result'}")
    if ran.returncode:
        _say(summary or ran.stdout[-5000:] + ran.stderr[-5000:])
    return ran.returncode == 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
