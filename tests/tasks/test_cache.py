"""Cached tasks: what counts as the same call, for how long, and what may not be cached."""

from __future__ import annotations

import json
import textwrap
import threading
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, Status, pause, task, workflow
from flux.cache import FileCache, MemoryCache
from flux.domain.calls import Json
from flux.domain.events import CallReturned, CallStarted
from flux.engine.caching import code_digest
from flux.engine.ports import Cache
from flux.errors import DefinitionError, NotStorable
from flux.stores.memory import MemoryStore
from flux.testing import FakeClock, crash_at_every_fact

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["file", "memory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
    return FileCache(tmp_path / "cache") if request.param == "file" else MemoryCache()


numbers = count()


def one_call(cached: Any, *args: Any, **kwargs: Any) -> Any:
    @workflow.with_options(name=f"calls {next(numbers)}")
    async def calls(ctx: ExecutionContext[Any]) -> Any:
        return await cached(*args, **kwargs)

    return calls


async def test_a_result_is_kept_for_other_executions_and_recorded_in_each(flux: Flux) -> None:
    ran: list[int] = []

    @task.with_options(cache=True)
    async def square(n: int) -> int:
        ran.append(n)
        return n * n

    first = await flux.run(one_call(square, 3))
    second = await flux.run(one_call(square, n=3))
    assert (first.output, second.output, ran) == (9, 9, [3])
    kinds = [type(event) for event in await flux.history(second.execution_id)]
    assert kinds.count(CallStarted) == kinds.count(CallReturned) == 1


async def test_a_file_database_has_its_cache_beside_it_for_every_process(tmp_path: Path) -> None:
    ran: list[int] = []

    @task.with_options(cache=True)
    async def square(n: int) -> int:
        ran.append(n)
        return n * n

    for _ in range(2):
        async with Flux(tmp_path / "f.db") as flux:
            assert (await flux.run(one_call(square, 3))).output == 9
    assert ran == [3]
    assert list(tmp_path.glob("f.db.cache/*/*.json"))


async def test_none_is_a_result_like_any_other(flux: Flux) -> None:
    ran: list[int] = []

    @task.with_options(cache=True)
    async def nothing() -> None:
        ran.append(1)

    for _ in range(2):
        assert (await flux.run(one_call(nothing))).output is None
    assert ran == [1]


async def test_a_result_is_good_for_the_time_that_was_said() -> None:
    ran: list[int] = []

    @task.with_options(cache=60)
    async def looks_up() -> int:
        ran.append(1)
        return len(ran)

    clock = FakeClock()
    async with Flux(store=MemoryStore(), clock=clock, recover=False) as flux:
        seen: list[int] = []
        for seconds in (0, 59, 1):
            await clock.advance(seconds=seconds)
            seen.append((await flux.run(one_call(looks_up))).output)
    assert seen == [1, 1, 2]


async def test_different_arguments_are_different_calls(flux: Flux) -> None:
    ran: list[Any] = []

    @task.with_options(cache=True)
    async def same(value: Any, other: Any = None) -> Any:
        ran.append(value)
        return value

    values = [1, True, 1.0, "1", Decimal("1"), [1], (1,), {"a": 1}, None]
    for value in values:
        assert repr((await flux.run(one_call(same, value))).output) == repr(value)
    await flux.run(one_call(same, 1, None))  # the default, said
    await flux.run(one_call(same, 1, 2))
    assert len(ran) == len(values) + 1


def made(number: int) -> Any:
    @task.with_options(cache=True)
    async def version() -> int:
        return number

    return version


async def test_two_functions_of_one_name_do_not_share_results(flux: Flux) -> None:
    def first() -> Any:
        @task.with_options(cache=True, name="v/1")
        async def version() -> str:
            return "v1"

        return version

    def second() -> Any:
        @task.with_options(cache=True, name="v/1")
        async def version() -> str:
            return "v2"

        return version

    outputs = [(await flux.run(one_call(version))).output for version in (first(), second(), made(1), made(2))]
    assert outputs == ["v1", "v2", 1, 2]


def defined(source: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(textwrap.dedent(source), names)
    return names["f"]


def test_the_code_counts_not_where_it_stands() -> None:
    plain = defined("def f(x, y=1):\n    return x in {'a', 'b'} or [z + 1 for z in x]")
    moved = defined("\n\n# a word\ndef f(x, y=1):\n    # another\n    return x in {'a', 'b'} or [z + 1 for z in x]")
    changed = [
        defined("def f(x, y=2):\n    return x in {'a', 'b'} or [z + 1 for z in x]"),
        defined("def f(x, y=1):\n    return x in {'a', 'c'} or [z + 1 for z in x]"),
        defined("def f(x, y=1):\n    return x in {'a', 'b'} or [z + 2 for z in x]"),
        defined("def f(x, y=1):\n    return x in {'a', 'b'} or [z - 1 for z in x]"),
        defined("def f(x, y=1):\n    return x in {'a', 'b'} or [abs(z) for z in x]"),
    ]
    assert code_digest(plain) == code_digest(moved)
    assert len({code_digest(each) for each in [plain, *changed]}) == len(changed) + 1


@pytest.mark.parametrize("value", [lambda: 1, threading.Lock(), object()], ids=["lambda", "lock", "object"])
async def test_arguments_that_cannot_be_stored_are_no_key(flux: Flux, value: Any) -> None:
    @task.with_options(cache=True)
    async def takes(value: Any) -> int:
        return 1

    failed = await flux.run(one_call(takes, [value]))
    assert isinstance(failed.error, NotStorable)
    assert "cached" in str(failed.error)
    assert "takes" in str(failed.error)


async def test_failures_and_fallbacks_are_not_kept(flux: Flux) -> None:
    ran: list[int] = []

    @task.with_options(cache=True, fallback=lambda: "fallback")
    async def flaky() -> str:
        ran.append(1)
        if len(ran) == 1:
            raise ValueError
        return "result"

    assert [(await flux.run(one_call(flaky))).output for _ in range(3)] == ["fallback", "result", "result"]


async def test_an_answer_of_one_execution_is_never_given_to_another(flux: Flux) -> None:
    @task
    async def inner() -> str:
        return await pause("who")

    @task.with_options(cache=True)
    async def asks() -> str:
        return await inner()

    failed = await flux.run(one_call(asks))
    assert failed.status is Status.FAILED
    assert isinstance(failed.error, DefinitionError)
    assert "'who'" in str(failed.error)
    assert "'asks'" in str(failed.error)


async def test_a_crash_at_every_fact_changes_nothing() -> None:
    @task.with_options(cache=True, retry_max_attempts=1, retry_delay=0)
    async def square(n: int) -> int:
        return n * n

    @workflow
    async def squares(ctx: ExecutionContext[Any]) -> list[int]:
        return await square.map([1, 2, 2, 1])

    assert (await crash_at_every_fact(squares)).output == [1, 4, 4, 1]


# -- the stores of it -------------------------------------------------------------------------------------------------------


async def test_a_cache_gives_back_what_it_was_given_until_it_expires(cache: Cache) -> None:
    await cache.put("a/../b \ud800", Json("null"), expires_at=None)
    await cache.put("short", Json("1"), expires_at=10.0)
    await cache.put("short", Json("2"), expires_at=20.0)
    assert await cache.get("a/../b \ud800", now=1e12) == "null"
    assert await cache.get("short", now=19.0) == "2"
    assert await cache.get("short", now=20.0) is None
    assert await cache.get("never", now=0.0) is None
    await cache.clear()
    assert await cache.get("a/../b \ud800", now=0.0) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key":"other","expires_at":null,"value":"1"}', "\xff"])
async def test_a_damaged_file_is_no_result(tmp_path: Path, content: str) -> None:
    cache = FileCache(tmp_path)
    await cache.put("key", Json("1"), expires_at=None)
    (file,) = tmp_path.glob("*/*.json")
    assert json.loads(file.read_text())["value"] == "1"
    file.write_text(content, "latin-1")
    assert await cache.get("key", now=0.0) is None


async def test_a_cache_that_cannot_be_written_only_makes_the_task_slower(tmp_path: Path) -> None:
    @task.with_options(cache=True)
    async def one() -> int:
        return 1

    (tmp_path / "f.db.cache").write_text("in the way")
    async with Flux(tmp_path / "f.db", recover=False) as flux:
        assert (await flux.run(one_call(one))).output == 1
