"""The tools of an MCP server as tools of an agent: here the workflows of `examples/hello_world.py`, served by a process of its own.

python mcp_tools.py "Greet Ada."
python mcp_tools.py "Greet Ada." http://localhost:8080/mcp
"""

import sys
from pathlib import Path

from flux import ExecutionContext, workflow
from flux.tasks.ai import agent
from flux.tasks.mcp import mcp

HELLO = Path(__file__).parents[1] / "hello_world.py"

client = mcp(sys.argv[2] if len(sys.argv) > 2 else [sys.executable, "-m", "flux_mcp_server", str(HELLO)], name="server")


@workflow
async def with_server(ctx: ExecutionContext[str]) -> str:
    async with client:
        tools = await client.discover()
        assistant = agent("You use tools.", model="ollama/llama3", name="assistant", tools=tools)
        return await assistant(ctx.input)


if __name__ == "__main__":
    print(with_server.run(sys.argv[1] if len(sys.argv) > 1 else "Greet Ada.").output)
