"""The `flux` command as people and programs use it: real processes on a real file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FLUX = [sys.executable, "-m", "flux.cli"]

LEAVING_BRANCH = """
import asyncio, sys
from flux import ExecutionContext, workflow

async def leaves():
    sys.exit(0)

@workflow
async def branching(ctx: ExecutionContext[None]) -> None:
    await asyncio.gather(leaves())
"""

GATED = """
import asyncio
from pathlib import Path
from flux import task, workflow

@task
async def wait():
    while not Path("gate").exists():
        await asyncio.sleep(0.01)
    return "through"

@workflow
async def waits():
    return await wait()

@workflow
async def leaving():
    raise SystemExit(0)
"""

DEAF = """
import time
from pathlib import Path
from flux import task, workflow

@task
def nap():
    Path("ledger").touch()
    time.sleep(60)

@workflow
async def deaf():
    await nap()
"""


def flux(*arguments: str, exits: int = 0, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FLUX, *arguments],
        input=text,
        stdin=None if text else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exits, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def read(*arguments: str) -> Any:
    return json.loads(flux(*arguments, "--json").stdout)


@pytest.mark.usefixtures("folder")
def test_a_run_prints_its_result_alone_and_tells_the_rest_beside_it() -> None:
    done = flux("run", "flows.py:greet", "Ada", "--id", "one")
    assert json.loads(done.stdout) == {"said": "Hello, Ada"}
    assert "on the way" in done.stderr
    assert "completed" in done.stderr
    assert flux("run", "flows.py:greet", '"Ada"').stdout == done.stdout


@pytest.mark.usefixtures("folder")
def test_a_pause_is_shown_with_the_command_that_answers_it_and_a_wrong_answer_is_refused() -> None:
    asked = flux("run", "flows.py:asks", "--id", "ask-me", exits=3)
    assert "Do you agree?" in asked.stderr
    assert "flux resume ask-me" in asked.stderr
    refused = flux("resume", "ask", '{"agreed": "perhaps"}', exits=2)
    assert "agreed" in refused.stderr
    done = flux("resume", "ask", '{"agreed": true, "size": "large"}')
    assert json.loads(done.stdout) == ["before", "True", "large"]
    assert Path("ledger").read_text() == "before\n"


@pytest.mark.usefixtures("folder")
def test_a_failure_is_told_without_a_traceback_and_can_be_retried() -> None:
    failed = flux("run", "flows.py:fails", "all", "--id", "bad", exits=1)
    assert "ValueError: all went wrong" in failed.stderr
    again = flux("retry", "bad", exits=1)
    assert "all went wrong" in again.stderr
    assert Path("ledger").read_text() == "tried\n"


@pytest.mark.usefixtures("folder")
def test_executions_are_listed_and_shown_for_people_and_for_programs() -> None:
    flux("run", "flows.py:greet", "Ada", "--id", "one")
    flux("run", "flows.py:asks", "--id", "two", exits=3)
    rows = read("list")
    assert [(row["execution_id"], row["status"]) for row in rows] == [("two", "paused"), ("one", "completed")]
    assert [row["execution_id"] for row in read("list", "--status", "paused")] == ["two"]
    shown = read("show", "one")
    assert (shown["workflow"], shown["output"]) == ("greet", {"said": "Hello, Ada"})
    assert "TASK_COMPLETED" in flux("show", "one", "--events").stdout
    assert "step" in flux("show", "one", "--timeline").stdout
    assert "Do you agree?" in flux("show", "two").stdout


@pytest.mark.usefixtures("folder")
def test_an_execution_is_forked_suspended_cancelled_and_pruned() -> None:
    flux("run", "flows.py:asks", "--id", "two", exits=3)
    forked = flux("fork", "two", exits=3)
    assert "Do you agree?" in forked.stderr
    assert Path("ledger").read_text() == "before\n"
    flux("cancel", "two", "--reason", "enough")
    assert read("show", "two")["status"] == "cancelled"
    assert "--yes" in flux("prune", "--older-than", "0s", exits=2).stderr
    assert read("prune", "--older-than", "0s", "--yes") == {"deleted": 1}


def test_control_c_lets_go_and_what_was_finished_is_not_done_again(folder: Path) -> None:
    process = subprocess.Popen([*FLUX, "run", "flows.py:long", "60", "--id", "long"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    ledger = folder / "ledger"
    while time.monotonic() < deadline and not (ledger.exists() and ledger.read_text().count("\n") > 5):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "flux resume long" in said
    assert [row["interrupted"] for row in read("list", "--status", "interrupted")] == [True]
    assert "status\tinterrupted" in flux("show", "long").stdout
    done = flux("resume", "long")
    assert done.stdout.strip() == str(sum(range(60)))
    assert 60 <= len(ledger.read_text().splitlines()) <= 61


QUEUED = """
from pathlib import Path
import asyncio
from flux import ExecutionContext, Queue, task, workflow

@task
async def wait():
    while not Path("gate").exists():
        await asyncio.sleep(0.01)

@workflow.with_options(queue=Queue("jobs", concurrency=1))
async def job(ctx: ExecutionContext[str]) -> str:
    await wait()
    return ctx.input
"""


def test_what_waits_for_its_turn_is_called_queued_and_runs_when_it_has_come(folder: Path) -> None:
    (folder / "queued.py").write_text(QUEUED)
    flux("run", "queued.py", "a", "--id", "first", "--detach")
    flux("run", "queued.py", "b", "--id", "second", "--detach")
    assert [row["execution_id"] for row in read("list", "--status", "queued")] == ["second"]
    assert "status\tqueued" in flux("show", "second").stdout
    assert read("queues") == [{"queue": "jobs", "running": 1, "waiting": 1}]
    (folder / "gate").touch()
    assert flux("resume", "second").stdout.strip() == "b"
    assert read("queues") == []


def test_what_runs_in_the_background_is_looked_on_by_whoever_resumes_it(folder: Path) -> None:
    (folder / "gated.py").write_text(GATED)
    flux("run", "gated.py:waits", "--id", "far", "--detach")
    assert read("show", "far")["interrupted"] is False
    watcher = subprocess.Popen([*FLUX, "resume", "far"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watcher.stderr is not None
    assert "looks on" in watcher.stderr.readline()
    (folder / "gate").touch()
    said, _ = watcher.communicate(timeout=20)
    assert (watcher.returncode, said) == (0, "through\n")


def test_a_workflow_that_calls_exit_has_failed(folder: Path) -> None:
    (folder / "gated.py").write_text(GATED)
    assert "called sys.exit(0)" in flux("run", "gated.py:leaving", "--id", "left", exits=1).stderr
    assert read("show", "left")["status"] == "failed"


def test_a_branch_that_ends_the_process_is_told_as_a_mistake(folder: Path) -> None:
    (folder / "branch.py").write_text(LEAVING_BRANCH)
    assert "SystemExit: 0" in flux("run", "branch.py", exits=2).stderr


def test_control_c_ends_the_process_although_a_task_in_a_thread_does_not_listen(folder: Path) -> None:
    (folder / "deaf.py").write_text(DEAF)
    process = subprocess.Popen([*FLUX, "run", "deaf.py", "--id", "deaf"], stderr=subprocess.PIPE, text=True)
    while not (folder / "ledger").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.count("flux resume deaf") == 1


@pytest.mark.usefixtures("folder")
def test_workflows_graphs_and_schedules_of_a_file_are_shown() -> None:
    listed = read("workflows", "flows.py")
    assert {row["name"] for row in listed["workflows"]} == {"greet", "asks", "weighed", "long", "fails"}
    assert "last" in flux("graph", "flows.py").stdout
    assert "flowchart TD" in flux("graph", "flows.py", "--mermaid").stdout
    flux("run", "flows.py:greet", "Ada")
    flux("schedule", "pause", "asks", "--from", "flows.py")
    assert "paused" in flux("schedule", "list", "flows.py").stdout


@pytest.mark.usefixtures("folder")
def test_secrets_are_kept_and_never_shown() -> None:
    flux("secrets", "set", "TOKEN", text="very-secret-value\n")
    listed = flux("secrets", "list")
    assert "TOKEN" in listed.stdout
    assert "very-secret" not in listed.stdout + listed.stderr
    flux("secrets", "remove", "TOKEN")
    assert "TOKEN" not in flux("secrets", "list").stdout


@pytest.mark.usefixtures("folder")
def test_the_doctor_finds_a_damaged_database() -> None:
    assert "will be made" in flux("doctor").stdout
    flux("run", "flows.py:greet", "Ada")
    assert {check["grade"] for check in read("doctor")} == {"ok"}
    Path(os.environ["FLUX_DATABASE"]).write_bytes(b"no database at all, but long enough to look at" * 50)
    assert flux("doctor", exits=1).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.py"), "nowhere.py"),
        (("run", "flows.py:nobody"), "nobody"),
        (("run", "flows.py"), "greet"),
        (("run", "flows.py:long", "many"), "integer"),
        (("show", "nothing"), "database"),
        (("run", "flows.py:greet", "x", "--no-such-option"), "--no-such-option"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistake_is_answered_by_one_clear_sentence(arguments: tuple[str, ...], said: str) -> None:
    assert said in flux(*arguments, exits=2).stderr


@pytest.mark.usefixtures("folder")
def test_a_database_is_moved_to_another_file() -> None:
    flux("run", "flows.py:asks", "--id", "two", exits=3)
    assert "same one" in flux("migrate", os.environ["FLUX_DATABASE"], os.environ["FLUX_DATABASE"], exits=2).stderr
    assert read("migrate", os.environ["FLUX_DATABASE"], "new.db") == {"executions": 1, "arrived_before": 0}
    assert read("show", "two", "--database", "new.db")["status"] == "paused"
