"""Every example runs, as a process of its own, as a reader would run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def output(script: str, *arguments: str, **environment: str) -> str:
    finished = run(script, *arguments, **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def id_in(text: str) -> str:
    found = re.search(r"\.py (\S+)", text)
    assert found, text
    return found[1]


def test_hello_world_greets() -> None:
    assert output("hello_world.py", "Ada") == "Hello, Ada!\n"


def test_a_killed_process_is_followed_by_one_that_repeats_no_finished_task() -> None:
    killed = run("crash_and_resume.py")
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout.splitlines()[1:] == [f"fetching page {page}" for page in (1, 2, 3)]
    resumed = output("crash_and_resume.py", id_in(killed.stdout))
    assert resumed.splitlines() == [*(f"fetching page {page}" for page in (3, 4, 5)), "completed: 1500"]


@pytest.mark.parametrize(
    ("word", "outcome", "last"),
    [("yes", "shipped", "shipped reservation-A-1001"), ("no", "declined", "released reservation-A-1001")],
)
def test_an_order_waits_for_its_approval_across_processes(tmp_path: Path, word: str, outcome: str, last: str) -> None:
    ledger = tmp_path / "ledger.txt"
    asked = output("approve_order.py", ORDER_LEDGER=str(ledger))
    assert asked.startswith("Approve order A-1001 of Ada Lovelace over 159.90?")
    before = ledger.read_text().splitlines()
    answered = output("approve_order.py", id_in(asked), word, ORDER_LEDGER=str(ledger))
    after = ledger.read_text().splitlines()
    assert f"outcome={outcome!r}" in answered
    assert after[: len(before)] == before == ["validated A-1001", "reserved 501 pieces for A-1001"]
    assert after[-1] == last


def test_a_long_report_has_all_its_sections() -> None:
    report = json.loads(output("long_report.py", "0"))
    assert [section["title"][-1] for section in report["sections"]] == list("123456")
    assert report["words"] == 36


def test_the_demo_ends_well() -> None:
    assert "All is as it should be." in output("demo.py")


def test_a_graph_greets() -> None:
    assert output("graph_workflow.py", "Ada") == "Hello, Ada\n"


def test_a_graph_takes_the_way_that_its_conditions_choose_and_shows_it() -> None:
    processed = output("conditional_graph.py", "42")
    assert processed.startswith("{'process': 84}\n")
    assert "process  [done]" in processed
    refused = output("conditional_graph.py", "many")
    assert refused.startswith("""{'error': "'many' is no number"}\n""")
    assert "process  [skipped]" in refused


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("parallel_workflow.py", "['Hi, World', 'Hello, World', 'Hola, World']\n"),
        ("pipeline_workflow.py", "169\n"),
        ("mapping_workflow.py", "['DURABLE', 'EXECUTION']\n4\n2000\n2000\n1600\n"),
        ("children.py", "[['page 10', 'page 11'], ['page 20', 'page 21'], ['page 30', 'page 31']]\n"),
    ],
)
def test_the_patterns_give_what_they_say(script: str, said: str) -> None:
    assert output(script) == said


def test_grouped_work_and_a_graph_that_validates_first() -> None:
    lines = output("performance.py").splitlines()
    assert lines[0].startswith("timed_pipeline 1.0 ")
    assert lines[1].startswith("grouped_tasks [1.0, 1.0, 1.0, 1.0, 1.0, 1.0] ")
    assert lines[2] == "{'process': 42} {'error': \"no value in {'valid': False}\"}"


def test_a_draft_is_revised_until_its_readers_are_content() -> None:
    asked = output("human_in_the_loop.py").split()
    assert asked[1:4] == ["paused", "['human_review',", "'legal']"]
    revised = output("human_in_the_loop.py", asked[0], "shorter")
    assert "paused ['human_review'] None" in revised
    assert "completed [] what is known about durable execution (shorter)" in output("human_in_the_loop.py", asked[0])


def test_a_question_of_another_server_comes_here_and_its_answer_goes_back() -> None:
    finished = run("mcp_client.py")
    assert "Loop" not in finished.stderr  # the other server has ended before the loop did
    lines = finished.stdout.splitlines()
    assert lines[0].startswith("Approve order B-7 of Grace Hopper over 25")
    assert lines[-1] == "{'greeting': 'Hello, Grace!', 'outcome': 'shipped'}"


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
