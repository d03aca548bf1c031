"""The main job, played with a real MCP client and a real server, which is killed in the middle. `make demo` runs it.

Ends with an error if anything is not as it must be.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
from mcp import Client, MCPError, StdioServerParameters, stdio_client

HERE = Path(__file__).resolve().parent
WORKFLOWS = [HERE / name for name in ("hello_world.py", "approve_order.py", "long_report.py")]

ORDER = {
    "order_id": "A-1001",
    "customer": "Ada Lovelace",
    "items": [
        {"sku": "engine", "quantity": 1, "price": "149.90"},
        {"sku": "punched-card", "quantity": 500, "price": "0.02"},
    ],
}
BEFORE_THE_PAUSE = ["validated A-1001", "reserved 501 pieces for A-1001"]
AFTER_THE_PAUSE = ["charged Ada Lovelace 159.90", "shipped reservation-A-1001"]


class Stage:
    """The folder the demo plays in: a database, the ledger the tasks write to, the server's log."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "flux.db"
        self.ledger = folder / "ledger.txt"
        self.log = folder / "server.log"
        self.execution_id = ""

    @property
    def written(self) -> list[str]:
        return self.ledger.read_text("utf-8").splitlines() if self.ledger.exists() else []

    @asynccontextmanager
    async def server(self) -> AsyncGenerator[Client]:
        """A new server process, with a client that can show no forms, as most assistants today."""
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "flux_mcp_server", *map(str, WORKFLOWS), "--database", str(self.database)],
            env={"ORDER_LEDGER": str(self.ledger)},
            cwd=HERE.parent,
        )
        with self.log.open("a", encoding="utf-8") as log:
            async with Client(stdio_client(parameters, errlog=log)) as client:
                yield client


def say(text: str = "") -> None:
    print(text, flush=True)


def show(value: Any) -> None:
    for line in json.dumps(value, indent=2).splitlines():
        say(f"    {line}")


def must(truth: bool, otherwise: str) -> None:
    if not truth:
        raise SystemExit(f"THE DEMO FAILED: {otherwise}")


def server_process() -> psutil.Process:
    found = [child for child in psutil.Process().children() if "flux_mcp_server" in child.cmdline()]
    must(len(found) == 1, f"one server process should run, found {len(found)}")
    return found[0]


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The tool's answer as data; what it reports on the way is printed."""

    async def report(progress: float, total: float | None, message: str | None) -> None:
        say(f"    ... {message or progress}")

    result = await client.call_tool(tool, arguments, read_timeout_seconds=60, progress_callback=report)
    must(not result.is_error, f"{tool} answered with an error: {result.content}")
    must(isinstance(result.structured_content, dict), f"{tool} answered without structured content")
    return dict(result.structured_content or {})


async def ask_for_an_order(stage: Stage) -> None:
    """Call the approval workflow, get its question, and lose the server."""
    say("1. A server starts and finds three workflows. Each is a tool:")
    async with stage.server() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name in ("hello_world", "approve_order", "resume_approve_order", "long_report"):
            must(name in tools, f"there is no tool {name!r}")
            say(f"    {name:22} {(tools[name].description or '').splitlines()[0]}")
        say()
        say("2. The assistant calls approve_order. Stock is reserved, then the workflow asks a person:")
        handle = await call(client, "approve_order", ORDER)
        show(handle)
        must(handle.get("status") == "paused", "the workflow should have paused")
        must(
            stage.written == BEFORE_THE_PAUSE, f"the tasks before the pause should have run once each: {stage.written}"
        )
        say()
        await kill(server_process())
        stage.execution_id = handle["execution_id"]


async def kill(process: psutil.Process) -> None:
    say(f"3. While it waits, the server is killed: kill -9 {process.pid}.")
    os.kill(process.pid, signal.SIGKILL)
    await anyio.to_thread.run_sync(lambda: process.wait(timeout=10))
    say()


async def answer(stage: Stage) -> None:
    """A new server knows the execution, takes the typed answer and finishes."""
    async with stage.server() as client:
        say("4. A new server on the same database. The person's answer comes: resume_approve_order")
        answer = {"approved": True, "note": "Thank you for your patience."}
        receipt = await call(client, "resume_approve_order", {"execution_id": stage.execution_id, "answer": answer})
        show(receipt)
        must(receipt.get("outcome") == "shipped", "the order should have been shipped")
        must(receipt.get("total") == "159.90", "the total should be 159.90")
        must(receipt.get("note") == answer["note"], "the answer's note should be on the receipt")
        say()
        say(
            "5. The ledger, to which every task adds a line. Validated once, reserved once, although two processes ran it:"
        )
        for line in stage.written:
            say(f"    {line}")
        must(stage.written == BEFORE_THE_PAUSE + AFTER_THE_PAUSE, "every task should have run once")
        say()
        await report(client)


async def report(client: Client) -> None:
    say("6. Work that takes a while says how far it is:")
    report = await call(client, "long_report", {"topic": "Engines", "sections": 3, "seconds_per_section": 0.8})
    must(len(report.get("sections", [])) == 3, "the report should have three sections")
    say(f"    a report of {report['words']} words in {len(report['sections'])} sections")


async def play(stage: Stage) -> None:
    try:
        await ask_for_an_order(stage)
    except* (MCPError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # our end of the connection to the server that was killed
    must(bool(stage.execution_id), "the first server was lost too early")
    await answer(stage)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="flux-demo-") as folder:
        stage = Stage(Path(folder))
        try:
            anyio.run(play, stage)
        except BaseException:
            if stage.log.exists():
                sys.stderr.write(stage.log.read_text("utf-8"))
            raise
    say()
    say("All as it should be. Next: README.md shows how to give the server to your assistant.")


if __name__ == "__main__":
    main()
