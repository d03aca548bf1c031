"""The main job, played with a real MCP client and real servers, two of which are killed. `make demo` runs it.

Ends with an error if anything is not as it must be.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

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
ANSWER = {"approved": True, "note": "Thank you for your patience."}
BEFORE_THE_PAUSE = ["validated A-1001", "reserved 501 pieces for A-1001"]
AFTER_THE_PAUSE = ["charged Ada Lovelace 159.90", "shipped reservation-A-1001"]

REPORT = {"topic": "Engines", "sections": 3, "seconds_per_section": 1.5}


class DemoFailed(Exception):
    pass


class Stage:
    """The folder the demo plays in: a database, the ledger the tasks write to, the servers' log."""

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

    @asynccontextmanager
    async def doomed_server(self) -> AsyncGenerator[Client]:
        """A server that is killed before the block ends."""
        process = None
        try:
            async with self.server() as client:
                process = server_process()
                yield client
                must(not is_alive(process), "the server should have been killed")
        except* (MCPError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            must(process is not None, "the server did not start")  # else it is our end of the connection that broke


def say(text: str = "") -> None:
    print(text, flush=True)


def show(value: Any) -> None:
    for line in json.dumps(value, indent=2).splitlines():
        say(f"    {line}")


def show_question(handle: dict[str, Any]) -> None:
    (question,) = handle["questions"]
    say(f"    {question['message']}")
    for name, form in question["answer_schema"]["properties"].items():
        say(f"        {name}: {form['description']}")
    say(f"    next: {handle['next']}")


def must(truth: bool, otherwise: str) -> None:
    if not truth:
        raise DemoFailed(otherwise)


def server_process() -> psutil.Process:
    found = [child for child in psutil.Process().children() if "flux_mcp_server" in child.cmdline()]
    must(len(found) == 1, f"one server process should run, found {len(found)}")
    return found[0]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


async def kill_server() -> None:
    process = server_process()
    os.kill(process.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        while is_alive(process):  # noqa: ASYNC110 - nothing tells of the death of somebody else's child
            await anyio.sleep(0.01)


async def call(
    client: Client, tool: str, arguments: dict[str, Any], told: Callable[[str], object] = lambda message: None
) -> dict[str, Any]:
    """The tool's answer as data. What it reports on the way is printed, and `told`."""

    async def report(progress: float, total: float | None, message: str | None) -> None:
        say(f"    ... {message or progress}")
        told(message or "")

    result = await client.call_tool(tool, arguments, read_timeout_seconds=60, progress_callback=report)
    must(not result.is_error, f"{tool} answered with an error: {result.content}")
    must(isinstance(result.structured_content, dict), f"{tool} answered without an object: {result.content}")
    return dict(result.structured_content or {})


async def ask(stage: Stage) -> None:
    say("1. A server starts and finds three workflows. Each is a tool:")
    async with stage.doomed_server() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name in ("hello_world", "approve_order", "resume_approve_order", "long_report"):
            must(name in tools, f"there is no tool {name!r}")
            say(f"    {name:22} {(tools[name].description or '').partition('.')[0]}.")
        greeting = await client.call_tool("hello_world", {"input": "Ada"})
        must("Hello, Ada!" in str(greeting.content), f"hello_world should greet: {greeting.content}")
        say("\n2. The assistant calls approve_order. Stock is reserved, then the workflow asks a person:")
        handle = await call(client, "approve_order", ORDER)
        must(handle.get("status") == "paused", f"the workflow should have paused: {handle}")
        show_question(handle)
        must(stage.written == BEFORE_THE_PAUSE, f"each task should have run once: {stage.written}")
        stage.execution_id = handle["execution_id"]
        say("\n3. While it waits for the answer, the server is killed: kill -9.")
        await kill_server()


async def answer(stage: Stage) -> None:
    say("\n4. A new server on the same database. The person agrees: resume_approve_order")
    async with stage.server() as client:
        receipt = await call(client, "resume_approve_order", {"execution_id": stage.execution_id, "answer": ANSWER})
    show(receipt)
    for field, expected in {"outcome": "shipped", "total": "159.90", "note": ANSWER["note"]}.items():
        must(receipt.get(field) == expected, f"{field} should be {expected!r}")
    say("\n5. What the tasks wrote down, a line each. Nothing was done twice, although two processes ran the order:")
    for line in stage.written:
        say(f"    {line}")
    must(stage.written == BEFORE_THE_PAUSE + AFTER_THE_PAUSE, "each task should have run once")


async def lose(stage: Stage) -> None:
    say("\n6. A long report tells how far it is. This server is killed as well, in the middle of the work:")
    async with stage.doomed_server() as client, anyio.create_task_group() as tasks:
        killed = False

        def told(message: str) -> None:
            nonlocal killed
            if "section 2" in message and not killed:
                killed = True
                say("    kill -9")
                tasks.start_soon(kill_server)

        await call(client, "long_report", REPORT, told)


async def find_again(stage: Stage) -> None:
    say("\n7. A third server takes the report up by itself. The assistant makes the same call again, and joins it:")
    heard: list[str] = []
    async with stage.server() as client:
        report = await call(client, "long_report", REPORT, heard.append)
    must(
        [section["title"][-1] for section in report.get("sections", [])] == ["1", "2", "3"],
        "three sections should be there",
    )
    must(not any("section 1" in message for message in heard), "section 1 should not be written again")
    say(
        f"    a report of {report['words']} words in {len(report['sections'])} sections; section 1 was not written again"
    )


async def play(stage: Stage) -> None:
    for act in (ask, answer, lose, find_again):
        await act(stage)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="flux-demo-") as folder:
        stage = Stage(Path(folder))
        try:
            anyio.run(play, stage)
        except BaseException as exc:
            if stage.log.exists():
                sys.stderr.write(stage.log.read_text("utf-8"))
            if wrong := reasons(exc):
                sys.exit(f"THE DEMO FAILED: {'; '.join(wrong)}")
            raise
    say("\nAll is as it should be. README.md shows how to give the server to your assistant.")


def reasons(exc: BaseException) -> list[str]:
    """What was not as it must be; task groups wrap it."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [reason for inner in group.exceptions for reason in reasons(inner)]
    return [str(exc)] if isinstance(exc, DemoFailed) else []


if __name__ == "__main__":
    main()
