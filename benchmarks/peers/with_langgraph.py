"""LangGraph with its SQLite saver, durability "sync": WAL, and synchronous=FULL is SQLite's default.

A checkpoint of a graph is on disk before the next step begins. The results of an entrypoint's tasks are handed on at once and
written meanwhile by a thread: they are not durable before they are used. A row of steps is measured as a graph with one node
that goes round, the faster of its two ways; but a graph goes on from its last state and repeats nothing, so what is recorded
and replayed is an entrypoint with tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from program import Stopwatch, main


class Row(TypedDict):
    number: int
    count: int


def step_of_graph(state: Row) -> dict[str, int]:
    return {"number": state["number"] + 1}


def where_to(state: Row) -> str:
    return END if state["number"] == state["count"] else "step"


@task
def step(number: int) -> int:
    return number


def config(id: str, *, steps: int = 10) -> Any:
    return {"configurable": {"thread_id": id}, "recursion_limit": steps + 10}


def steps(saver: SqliteSaver, count: int) -> Stopwatch:
    graph = StateGraph(Row)
    graph.add_node("step", step_of_graph)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", where_to, ["step", END])
    row = graph.compile(checkpointer=saver)
    watch = Stopwatch()
    with watch:
        done = row.invoke({"number": 0, "count": count}, config("row", steps=count), durability="sync")
    assert done["number"] == count
    return watch


def fan(saver: SqliteSaver, count: int) -> Stopwatch:
    @entrypoint(checkpointer=saver)
    def fan_out(count: int) -> int:
        return len([each.result() for each in [step(number) for number in range(count)]])

    watch = Stopwatch()
    with watch:
        assert fan_out.invoke(count, config("fan"), durability="sync") == count
    return watch


def at_once(saver: SqliteSaver, count: int) -> Stopwatch:
    run = one_step(saver)
    watch = Stopwatch()
    with watch, ThreadPoolExecutor(16) as pool:
        list(pool.map(run, range(count)))
    return watch


def in_turn(saver: SqliteSaver, count: int) -> Stopwatch:
    run = one_step(saver)
    watch = Stopwatch()
    for number in range(count):
        with watch:
            run(number)
    return watch


def one_step(saver: SqliteSaver) -> Callable[[int], int]:
    @entrypoint(checkpointer=saver)
    def workflow(number: int) -> int:
        return step(number).result()

    return lambda number: workflow.invoke(number, config(str(number)), durability="sync")


def recorded(saver: SqliteSaver) -> Any:
    @entrypoint(checkpointer=saver)
    def in_a_row_then_open(count: int) -> str:
        for number in range(count):
            step(number).result()
        return interrupt("then")

    return in_a_row_then_open


def record(saver: SqliteSaver, count: int) -> Stopwatch:
    watch = Stopwatch()
    with watch:
        recorded(saver).invoke(count, config("long", steps=count), durability="sync")
    return watch


def replay(saver: SqliteSaver, count: int) -> Stopwatch:
    watch = Stopwatch()
    with watch:
        done = recorded(saver).invoke(Command(resume="on"), config("long", steps=count), durability="sync")
    assert done == "on"
    return watch


def on_langgraph(workload: Callable[[SqliteSaver, int], Stopwatch]) -> Callable[[int, str], Stopwatch]:
    def run(count: int, place: str) -> Stopwatch:
        with SqliteSaver.from_conn_string(str(Path(place) / "langgraph.db")) as saver:
            saver.setup()
            return workload(saver, count)

    return run


if __name__ == "__main__":
    main({each.__name__: on_langgraph(each) for each in (steps, fan, at_once, in_turn, record, replay)})
