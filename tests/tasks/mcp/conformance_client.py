"""The client that the official suite of client scenarios drives: `python conformance_client.py URL`, one workflow over `mcp()`.

With the packages that `make conformance` fetches (0.1.16 below `old`, the newer suite below `new`):
`node .../@modelcontextprotocol/conformance/dist/index.js client --command "python tests/tasks/mcp/conformance_client.py" --scenario S`"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from flux import ExecutionContext, Flux, workflow
from flux.errors import FluxError
from flux.stores.memory import MemoryStore
from flux.tasks.mcp import Auth, MCPClient, Tool, ToolSet, mcp, oauth

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
GIVEN: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
OLD_ONLY = {"initialize", "tools_call", "sse-retry", "elicitation-sep1034-client-defaults", "json-schema-ref-no-deref"}
SAMPLES: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}


def credentials() -> Auth | None:
    if SCENARIO.endswith("client-credentials-jwt"):
        algorithm = GIVEN.get("signing_algorithm", "ES256")
        return oauth(client_id=GIVEN["client_id"], private_key=GIVEN["private_key_pem"], algorithm=algorithm)
    if SCENARIO.endswith("client-credentials-basic"):
        return oauth(client_id=GIVEN["client_id"], client_secret=GIVEN["client_secret"])
    return None


def client(url: str) -> MCPClient:
    return mcp(url, auth=credentials(), protocol="legacy" if SCENARIO in OLD_ONLY else "auto", timeout=20)


def arguments(tool: Tool) -> dict[str, Any]:
    fields: dict[str, dict[str, Any]] = tool.input_schema.get("properties", {})
    return {name: SAMPLES.get(str(field.get("type")), "x") for name, field in fields.items()}


def calls(tools: ToolSet) -> list[tuple[str, dict[str, Any]]]:
    """What the scenario wants to be called."""
    if "toolCalls" in GIVEN:
        return [(each["name"], each["arguments"]) for each in GIVEN["toolCalls"]]
    if SCENARIO == "json-schema-2020-12-preservation":
        focal = next(tool for tool in tools if tool.tool_name != "json_schema_echo")
        return [("json_schema_echo", {"schema": focal.input_schema})]
    return [(tool.tool_name, arguments(tool)) for tool in tools]


@workflow
async def scenario(ctx: ExecutionContext[str]) -> None:
    async with client(ctx.input) as server:
        tools = await server.discover()
        for name, given in calls(tools):
            try:
                await tools[name](given)
            except FluxError as exc:  # some scenarios want a call to fail
                sys.stderr.write(f"{name}: {exc}\n")


async def main() -> None:
    async with Flux(store=MemoryStore(), recover=False) as flux:
        execution = await flux.run(scenario, sys.argv[-1])
        while execution.pauses:
            question = execution.pauses[0]
            form: dict[str, Any] = question.schema or {}
            required = (form.get("anyOf") or [form])[0].get("required", [])
            answer = {name: SAMPLES.get(str(form["properties"][name].get("type")), "x") for name in required}
            execution = await flux.resume(execution.execution_id, answer, pause=question.id)
    if execution.error is not None:
        raise execution.error


if __name__ == "__main__":
    asyncio.run(main())
