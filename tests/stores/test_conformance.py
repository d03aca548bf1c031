"""What every store promises the engine (`flux.engine.ports.Store`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flux.domain.calls import CallId, Failure, Json
from flux.domain.events import (
    EVENT_TYPES,
    LIFECYCLE_TYPES,
    AttemptFailed,
    CallCancelled,
    CallNoted,
    CallRaised,
    CallReturned,
    CallStarted,
    CancelRequested,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionParked,
    ExecutionRecovered,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    PauseAnswered,
    PauseExpired,
    PauseOpened,
    SuspendRequested,
    TimerSet,
)
from flux.domain.execution import Status
from flux.domain.queues import Place, Queue, QueueState
from flux.engine.ports import Head, Lease, Owner, Store
from flux.errors import (
    AlreadyQueued,
    ExecutionExists,
    ExecutionNotFound,
    KeyTaken,
    LeaseLost,
    QueueFull,
    StoreError,
    StreamMoved,
)
from flux.stores import open_store

pytestmark = pytest.mark.anyio

ALICE = Owner(host="here", pid=1, started=1.5, token="alice")
BOB = Owner(host="here", pid=2, started=2.5, token="bob")
HEAD = Head(status=Status.RUNNING, updated_at=100.0)
STARTED = ExecutionStarted(at=100.0, workflow="order", input=Json("null"))
TTL = 30.0


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path / 'flux.db'}"}
    url = urls.get(request.param) or request.getfixturevalue("postgres")
    async with open_store(url) as store:
        yield store


async def held(store: Store, id: str, *events: Event, owner: Owner = ALICE) -> Lease:
    lease = await store.create(id, [STARTED, *events], head=HEAD, owner=owner, ttl=TTL)
    assert lease is not None
    return lease


def returned(number: int, value: str = "null") -> CallReturned:
    return CallReturned(at=100.0 + number, call=CallId(str(number)), value=Json(value))


async def outcome(work: Awaitable[Any]) -> str:
    try:
        await work
    except StoreError as exc:
        return type(exc).__name__
    return "written"


FAILURE = Failure(
    type="builtins.ValueError",
    message='no \ud800 "quotes"\n\x00 Grüße',
    args=Json('["\\ud800", {"a": 1}]'),
    rebuilt=True,
    traceback="Traceback ...\n  line 1",
    cause=Failure(type="x.Y", message="", cause=Failure(type="builtins.KeyError", message="'k'", args=Json("[]"))),
)
CALL = CallId("f1.0.2")
SAMPLES: Sequence[Event] = (
    ExecutionStarted(at=1764042685.1234567, workflow="wörk", input=Json('{"ü": 1}'), principal="p'q", parent="x/y"),
    ExecutionStarted(at=0.1, workflow="w", input=Json('""')),
    ExecutionRecovered(at=1e-9, owner="process 1 on höst"),
    ExecutionParked(at=1.0, wake_at=None),
    ExecutionParked(at=1.0, wake_at=1764042685.1234567),
    ExecutionParked(at=1.0, wake_at=0.0),
    SuspendRequested(at=float("inf")),
    ExecutionSuspended(at=-1.5),
    ExecutionResumed(at=2.0, reason="timer"),
    CancelRequested(at=2.0),
    CancelRequested(at=2.0, reason=""),
    ExecutionCompleted(at=3.0, output=Json('"' + "x" * 1_000_000 + '"')),
    ExecutionFailed(at=3.0, error=FAILURE),
    ExecutionCancelled(at=3.0, reason="because \U0001f600"),
    PauseOpened(at=4.0, call=CALL, name="approve"),
    PauseOpened(
        at=4.0,
        call=CALL,
        name="approve",
        output=Json(' {"spaces" : [1,  2]} '),
        schema=Json('{"type": "object"}'),
        response=Json('"m:C"'),
        message="sure?",
        expires_at=5.25,
    ),
    PauseAnswered(at=4.0, call=CALL, answer=Json('"\\ud83d \\u0000"')),
    PauseExpired(at=4.5, call=CALL, error=FAILURE),
    CallStarted(at=5.0, call=CALL, name="m.f"),
    CallStarted(at=5.0, call=CALL, name="m.f", digest="ab12", arguments=Json("[]")),
    CallReturned(at=6.0, call=CALL, value=Json('"日本語 \U0001f600"')),
    CallRaised(at=6.0, call=CALL, error=FAILURE),
    CallCancelled(at=6.0, call=CALL),
    AttemptFailed(at=7.0, call=CALL, attempt=1, error=Failure(type="a.B", message="m"), retry_at=8.5),
    TimerSet(at=7.0, call=CALL, name="sleep", wake_at=99.0),
    CallNoted(at=7.5, call=CALL, name="ask", note=Json('{"sent":true}')),
)


# --- streams


def test_the_samples_hold_every_type_of_fact() -> None:
    assert {type(sample) for sample in SAMPLES} == set(EVENT_TYPES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
async def test_every_fact_comes_back_as_it_was_written(store: Store, sample: Event) -> None:
    await held(store, "a", sample)
    assert (await store.load("a"))[1:] == [sample]


async def test_a_history_of_a_thousand_facts_comes_back_in_the_order_it_was_written(store: Store) -> None:
    lease = await held(store, "a")
    facts = [returned(number, f'"{number}"') for number in range(1_000)]
    await store.append("a", facts[:600], expected=1, lease=lease)
    await store.append("a", facts[600:], expected=601, lease=lease)
    assert await store.load("a") == [STARTED, *facts]
    assert await store.load("a", after=990) == facts[989:]
    assert await store.load("a", after=1_001) == []
    assert await store.last("a") == 1_001


async def test_an_append_of_more_facts_than_one_statement_holds_is_one_append(store: Store) -> None:
    lease = await held(store, "a")
    facts = [returned(number) for number in range(2_500)]
    await store.append("a", facts, expected=1, lease=lease)
    assert await store.load("a", after=1) == facts


async def test_streams_do_not_mix(store: Store) -> None:
    a, b = await held(store, "a"), await held(store, "b")
    await store.append("a", [returned(1)], expected=1, lease=a)
    await store.append("b", [returned(2)], expected=1, lease=b)
    assert (await store.load("a"))[1:] == [returned(1)]
    assert (await store.load("b"))[1:] == [returned(2)]


async def test_an_append_behind_the_stream_is_refused_whole(store: Store) -> None:
    lease = await held(store, "a")
    await store.append("a", [returned(1)], expected=1, lease=lease)
    for expected in (0, 1, 3):
        with pytest.raises(StreamMoved):
            await store.append("a", [returned(2), returned(3)], expected=expected, lease=lease)
    assert await store.last("a") == 2


@pytest.mark.parametrize("verb", ["load", "lifecycle", "last"])
async def test_reading_an_unknown_execution_says_so(store: Store, verb: str) -> None:
    with pytest.raises(ExecutionNotFound):
        await getattr(store, verb)("nobody")


async def test_writing_to_an_unknown_execution_says_so(store: Store) -> None:
    nobody = Lease(execution_id="nobody", owner=ALICE, epoch=1)
    with pytest.raises(LeaseLost):
        await store.append("nobody", [returned(1)], expected=0, lease=nobody)
    with pytest.raises(ExecutionNotFound):
        await store.post("nobody", [CancelRequested(at=1.0)], seen=0, head=HEAD)
    with pytest.raises(ExecutionNotFound):
        await store.claim("nobody", ALICE, ttl=TTL, now=100.0)
    await store.release(nobody)
    assert await store.renew([nobody], ttl=TTL, now=100.0) == {}


async def test_an_id_is_given_once(store: Store) -> None:
    await held(store, "a")
    with pytest.raises(ExecutionExists):
        await store.create("a", [STARTED, returned(9)], head=HEAD, owner=BOB, ttl=TTL)
    assert await store.load("a") == [STARTED]


async def test_of_many_creates_with_one_id_one_wins(store: Store) -> None:
    creates = [outcome(store.create("a", [STARTED], head=HEAD, owner=None, ttl=TTL)) for _ in range(20)]
    found = await asyncio.gather(*creates)
    assert sorted(found) == ["ExecutionExists"] * 19 + ["written"]


async def test_of_two_writers_at_one_place_exactly_one_wins(store: Store) -> None:
    lease = await held(store, "a")
    for round in range(20):
        writers = [store.append("a", [returned(n)], expected=1 + round, lease=lease) for n in range(2)]
        assert sorted(await asyncio.gather(*map(outcome, writers))) == ["StreamMoved", "written"]
    assert await store.last("a") == 21


async def test_appends_that_follow_one_another_need_not_wait_for_one_another(store: Store) -> None:
    lease = await held(store, "a")
    writers = [store.append("a", [returned(n)], expected=1 + n, lease=lease) for n in range(50)]
    assert set(await asyncio.gather(*map(outcome, writers))) == {"written"}
    assert (await store.load("a"))[1:] == [returned(n) for n in range(50)]


async def test_a_poisoned_append_harms_nobody_else(store: Store) -> None:
    leases = [await held(store, f"s{number}") for number in range(50)]
    lost = Lease(execution_id="s0", owner=BOB, epoch=7)
    good = [
        store.append(
            f"s{n % 50}", [returned(n)], expected=1 + n // 50, lease=leases[n % 50], head=HEAD if n % 7 else None
        )
        for n in range(200)
    ]
    bad = [
        store.append("s0", [returned(999)], expected=1, lease=lost),
        store.append("s1", [returned(999)], expected=99, lease=leases[1]),
        store.append("nobody", [returned(999)], expected=0, lease=lost),
        store.post("s2", [CancelRequested(at=1.0)], seen=0, head=HEAD),
        store.create("s3", [STARTED], head=HEAD, owner=None, ttl=TTL),
    ]
    found = await asyncio.gather(*map(outcome, [*bad[:2], *good[:100], *bad[2:], *good[100:]]))
    assert [one for one in found if one != "written"] == [
        "LeaseLost", "StreamMoved", "LeaseLost", "StreamMoved", "ExecutionExists",
    ]  # fmt: skip
    for number in range(50):
        assert await store.load(f"s{number}", after=1) == [returned(number + 50 * n) for n in range(4)]


async def test_a_lost_lease_and_a_moved_stream_harm_nobody_in_a_group_of_plain_appends(store: Store) -> None:
    leases = [await held(store, f"s{number}") for number in range(6)]
    leases[2] = Lease(execution_id="s2", owner=ALICE, epoch=leases[2].epoch - 1)
    appends = [
        store.append(f"s{n}", [returned(n)], expected=5 if n == 4 else 1, lease=lease) for n, lease in enumerate(leases)
    ]
    found = await asyncio.gather(*map(outcome, appends))
    assert found == ["written", "written", "LeaseLost", "written", "StreamMoved", "written"]
    assert [await store.last(f"s{n}") for n in range(6)] == [2, 2, 1, 2, 1, 2]


async def test_a_cancelled_append_is_written_or_not_and_harms_nobody(store: Store) -> None:
    leases = [await held(store, f"s{number}") for number in range(20)]
    appends = [
        asyncio.ensure_future(store.append(f"s{n}", [returned(n), returned(n)], expected=1, lease=lease))
        for n, lease in enumerate(leases)
    ]
    await asyncio.sleep(0)
    for append in appends[::2]:
        append.cancel()
    await asyncio.gather(*appends, return_exceptions=True)
    assert [await store.last(f"s{n}") for n in range(1, 20, 2)] == [3] * 10
    assert {await store.last(f"s{n}") for n in range(0, 20, 2)} <= {1, 3}


async def test_lifecycle_is_the_history_without_its_journal(store: Store) -> None:
    await held(store, "a", *SAMPLES, *(returned(n) for n in range(600)), CancelRequested(at=9.0))
    history = await store.load("a")
    assert await store.lifecycle("a") == [event for event in history if isinstance(event, LIFECYCLE_TYPES)]


# --- facts from outside


async def test_anybody_may_post_while_the_execution_is_held(store: Store) -> None:
    lease = await held(store, "a", returned(1))
    paused = Head(status=Status.PAUSED, updated_at=101.0, wake_at=500.0)
    await store.post("a", [CancelRequested(at=101.0)], seen=1, head=paused)
    assert await store.lifecycle("a") == [STARTED, CancelRequested(at=101.0)]
    [row] = await store.find()
    assert (row.status, row.updated_at, row.wake_at, row.owner) == (Status.PAUSED, 101.0, 500.0, ALICE)
    with pytest.raises(StreamMoved):
        await store.append("a", [returned(2)], expected=2, lease=lease)
    await store.append("a", [returned(2)], expected=3, lease=lease)


async def test_journal_facts_do_not_get_in_the_way_of_a_post_and_lifecycle_facts_do(store: Store) -> None:
    lease = await held(store, "a")
    await store.append("a", [returned(1), returned(2)], expected=1, lease=lease)
    await store.post("a", [SuspendRequested(at=1.0)], seen=1, head=HEAD)
    for seen in (1, 3):
        with pytest.raises(StreamMoved):
            await store.post("a", [SuspendRequested(at=1.0)], seen=seen, head=HEAD)
    assert await store.last("a") == 4


async def test_of_two_posts_that_saw_the_same_exactly_one_wins(store: Store) -> None:
    await held(store, "a")
    posts = [store.post("a", [CancelRequested(at=1.0)], seen=1, head=HEAD) for _ in range(2)]
    assert sorted(await asyncio.gather(*map(outcome, posts))) == ["StreamMoved", "written"]


# --- leases


async def test_an_append_after_somebody_elses_claim_is_refused(store: Store) -> None:
    old = await held(store, "a")
    new = await store.claim("a", BOB, ttl=TTL, now=100.0 + TTL)
    assert isinstance(new, Lease)
    assert new == Lease(execution_id="a", owner=BOB, epoch=old.epoch + 1, taken_from=ALICE)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=1, lease=old)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=1, lease=old, head=HEAD, release=True)
    await store.append("a", [returned(1)], expected=1, lease=new)
    assert await store.last("a") == 2


async def test_an_expired_lease_that_nobody_took_is_still_good(store: Store) -> None:
    lease = await store.create("a", [STARTED], head=HEAD, owner=ALICE, ttl=0.0)
    assert lease is not None
    await store.append("a", [returned(1)], expected=1, lease=lease)


async def test_a_live_lease_keeps_others_out_and_names_its_holder(store: Store) -> None:
    await held(store, "a")
    assert await store.claim("a", BOB, ttl=TTL, now=100.0 + TTL - 0.5) == ALICE
    stranger = Owner(host="there", pid=1, started=1.5, token="alice2")
    assert await store.claim("a", BOB, ttl=TTL, now=100.0, dead=[stranger]) == ALICE


async def test_a_dead_owners_execution_is_taken_at_once(store: Store) -> None:
    await held(store, "a")
    lease = await store.claim("a", BOB, ttl=TTL, now=100.0, dead=[ALICE])
    assert isinstance(lease, Lease)
    assert (lease.owner, lease.taken_from) == (BOB, ALICE)


async def test_an_owner_may_claim_again_and_fences_its_old_self(store: Store) -> None:
    old = await held(store, "a")
    new = await store.claim("a", ALICE, ttl=TTL, now=100.0)
    assert new == Lease(execution_id="a", owner=ALICE, epoch=old.epoch + 1)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=1, lease=old)


async def test_an_execution_without_an_owner_is_free(store: Store) -> None:
    assert await store.create("a", [STARTED], head=HEAD, owner=None, ttl=TTL) is None
    lease = await store.claim("a", BOB, ttl=TTL, now=0.0)
    assert isinstance(lease, Lease)
    assert lease.taken_from is None


async def test_of_many_claims_one_wins(store: Store) -> None:
    await store.create("a", [STARTED], head=HEAD, owner=None, ttl=TTL)
    owners = [Owner(host="here", pid=n, started=0.0, token=str(n)) for n in range(10)]
    found = await asyncio.gather(*(store.claim("a", owner, ttl=TTL, now=100.0) for owner in owners))
    [lease] = [one for one in found if isinstance(one, Lease)]
    assert [one for one in found if isinstance(one, Owner)] == [lease.owner] * 9


async def test_release_frees_the_execution_once(store: Store) -> None:
    lease = await held(store, "a")
    await store.release(lease)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=1, lease=lease)
    taken = await store.claim("a", BOB, ttl=TTL, now=100.0)
    assert isinstance(taken, Lease)
    assert taken.taken_from is None
    await store.release(lease)
    assert await store.claim("a", ALICE, ttl=TTL, now=100.0) == BOB


async def test_what_was_claimed_although_it_is_at_rest_can_be_released(store: Store) -> None:
    lease = await held(store, "a")
    await store.append("a", [], expected=1, lease=lease, head=Head(status=Status.PAUSED, updated_at=107.0))
    await store.release(lease)
    [row] = await store.find()
    assert row.owner is None


async def test_an_append_can_change_the_head_and_give_the_lease_up(store: Store) -> None:
    lease = await held(store, "a")
    done = Head(status=Status.COMPLETED, updated_at=107.0)
    completed = ExecutionCompleted(at=107.0, output=Json("1"))
    await store.append("a", [completed], expected=1, lease=lease, head=done, release=True)
    [row] = await store.find()
    assert (row.status, row.updated_at, row.owner) == (Status.COMPLETED, 107.0, None)
    with pytest.raises(LeaseLost):
        await store.append("a", [returned(1)], expected=2, lease=lease)


async def test_a_release_without_facts_is_an_append_too(store: Store) -> None:
    lease = await held(store, "a")
    await store.append("a", [], expected=1, lease=lease, release=True)
    assert (await store.load("a"), (await store.find())[0].owner) == ([STARTED], None)


async def test_renew_extends_what_is_held_and_leaves_out_what_is_lost(store: Store) -> None:
    a, b, c = await held(store, "a", returned(1)), await held(store, "b"), await held(store, "c")
    await store.claim("b", BOB, ttl=TTL, now=100.0 + TTL)
    await store.release(c)
    assert await store.renew([a, b, c], ttl=TTL, now=120.0) == {"a": 2}
    assert await store.renew([], ttl=TTL, now=120.0) == {}
    assert await store.claim("a", BOB, ttl=TTL, now=149.0) == ALICE
    assert isinstance(await store.claim("a", BOB, ttl=TTL, now=150.0), Lease)


async def parked(store: Store, id: str, status: Status, wake_at: float | None, workflow: str = "order") -> None:
    started = ExecutionStarted(at=100.0, workflow=workflow, input=Json("null"))
    head = Head(status=status, updated_at=100.0, wake_at=wake_at)
    await store.create(id, [started], head=head, owner=None, ttl=TTL)


async def test_due_are_those_that_run_with_nobody_and_those_whose_time_has_come(store: Store) -> None:
    await parked(store, "free", Status.RUNNING, None)
    await held(store, "held")
    await parked(store, "asleep", Status.SLEEPING, 200.0)
    await parked(store, "asks", Status.PAUSED, 150.0)
    await parked(store, "waits", Status.PAUSED, None)
    await parked(store, "told to wait", Status.SUSPENDED, 100.0)
    await parked(store, "over", Status.COMPLETED, None)
    await parked(store, "not ours", Status.RUNNING, None, workflow="other")

    async def due(now: float, limit: int = 10) -> list[str]:
        return [row.id for row in await store.due(workflows=["order"], now=now, limit=limit)]

    assert await due(100.0) == ["free"]
    assert await due(129.0) == ["free"]
    assert await due(130.0) == ["free", "held"]
    assert await due(150.0) == ["free", "held", "asks"]
    assert await due(200.0) == ["free", "held", "asks", "asleep"]
    assert await due(200.0, limit=2) == ["free", "held"]
    assert await store.due(workflows=[], now=200.0, limit=10) == []


async def test_due_leaves_out_a_parked_execution_that_somebody_holds(store: Store) -> None:
    await parked(store, "a", Status.SLEEPING, 100.0)
    await store.claim("a", BOB, ttl=TTL, now=100.0)
    assert await store.due(workflows=["order"], now=129.0, limit=10) == []
    assert len(await store.due(workflows=["order"], now=130.0, limit=10)) == 1


async def test_owned_are_the_running_ones_that_have_an_owner(store: Store) -> None:
    await held(store, "a")
    await held(store, "b", owner=BOB)
    await parked(store, "free", Status.RUNNING, None)
    await parked(store, "asleep", Status.SLEEPING, 200.0)
    await store.claim("asleep", BOB, ttl=TTL, now=100.0)
    assert [(row.id, row.owner) for row in await store.owned(workflows=["order"])] == [("a", ALICE), ("b", BOB)]
    assert await store.owned(workflows=["other"]) == []


# --- finding


async def filled(store: Store) -> None:
    for number in range(6):
        started = ExecutionStarted(
            at=100.0 + number // 2,
            workflow="order" if number % 2 else "refund",
            input=Json("null"),
            principal="ann" if number < 3 else None,
            parent="a" if number == 4 else None,
        )
        status = Status.COMPLETED if number < 2 else Status.RUNNING
        await store.create(str(number), [started], head=Head(status=status, updated_at=200.0), owner=None, ttl=TTL)


async def ids(store: Store, **filters: Any) -> str:
    return "".join(row.id for row in await store.find(**filters))


async def test_find_gives_the_newest_first_and_filters(store: Store) -> None:
    await filled(store)
    assert await ids(store) == "543210"
    assert await ids(store, workflow="order") == "531"
    assert await ids(store, status=[Status.COMPLETED, Status.FAILED]) == "10"
    assert await ids(store, status=[]) == ""
    assert await ids(store, principal="ann") == "210"
    assert await ids(store, parent="a") == "4"
    assert await ids(store, workflow="refund", status=[Status.RUNNING], principal="ann") == "2"


async def test_find_pages_without_gap_or_repeat(store: Store) -> None:
    await filled(store)
    found: list[str] = []
    before: tuple[float, str] | None = None
    while page := await store.find(limit=2, before=before):
        found += [row.id for row in page]
        before = (page[-1].created_at, page[-1].id)
    assert "".join(found) == "543210"


async def test_a_key_finds_the_newest_execution_that_is_young_enough(store: Store) -> None:
    for number, at in enumerate((100.0, 200.0)):
        started = ExecutionStarted(at=at, workflow="order", input=Json("null"), parent="p")
        await store.create(str(number), [started], head=HEAD, owner=None, ttl=TTL, key="k")
    await held(store, "other")
    row = await store.find_key("k", since=200.0)
    assert row is not None
    assert (row.id, row.created_at, row.parent, row.workflow) == ("1", 200.0, "p", "order")
    assert await store.find_key("k", since=200.5) is None
    assert await store.find_key("nothing", since=0.0) is None


async def test_a_key_that_is_to_be_unique_is_refused_while_another_has_it_that_is_young_enough(store: Store) -> None:
    async def create(id: str, *, at: float, since: float | None) -> None:
        started = ExecutionStarted(at=at, workflow="order", input=Json("null"))
        await store.create(id, [started], head=HEAD, owner=None, ttl=TTL, key="k", unique_since=since)

    await create("first", at=100.0, since=0.0)
    await create("second", at=200.0, since=100.5)
    with pytest.raises(KeyTaken) as refused:
        await create("third", at=300.0, since=0.0)
    assert refused.value.id == "second"
    await create("fourth", at=400.0, since=None)
    assert [row.id for row in await store.find()] == ["fourth", "second", "first"]


async def test_of_several_at_once_one_gets_the_key(store: Store) -> None:
    async def create(id: str) -> None:
        started = ExecutionStarted(at=100.0, workflow="order", input=Json("null"))
        await store.create(id, [started], head=HEAD, owner=None, ttl=TTL, key="k", unique_since=0.0)

    outcomes = await asyncio.gather(*map(create, "abc"), return_exceptions=True)
    (row,) = await store.find()
    refused = [outcome for outcome in outcomes if isinstance(outcome, KeyTaken)]
    assert [each.id for each in refused] == [row.id, row.id]


async def test_who_is_refused_for_its_key_keeps_nobody_out_of_the_queue(store: Store) -> None:
    started = ExecutionStarted(at=100.0, workflow="order", input=Json("null"))
    place = Place(queue="q", deduplication="same")
    await store.create("first", [started], head=HEAD, owner=None, ttl=TTL, key="k")
    refused, begun = await asyncio.gather(
        store.create("a", [started], head=HEAD, owner=None, ttl=TTL, key="k", unique_since=0.0, place=place),
        store.create("b", [started], head=HEAD, owner=None, ttl=TTL, place=place),
        return_exceptions=True,
    )
    assert isinstance(refused, KeyTaken)
    assert begun is None
    assert {row.id for row in await store.find()} == {"first", "b"}


async def test_a_closed_store_says_so_and_may_be_closed_again(store: Store) -> None:
    await held(store, "a")
    await store.aclose()
    await store.aclose()
    for work in (store.load("a"), store.find(), store.post("a", [], seen=1, head=HEAD)):
        with pytest.raises(StoreError, match="closed"):
            await work


# --- queues


async def queued(store: Store, id: str, at: float = 100.0, queue: str = "jobs", **place: Any) -> None:
    started = ExecutionStarted(at=at, workflow="order", input=Json("null"))
    head = Head(status=Status.RUNNING, updated_at=at)
    lease = await store.create(id, [started], head=head, owner=None, ttl=TTL, place=Place(queue=queue, **place))
    assert lease is None


async def admitted(store: Store, queue: Queue, *, now: float = 200.0, most: int = 100, **only: Any) -> list[str]:
    leases = await store.admit(queue, ALICE, workflows=["order"], ttl=TTL, now=now, most=most, **only)
    return [lease.execution_id for lease in leases]


async def test_a_queue_admits_the_oldest_of_the_highest_priority_and_no_more_than_it_has_room_for(store: Store) -> None:
    for number, (id, priority) in enumerate([("a", 0), ("b", 0), ("c", 2), ("d", 1)]):
        await queued(store, id, at=100.0 + number, priority=priority)
    assert await admitted(store, Queue("jobs", concurrency=3), most=2) == ["c", "d"]
    assert await admitted(store, Queue("jobs", concurrency=3)) == ["a"]
    assert await admitted(store, Queue("jobs", concurrency=3)) == []
    assert await admitted(store, Queue("other")) == []
    assert await admitted(store, Queue("jobs")) == ["b"]


async def test_what_a_queue_admits_is_held_as_if_it_had_been_claimed(store: Store) -> None:
    await queued(store, "a")
    (lease,) = await store.admit(Queue("jobs"), ALICE, workflows=["order"], ttl=TTL, now=200.0, most=1)
    await store.append("a", [returned(1)], expected=1, lease=lease)
    assert await store.renew([lease], ttl=TTL, now=210.0) == {"a": 2}
    assert await store.claim("a", BOB, ttl=TTL, now=210.0) == ALICE
    (row,) = await store.find()
    assert (row.queue, row.is_queued, row.owner) == ("jobs", False, ALICE)


async def test_a_queue_admits_only_known_workflows_and_the_ids_that_are_asked_for(store: Store) -> None:
    await queued(store, "a")
    await queued(store, "b")
    assert await store.admit(Queue("jobs"), ALICE, workflows=["another"], ttl=TTL, now=200.0, most=9) == []
    assert await admitted(store, Queue("jobs"), only={"b", "c"}) == ["b"]
    assert await admitted(store, Queue("jobs"), only=set[str]()) == []


async def test_a_full_partition_is_passed_over_however_many_wait_in_it(store: Store) -> None:
    for number in range(20):
        await queued(store, f"big{number}", at=100.0 + number, partition="big")
    await queued(store, "small", at=150.0, partition="small")
    await queued(store, "none", at=151.0)
    queue = Queue("jobs", partition_concurrency=1)
    assert await admitted(store, queue, most=5) == ["big0", "small", "none"]
    assert await admitted(store, queue, most=5) == []


async def test_a_rate_counts_what_began_in_the_period_and_not_what_goes_on(store: Store) -> None:
    queue = Queue("jobs", rate=2, period=10)
    for number in range(4):
        await queued(store, f"e{number}", at=100.0 + number)
    leases = await store.admit(queue, ALICE, workflows=["order"], ttl=TTL, now=200.0, most=9)
    assert [lease.execution_id for lease in leases] == ["e0", "e1"]
    await store.release(leases[0])
    assert await admitted(store, queue, now=205.0) == ["e0"]  # it has begun before
    assert await admitted(store, queue, now=209.9) == []
    assert await admitted(store, queue, now=210.0) == ["e2", "e3"]


async def test_what_was_given_up_comes_before_what_has_not_begun_whatever_its_priority(store: Store) -> None:
    await queued(store, "begun")
    (lease,) = await store.admit(Queue("jobs"), ALICE, workflows=["order"], ttl=TTL, now=200.0, most=1)
    await queued(store, "new", priority=5)
    await store.release(lease)
    assert await admitted(store, Queue("jobs")) == ["begun", "new"]


async def test_a_claim_finds_the_queue_full_unless_it_is_for_one_that_runs_already(store: Store) -> None:
    queue = Queue("jobs", concurrency=1)
    await queued(store, "a")
    await queued(store, "b")
    assert isinstance(await store.claim("a", ALICE, ttl=TTL, now=200.0, queues=[queue]), Lease)
    with pytest.raises(QueueFull, match="waits for its turn in queue 'jobs'"):
        await store.claim("b", BOB, ttl=TTL, now=200.0, queues=[queue])
    assert isinstance(await store.claim("b", BOB, ttl=TTL, now=200.0, queues=[Queue("other", 1)]), Lease)
    taken = await store.claim("a", BOB, ttl=TTL, now=200.0 + TTL, queues=[Queue("jobs", concurrency=2)])
    assert isinstance(taken, Lease)
    assert taken.taken_from == ALICE


async def test_of_two_that_stand_for_the_same_a_queue_takes_one_while_it_lives(store: Store) -> None:
    await queued(store, "a", deduplication="same")
    with pytest.raises(AlreadyQueued) as refused:
        await queued(store, "b", deduplication="same")
    assert refused.value.id == "a"
    await queued(store, "c", queue="other", deduplication="same")
    await queued(store, "d", deduplication="else")
    await store.post("a", [ExecutionCancelled(at=1.0)], seen=1, head=Head(status=Status.CANCELLED, updated_at=1.0))
    await queued(store, "b", deduplication="same")


async def test_of_two_that_stand_for_the_same_and_come_at_once_one_is_taken(store: Store) -> None:
    outcomes = await asyncio.gather(*(outcome(queued(store, f"e{n}", deduplication="same")) for n in range(10)))
    assert sorted(outcomes) == ["AlreadyQueued"] * 9 + ["written"]


async def test_what_waits_in_a_queue_is_not_due_but_what_a_silent_owner_holds_is(store: Store) -> None:
    await queued(store, "a")
    await queued(store, "b")
    assert await store.due(workflows=["order"], now=1e6, limit=9) == []
    assert await admitted(store, Queue("jobs", concurrency=1)) == ["a"]
    assert [row.id for row in await store.due(workflows=["order"], now=200.0 + TTL, limit=9)] == ["a"]


async def test_queues_are_counted_by_what_runs_and_what_waits(store: Store) -> None:
    assert await store.queues() == []
    for id in ("a", "b", "c"):
        await queued(store, id)
    await queued(store, "d", queue="mail")
    await admitted(store, Queue("jobs", concurrency=1))
    assert await store.queues() == [
        QueueState(name="jobs", running=1, waiting=2),
        QueueState(name="mail", running=0, waiting=1),
    ]


async def test_what_is_at_rest_takes_no_place_in_its_queue_although_somebody_has_claimed_it(store: Store) -> None:
    """Its owner looked, and died before it could release it."""
    queue = Queue("jobs", concurrency=1)
    for id in ("a", "b", "c"):
        await queued(store, id)
    (lease,) = await store.admit(queue, ALICE, workflows=["order"], ttl=TTL, now=200.0, most=1)
    done = Head(status=Status.COMPLETED, updated_at=200.0)
    await store.append("a", [], expected=1, lease=lease, head=done, release=True)
    assert isinstance(await store.claim("a", ALICE, ttl=TTL, now=200.0), Lease)
    assert await store.queues() == [QueueState(name="jobs", running=0, waiting=2)]
    assert isinstance(await store.claim("b", BOB, ttl=TTL, now=200.0, queues=[queue]), Lease)
    await store.append("b", [], expected=1, lease=await claimed_again(store, "b"), head=done)
    assert await admitted(store, queue) == ["c"]


async def claimed_again(store: Store, id: str) -> Lease:
    lease = await store.claim(id, BOB, ttl=TTL, now=200.0)
    assert isinstance(lease, Lease)
    return lease


# --- notes


async def test_a_note_is_replaced_and_what_was_agreed_on_stays(store: Store) -> None:
    assert await store.recall("a") is None
    await store.remember("a", "one")
    await store.remember("a", "two")
    assert await store.recall("a") == "two"
    assert await store.agree("a", "three") == "two"
    kept = await asyncio.gather(*(store.agree("b", str(number)) for number in range(10)))
    assert set(kept) == {await store.recall("b")}
