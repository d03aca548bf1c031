"""The examples with agents, asked of a real model: what it says is its own affair, the form and the record are ours.

Not collected by itself: `make test-llm` builds the model's server and runs this file."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flux import ExecutionContext, Flux, workflow
from flux.engine.body import Progress
from flux.tasks.ai import agent

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "agents"
KILLED = ROOT / "tests" / "ai" / "killed.py"
SERVER = Path(__file__).with_name("serve.py")
SERVER_PYTHON = ROOT / ".venv" / "llm" / "bin" / "python"
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Served:
    url: str
    log: Path

    @property
    def requests(self) -> int:
        return self.log.read_text("utf-8").count('"POST /v1/chat/completions')


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = Served(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("llm") / "log")
    with served.log.open("w") as log:
        server = subprocess.Popen([SERVER_PYTHON, SERVER, str(port)], stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(served, server)
        yield served
    finally:
        server.terminate()
        server.wait(10)


def wait_for(served: Served, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        try:
            httpx.get(f"{served.url}/v1/models")
        except httpx.TransportError:
            assert server.poll() is None, served.log.read_text("utf-8")
            time.sleep(0.1)
        else:
            return
    raise AssertionError(served.log.read_text("utf-8"))


def run(llm: Served, script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    places = {"OLLAMA_BASE_URL": f"{llm.url}/v1", "OPENAI_BASE_URL": f"{llm.url}/v1", "ANTHROPIC_BASE_URL": NOWHERE}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env={**os.environ, **places, "OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k", **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def said(llm: Served, script: str, *arguments: str) -> list[str]:
    ran = run(llm, EXAMPLES / script, *arguments)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("No answer", "No usable answer", "The request"))], lines
    return lines


@pytest.mark.parametrize("script", ["research.py", "conversation.py", "task_options.py", "skills.py", "mcp_tools.py"])
def test_an_example_ends_with_an_answer(llm: Served, script: str) -> None:
    assert "".join(said(llm, script)).strip()


@pytest.mark.parametrize("script", ["blog_pipeline.py", "tool_use.py"])
def test_each_step_stands_in_the_history(llm: Served, script: str) -> None:
    lines = said(llm, script)
    names = {
        "blog_pipeline.py": ["researcher", "writer", "editor"],
        "tool_use.py": ["assistant", "search_web"],
    }
    for name in names[script]:
        assert lines.index(f"TASK_STARTED {name}") < lines.index(f"TASK_COMPLETED {name}")


def test_an_answer_has_the_form_that_was_asked_for(llm: Served) -> None:
    lines = said(llm, "structured_output.py")
    assert lines
    assert all(line.startswith("- ") for line in lines)


def test_agents_review_in_parallel_and_in_a_graph(llm: Served) -> None:
    lines = said(llm, "review.py")
    assert lines[0] == "2 reviews"
    assert [line.split(":")[0] for line in lines if re.match("Security: |Performance: ", line)]


def test_a_person_stands_between_two_agents(llm: Served) -> None:
    *_, how = said(llm, "human_review.py")
    found = re.search(r"human_review\.py (\S+) ", how)
    assert found, how
    before = llm.requests
    assert "".join(said(llm, "human_review.py", found[1], "Shorter, please"))
    assert llm.requests == before + 1  # the research is not asked for again


def test_the_model_string_chooses_the_provider(llm: Served) -> None:
    ran = run(llm, EXAMPLES / "providers.py")
    lines = ran.stdout.splitlines()
    refused = [line for line in lines if "No answer from 'claude-sonnet-4-20250514' of anthropic" in line]
    assert len(refused) == 1, lines  # there is none here that speaks as Anthropic does
    assert not [line for line in lines if "No answer from" in line and line not in refused]


def test_an_agent_that_is_killed_asks_for_nothing_twice(llm: Served, tmp_path: Path) -> None:
    before = llm.requests
    codes = [run(llm, KILLED, DEATHS=str(tmp_path)).returncode for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
    assert llm.requests == before + 2
    assert len((tmp_path / "ledger").read_text().splitlines()) == 1


@pytest.mark.anyio
async def test_a_stream_is_told_as_it_comes(llm: Served, flux: Flux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", f"{llm.url}/v1")
    talker = agent("You are helpful.", model="ollama/llama3", name="talker", stream=True)

    @workflow
    async def talks(ctx: ExecutionContext[Any]) -> str:
        return await talker("What is tea?")

    told: list[Progress] = []
    with flux.observed("x", told.append):
        done = await flux.run(talks, execution_id="x")
    tokens = [heard.value["token"] for heard in told if heard.value is not None]
    assert len(tokens) > 5
    assert "".join(tokens) == done.output


def test_every_example_is_asked() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
