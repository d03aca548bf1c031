"""What agents remember beyond the execution: the same with every provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, pause, workflow
from flux.tasks.ai import agent
from flux.tasks.ai.memory import MemoryProvider, in_memory, long_term_memory, postgresql, sqlite
from flux.testing import ScriptedModel, ScriptedRequest, tool_call
from tests.postgres import database

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["in_memory", "sqlite", "postgresql"])
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryProvider]:
    match request.param:
        case "in_memory":
            yield in_memory()
        case "sqlite":
            yield sqlite(tmp_path / "deep" / "memory.db")
        case _:
            with database() as url:
                yield postgresql(url)


def results(request: ScriptedRequest) -> str:
    return " ".join(request.results)


async def test_a_memory_is_apart_for_each_agent_and_scope(provider: MemoryProvider) -> None:
    ada, bob = long_term_memory(provider, "helper", "ada"), long_term_memory(provider, "helper", "bob")
    other = long_term_memory(provider, "other", "ada")
    assert await ada.recall() == {}
    await ada.memorize("likes", {"drink": "tea"})
    await ada.memorize("name", "Ada")
    assert await ada.recall("likes") == {"drink": "tea"}
    assert await ada.recall() == {"likes": {"drink": "tea"}, "name": "Ada"}
    assert (await bob.recall("likes"), await other.keys()) == (None, [])
    assert await ada.scopes() == ["ada"]
    assert (await ada.forget("name"), await ada.forget("name")) == (True, False)
    assert await ada.keys() == ["likes"]


async def test_a_value_comes_back_as_it_was_and_replaces_the_one_before(provider: MemoryProvider) -> None:
    memory = long_term_memory(provider, "helper")
    values: list[Any] = ["it's\0 \ud83d", {"b": 1, "a": [None, True, 0.1, 10**30]}, "", [], "Grüße 🍵", "x" * 100_000]
    for value in values:
        await memory.memorize("key", value)
        assert await memory.recall("key") == value
    assert await memory.keys() == ["key"]


async def test_keys_and_scopes_are_in_the_same_order_everywhere(provider: MemoryProvider) -> None:
    for scope in ("b", "B", "a b", "ä"):
        await long_term_memory(provider, "helper", scope).memorize("k", 1)
    assert await long_term_memory(provider, "helper").scopes() == ["B", "a b", "b", "ä"]
    memory = long_term_memory(provider, "helper", "b")
    for key in ("z", "Z", "_", "é", "10", "9", "'; DROP TABLE flux_memory; --"):
        await memory.memorize(key, key)
    assert await memory.keys() == sorted(["k", "z", "Z", "_", "é", "10", "9", "'; DROP TABLE flux_memory; --"])


async def test_several_may_be_the_first_to_use_it(provider: MemoryProvider) -> None:
    memory = long_term_memory(provider, "helper")
    await asyncio.gather(*(memory.memorize(f"{n}", n) for n in range(8)))
    assert await memory.recall() == {f"{n}": n for n in range(8)}


async def test_an_agent_stores_and_recalls_in_another_execution(flux: Flux, provider: MemoryProvider) -> None:
    model = ScriptedModel(
        [
            tool_call("store_memory", key="drink", value="tea"),
            "noted",
            [tool_call("recall_memory", key="drink"), tool_call("list_memory_keys")],
            results,
            tool_call("forget_memory", key="drink"),
            results,
        ]
    )
    helper = agent("Help.", model=model, long_term_memory=long_term_memory(provider, "helper", "ada"))

    @workflow
    async def helps(ctx: ExecutionContext[str]) -> str:
        return await helper(ctx.input)

    assert (await flux.run(helps, "I like tea")).output == "noted"
    assert (await flux.run(helps, "What do I like?")).output == "tea ['drink']"
    assert (await flux.run(helps, "Forget it")).output == "Forgot 'drink'."
    assert "long-term memory" in (model.requests[0].instructions or "")


async def test_what_was_recalled_stays_so_in_its_execution(flux: Flux, provider: MemoryProvider) -> None:
    memory = long_term_memory(provider, "helper")

    @workflow
    async def looks_twice(ctx: ExecutionContext[Any]) -> list[Any]:
        before = await memory.recall("drink")
        await pause("wait")
        return [before, await memory.recall("drink")]

    await memory.memorize("drink", "tea")
    paused = await flux.run(looks_twice)
    await memory.memorize("drink", "coffee")
    assert (await flux.resume(paused.execution_id, None)).output == ["tea", "coffee"]


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(long_term_memory(postgresql("postgresql://ada:secret@localhost/x"), "helper"))
