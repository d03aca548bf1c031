"""Real processes, really killed, with a model behind real HTTP that counts what it is asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ai.fake_openai import Call, Reply, serving

PROGRAM = Path(__file__).parent / "killed.py"
STEPS = ["one", "two", "three"]


def reply(body: dict[str, Any]) -> Reply:
    done = [message["content"] for message in body["messages"] if message["role"] == "tool"]
    if len(done) < len(STEPS):
        return [Call("step", {"name": STEPS[len(done)]})]
    return json.dumps({"steps": done})


def test_an_agent_killed_in_every_step_asks_and_does_everything_once(tmp_path: Path) -> None:
    with serving(reply) as provider:
        environment = {**os.environ, "OLLAMA_BASE_URL": f"{provider.url}/v1", "DEATHS": str(tmp_path)}
        codes: list[int] = []
        said = ""
        while len(codes) < 10 and (not codes or codes[-1] != 0):
            ran = subprocess.run(
                [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            codes.append(ran.returncode)
            said = ran.stdout
    assert codes == [-signal.SIGKILL] * 3 + [0]
    assert said == "['did one', 'did two', 'did three']\n"
    assert (tmp_path / "ledger").read_text().splitlines() == STEPS
    assert len(provider.requests) == 4


# -- at every write -------------------------------------------------------------------------------------------------------


def turn(body: dict[str, Any]) -> int:
    """How often the model has spoken before."""
    roles = [message["role"] for message in body.get("messages") or body["contents"]]
    return roles.count("assistant") + roles.count("model")


def three_calls_an_approval_and_a_form(body: dict[str, Any]) -> Reply:
    match turn(body):
        case 0:
            return [Call("step", {"name": "one"}), Call("step", {"name": "two"})]
        case 1:
            return [Call("publish", {"name": "three"})]
        case _:
            is_native = "response_format" in body or "output_config" in body
            report = {"steps": STEPS}
            return json.dumps(report) if is_native else [Call("final_result", report)]


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-20250514", "google/gemini-2.5-flash"])
def test_killed_at_any_write_an_agent_repeats_nothing_that_is_recorded(tmp_path: Path, model: str) -> None:
    """The provider refuses every history that a real one would refuse."""
    with serving(three_calls_an_approval_and_a_form) as provider:
        places = {
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "ANTHROPIC_BASE_URL": provider.url,
            "GOOGLE_GEMINI_BASE_URL": provider.url,
        }
        command = [sys.executable, str(Path(__file__).with_name("killed_at.py")), str(tmp_path), model]
        ran = subprocess.run(
            command, env={**os.environ, **places}, capture_output=True, text=True, timeout=110, check=False
        )
    assert ran.returncode == 0, ran.stderr
    deaths = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(deaths) > 20
    assert {death["answered"] for death in deaths} == {0, 1, 2, 3}
    for death in deaths:
        assert death["output"] == STEPS
        key = f"{death['name']}-2"
        asked = [turn(request) for request in provider.requests if key in key_of(request)]
        assert asked == list(range(death["answered"], 3)), death
        assert not set(ledger(tmp_path, key)) & set(death["done"]), death
        assert set(ledger(tmp_path, key)) | set(ledger(tmp_path, f"{death['name']}-1")) == set(STEPS)


def key_of(request: dict[str, Any]) -> str:
    headers = request["headers"]
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or headers["authorization"]


def ledger(folder: Path, key: str) -> list[str]:
    file = folder / f"{key}.ledger"
    return file.read_text().splitlines() if file.exists() else []
