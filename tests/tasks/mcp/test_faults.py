"""Servers that die, go silent or talk nonsense: a typed error within a bound, nothing done twice, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest

from flux import ExecutionContext, Flux, workflow
from flux.errors import (
    ConnectionLost,
    OutcomeUnknown,
    RequestRefused,
    ResultTooLarge,
    ServerUnreachable,
    TaskTimeout,
    ToolChanged,
    ToolExecutionError,
    UnusableResult,
)
from flux.stores.memory import MemoryStore
from flux.tasks.mcp import mcp
from flux.testing import replayed_from
from tests.tasks.mcp.servers import (
    ERAS,
    PATIENCE,
    STDIO,
    Context,
    Reply,
    Small,
    adder,
    is_alive,
    schema,
    script,
    text,
    until,
    until_gone,
    until_said,
    words,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return script(tmp_path / "server.py", STDIO)


def calls(command: Any, **options: Any) -> Any:
    @workflow
    async def calls(ctx: ExecutionContext[str]) -> Any:
        async with mcp(command, name="real", **options) as client:
            tools = await client.discover()
            return await tools[ctx.input]()

    return calls


async def failure(flux: Flux, body: Any, tool: str) -> BaseException:
    with anyio.fail_after(PATIENCE):
        execution = await flux.run(body, tool)
    assert execution.error is not None, execution.output
    return execution.error


async def test_a_server_over_stdio_is_used_and_ended(flux: Flux, command: list[str]) -> None:
    execution = await flux.run(calls(command), "pid")
    assert execution.has_succeeded, execution.error
    await until_gone(int(execution.output))


@pytest.mark.parametrize(
    ("tool", "kind", "said"),
    [
        ("die", OutcomeUnknown, "its process has ended"),
        ("shut", OutcomeUnknown, "has closed its output"),
        ("broken", OutcomeUnknown, "not JSON"),
        ("big", ResultTooLarge, "8,388,608 are kept at most"),
    ],
)
async def test_a_server_that_misbehaves_is_a_typed_error(
    flux: Flux, command: list[str], tool: str, kind: type[Exception], said: str
) -> None:
    error = await failure(flux, calls(command), tool)
    assert isinstance(error, kind)
    assert said in str(error)


async def test_a_server_that_never_answers_is_left_after_the_timeout(
    flux: Flux, command: list[str], tmp_path: Path
) -> None:
    body = calls(command, timeout=0.3)
    assert isinstance(await failure(flux, body, "charge"), OutcomeUnknown)
    assert isinstance(await failure(flux, body, "look"), TaskTimeout)
    assert words(tmp_path).count("charge") == 1


async def test_a_frozen_server_is_noticed(
    flux: Flux, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.tasks.mcp.exchange.PROBE_AFTER", 0.2)
    client = mcp(command, connect_timeout=1)

    @workflow
    async def freezes() -> Any:
        tools = await client.discover()
        pid = int(await tools.pid())
        os.kill(pid, signal.SIGSTOP)
        try:
            return await tools.look()
        except ConnectionLost as exc:
            return str(exc)
        finally:
            os.kill(pid, signal.SIGCONT)

    execution = await flux.run(freezes)
    assert "does not react any more" in execution.output
    await client.aclose()


async def test_a_server_killed_during_a_call_that_must_not_be_made_twice(
    flux: Flux, command: list[str], tmp_path: Path
) -> None:
    client = mcp(command)

    @workflow
    async def charges() -> Any:
        tools = await client.discover()
        pid = await tools.pid()
        return pid, await tools.charge.with_options(retry_max_attempts=3, retry_delay=0)()

    execution = await flux.start(charges)
    await until_said(tmp_path, "waiting")
    os.kill(await _pid(flux, execution.execution_id), signal.SIGKILL)
    execution = await flux.wait(execution.execution_id)
    assert isinstance(execution.error, OutcomeUnknown)
    assert words(tmp_path).count("charge") == 1

    (tmp_path / "go").touch()  # somebody has looked: it was not done
    retried = await flux.retry(execution.execution_id)
    retried = await flux.wait(retried.execution_id)
    assert retried.has_succeeded, retried.error
    assert words(tmp_path).count("charge") == 2
    await client.aclose()


async def _pid(flux: Flux, execution_id: str) -> int:
    events = (await flux.get(execution_id, events=True)).events
    return int(next(e.value for e in events if e.type == "TASK_COMPLETED" and e.name.endswith("_pid")))


async def test_a_server_killed_during_a_safe_call_is_started_again(
    flux: Flux, command: list[str], tmp_path: Path
) -> None:
    client = mcp(command, retry_max_attempts=2, retry_delay=0)

    @workflow
    async def looks() -> Any:
        tools = await client.discover()
        return await tools.pid(), await tools.look()

    execution = await flux.start(looks)
    await until_said(tmp_path, "waiting")
    (tmp_path / "go").touch()
    os.kill(await _pid(flux, execution.execution_id), signal.SIGKILL)
    execution = await flux.wait(execution.execution_id)
    assert execution.has_succeeded, execution.error
    assert (words(tmp_path).count("look"), words(tmp_path).count("started")) == (2, 2)
    await client.aclose()


async def test_a_server_that_died_between_calls_is_started_again(flux: Flux, command: list[str]) -> None:
    client = mcp(command)

    @workflow
    async def goes_on() -> Any:
        tools = await client.discover()
        first = int(await tools.pid())
        os.kill(first, signal.SIGKILL)
        await until_gone(first)
        return first != int(await tools.pid())

    execution = await flux.run(goes_on)
    assert execution.output is True, execution.error
    await client.aclose()


@pytest.mark.parametrize("safe", [True, False])
async def test_a_call_in_flight_when_our_process_died(safe: bool) -> None:
    small = Small()

    @small.tool("charge", safe=safe)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("charged")

    @workflow
    async def charges() -> Any:
        async with mcp(small.server) as client:
            return await (await client.discover()).charge()

    async with Flux(store=MemoryStore(), recover=False) as flux:
        execution = await flux.run(charges)
        history = await flux.history(execution.execution_id)
    small.calls.clear()
    again = await replayed_from(charges, execution.execution_id, history[:-2])
    assert len(small.calls) == (1 if safe else 0)
    assert again.has_succeeded is safe
    assert safe or isinstance(again.error, OutcomeUnknown)


async def test_no_server_at_all_is_tried_again_and_told(flux: Flux, tmp_path: Path) -> None:
    @workflow
    async def nobody() -> Any:
        async with mcp("http://127.0.0.1:9/mcp", retry_max_attempts=1, retry_delay=0) as client:
            await client.discover()

    @workflow
    async def nothing() -> Any:
        async with mcp(str(tmp_path / "no-such-program")) as client:
            await client.discover()

    for body in (nobody, nothing):
        with anyio.fail_after(PATIENCE):
            execution = await flux.run(body)
        assert isinstance(execution.error, ServerUnreachable), repr(execution.error)


async def test_a_command_that_says_nothing_is_given_up(flux: Flux, tmp_path: Path) -> None:
    silent = script(tmp_path / "silent.py", "import sys\nsys.stdin.read()")

    @workflow
    async def waits() -> Any:
        async with mcp(silent, connect_timeout=0.3, protocol="legacy") as client:
            await client.discover()

    with anyio.fail_after(PATIENCE):
        execution = await flux.run(waits)
    assert "no connection within 0.3 s" in str(execution.error)


@pytest.mark.parametrize("era", ERAS)
async def test_protocol_errors_are_not_tried_again(flux: Flux, era: str) -> None:
    small = adder()

    @small.tool("odd", safe=True, output_schema=schema("n", n={"type": "integer"}))
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("odd", structured_content={"n": "x"})

    @workflow
    async def calls(ctx: ExecutionContext[str]) -> Any:
        async with mcp(small.server, protocol=era, retry_max_attempts=3, retry_delay=0) as client:
            tools = await client.discover()
            if ctx.input == "gone":
                small._handlers.pop("add")  # pyright: ignore[reportPrivateUsage] - as a server that forgets it
                return await tools.add(a=1, b=1)
            return await tools.odd()

    odd = (await flux.run(calls, "odd")).error
    assert isinstance(odd, UnusableResult), repr(odd)
    assert "does not fit its own output schema: n: 'x' is not of type 'integer'" in str(odd)
    gone = (await flux.run(calls, "gone")).error
    assert isinstance(gone, RequestRefused)
    assert gone.code == types.INVALID_PARAMS
    assert len(small.calls) == 2


async def test_a_tool_that_has_changed_is_told(flux: Flux) -> None:
    small = adder()
    client = mcp(small.server, connection="per-call")

    @workflow
    async def calls(ctx: ExecutionContext[str]) -> Any:
        tools = await client.discover()
        await until(lambda: small.open == 0)
        add = small.tools["add"]
        changed = schema("a", "b", "c", **{name: {"type": "integer"} for name in "abc"})
        small.tools = {} if ctx.input == "gone" else {"add": add.model_copy(update={"input_schema": changed})}
        try:
            return await tools.add(a=1, b=2)
        except ToolChanged as exc:
            return [str(exc), len(await client.rediscover())]
        finally:
            small.tools = {"add": add}

    said, left = (await flux.run(calls, "changed")).output
    assert "has changed since the tools were discovered" in said
    assert "'c' is a required property" in said
    assert left == 1
    said, left = (await flux.run(calls, "gone")).output
    assert "is gone" in said
    assert left == 0


async def test_cancelling_the_execution_cancels_the_call(flux: Flux) -> None:
    small = Small()
    under_way, cancelled = asyncio.Event(), asyncio.Event()

    @small.tool("long")
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        under_way.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return text("never")

    @workflow
    async def calls() -> Any:
        async with mcp(small.server, protocol="legacy") as client:
            return await (await client.discover()).long()

    execution = await flux.start(calls)
    with anyio.fail_after(PATIENCE):
        await under_way.wait()
        await flux.cancel(execution.execution_id)
        await cancelled.wait()
        assert (await flux.wait(execution.execution_id)).is_cancelled
        await until(lambda: small.open == 0)


async def test_closing_in_any_order_breaks_nothing(flux: Flux) -> None:
    one, two = adder("one"), adder("two")
    first, second = mcp(one.server), mcp(two.server)

    @workflow
    async def crosses() -> Any:
        await first.__aenter__()
        await second.__aenter__()
        a = await (await first.discover()).add(a=1, b=1)
        b = await (await second.discover()).add(a=2, b=2)
        await first.__aexit__()
        closing = asyncio.create_task(second.__aexit__())  # another task than the one that entered
        await closing
        return a, b

    execution = await flux.run(crosses)
    assert execution.output == ({"sum": 2}, {"sum": 4}), execution.error
    assert (one.open, two.open) == (0, 0)


async def test_a_client_closed_during_a_call_ends_the_call(flux: Flux) -> None:
    small = Small()
    under_way = asyncio.Event()

    @small.tool("long", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        under_way.set()
        await anyio.sleep_forever()
        return text("never")

    client = mcp(small.server)

    @workflow
    async def calls() -> Any:
        return await (await client.discover()).long()

    execution = await flux.start(calls)
    with anyio.fail_after(PATIENCE):
        await under_way.wait()
        await flux.cancel(execution.execution_id)
        await client.aclose()
        await flux.wait(execution.execution_id)
        await until(lambda: small.open == 0)


def test_a_loop_that_ends_takes_its_servers_with_it(command: list[str]) -> None:
    client = mcp(command)

    @workflow
    async def left_open() -> Any:
        return await (await client.discover()).pid()

    pid = int(left_open.run().output)
    deadline = time.monotonic() + PATIENCE
    while is_alive(pid) and time.monotonic() < deadline:
        pass
    assert not is_alive(pid)


STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
(HERE / "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(3600)
"""

OURS = """
import sys
from flux import workflow
from flux.tasks.mcp import mcp, targets

targets.GRACE = 0.2

@workflow
async def waits():
    async with mcp([sys.executable, sys.argv[1]], connect_timeout=3600) as client:
        return await client.discover()

waits.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the SDK sees to it")
async def test_a_server_that_does_not_end_by_itself_ends_when_our_process_is_killed(tmp_path: Path) -> None:
    ours = await anyio.open_process([*script(tmp_path / "ours.py", OURS), script(tmp_path / "server.py", STUBBORN)[1]])
    try:
        await until((tmp_path / "pids").exists)
        await until(lambda: len((tmp_path / "pids").read_text().split()) == 2)
    finally:
        ours.kill()
        await ours.wait()
    for pid in (tmp_path / "pids").read_text().split():
        await until_gone(int(pid))


async def test_retries_count_only_what_was_not_done(flux: Flux) -> None:
    small = Small()

    @small.tool("pay", safe=True)
    async def _(ctx: Context, params: types.CallToolRequestParams) -> Reply:
        return text("no money", is_error=True)

    @workflow
    async def pays() -> Any:
        async with mcp(small.server) as client:
            tools = await client.discover()
            return await tools.pay.with_options(retry_max_attempts=2, retry_delay=0)()

    assert isinstance((await flux.run(pays)).error, ToolExecutionError)
    keys = [meta["flux/idempotencyKey"] for meta in small.metas]
    assert len(keys) == 1
