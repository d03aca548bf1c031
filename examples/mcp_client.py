"""A workflow that uses the tools of another MCP server: `python mcp_client.py`. Here that is our own server of
hello_world.py and approve_order.py, which this example starts; any other command or URL will do.

The order waits for its approval over there; the question comes here, and the answer goes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flux import ExecutionContext, workflow
from flux.tasks import parallel
from flux.tasks.mcp import mcp

HERE = Path(__file__).parent
SERVER = [sys.executable, "-m", "flux_mcp_server", str(HERE / "hello_world.py"), str(HERE / "approve_order.py")]

ORDER = {
    "order_id": "B-7",
    "customer": "Grace Hopper",
    "items": [{"sku": "clock", "quantity": 2, "price": "12.50"}],
}


@workflow
async def concierge(ctx: ExecutionContext[str]) -> dict[str, Any]:
    """Greet somebody and order something for them, with the tools of another server."""
    async with mcp(SERVER, name="shop", timeout=30) as client:
        tools = await client.discover()
        greeting, order = await parallel(tools.hello_world(input=ctx.input), tools.approve_order(**ORDER))
    return {"greeting": greeting["result"], "outcome": order["outcome"]}


if __name__ == "__main__":
    asked = concierge.run("Grace")
    print(asked.pauses[0].message)
    print(concierge.resume(asked.execution_id, {"approved": True}).output)
