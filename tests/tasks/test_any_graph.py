"""Any graph, in any rhythm and crashed anywhere, does what its definition says, done by hand one node at a time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux import ExecutionContext, workflow
from flux.errors import DeadEnd
from flux.tasks.graph import Graph
from flux.testing import crash_at_every_fact

Edges = dict[
    tuple[str, str], int
]  # the modulus of each edge's condition: it fires unless the output is divisible by it

NODES = [str(number) for number in range(6)]
PAIRS = [(a, b) for a in NODES for b in NODES if a < b]


@st.composite
def layouts(draw: st.DrawFn) -> Edges:
    """Edges in a random order, each node made reachable and able to end."""
    pairs = draw(st.lists(st.sampled_from(PAIRS), min_size=3, max_size=10, unique=True))
    starts = [(Graph.START, node) for node in NODES if not any(target == node for _, target in pairs)]
    ends = [(node, Graph.END) for node in NODES if not any(source == node for source, _ in pairs)]
    more = draw(st.lists(st.sampled_from(NODES), max_size=1))
    edges = draw(
        st.permutations([*pairs, *starts, *ends, *((Graph.START, n) for n in more if (Graph.START, n) not in starts)])
    )
    return {edge: 1 if edge[0] == Graph.START else draw(st.sampled_from([1, 1, 2, 3])) for edge in edges}


def fires(output: int, modulus: int) -> bool:
    return modulus == 1 or output % modulus != 0


def output_of(node: str, got: tuple[int, ...]) -> int:
    return int(node) + sum((place + 1) * value for place, value in enumerate(got))


def by_hand(edges: Edges, input: int) -> dict[str, int]:
    """The values that reach the end; the nodes are numbered so that every edge leads upwards."""
    values = {Graph.START: input}
    for node in NODES:
        incoming = [(source, modulus) for (source, target), modulus in edges.items() if target == node]
        got = [values[source] for source, modulus in incoming if source in values and fires(values[source], modulus)]
        if got:
            values[node] = output_of(node, tuple(got))
    ends = [source for source, target in edges if target == Graph.END]
    return {node: values[node] for node in ends if node in values and fires(values[node], edges[node, Graph.END])}


def graph_of(edges: Edges, rhythm: random.Random) -> Graph:
    async def rest() -> None:
        for _ in range(rhythm.randrange(6)):
            await asyncio.sleep(0)

    def action(node: str) -> Any:
        async def act(*got: int) -> int:
            await rest()
            return output_of(node, got)

        return act

    def condition(modulus: int) -> Any:
        async def holds(output: int) -> bool:
            await rest()
            return fires(output, modulus)

        return holds

    graph = Graph("any")
    for node in rhythm.sample(NODES, len(NODES)):
        graph.add_node(node, action(node))
    for (source, target), modulus in edges.items():
        graph.add_edge(source, target, None if modulus == 1 else condition(modulus))
    return graph


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edges=layouts(), input=st.integers(0, 5), seed=st.integers(0, 1000))
def test_any_graph_crashed_anywhere_ends_as_its_definition_says(edges: Edges, input: int, seed: int) -> None:
    graph = graph_of(edges, random.Random(seed))

    @workflow
    async def runs(ctx: ExecutionContext[int]) -> Any:
        return await graph(ctx.input)

    output = asyncio.run(crash_at_every_fact(runs, input)).output
    expected = by_hand(edges, input)
    if not expected:
        assert isinstance(output, DeadEnd)
    elif sum(target == Graph.END for _, target in edges) > 1:
        assert output == expected
    else:
        assert output == next(iter(expected.values()))
