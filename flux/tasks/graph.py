"""Graphs: steps that depend on each other, with conditions that choose the way."""

from __future__ import annotations

import asyncio
import inspect
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from types import MethodType
from typing import Any, Self

from flux.decorators import UNSET, Task, Unset, Workflow
from flux.domain.calls import CallId
from flux.domain.events import Event
from flux.engine.invoke import Call, Spec, invoke
from flux.engine.scope import Scope, entered, require_scope
from flux.errors import DeadEnd, InvalidGraph, NonDeterminismError
from flux.events import ExecutionEvent
from flux.tasks import drawing
from flux.tasks.drawing import END, START, Arrow, State

Action = Callable[..., Any]
Condition = Callable[[Any], Any]


class Graph:
    """Steps and the edges between them. It is built once and may be awaited often, inside workflows, also concurrently.

    A node runs as soon as all its incoming edges are decided and at least one of them fired; it is called with the outputs
    of the nodes behind the edges that fired, in the order in which the edges were added. An edge does not fire when its
    condition is false or its source was skipped; a node none of whose edges fired is skipped. Nodes that are ready at the
    same time run concurrently. A node that takes no arguments is called without any.

    `START` and `END` stand for the graph's own input and output: `start_with(n)` is `add_edge(Graph.START, n)`, and
    `end_with(n)` is `add_edge(n, Graph.END)`. A graph with one end returns its value; one with several returns a dict of
    those that were reached, by name."""

    START = START
    END = END

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: dict[str, _Node] = {}
        self._edges: dict[tuple[str, str], _Edge] = {}

    # -- building ---------------------------------------------------------------------------------------------------

    def add_node(self, name: str, action: Action) -> Self:
        """`action` is a task, a workflow, a graph, or a plain function or method, sync or async: then it becomes a task."""
        if name in (START, END):
            raise self._invalid(f"the name {name!r} is taken: it stands for the graph's own {name.lower()}")
        if name in self._nodes:
            raise self._invalid(f"there is a node {name!r} already")
        if not callable(action):
            raise self._invalid(f"node {name!r} wants a task or a function, not {action!r}")
        self._nodes[name] = _Node.of(name, action)
        return self

    def add_edge(self, source: str, target: str, condition: Condition | None = None) -> Self:
        """`condition`, sync or async, is given the output of `source` and says whether the edge fires.

        It belongs to the workflow's own code: what it says must follow from the output and from tasks that it calls."""
        if target == START:
            raise self._invalid(f"no edge can lead to START (from {source!r})")
        if source == END:
            raise self._invalid(f"no edge can leave END (to {target!r})")
        for node in (source, target):
            self._check_known(node)
        if (source, target) == (START, END):
            raise self._invalid("an edge from START to END leads past all nodes")
        if source == target:
            raise self._invalid(
                f"node {source!r} has an edge to itself; make the loop inside a task or around the graph"
            )
        if (source, target) in self._edges:
            raise self._invalid(f"there is an edge {source} -> {target} already; put both conditions into one")
        if condition is not None and not callable(condition):
            raise self._invalid(f"the condition of {source} -> {target} must be a function, not {condition!r}")
        self._edges[source, target] = _Edge(source, target, condition)
        return self

    def start_with(self, node: str) -> Self:
        """`node` is given the graph's input. There may be several."""
        return self.add_edge(START, node)

    def end_with(self, node: str) -> Self:
        """The output of `node` is the graph's. There may be several."""
        return self.add_edge(node, END)

    def validate(self) -> Self:
        """Raise InvalidGraph for a graph that cannot run from a start to an end; each call of the graph does so, too."""
        edges = list(self._edges)
        if not any(source == START for source, _ in edges):
            raise self._invalid("it has no start: say `start_with(node)`")
        if not any(target == END for _, target in edges):
            raise self._invalid("it has no end: say `end_with(node)`")
        self._check_acyclic()
        if lost := self._nodes.keys() - _reachable(START, edges):
            raise self._invalid(f"no path leads from a start to {self._listed(lost)}")
        if lost := self._nodes.keys() - _reachable(END, [(target, source) for source, target in edges]):
            raise self._invalid(f"no path leads from {self._listed(lost)} to an end")
        return self

    def _check_known(self, node: str) -> None:
        if node in self._nodes or node in (START, END):
            return
        close = get_close_matches(node, self._nodes, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known so far: {', '.join(self._nodes) or 'none'}"
        raise self._invalid(f"there is no node {node!r}; {hint}")

    def _check_acyclic(self) -> None:
        sorter = TopologicalSorter[str]()
        for source, target in self._edges:
            sorter.add(target, source)
        try:
            sorter.prepare()
        except CycleError as exc:
            raise self._invalid(f"it runs in a circle: {' -> '.join(exc.args[1])}") from None

    def _listed(self, nodes: set[str]) -> str:
        return ", ".join(repr(node) for node in self._nodes if node in nodes)

    def _invalid(self, why: str) -> InvalidGraph:
        return InvalidGraph(f"Graph {self.name!r}: {why}.")

    # -- running ----------------------------------------------------------------------------------------------------

    def __call__(self, input: Any = UNSET) -> Coroutine[Any, Any, Any]:
        """Run the graph as one call of the workflow, named when it is called, as a task is.

        Without `input`, start nodes are called without arguments where they can be, else with None. Raises InvalidGraph;
        when awaited, what the first node that fails raises, and DeadEnd when the conditions lead to no end."""
        self.validate()
        site = require_scope(f"Graph {self.name!r}").name_call()
        spec = Spec(name=self._call_name, func=self._run, parameters=("input",))
        return invoke(Call(spec, site, spec.name, () if isinstance(input, Unset) else (input,), {}))

    @property
    def _call_name(self) -> str:
        return f"graph_{self.name}"

    async def _run(self, input: Any = UNSET) -> Any:
        walk = _Walk(self._nodes, list(self._edges.values()), require_scope(f"Graph {self.name!r}"))
        await walk.run(input)
        ends = [edge for edge in self._edges.values() if edge.target == END]
        reached = {edge.source: walk.outputs[edge.source] for edge in ends if edge in walk.fired}
        if not reached:
            raise DeadEnd(self.name, *walk.dead_ends())
        return reached if len(ends) > 1 else reached[ends[0].source]

    # -- drawing ----------------------------------------------------------------------------------------------------

    def to_mermaid(self, states: Mapping[str, State] | None = None) -> str:
        """The graph as a Mermaid flowchart; with the `states` of its nodes, in their colours."""
        return drawing.to_mermaid(list(self._nodes), self._arrows(), states)

    def to_text(self, states: Mapping[str, State] | None = None, *, width: int = 100) -> str:
        """The graph as a picture for terminals, in lines of at most `width` characters."""
        return drawing.to_text(self.name, list(self._nodes), self._arrows(), states, width=width)

    def states(self, events: Sequence[Event | ExecutionEvent], *, call: CallId | None = None) -> dict[str, State]:
        """The state of each node, from the `events` of an execution that runs or has ended.

        `call` is the id of one call of this graph; without it, the latest counts."""
        facts = [event.fact if isinstance(event, ExecutionEvent) else event for event in events]
        if call is None:
            call = drawing.latest_call(self._call_name, facts)
        branches = {name: _branch(call, index) for index, name in enumerate(self._nodes)} if call is not None else {}
        return drawing.states(call, branches, list(self._nodes), self._arrows(), facts)

    def _arrows(self) -> list[Arrow]:
        return [Arrow(edge.source, edge.target, edge.label) for edge in self._edges.values()]

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self._nodes)} nodes>"


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    action: Action
    takes_arguments: bool
    needs_arguments: bool

    @classmethod
    def of(cls, name: str, action: Action) -> _Node:
        return cls(name, _durable(name, action), *_arity(action))

    def arguments(self, values: Sequence[Any]) -> list[Any]:
        """What the action is called with, of the values that reach it. UNSET is the input of a graph that got none."""
        if not self.takes_arguments or (len(values) == 1 and values[0] is UNSET and not self.needs_arguments):
            return []
        return [None if value is UNSET else value for value in values]


@dataclass(frozen=True, slots=True, eq=False)  # by identity: a condition need not be hashable
class _Edge:
    source: str
    target: str
    condition: Condition | None

    @property
    def label(self) -> str | None:
        """The condition by the name of its function."""
        if self.condition is None:
            return None
        name = str(getattr(self.condition, "__name__", "condition"))
        return "condition" if name == "<lambda>" else name

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}" + (f" if {self.label}" if self.condition else "")


class _Walk:
    """One call of a graph: what has run, and which edges have fired."""

    def __init__(self, nodes: Mapping[str, _Node], edges: Sequence[_Edge], scope: Scope) -> None:
        self.outputs: dict[str, Any] = {}
        self.fired: set[_Edge] = set()
        self._nodes = dict(nodes)
        self._incoming: defaultdict[str, list[_Edge]] = defaultdict(list)
        self._outgoing: defaultdict[str, list[_Edge]] = defaultdict(list)
        for edge in edges:
            self._incoming[edge.target].append(edge)
            self._outgoing[edge.source].append(edge)
        self._undecided = {node: len(incoming) for node, incoming in self._incoming.items()}
        self._engine_run = scope.run
        # now and for each node, in the order of the nodes: when one gets ready depends on timing, where it stands must not
        self._scopes = {name: scope.fork() for name in nodes}
        self._running: dict[asyncio.Task[None], str] = {}
        self._failures: dict[str, Exception] = {}
        self._signal: BaseException | None = None  # a Suspend, which is no failure and outranks them
        self._stopping = False

    async def run(self, input: Any) -> None:
        """Run all nodes that are reached. Of several failures the one of the node that was added first is raised."""
        try:
            await self._finish(START, input)
            self._follow(START)
            while self._running and not self._failures and self._signal is None:
                await self._next()
        finally:
            await self._stop()
        if self._signal is not None:
            raise self._signal
        for node in self._nodes:
            if node in self._failures:
                raise self._failures[node]
        self._check_skipped()

    def dead_ends(self) -> tuple[list[str], list[str]]:
        """The nodes after which nothing fired, and the edges that did not."""
        ends = [node for node in (START, *self._nodes) if node in self.outputs and not self._fired_from(node)]
        return ends, [str(edge) for node in ends for edge in self._outgoing[node]]

    def _fired_from(self, node: str) -> bool:
        return any(edge in self.fired for edge in self._outgoing[node])

    def _follow(self, node: str) -> None:
        """The edges that leave `node` are decided: start what gets ready by that, and skip what can no longer run."""
        decided = deque(self._outgoing[node])
        while decided:
            target = decided.popleft().target
            self._undecided[target] -= 1
            if target == END or self._undecided[target]:
                continue
            fired = [edge for edge in self._incoming[target] if edge in self.fired]
            if fired:
                self._start(self._nodes[target], [self.outputs[edge.source] for edge in fired])
            else:
                decided.extend(self._outgoing[target])

    def _start(self, node: _Node, values: Sequence[Any]) -> None:
        with entered(self._scopes[node.name]):
            task = asyncio.get_running_loop().create_task(self._visit(node, values))
        self._running[task] = node.name

    async def _visit(self, node: _Node, values: Sequence[Any]) -> None:
        await self._finish(node.name, await node.action(*node.arguments(values)))

    async def _finish(self, node: str, output: Any) -> None:
        """Keep the output, and decide which edges it makes fire, one after the other: their conditions may call tasks."""
        self.outputs[node] = output
        for edge in self._outgoing[node]:
            if edge.condition is None or await _holds(edge.condition, None if output is UNSET else output):
                self.fired.add(edge)

    async def _next(self) -> None:
        ended, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        left = [(task, node) for task, node in self._running.items() if task in ended]  # in the order of their start
        finished = [node for task, node in left if self._succeeded(task)]
        for task, _ in left:
            del self._running[task]
        if len(finished) == len(left):
            for node in finished:
                self._follow(node)

    def _succeeded(self, task: asyncio.Task[None]) -> bool:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failures[self._running[task]] = error
        elif error is not None and not (self._stopping and isinstance(error, asyncio.CancelledError)):
            self._signal = self._signal or error
        return error is None

    async def _stop(self) -> None:
        """Leave nothing running."""
        self._stopping = True
        for task in self._running:
            task.cancel()
        if self._running:
            ended, _ = await asyncio.wait(self._running)
            for task in ended:
                self._succeeded(task)

    def _check_skipped(self) -> None:
        """A node that ran according to the history, and is skipped now, is a change of the code."""
        try:
            for scope in self._scopes.values():
                self._engine_run.journal.check_end(scope)
        except NonDeterminismError as exc:
            self._engine_run.fail(exc)
            raise


async def _holds(condition: Condition, output: Any) -> bool:
    answer = condition(output)
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _durable(name: str, action: Action) -> Action:
    """The action as one call of the workflow, whose outcome is recorded."""
    owner = action.__func__ if isinstance(action, MethodType) else action
    if isinstance(owner, (Task, Workflow, Graph)):
        return action
    return Task[..., Any](action, name=name.replace("{", "{{").replace("}", "}}"))  # no template


def _arity(action: Action) -> tuple[bool, bool]:
    """Whether the action takes positional arguments, and whether it needs one."""
    try:
        parameters = inspect.signature(action).parameters.values()
    except (TypeError, ValueError):  # some builtins do not say
        return True, True
    positional = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    return bool(positional), any(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in positional)


def _branch(call: CallId, index: int) -> str:
    """The prefix of the ids of the calls made for node number `index`, its own call first: see `_Walk._start`."""
    return f"{call}.f{index}.f0."


def _reachable(start: str, edges: Iterable[tuple[str, str]]) -> set[str]:
    successors: defaultdict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        successors[source].append(target)
    seen, todo = {start}, [start]
    while todo:
        for node in successors[todo.pop()]:
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen
