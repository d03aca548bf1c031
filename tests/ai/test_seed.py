"""The first users' own code for agents, as they wrote it: what they await stands in a workflow here, and the models are a server of
this machine."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import pytest
from pydantic_ai.models import override_allow_model_requests

from flux import Flux
from flux.tasks.ai import Skill
from tests.ai.fake_openai import Call, FakeProvider, Reply, serving
from tests.tasks.mcp.servers import Context, Small, over_http, text

pytestmark = pytest.mark.anyio

IMPORTS = "from flux import task, workflow, ExecutionContext\nfrom flux.tasks.ai import agent\n"

WRITERS = """
researcher = agent("You are a researcher.", model="ollama/llama3", name="researcher")
writer = agent("You are a writer.", model="ollama/llama3", name="writer")
editor = agent("You are an editor.", model="ollama/llama3", name="editor")
"""

TOOLS = '''
@task.with_options(timeout=30)
async def search_web(query: str) -> str:
    """Search the web and return relevant results."""
    ...

@task.with_options(timeout=10)
async def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    ...
'''

REVIEWERS = """
security_reviewer = agent("You review code for security.", model="ollama/llama3", name="security_reviewer")
performance_reviewer = agent("You review code for speed.", model="ollama/llama3", name="performance_reviewer")

@task
async def aggregate_results(security: str, performance: str) -> str:
    return f"{security} and {performance}"
"""


def as_spoken(body: dict[str, Any]) -> Reply:
    """Who was asked, and what; a tool is called once where there is one."""
    said = body["messages"]
    tools = [tool["function"]["name"] for tool in body.get("tools", ())]
    if tools and said[-1]["role"] != "tool":
        arguments = {"query": "AI agents 2026"} if tools[0] == "search_web" else {"name": "brief"}
        return [Call(tools[0], arguments)]
    if "response_format" in body:
        return json.dumps({"topic": "agents", "key_points": ["they call tools"], "sources": []})
    return " | ".join(str(message["content"]).replace("\n", " ") for message in said)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    with serving(as_spoken) as provider, override_allow_model_requests(True):
        monkeypatch.setenv("OLLAMA_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
        yield provider


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a module of some code, as if it were a user's file."""

    def load(*parts: str, body: str = "") -> ModuleType:
        if body:
            parts = (*parts, f"\n@workflow\nasync def flow(ctx: ExecutionContext):\n{indent(body.strip(), '    ')}\n")
        file = tmp_path / "theirs.py"
        file.write_text(IMPORTS + "\n".join(parts), "utf-8")
        spec = importlib.util.spec_from_file_location("theirs", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "theirs", module)
        spec.loader.exec_module(module)
        return module

    return load


async def output(flux: Flux, workflow: Any, input: Any = None) -> Any:
    done = await flux.run(workflow, input)
    assert done.has_succeeded, done.error
    return done.output


async def test_a_basic_agent(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded("""
researcher = agent(
    "You are a research analyst. Find key findings and trends.",
    model="ollama/llama3",
    name="researcher",
)

@workflow
async def research_workflow(ctx: ExecutionContext[dict]):
    return await researcher(ctx.input["topic"])
""")
    said = await output(flux, theirs.research_workflow, {"topic": "AI"})
    assert said == "You are a research analyst. Find key findings and trends. | AI"


async def test_a_pipeline_with_context_and_its_history(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        WRITERS,
        """
@workflow
async def blog_pipeline(ctx: ExecutionContext[dict]):
    topic = ctx.input["topic"]
    research = await researcher(f"Research: {topic}")
    draft = await writer(f"Write about: {topic}", context=research)
    return await editor(f"Edit:", context=draft)
""",
    )
    done = await flux.run(theirs.blog_pipeline, {"topic": "AI Agents"})
    assert "Research: AI Agents" in done.output
    events = (await flux.get(done.execution_id, events=True)).events
    shown = [(event.type.value, event.name) for event in events if event.name in ("researcher", "writer", "editor")]
    assert shown == [
        (f"TASK_{end}", name) for name in ("researcher", "writer", "editor") for end in ("STARTED", "COMPLETED")
    ]
    assert events[1].value == {"instruction": "Research: AI Agents"}


async def test_every_provider(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        body="""
# Local (Ollama)
a = agent("...", model="ollama/llama3")
b = agent("...", model="ollama/llama3.2")
# OpenAI (requires OPENAI_API_KEY env var)
c = agent("...", model="openai/gpt-4o")
# Anthropic (requires ANTHROPIC_API_KEY env var)
d = agent("...", model="anthropic/claude-sonnet-4-20250514")
return [await each("Hi") for each in (a, b, c, d)]
"""
    )
    assert len(await output(flux, theirs.flow)) == 4
    models = [request["model"] for request in provider.requests]
    assert models == ["llama3", "llama3.2", "gpt-4o", "claude-sonnet-4-20250514"]


async def test_tools(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        TOOLS,
        """
assistant = agent(
    "You are a helpful assistant. Use tools when needed.",
    model="ollama/llama3",
    tools=[search_web, get_weather],
)
""",
        body='return await assistant("What is new?")',
    )
    done = await flux.run(theirs.flow)
    assert done.has_succeeded, done.error
    events = (await flux.get(done.execution_id, events=True)).events
    (started,) = [event for event in events if event.name == "search_web" and event.type == "TASK_STARTED"]
    assert started.value == {"query": "AI agents 2026"}
    described = {tool["function"]["name"]: tool["function"] for tool in provider.requests[0]["tools"]}
    assert described["get_weather"]["description"] == "Get the current weather for a city."


async def test_structured_output(
    flux: Flux, provider: FakeProvider, loaded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = loaded(
        """
from pydantic import BaseModel

class ResearchFindings(BaseModel):
    topic: str
    key_points: list[str]
    sources: list[str]

researcher = agent(
    "You are a researcher. Return structured findings.",
    model="ollama/llama3",
    response_format=ResearchFindings,
)
""",
        body="""
# Returns a ResearchFindings instance, not a string
result = await researcher("Research AI agents")
print(result.key_points)
return result
""",
    )
    assert type(await output(flux, theirs.flow)) is theirs.ResearchFindings
    assert capsys.readouterr().out == "['they call tools']\n"


async def test_a_stateful_conversation(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded("""
from flux.tasks.ai.memory import working_memory

chatbot = agent(
    "You are a helpful assistant.",
    model="ollama/llama3",
    working_memory=working_memory(),
)

@workflow
async def conversation(ctx: ExecutionContext[dict]):
    r1 = await chatbot("What is Python?")   # standalone message
    r2 = await chatbot("What about asyncio?")  # knows about the Python context
    return r2
""")
    said = await output(flux, theirs.conversation, {})
    assert "What is Python?" in said
    assert said.endswith("What about asyncio?")


async def test_options(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        """
researcher = agent(
    "You are a researcher.",
    model="ollama/llama3",
    name="researcher",
).with_options(
    retry_max_attempts=5,
    timeout=300,
)
""",
        body='return await researcher("Go")',
    )
    assert await output(flux, theirs.flow) == "You are a researcher. | Go"


async def test_skills(
    flux: Flux, provider: FakeProvider, loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "skills" / "brief"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: brief\ndescription: When it has to be short.\n---\nSay little.\n")
    monkeypatch.chdir(tmp_path)
    theirs = loaded(
        TOOLS,
        """
read_url = get_weather

from flux.tasks.ai import agent, SkillCatalog

catalog = SkillCatalog.from_directory("./skills")

assistant = agent(
    "You are a helpful assistant.",
    model="ollama/llama3.2",
    tools=[search_web, read_url],
    skills=catalog,
)
""",
        body='return await assistant("Hi")',
    )
    said = await output(flux, theirs.flow)
    assert "- brief: When it has to be short." in said
    assert "Say little." in said
    theirs.catalog.register(Skill(name="long", description="When it may be long.", instructions="Say much."))


async def test_agents_in_parallel_and_in_a_graph(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        REVIEWERS,
        body="""
code = "eval(input())"
from flux.tasks import parallel, Graph

# Parallel agents
reviews = await parallel(
    security_reviewer("Review:\\n" + code),
    performance_reviewer("Review:\\n" + code),
)

# Graph-based agent pipeline
graph = (
    Graph("review")
    .add_node("security", security_reviewer)
    .add_node("performance", performance_reviewer)
    .add_node("aggregate", aggregate_results)
    .start_with("security")
    .start_with("performance")
    .add_edge("security", "aggregate")
    .add_edge("performance", "aggregate")
    .end_with("aggregate")
)
return reviews, await graph(code)
""",
    )
    reviews, together = await output(flux, theirs.flow)
    assert [review.split(" | ")[0] for review in reviews] == [
        "You review code for security.",
        "You review code for speed.",
    ]
    assert "security" in together
    assert "speed" in together


async def test_a_human_in_the_loop(flux: Flux, provider: FakeProvider, loaded: Any) -> None:
    theirs = loaded(
        WRITERS,
        body="""
from flux.tasks import pause

research = await researcher("Research AI")
feedback = await pause("human_review")
final = await writer("Revise based on feedback", context=f"{research}\\n\\n{feedback}")
return final
""",
    )
    paused = await flux.run(theirs.flow)
    assert [pause.name for pause in paused.pauses] == ["human_review"]
    done = await flux.resume(paused.execution_id, "Shorter, please")
    assert "Research AI" in done.output
    assert "Shorter, please" in done.output


async def test_the_tools_of_an_mcp_server(flux: Flux, loaded: Any) -> None:
    small = Small("server")

    @small.tool("list_workflows")
    async def _(ctx: Context, params: Any) -> Any:
        return text("hello_world")

    async with over_http(small.server.streamable_http_app()) as address:
        theirs = loaded(
            "from flux.tasks.mcp import mcp",
            body="""
async with mcp("http://localhost:8080/mcp", name="server") as client:
    tools = await client.discover()
    result = await tools.list_workflows()
return result
""".replace("http://localhost:8080/mcp", address),
        )
        assert "hello_world" in str(await output(flux, theirs.flow))
