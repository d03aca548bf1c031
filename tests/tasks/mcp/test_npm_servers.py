"""The servers that the makers of the protocol publish, over stdio and over HTTP. `make conformance` fetches them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flux import ExecutionContext, Flux, workflow
from flux.errors import ToolExecutionError
from flux.tasks import parallel
from flux.tasks.mcp import ImageBlock, LinkBlock, ToolSet, mcp
from flux.testing import ScriptedModel
from tests.tasks.mcp.servers import free_port, until

ROOT = Path(__file__).parents[3] / ".venv/conformance"
NODE = ROOT / "new/node_modules/.bin/node"
PACKAGES = ROOT / "servers/node_modules/@modelcontextprotocol"
EVERYTHING, FILES, MEMORY = (
    [str(NODE), str(PACKAGES / f"server-{name}/dist/index.js")] for name in ("everything", "filesystem", "memory")
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not PACKAGES.exists() or not NODE.exists(), reason="`make conformance` fetches these servers"),
]


@pytest.fixture(params=["stdio", "http"])
async def everything(request: pytest.FixtureRequest) -> AsyncGenerator[Any]:
    """What `mcp()` is given to reach a server-everything."""
    if request.param == "stdio":
        yield [*EVERYTHING, "stdio"]
        return
    async with _over_http() as address:
        yield address


@asynccontextmanager
async def _over_http() -> AsyncGenerator[str]:
    port = free_port()
    command = [*EVERYTHING, "streamableHttp"]
    nowhere: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    async with await anyio.open_process(command, env={**os.environ, "PORT": str(port)}, **nowhere) as server:
        try:
            await until(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.kill()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


async def with_tools(flux: Flux, server: Any, use: Any, *, answer: Any = None, **options: Any) -> Any:
    """What `use` makes of the tools; a question that is asked meanwhile is answered."""

    @workflow.with_options(name=use.__name__)
    async def uses() -> Any:
        async with mcp(server, name="npm", **options) as client:
            return await use(await client.discover())

    with anyio.fail_after(40):
        execution = await flux.run(uses)
        while execution.pauses:
            execution = await flux.resume(execution.execution_id, answer, pause=execution.pauses[0].id)
    if execution.error is not None:
        raise execution.error
    return execution.output


async def test_tools_of_every_kind_are_called(flux: Flux, everything: Any) -> None:
    async def use(tools: ToolSet) -> list[Any]:
        return await parallel(
            tools.echo(message="hi"),
            tools.get_sum(a=1, b=2),
            tools.get_structured_content(location="Chicago"),
            tools.get_tiny_image(),
            tools.get_resource_links(count=2),
        )

    said, total, weather, image, links = await with_tools(flux, everything, use)
    assert (said, total) == ("Echo: hi", "The sum of 1 and 2 is 3.")
    assert weather["temperature"] == 36
    assert any(isinstance(block, ImageBlock) and block.data.startswith(b"\x89PNG") for block in image)
    assert sum(isinstance(block, LinkBlock) for block in links) == 2


async def test_resources_and_prompts_are_read(flux: Flux, everything: Any) -> None:
    @workflow
    async def reads() -> Any:
        async with mcp(everything, name="npm") as client:
            first = (await client.list_resources())[0]
            prompt = await client.get_prompt("args-prompt", {"city": "Oslo"})
            return [await client.read_resource(first["uri"]), prompt, await client.list_resource_templates()]

    execution = await flux.run(reads)
    assert execution.error is None, execution.error
    (document,), prompt, templates = execution.output
    assert document.text
    assert "Oslo" in repr(prompt.messages)
    assert templates


async def test_progress_is_heard(flux: Flux, everything: Any) -> None:
    @workflow
    async def waits(ctx: ExecutionContext[Any]) -> Any:
        async with mcp(everything, name="npm") as client:
            tools = await client.discover()
            return await tools.trigger_long_running_operation(duration=1, steps=4)

    execution = await flux.start(waits)
    heard: list[Any] = []
    with flux.observed(execution.execution_id, lambda progress: heard.append(progress.value)), anyio.fail_after(20):
        assert (await flux.wait(execution.execution_id)).has_succeeded
    assert [each["progress"] for each in heard if isinstance(each, dict)] == [1, 2, 3, 4]


async def test_a_question_is_answered(flux: Flux, everything: Any) -> None:
    async def use(tools: ToolSet) -> Any:
        return await tools.trigger_elicitation_request()

    blocks = await with_tools(flux, everything, use, answer={"name": "Bo", "integer": 7})
    said = "".join(block.text for block in blocks)
    assert "Name: Bo" in said
    assert "Favorite Integer: 7" in said
    assert "hero-1" in said, "the defaults of the form"


@pytest.mark.parametrize("error_path", [False, True])
async def test_an_address_is_visited(flux: Flux, everything: Any, error_path: bool) -> None:
    async def use(tools: ToolSet) -> Any:
        return await tools.trigger_url_elicitation(url="https://example.com/in", errorPath=error_path)

    said = repr(await with_tools(flux, everything, use, answer={"action": "accept"}))
    assert "User completed the URL elicitation flow" in said


async def test_a_model_is_asked(flux: Flux, everything: Any) -> None:
    async def use(tools: ToolSet) -> Any:
        return await tools.trigger_sampling_request(prompt="hello")

    said = repr(await with_tools(flux, everything, use, sampling=ScriptedModel(["Good morning"])))
    assert "Good morning" in said


async def test_a_task_asks_and_ends(flux: Flux, everything: Any) -> None:
    async def use(tools: ToolSet) -> Any:
        return await tools.simulate_research_query(topic="python", ambiguous=True)

    said = repr(await with_tools(flux, everything, use, answer={"interpretation": "programming"}))
    assert "Research Report" in said


async def test_files_are_written_and_read_where_that_is_allowed(flux: Flux, tmp_path: Path) -> None:
    folder = tmp_path.resolve() / "allowed"
    folder.mkdir()

    async def use(tools: ToolSet) -> Any:
        await tools.write_file(path=str(folder / "note.txt"), content="one\ntwo\n")
        head = await tools.read_text_file(path=str(folder / "note.txt"), head=1)
        try:
            await tools.read_text_file(path="/etc/hostname")
        except ToolExecutionError as exc:
            return [head, await tools.list_directory(path=str(folder)), str(exc)]

    head, listed, refused = await with_tools(flux, [*FILES, str(folder)], use)
    assert (folder / "note.txt").read_text() == "one\ntwo\n"
    assert "one" in repr(head)
    assert "note.txt" in repr(listed)
    assert "denied" in refused


async def test_a_graph_is_remembered(flux: Flux, tmp_path: Path) -> None:
    entry = {"command": MEMORY[0], "args": MEMORY[1:], "env": {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}}

    async def remember(tools: ToolSet) -> Any:
        return await tools.create_entities(entities=[{"name": "Bo", "entityType": "person", "observations": ["tall"]}])

    async def look(tools: ToolSet) -> Any:
        return await tools.search_nodes(query="tall")

    await with_tools(flux, entry, remember)
    found = await with_tools(flux, entry, look)
    assert [each["name"] for each in found["entities"]] == ["Bo"]
