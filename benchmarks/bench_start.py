"""How long it takes until the first answer, each beside its baseline in the same run: `python benchmarks/bench_start.py`.

A server's start is from its spawn to its reply to tools/list over stdio. The baseline is the SDK's low-level server with one
tool, as it comes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from echo import WORKFLOW
from measure import Figure, rounds

PYTHON = sys.executable

BARE = """
import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

ECHO = types.Tool(name="echo", input_schema={"type": "object", "properties": {"number": {"type": "integer"}}})

async def list_tools(client, params):
    return types.ListToolsResult(tools=[ECHO])

async def main():
    server = Server("bare", on_list_tools=list_tools)
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())

anyio.run(main)
"""

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}


def process(*arguments: str) -> float:
    """Seconds from the spawn of an interpreter to its end."""
    began = time.perf_counter()
    subprocess.run([PYTHON, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def first_list(command: Sequence[str]) -> tuple[float, float]:
    """Seconds from the spawn of a server to its list of tools, and MiB of memory it then takes."""
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in (
            {"id": 1, "method": "initialize", "params": INITIALIZE},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/list"},
        ):
            print(json.dumps({"jsonrpc": "2.0", **message}), file=server.stdin, flush=True)
        answer = next(found for line in server.stdout if (found := json.loads(line)).get("id") == 2)
        taken = time.perf_counter() - began
        assert any(tool["name"] == "echo" for tool in answer["result"]["tools"]), answer
        memory = psutil.Process(server.pid).memory_info().rss / 2**20
        server.stdin.close()
    return taken, memory


def one_round(folder: Path) -> list[Figure]:
    (folder / "bare.py").write_text(BARE, "utf-8")
    (folder / "flows.py").write_text(WORKFLOW, "utf-8")
    ours = [PYTHON, "-m", "flux_mcp_server", str(folder / "flows.py"), "--database", str(folder / "flux.db")]
    bare_start, bare_memory = first_list([PYTHON, str(folder / "bare.py")])
    our_start, our_memory = first_list(ours)
    return [
        Figure("python -c pass", process("-c", "pass"), "s"),
        Figure("import flux", process("-c", "import flux"), "s"),
        Figure("a workflow and the engine", process("-c", "from flux import Flux, task, workflow"), "s"),
        Figure("flux --help", process("-m", "flux.cli", "--help"), "s"),
        Figure("bare SDK server to tools/list", bare_start, "s"),
        Figure("flux-mcp-server to tools/list", our_start, "s", of="bare SDK server to tools/list"),
        Figure("bare SDK server, memory", bare_memory, "MiB"),
        Figure("flux-mcp-server, memory", our_memory, "MiB", of="bare SDK server, memory"),
    ]


if __name__ == "__main__":
    rounds("Start", one_round, count=5)
