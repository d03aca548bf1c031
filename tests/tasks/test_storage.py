"""Large values, and results that a task keeps elsewhere."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from flux import ExecutionContext, Flux, pause, task, workflow
from flux.domain.calls import Json
from flux.domain.events import CallReturned
from flux.errors import NotReadable, StoreError
from flux.settings import Settings
from flux.storage import InlineOutputStorage, LocalFileStorage, OutputReference, SpilledValues
from flux.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

LARGE = "x" * 5000


@task
async def doubled(text: str) -> str:
    return text * 2


@workflow
async def grows(ctx: ExecutionContext[str]) -> str:
    text = await doubled(ctx.input)
    return text + await pause("more?", output=text)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(database=tmp_path / "f.db", inline_limit=1000)


def values_of(settings: Settings) -> list[Path]:
    return sorted(Path(f"{settings.database}.values").glob("*/*/*.json"))


async def test_large_values_stand_in_files_and_are_read_as_if_they_did_not(settings: Settings) -> None:
    async with Flux(settings=settings, recover=False) as flux:
        paused = await flux.run(grows, LARGE)
        assert paused.pauses[0].output == LARGE * 2
    async with Flux(settings=settings, recover=False, workflows=[grows]) as flux:
        done = await flux.resume(paused.execution_id, LARGE)
        assert done.output == LARGE * 3
        seen = await flux.get(done.execution_id, events=True)
        assert (seen.input, seen.output, seen.events[2].value) == (LARGE, LARGE * 3, LARGE * 2)
    assert len(values_of(settings)) == 3  # input and answer are one, as are the result and the question
    rows = sqlite3.connect(settings.database).execute("SELECT max(length(value)) FROM events").fetchone()
    assert rows[0] <= 1000


async def test_small_values_stay_in_the_history(settings: Settings) -> None:
    async with Flux(settings=settings, recover=False) as flux:
        await flux.run(grows, "small")
    assert values_of(settings) == []


async def test_a_lost_or_damaged_file_is_a_clear_error(settings: Settings) -> None:
    async with Flux(settings=settings, recover=False) as flux:
        paused = await flux.run(grows, LARGE)
        await flux.resume(paused.execution_id, LARGE)
        done = await flux.get(paused.execution_id)
        for file in values_of(settings):
            file.write_text("1")
        with pytest.raises(NotReadable, match="damaged"):
            _ = done.output
        for file in values_of(settings):
            file.unlink()
        with pytest.raises(NotReadable, match="gone"):
            _ = done.output


async def test_a_value_that_cannot_be_written_stops_the_run_and_records_nothing(settings: Settings) -> None:
    Path(f"{settings.database}.values").write_text("in the way")
    async with Flux(settings=settings, recover=False) as flux:
        with pytest.raises(StoreError, match="large value"):
            await flux.start(grows, LARGE)
        assert await flux.list() == []


async def test_pruning_takes_the_files_along(settings: Settings) -> None:
    async with Flux(settings=settings, recover=False) as flux:
        paused = await flux.run(grows, LARGE)
        done = await flux.resume(paused.execution_id, LARGE)
        for label in Path(f"{settings.database}.values").glob("*/execution.json"):
            os.utime(label, (0, 0))
        kept = await flux.run(grows, LARGE + "kept")
        assert await flux.engine.store.prune(before=done.updated_at.timestamp() + 1) == 1
        assert (await flux.get(kept.execution_id)).input == LARGE + "kept"
    assert len(list(Path(f"{settings.database}.values").glob("*"))) == 1


async def test_a_fork_keeps_its_values_when_the_original_is_pruned(settings: Settings) -> None:
    async with Flux(settings=settings, recover=False) as flux:
        paused = await flux.run(grows, LARGE)
        fork = await flux.engine.fork(paused.execution_id, as_id="fork")
        await flux.resume(paused.execution_id, LARGE)
        ended = (await flux.get(paused.execution_id)).updated_at.timestamp()
        for label in Path(f"{settings.database}.values").glob("*/execution.json"):
            os.utime(label, (0, 0))
        assert await flux.engine.store.prune(before=ended + 1) == 1
        assert (await flux.resume(fork.id, "!")).output == LARGE * 2 + "!"


async def test_a_database_in_memory_keeps_everything_inline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Flux(settings=Settings.load(database=":memory:", inline_limit=10), recover=False) as flux:
        assert (await flux.run(grows, LARGE)).pauses[0].output == LARGE * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "inline"])
async def test_a_task_may_keep_its_results_in_a_storage_of_its_own(flux: Flux, tmp_path: Path, kind: str) -> None:
    storage = LocalFileStorage(tmp_path / "kept", name="reports") if kind == "file" else InlineOutputStorage()
    ran: list[int] = []

    @task.with_options(output_storage=storage)
    async def report(n: int) -> dict[str, int]:
        ran.append(n)
        return {"pages": n}

    @workflow
    async def reports(ctx: ExecutionContext[Any]) -> int:
        found = await report(3)
        await pause("go on?")
        return found["pages"]

    paused = await flux.run(reports)
    done = await flux.resume(paused.execution_id)
    assert (done.output, ran) == (3, [3])
    (value,) = [event.value for event in await flux.history(done.execution_id) if isinstance(event, CallReturned)]
    assert storage.name in value
    shown = (await flux.get(done.execution_id, events=True)).events[2].value
    assert isinstance(shown, OutputReference)
    assert await storage.retrieve(shown.reference) == '{"pages":3}'


async def test_a_result_whose_storage_the_task_has_lost_is_a_clear_error(flux: Flux, tmp_path: Path) -> None:
    options: list[Any] = [LocalFileStorage(tmp_path), None]

    async def one() -> int:
        return 1

    @workflow
    async def calls(ctx: ExecutionContext[Any]) -> int:
        found = await task.with_options(output_storage=options.pop(0))(one)()
        await pause("go on?")
        return found

    paused = await flux.run(calls)
    failed = await flux.resume(paused.execution_id)
    assert isinstance(failed.error, NotReadable)
    assert "'local_file'" in str(failed.error)


async def test_a_sensitive_result_is_sealed_before_it_is_kept_elsewhere(flux: Flux, tmp_path: Path) -> None:
    @task.with_options(sensitive=True, output_storage=LocalFileStorage(tmp_path))
    async def diagnosis() -> str:
        return "measles"

    @workflow
    async def treats(ctx: ExecutionContext[Any]) -> int:
        return len(await diagnosis())

    assert (await flux.run(treats)).output == 7
    (file,) = tmp_path.glob("*/*.json")
    assert "measles" not in file.read_text()


async def test_a_local_storage_keeps_a_value_once_and_forgets_it_when_told(tmp_path: Path) -> None:
    storage = LocalFileStorage(tmp_path)
    first = await storage.store("a", Json('"value"'))
    assert await storage.store("b", Json('"value"')) == first
    assert len(list(tmp_path.glob("*/*"))) == 1
    assert await storage.retrieve(first) == '"value"'
    await storage.delete(first)
    with pytest.raises(NotReadable, match="gone"):
        await storage.retrieve(first)
    with pytest.raises(NotReadable, match="no reference"):
        await storage.retrieve("../../etc/passwd")


def test_a_reference_leads_nowhere_but_to_the_folder_of_values(tmp_path: Path) -> None:
    values = SpilledValues(tmp_path)
    for text in ("../x/aa", "a/../../b", "a"):
        with pytest.raises(NotReadable):
            values.read(Json(f'{{"$":"spilled","v":"{text}"}}'))


async def test_a_workflow_may_keep_its_results_elsewhere_too(tmp_path: Path) -> None:
    storage = LocalFileStorage(tmp_path / "results")

    @workflow.with_options(output_storage=storage)
    async def kept(ctx: ExecutionContext[int]) -> dict[str, int]:
        return {"result": ctx.input}

    @workflow
    async def parent(ctx: ExecutionContext[Any]) -> Any:
        return await kept(2)

    async with Flux(store=MemoryStore(), recover=False) as flux:
        done = await flux.run(kept, 1)
        assert done.output == {"result": 1}
        assert '"result"' not in str(await flux.history(done.execution_id))
        assert (await flux.run(parent)).output == {"result": 2}


async def test_a_stored_value_can_be_read_in_pieces(tmp_path: Path) -> None:
    storage = LocalFileStorage(tmp_path)
    reference = await storage.store("any", Json('"' + "x" * 1000 + '"'))
    pieces = [piece async for piece in storage.stream(reference, size=300)]
    assert [len(piece) for piece in pieces] == [300, 300, 300, 102]
    next(tmp_path.rglob("*.json")).write_text("changed")
    with pytest.raises(NotReadable, match="damaged"):
        _ = [piece async for piece in storage.stream(reference)]
    with pytest.raises(NotReadable, match="gone"):
        _ = [piece async for piece in storage.stream("0" * 64)]


async def test_without_a_folder_results_are_beside_the_database(own_database: Path) -> None:
    reference = await LocalFileStorage().store("any", Json("1"))
    assert (own_database.with_name("flux.db.outputs") / reference[:2] / f"{reference}.json").read_text() == "1"
