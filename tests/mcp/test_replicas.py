"""Two server processes on one PostgreSQL: behind a proxy that sends every request to the other one than the last, and side by side.

The tests of the server that run on one are run on two as well: see conftest.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import ElicitResult

from tests.mcp.proxy import proxy
from tests.mcp.serving import ERAS, PATIENCE, Era, data_of, lines, written
from tests.mcp.test_http import two_servers
from tests.mcp.test_tasks import Knows, Params, TaskListen, Whole, begun

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]


@pytest.fixture
def url(tmp_path: Path, postgres: str) -> Iterator[str]:
    with (
        two_servers(tmp_path, "--stateless", "--database", postgres, "--wait", "1") as (_, *urls),
        proxy(urls) as url,
    ):
        yield url


@pytest.mark.parametrize("era", ERAS)
async def test_a_handle_is_followed_answered_and_finished_on_whichever_replica(
    era: Era, url: str, tmp_path: Path
) -> None:
    async with Client(url, mode=era, cache=None) as client:
        asked = data_of(await client.call_tool("approve", {"input": "A1"}))
        id = asked["execution_id"]
        for _ in range(4):
            seen = data_of(await client.call_tool("get_execution", {"execution_id": id}))
            assert seen["status"] == "paused"
        await client.call_tool("resume_approve", {"execution_id": id, "answer": {"approved": True}})
        done = data_of(await client.call_tool("get_execution", {"execution_id": id, "wait_seconds": 10}))
        assert (done["status"], done["output"]) == ("completed", "shipped A1")
    assert lines(tmp_path / "trace.txt") == ["reserve A1", "ship A1"]


async def test_a_question_asked_by_one_replica_is_answered_at_the_other(url: str, tmp_path: Path) -> None:
    async def say_yes(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": True})

    async with Client(url, mode="2026-07-28", elicitation_callback=say_yes, cache=None) as client:
        for number in range(3):
            result = data_of(await client.call_tool("approve", {"input": f"A{number}"}))
            assert result == {"result": f"shipped A{number}"}
    assert len(lines(tmp_path / "trace.txt")) == 6


@pytest.mark.parametrize("era", ERAS)
async def test_what_one_replica_runs_is_cancelled_through_the_other(era: Era, url: str, tmp_path: Path) -> None:
    async with Client(url, mode=era, cache=None) as client:
        asked = data_of(await client.call_tool("wait_for", {"input": str(tmp_path / "never")}))
        await written(tmp_path / "trace.txt")
        for _ in range(2):
            await client.call_tool("cancel_execution", {"execution_id": asked["execution_id"]})
        done = data_of(
            await client.call_tool("get_execution", {"execution_id": asked["execution_id"], "wait_seconds": 10})
        )
        assert done["status"] == "cancelled"


async def test_without_sessions_an_older_client_is_promised_no_news(url: str) -> None:
    async with Client(url, mode="legacy", cache=None) as older:
        client: Any = older  # what it can do is deprecated
        promised = client.server_capabilities
        assert (promised.resources.subscribe, promised.tools.list_changed) == (False, False)
        with pytest.raises(MCPError, match="keeps no sessions"):
            await client.subscribe_resource("flux://workflows/approve")


@pytest.mark.parametrize("era", ERAS)
async def test_the_same_call_after_its_replica_was_killed_joins_its_execution_at_the_other(
    era: Era, tmp_path: Path, postgres: str
) -> None:
    there, trace = tmp_path / "there", tmp_path / "trace.txt"
    with two_servers(tmp_path, "--database", postgres) as (first, here, other):
        lost = asyncio.create_task(called(here, era, "wait_for", there))
        await written(trace)
        first.kill()
        with pytest.raises((MCPError, ExceptionGroup)):
            await asyncio.wait_for(lost, PATIENCE)
        there.touch()
        assert await asyncio.wait_for(called(other, era, "wait_for", there), PATIENCE) == {"result": "shipped it"}
    assert lines(trace) == ["waiting", "waiting", "seen", "ship it"]


async def called(url: str, era: Era, tool: str, input: Path) -> dict[str, Any]:
    async with Client(url, mode=era, cache=None) as client:
        return data_of(await client.call_tool(tool, {"input": str(input)}))


# -- told by one of what runs on the other -----------------------------------------------------------------------------


@pytest.fixture
def urls(tmp_path: Path, postgres: str) -> Iterator[list[str]]:
    """Of two servers with sessions."""
    with two_servers(tmp_path, "--database", postgres, "--wait", "1") as (_, *urls):
        yield urls


async def started(client: Client, there: Path) -> str:
    """An execution that runs where the client is connected, until the file is there."""
    id: str = data_of(await client.call_tool("wait_for", {"input": str(there)}))["execution_id"]
    return id


class Hears:
    """A client's ear for changes of resources, in both eras."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        if getattr(message, "method", "") == "notifications/resources/updated":
            self.changed.set()

    def _heard(self, _: object) -> None:
        self.changed.set()

    @asynccontextmanager
    async def subscribed(self, client: Any, era: Era, uri: str) -> AsyncGenerator[None]:
        if era == "legacy":
            await client.subscribe_resource(uri)
            yield
            return
        async with client.listen(resource_subscriptions=[uri]) as changes:
            waiting = asyncio.ensure_future(anext(changes))
            waiting.add_done_callback(self._heard)
            yield
            waiting.cancel()


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_of_one_replica_is_told_of_an_execution_on_the_other(
    era: Era, urls: list[str], tmp_path: Path
) -> None:
    hears, (here, there) = Hears(), urls
    async with Client(here, mode=era, message_handler=hears) as client, Client(there, mode=era) as runs:
        id = await started(runs, tmp_path / "there")
        async with hears.subscribed(client, era, f"flux://executions/{id}"):
            (tmp_path / "there").touch()
            await asyncio.wait_for(hears.changed.wait(), PATIENCE)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_of_one_replica_is_told_of_an_answer_at_the_other(era: Era, urls: list[str]) -> None:
    hears, (here, there) = Hears(), urls
    async with Client(here, mode=era, message_handler=hears) as client, Client(there, mode=era) as runs:
        id = data_of(await runs.call_tool("approve", {"input": "A1"}))["execution_id"]
        async with hears.subscribed(client, era, f"flux://executions/{id}"):
            answer = {"execution_id": id, "answer": {"approved": True}}
            assert data_of(await runs.call_tool("resume_approve", answer)) == {"result": "shipped A1"}
            await asyncio.wait_for(hears.changed.wait(), PATIENCE)


async def test_a_client_of_one_replica_is_told_the_states_of_a_task_on_the_other(
    urls: list[str], tmp_path: Path
) -> None:
    knows, (here, there) = Knows(), urls
    async with (
        Client(here, mode="2026-07-28", extensions=[knows]) as client,
        Client(there, mode="2026-07-28", extensions=[Knows()]) as runs,
    ):
        id = (await begun(runs, "wait_for", {"input": str(tmp_path / "there")})).task_id
        params = Params.model_validate({"notifications": {"taskIds": [id]}})
        listening = asyncio.create_task(client.session.send_request(TaskListen(params=params), Whole))
        async with asyncio.timeout(PATIENCE):
            while not knows.told:  # noqa: ASYNC110 - the client has no event for it
                await asyncio.sleep(0.02)
            (tmp_path / "there").touch()
            await knows.completed.wait()
        listening.cancel()
        assert [told.status for told in knows.told] == ["working", "completed"]
