"""The client that the official suite of client scenarios drives: `python conformance_client.py URL`, one workflow over `mcp()`.
Where a person has to sign in, it does what `flux mcp login` does; the browser is a program that goes where it is sent.

`make conformance` runs it. One scenario alone, with the packages that it fetches:
`node .../@modelcontextprotocol/conformance/dist/index.js client --command "python tests/tasks/mcp/conformance_client.py" --scenario S`"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any

import httpx

from flux import ExecutionContext, Flux, workflow
from flux.errors import FluxError, NotAuthorized
from flux.stores.memory import MemoryStore
from flux.tasks.mcp import Auth, MCPClient, Tool, ToolSet, mcp, oauth
from flux.tasks.mcp.login import keep_login, kept_login
from flux.tasks.mcp.signing_in import Wish, sign_in

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
GIVEN: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
IS_OLD = SCENARIO == "json-schema-ref-no-deref" or (
    VERSION != "2026-07-28"
    and SCENARIO in {"initialize", "tools_call", "sse-retry", "elicitation-sep1034-client-defaults"}
)
MOST_LOGINS = 2
CIMD = "https://conformance-test.local/client-metadata.json"
SAMPLES: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}


def credentials() -> Auth | None:
    if SCENARIO.endswith("client-credentials-jwt"):
        algorithm = GIVEN.get("signing_algorithm", "ES256")
        return oauth(client_id=GIVEN["client_id"], private_key=GIVEN["private_key_pem"], algorithm=algorithm)
    if SCENARIO.endswith("client-credentials-basic"):
        return oauth(client_id=GIVEN["client_id"], client_secret=GIVEN["client_secret"])
    return None


class Secrets:
    """A secret store."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    async def get(self, name: str) -> str | None:
        return self._known.get(name)

    def set(self, name: str, value: str) -> None:
        self._known[name] = value


async def visit(address: str) -> None:
    """The browser of somebody who agrees to everything."""
    async with httpx.AsyncClient(timeout=20) as browser:
        sent_back = await browser.get(address)
        await browser.get(sent_back.headers["location"])


async def signs_in(url: str, secrets: Secrets, scope: str | None = None) -> None:
    """Whatever the scenario does to the client: the workflow tells what then becomes of it."""
    wish = Wish(scope=scope, client_id=GIVEN.get("client_id") or CIMD, client_secret=GIVEN.get("client_secret"))
    try:
        login = await sign_in(url, visit, wish, before=await kept_login(url, secrets))
    except FluxError as exc:
        sys.stderr.write(f"signing in: {exc}\n")
        return
    if login is not None:
        keep_login(url, login, secrets)


def client(url: str) -> MCPClient:
    return mcp(url, auth=credentials(), protocol="legacy" if IS_OLD else "auto", timeout=20)


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
            except NotAuthorized:
                raise
            except FluxError as exc:  # some scenarios want a call to fail
                sys.stderr.write(f"{name}: {exc}\n")


async def main() -> None:
    url, secrets = sys.argv[1], Secrets()
    async with Flux(store=MemoryStore(), secrets=secrets, recover=False) as flux:
        execution = await flux.run(scenario, url)
        for _ in range(MOST_LOGINS):
            if not isinstance(execution.error, NotAuthorized):
                break
            scope = re.search(r"flux mcp login .* --scope '(.*)'", str(execution.error))  # one does what the error says
            await signs_in(url, secrets, None if scope is None else scope[1])
            execution = await flux.run(scenario, url)
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
