from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from flux import ExecutionContext, Flux, Workflow, task, workflow
from flux.domain.events import CallCancelled, CallReturned, CallStarted
from flux.errors import DeadEnd, DefinitionError, InvalidGraph, NonDeterminismError, NotInWorkflow
from flux.stores.memory import MemoryStore
from flux.tasks import pause
from flux.tasks.graph import Graph
from flux.testing import crash_at_every_fact

pytestmark = pytest.mark.anyio


@task
async def double(n: int) -> int:
    return 2 * n


@task
async def add(*numbers: int) -> int:
    return sum(numbers)


@dataclass(frozen=True)
class Shop:
    factor: int

    def plain(self, n: int) -> int:
        return self.factor * n

    @task
    async def recorded(self, n: int) -> int:
        return self.factor * n


def names(*values: Any) -> str:
    return "+".join(map(str, values))


def running(graph: Graph) -> Workflow[Any, Any]:
    """A workflow that is nothing but the graph."""

    @workflow
    async def runs(ctx: ExecutionContext[Any]) -> Any:
        return await graph(ctx.input)

    return runs


def says(name: str) -> Callable[..., str]:
    return lambda *got: f"{name}({','.join(map(str, got))})"


def letters(name: str, *edges: str) -> Graph:
    """A graph of plain functions, from edges such as "ab"; `>a` is a start and `a>` an end. A node says what it got."""
    graph = Graph(name)
    for letter in sorted({letter for letter in "".join(edges) if letter != ">"}):
        graph.add_node(letter, says(letter))
    for source, target in map(tuple, edges):
        graph.add_edge(source.replace(">", Graph.START), target.replace(">", Graph.END))
    return graph


# -- how it runs --------------------------------------------------------------------------------------------------------


async def test_the_output_of_a_node_is_the_argument_of_the_next(flux: Flux) -> None:
    assert (await flux.run(running(letters("chain", ">a", "ab", "b>")), "x")).output == "b(a(x))"


async def test_a_join_gets_the_outputs_in_the_order_of_its_edges(flux: Flux) -> None:
    graph = letters("join", ">a", ">b", "bj", "aj", "j>")
    assert (await flux.run(running(graph), 1)).output == "j(b(1),a(1))"


async def test_paths_of_different_length_meet_in_one_run_of_the_join(flux: Flux) -> None:
    done = await flux.run(running(letters("uneven", ">a", "aj", ">j", "jk", "ak", "k>")), 1)
    assert done.output == "k(j(a(1),1),a(1))"
    history = await flux.history(done.execution_id)
    assert sorted(event.name for event in history if isinstance(event, CallStarted)) == ["a", "graph_uneven", "j", "k"]


@pytest.mark.parametrize(("number", "output"), [(1, "small 1"), (100, "big 100")])
async def test_branches_of_a_condition_meet_again(flux: Flux, number: int, output: str) -> None:
    def labelled(label: str) -> Callable[[int], str]:
        return lambda n: f"{label} {n // 2}"

    graph = (
        Graph("rejoin")
        .add_node("read", double)
        .add_node("small", labelled("small"))
        .add_node("big", labelled("big"))
        .add_node("after small", names)
        .add_node("write", names)
        .add_edge("read", "small", condition=lambda n: n < 10)
        .add_edge("read", "big", condition=lambda n: n >= 10)
        .add_edge("small", "after small")
        .add_edge("after small", "write")
        .add_edge("big", "write")
        .start_with("read")
        .end_with("write")
    )
    assert (await flux.run(running(graph), number)).output == output


async def test_nodes_that_are_ready_run_concurrently(flux: Flux) -> None:
    meeting = asyncio.Barrier(2)

    async def meets(n: int) -> int:
        async with asyncio.timeout(10):
            await meeting.wait()  # passes only when both are here at once
        return n

    graph = Graph("both").add_node("a", meets).add_node("b", meets).add_node("sum", add)
    graph.start_with("a").start_with("b").add_edge("a", "sum").add_edge("b", "sum").end_with("sum")
    assert (await flux.run(running(graph), 3)).output == 6


async def test_several_ends_give_a_dict_of_those_that_were_reached(flux: Flux) -> None:
    graph = letters("ends", ">a", "a>", "ab", "b>").add_node("c", names)
    graph.add_edge("a", "c", condition=lambda text: False).end_with("c")
    assert (await flux.run(running(graph), 1)).output == {"a": "a(1)", "b": "b(a(1))"}


async def test_a_dead_end_names_its_node_and_the_conditions_that_were_false(flux: Flux) -> None:
    async def is_good(text: str) -> bool:
        return False

    graph = letters("dead", ">a", "b>", "c>").add_edge("a", "b", is_good).add_edge("a", "c", lambda text: None)
    failed = await flux.run(running(graph), 1)
    assert isinstance(failed.error, DeadEnd)
    assert failed.error.nodes == ["a"]
    assert str(failed.error) == (
        "Graph 'dead' reached no end: it stopped after 'a'. Not true: a -> b if is_good; a -> c if condition."
    )


async def test_every_kind_of_action_can_be_a_node(flux: Flux) -> None:
    async def plus_one(n: int) -> int:
        return n + 1

    @workflow
    async def child(ctx: ExecutionContext[int]) -> int:
        return await double(ctx.input)

    inner = Graph("inner").add_node("double", double).start_with("double").end_with("double")
    shop = Shop(3)
    actions: list[Callable[..., Any]] = [plus_one, shop.plain, shop.recorded, double, inner, child, abs]
    graph = Graph("kinds")
    for index, action in enumerate(actions):
        graph.add_node(f"{{{index}}}", action)
    for index in range(1, len(actions)):
        graph.add_edge(f"{{{index - 1}}}", f"{{{index}}}")
    graph.start_with("{0}").end_with(f"{{{len(actions) - 1}}}")
    whole = await crash_at_every_fact(running(graph), 1)
    assert whole.output == (1 + 1) * 3 * 3 * 2 * 2 * 2
    assert sum(event.type == "TASK_STARTED" and event.name == "{0}" for event in whole.events) == 1


async def test_a_condition_may_call_tasks_and_may_be_one(flux: Flux) -> None:
    @task
    async def is_even(n: int) -> bool:
        return n % 2 == 0

    async def is_odd(n: int) -> bool:
        return not await is_even(n)

    graph = Graph("asks").add_node("read", abs).add_node("odd", names).add_node("even", names)
    graph.add_edge("read", "odd", is_odd).add_edge("read", "even", is_even)
    graph.start_with("read").end_with("odd").end_with("even")
    assert (await crash_at_every_fact(running(graph), 3)).output == {"odd": "3"}


async def test_a_start_is_called_with_what_it_can_take(flux: Flux) -> None:
    async def nothing() -> str:
        return "nothing"

    async def perhaps(value: Any = "default") -> Any:
        return value

    async def one(value: Any) -> Any:
        return value

    graph = Graph("starts")
    for action in (nothing, perhaps, one):
        graph.add_node(action.__name__, action).start_with(action.__name__).end_with(action.__name__)

    @workflow
    async def three(ctx: ExecutionContext[None]) -> list[Any]:
        return [list((await call).values()) for call in (graph(), graph(None), graph(5))]

    assert (await flux.run(three)).output == [["nothing", "default", None], ["nothing", None, None], ["nothing", 5, 5]]


async def test_one_graph_runs_many_times_at_once_and_inside_itself(flux: Flux) -> None:
    graph = letters("again", ">a", ">b", "aj", "bj", "j>")
    outer = Graph("outer").add_node("x", graph).add_node("y", graph).add_node("sum", names)
    outer.start_with("x").start_with("y").add_edge("x", "sum").add_edge("y", "sum").end_with("sum")

    @workflow
    async def many(ctx: ExecutionContext[None]) -> list[str]:
        first = await graph(0)
        return [first, *await asyncio.gather(*(graph(n) for n in (1, 2))), await outer(3)]

    j = {n: f"j(a({n}),b({n}))" for n in range(4)}
    assert (await crash_at_every_fact(many)).output == [j[0], j[1], j[2], f"{j[3]}+{j[3]}"]


# -- when it fails, pauses, dies ----------------------------------------------------------------------------------------


async def test_a_failure_cancels_the_other_nodes_and_is_raised_as_it_is(flux: Flux) -> None:
    cancelled = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fails() -> None:
        raise KeyError("missing")

    graph = Graph("failing").add_node("hangs", hangs).add_node("late", fails).add_node("early", fails)
    for node in ("late", "early", "hangs"):
        graph.start_with(node).end_with(node)
    failed = await flux.run(running(graph))
    assert repr(failed.error) == "KeyError('missing')"
    assert cancelled.is_set()
    history = await flux.history(failed.execution_id)
    assert any(isinstance(event, CallCancelled) for event in history)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
async def test_of_several_failures_the_one_of_the_first_node_is_raised(flux: Flux, order: tuple[str, ...]) -> None:
    meeting = asyncio.Barrier(3)

    def failing(name: str) -> Any:
        async def fails() -> None:
            await meeting.wait()
            raise ValueError(name)

        return fails

    graph = Graph("failing")
    for name in "abc":
        graph.add_node(name, failing(name)).end_with(name)
    for name in order:
        graph.start_with(name)
    assert str((await flux.run(running(graph))).error) == "a"


async def test_a_node_can_pause_and_the_others_are_not_run_again(flux: Flux) -> None:
    effects: list[str] = []

    @task
    async def counts(n: int) -> int:
        effects.append("counted")
        return n

    async def asks(n: int) -> int:
        return n + await pause("how much more?")

    graph = Graph("asking").add_node("asks", asks).add_node("counts", counts).add_node("sum", add)
    graph.start_with("asks").start_with("counts").add_edge("asks", "sum").add_edge("counts", "sum").end_with("sum")
    started = await flux.run(running(graph), 1)
    assert started.is_paused
    assert (await flux.resume(started.execution_id, 5)).output == 7
    assert effects == ["counted"]
    answers = {"how much more?": 5}
    assert (await crash_at_every_fact(running(graph), 1, answers=answers)).output == 7


async def test_a_crash_anywhere_changes_nothing_whatever_finishes_first() -> None:
    def taking(turns: int) -> Any:
        async def act(*got: Any) -> list[Any]:
            for _ in range(next(rhythm) % turns):
                await asyncio.sleep(0)
            return [await double(len(got)), await add(1, 2)]

        return act

    rhythm = itertools.cycle([5, 0, 7, 1, 3, 2, 6])
    graph = Graph("timing")
    for node, turns in zip("abcde", (7, 2, 5, 3, 1), strict=True):
        graph.add_node(node, taking(turns))
    for source, target in ("ac", "bc", "bd", "ad", "ce", "de"):
        graph.add_edge(source, target, condition=(lambda got: got[0] > 5) if source + target == "ad" else None)
    graph.start_with("a").start_with("b").end_with("e")
    assert (await crash_at_every_fact(running(graph), 1)).output == [4, 3]


async def test_a_timeout_around_a_graph_replays() -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    graph = Graph("hanging").add_node("hangs", hangs).add_node("double", double)
    graph.start_with("hangs").start_with("double").end_with("hangs").end_with("double")

    @workflow
    async def gives_up(ctx: ExecutionContext[int]) -> int:
        try:
            async with asyncio.timeout(0.01):
                return await graph(ctx.input)
        except TimeoutError:
            return await double(ctx.input)

    assert (await crash_at_every_fact(gives_up, 2)).output == 4


async def test_a_node_that_ran_and_is_skipped_by_changed_code_is_found_out() -> None:
    async def asks(text: str) -> Any:
        return await pause("ask")

    def made(*, goes_on: bool) -> Workflow[Any, Any]:
        graph = letters("changing", ">a", "b>").add_edge("a", "b", lambda text: goes_on)
        graph.add_node("asks", asks).add_edge("a", "asks").end_with("asks")
        return running(graph).with_options(name="changing")

    store = MemoryStore()
    async with Flux(store=store, workflows=[made(goes_on=True)], recover=False) as flux:
        paused: ExecutionContext[Any] = await flux.run("changing", 1)
        assert paused.is_paused
    async with Flux(store=store, workflows=[made(goes_on=False)], recover=False) as flux:
        assert isinstance((await flux.resume(paused.execution_id, "ok")).error, NonDeterminismError)


# -- what cannot run ----------------------------------------------------------------------------------------------------


def ab() -> Graph:
    return Graph("g").add_node("a", names).add_node("b", names)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: ab().add_node("a", names), "there is a node 'a' already"),
        (lambda: ab().add_node("START", names), "the name 'START' is taken"),
        (lambda: ab().add_node("c", cast(Any, 5)), "node 'c' wants a task or a function, not 5"),
        (
            lambda: Graph("g").add_node("validate", names).start_with("validaet"),
            "no node 'validaet'; did you mean 'validate'",
        ),
        (lambda: ab().add_edge("a", "zzz"), "there is no node 'zzz'; known so far: a, b"),
        (lambda: ab().add_edge("a", Graph.START), "no edge can lead to START"),
        (lambda: ab().add_edge(Graph.END, "a"), "no edge can leave END"),
        (lambda: ab().add_edge(Graph.START, Graph.END), "leads past all nodes"),
        (lambda: ab().add_edge("a", "a"), "node 'a' has an edge to itself"),
        (lambda: ab().add_edge("a", "b").add_edge("a", "b"), "there is an edge a -> b already"),
        (lambda: ab().start_with("a").start_with("a"), "there is an edge START -> a already"),
        (lambda: ab().add_edge("a", "b", condition=cast(Any, True)), "the condition of a -> b must be a function"),
        (lambda: ab().end_with("b").validate(), "it has no start"),
        (lambda: ab().start_with("a").validate(), "it has no end"),
        (lambda: ab().start_with("a").end_with("a").validate(), "no path leads from a start to 'b'"),
        (lambda: letters("g", ">a", "ab", "a>").validate(), "no path leads from 'b' to an end"),
        (lambda: letters("g", ">a", "ab", "bc", "cb", "c>").validate(), "it runs in a circle: b -> c -> b"),
    ],
)
def test_a_graph_that_cannot_run_says_why(build: Any, says: str) -> None:
    with pytest.raises(InvalidGraph) as caught:
        build()
    assert says in str(caught.value)
    assert isinstance(caught.value, DefinitionError)
    assert isinstance(caught.value, ValueError)


async def test_a_call_checks_the_graph_first(flux: Flux) -> None:
    assert isinstance((await flux.run(running(ab()))).error, InvalidGraph)


def test_a_graph_outside_a_workflow_says_where_it_belongs() -> None:
    with pytest.raises(NotInWorkflow, match="Graph 'chain'"):
        _ = letters("chain", ">a", "a>")(1)


# -- how it looks -------------------------------------------------------------------------------------------------------


def is_valid(text: str) -> bool:
    return True


def diamond() -> Graph:
    graph = letters("diamond", ">a", "ac", "bd", "cd", "d>")
    return graph.add_edge("a", "b", is_valid)


def test_the_text_picture_shows_branches_joins_conditions_and_states() -> None:
    assert diamond().to_text({"a": "done", "b": "running", "c": "done", "d": "waiting"}) == (
        """\
diamond
◇  start
✓  a  [done]
├─╮
✓ │  c  [done]
│ ▶  b  [running]  if is_valid
├─╯
○  d  [waiting]
◇  end
"""
    )


def test_the_text_picture_crosses_edges_where_it_must() -> None:
    assert letters("g", ">a", "ab", "ac", "ad", "be", "ce", "cf", "df", "ef", "bf", "f>").to_text() == (
        """\
g
◇  start
●  a
├─┬─╮
● │ │  b
├─│─│─╮
│ ● │ │  c
│ ├─│─│─╮
├─╯ │ │ │
●   │ │ │  e
│   ● │ │  d
├───┴─┴─╯
●  f
◇  end
"""
    )


def test_the_text_picture_keeps_its_width_however_wide_the_graph() -> None:
    graph = Graph("wide").add_node("first", names).start_with("first").add_node("last", names).end_with("last")
    for name in (f"node {index}" for index in range(60)):
        graph.add_node(name, names).add_edge("first", name).add_edge(name, "last", condition=is_valid)
    lines = graph.to_text(width=60).splitlines()
    assert max(map(len, lines)) == 60
    assert "●  node 59  ← first" in lines


def test_mermaid_shows_conditions_ends_and_states_and_quotes_what_it_must() -> None:
    graph = Graph("m").add_node('say "hi" #1', names).add_node("end", names).start_with('say "hi" #1').end_with("end")
    graph.add_edge('say "hi" #1', "end", condition=is_valid)
    assert graph.to_mermaid({'say "hi" #1': "done", "end": "paused"}) == (
        """\
flowchart TD
    start([start])
    n0["say #34;hi#34; #35;1"]
    n1["end"]
    finish([end])
    start --> n0
    n1 --> finish
    n0 -->|"is_valid"| n1
    classDef done fill:#d3f9d8,stroke:#2b8a3e,color:#212529
    class n0 done
    classDef paused fill:#fff3bf,stroke:#e67700,color:#212529
    class n1 paused
"""
    )


async def test_an_execution_shows_the_state_of_each_node(flux: Flux) -> None:
    async def asks(text: str) -> Any:
        if await pause("ask") == "fail":
            raise ValueError
        return "ok"

    graph = letters("states", ">a", "c>", "d>").add_node("asks", asks).add_edge("a", "asks")
    graph.add_edge("asks", "c").add_edge("a", "d", condition=lambda text: False)
    runs = running(graph)
    paused = await flux.run(runs, 1)

    async def states() -> dict[str, str]:
        return dict(graph.states((await flux.get(paused.execution_id, events=True)).events))

    assert graph.states([]) == dict.fromkeys(["a", "c", "d", "asks"], "waiting")
    assert await states() == {"a": "done", "asks": "paused", "c": "waiting", "d": "skipped"}
    await flux.resume(paused.execution_id, "go on")
    assert await states() == {"a": "done", "asks": "done", "c": "done", "d": "skipped"}
    paused = await flux.run(runs, 1)
    await flux.resume(paused.execution_id, "fail")
    assert await states() == {"a": "done", "asks": "failed", "c": "skipped", "d": "skipped"}
    paused = await flux.run(runs, 1)
    await flux.cancel(paused.execution_id)
    await flux.wait(paused.execution_id)
    assert await states() == {"a": "done", "asks": "cancelled", "c": "skipped", "d": "skipped"}


async def test_a_node_that_could_run_but_has_not_yet_is_waiting(flux: Flux) -> None:
    graph = letters("states", ">a", "b>").add_edge("a", "b", condition=is_valid)
    done = await flux.run(running(graph), 1)
    events = await flux.history(done.execution_id)
    until_a = next(place for place, event in enumerate(events) if isinstance(event, CallReturned)) + 1
    assert graph.states(events[:until_a]) == {"a": "done", "b": "waiting"}
