"""Group commit, over a database that does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from flux.engine.ports import Lease, Owner
from flux.errors import StoreError
from flux.stores.grouping import GroupCommit
from flux.stores.plan import Append, Outcome, Write

pytestmark = pytest.mark.anyio

LEASE = Lease(execution_id="e", owner=Owner(host="here", pid=1, started=1.5, token="alice"), epoch=1)


def append(seq: int) -> Append:
    return Append(id="e", rows=[], expected=seq, lease=LEASE, head=None, release=False)


class Disk:
    """Commits one group each time it is told to."""

    def __init__(self) -> None:
        self.groups: asyncio.Queue[list[int]] = asyncio.Queue()
        self._turns: asyncio.Queue[BaseException | None] = asyncio.Queue()

    def go_on(self, error: BaseException | None = None) -> None:
        self._turns.put_nowait(error)

    async def commit(self, group: Sequence[Write]) -> list[Outcome]:
        self.groups.put_nowait([write.expected for write in group if isinstance(write, Append)])
        if (error := await self._turns.get()) is not None:
            raise error
        return [None] * len(group)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def group(disk: Disk) -> GroupCommit:
    return GroupCommit(disk.commit, fault=lambda exc: StoreError(str(exc)), name="d")


async def test_what_arrives_in_one_turn_or_while_a_commit_runs_is_committed_together(
    disk: Disk, group: GroupCommit
) -> None:
    first = [asyncio.create_task(group.write(append(seq))) for seq in (1, 2)]
    assert await disk.groups.get() == [1, 2]
    later = [asyncio.create_task(group.write(append(seq))) for seq in (3, 4, 5)]
    await asyncio.sleep(0)
    later[1].cancel()
    disk.go_on()
    await asyncio.gather(*first)
    assert await disk.groups.get() == [3, 5]
    disk.go_on()
    assert await asyncio.gather(later[0], later[2]) == [None, None]
    await group.aclose()


async def test_whatever_a_commit_fails_by_everybody_in_it_is_told_and_the_next_one_is_made(
    disk: Disk, group: GroupCommit
) -> None:
    failing = [asyncio.create_task(group.write(append(seq))) for seq in (1, 2)]
    await disk.groups.get()
    waiting = asyncio.create_task(group.write(append(3)))
    await asyncio.sleep(0)
    disk.go_on(OSError("full"))
    told = await asyncio.gather(*failing, return_exceptions=True)
    assert [str(each) for each in told] == ["full", "full"]
    assert await disk.groups.get() == [3]
    disk.go_on()
    await waiting


async def test_a_commit_that_is_cancelled_is_an_error_to_who_waits_for_it_and_what_waits_behind_it_has_its_turn(
    disk: Disk, group: GroupCommit
) -> None:
    before = asyncio.all_tasks()
    writing = asyncio.create_task(group.write(append(1)))
    await disk.groups.get()
    behind = asyncio.create_task(group.write(append(2)))
    (committer,) = asyncio.all_tasks() - before - {writing, behind}
    await asyncio.sleep(0)
    committer.cancel()
    with pytest.raises(StoreError, match="closed in the middle of a write"):
        await writing
    assert await disk.groups.get() == [2]
    disk.go_on()
    await behind


async def test_what_was_handed_in_before_the_end_is_committed_and_nothing_after_it(
    disk: Disk, group: GroupCommit
) -> None:
    writing = asyncio.create_task(group.write(append(1)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(group.aclose())
    await disk.groups.get()
    with pytest.raises(StoreError, match="has been closed"):
        await group.write(append(2))
    disk.go_on()
    await closing
    await writing
