"""Real processes, really killed, with a model behind real HTTP that counts what it is asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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
