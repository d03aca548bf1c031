"""Every example with agents runs as a reader would run it, with a server of this machine in the place of the models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.ai.fake_openai import Call, Reply, serving

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


def output(script: str, url: str, *arguments: str) -> str:
    places = {"OLLAMA_BASE_URL": f"{url}/v1", "OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": url}
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        env={**os.environ, **places, "OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def echo(body: dict[str, Any]) -> Reply:
    """Who was asked, by its prompt, and the first line of what."""
    system, *_, last = body["messages"]
    return f"{system['content']} < {last['content'].splitlines()[0]}"


def test_an_agent_researches() -> None:
    with serving(echo) as provider:
        said = output("research.py", provider.url, "tea")
    assert said == "You are a research analyst. Find key findings and trends. < tea\n"
    assert provider.requests[0]["model"] == "llama3"


def test_a_pipeline_hands_results_on_and_shows_each_agent_as_a_task() -> None:
    with serving(echo) as provider:
        said = output("blog_pipeline.py", provider.url, "tea").splitlines()
    shown = [line for line in said if line.startswith("TASK_") and not line.endswith(":llm")]
    assert shown == [
        f"TASK_{end} {name}" for name in ("researcher", "writer", "editor") for end in ("STARTED", "COMPLETED")
    ]
    assert "You are a researcher. < Research: tea" in json.dumps(provider.requests[1])


def test_the_model_string_chooses_the_provider() -> None:
    with serving(lambda body: f"I am {body['model']}.") as provider:
        said = output("providers.py", provider.url).splitlines()
    assert said == ["I am llama3.", "I am llama3.2.", "I am gpt-4o.", "I am claude-sonnet-4-20250514."]


def test_tools_are_called_and_stand_in_the_history() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]
        return last["content"] if last["role"] == "tool" else [Call("get_weather", {"city": "Paris"})]

    with serving(reply) as provider:
        said = output("tool_use.py", provider.url).splitlines()
    assert said[-1] == "It is sunny in Paris."
    assert said.index("TASK_STARTED assistant") < said.index("TASK_STARTED get_weather")
    assert said.index("TASK_COMPLETED get_weather") < said.index("TASK_COMPLETED assistant")


def test_an_answer_has_its_type() -> None:
    findings = json.dumps({"topic": "tea", "key_points": ["green", "black"], "sources": []})
    with serving(lambda body: findings) as provider:
        assert output("structured_output.py", provider.url) == "- green\n- black\n"


def test_a_conversation_is_remembered() -> None:
    with serving(lambda body: " | ".join(message["content"] for message in body["messages"][1:])) as provider:
        said = output("conversation.py", provider.url)
    assert said == "What is Python? | What is Python? | What about asyncio?\n"


def test_an_agent_has_options() -> None:
    with serving(echo) as provider:
        assert output("task_options.py", provider.url, "tea") == "You are a researcher. < Research: tea\n"


def test_a_skill_is_read_before_it_is_used() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return last["content"].splitlines()[0]
        return [Call("use_skill", {"name": "summarize"})]

    with serving(reply) as provider:
        assert output("skills.py", provider.url) == "# Summarize\n"


def test_agents_review_in_parallel_and_in_a_graph() -> None:
    with serving(echo) as provider:
        said = output("review.py", provider.url)
    assert said.splitlines() == [
        "2 reviews",
        "Security: You review code for security. < eval(input())",
        "Performance: You review code for speed. < eval(input())",
    ]


def test_a_person_stands_between_two_agents() -> None:
    with serving(echo) as provider:
        asked = output("human_review.py", provider.url)
        found = re.search(r"human_review\.py (\S+) ", asked)
        assert found, asked
        said = output("human_review.py", provider.url, found[1], "Shorter, please")
    assert said == "You are a writer. < Revise based on feedback\n"
    assert "Shorter, please" in json.dumps(provider.requests[-1])
    assert len(provider.requests) == 2


def test_an_agent_calls_the_tools_of_an_mcp_server() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return last["content"]
        names = [tool["function"]["name"] for tool in body["tools"]]
        return [Call(next(name for name in names if name.endswith("hello_world")), {"input": "Ada"})]

    with serving(reply) as provider:
        assert "Hello, Ada!" in output("mcp_tools.py", provider.url)


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in source] == []
