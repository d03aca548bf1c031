"""How a graph looks: as Mermaid, as text, and with what became of its nodes in one execution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Literal, NamedTuple

from flux.domain.calls import CallId
from flux.domain.events import (
    CallCancelled,
    CallRaised,
    CallReturned,
    CallStarted,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionSuspended,
    PauseAnswered,
    PauseExpired,
    PauseOpened,
    SuspendRequested,
)

START = "START"
END = "END"

State = Literal["waiting", "running", "paused", "done", "failed", "skipped", "cancelled"]


class Arrow(NamedTuple):
    """`label` is the name of the condition."""

    source: str
    target: str
    label: str | None = None


# -- states -------------------------------------------------------------------------------------------------------------

_ENDS: dict[type[Event], State] = {CallReturned: "done", CallRaised: "failed", CallCancelled: "cancelled"}
_OVER = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled)


def latest_call(name: str, events: Sequence[Event]) -> CallId | None:
    """The last call of this name, None when there was none."""
    started = (event for event in reversed(events) if isinstance(event, CallStarted))
    return next((event.call for event in started if event.name == name), None)


def states(
    graph: CallId | None,
    branches: Mapping[str, str],
    nodes: Sequence[str],
    arrows: Sequence[Arrow],
    events: Sequence[Event],
) -> dict[str, State]:
    """What became of each node in the call `graph`. `branches` are the prefixes of the ids of the nodes' calls.

    Which way a condition decided is not recorded, but a node that could run has run by the next fact."""
    facts = _Facts(events)
    over = graph is not None and (graph in facts.ends or isinstance(events[-1], _OVER))
    found: dict[str, State] = {START: "done"}
    for node in _in_order(nodes, arrows):
        own = _own_state(branches[node], facts) if graph is not None else "waiting"
        if own in ("running", "paused") and over:
            own = "cancelled"
        elif own == "waiting" and (over or (graph is not None and _is_passed_by(node, branches, arrows, found, facts))):
            own = "skipped"
        found[node] = own
    return {node: found[node] for node in nodes}


class _Facts:
    """The journal's facts by call; `at` are places in the history."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.started: set[CallId] = set()
        self.ends: dict[CallId, State] = {}
        self.at: dict[CallId, int] = {}
        self.open_pauses: set[CallId] = set()
        self.length = len(events)
        self.is_suspended = bool(events) and isinstance(events[-1], (SuspendRequested, ExecutionSuspended))
        for place, event in enumerate(events):
            match event:
                case CallStarted():
                    self.started.add(event.call)
                case CallReturned() | CallRaised() | CallCancelled():
                    self.ends[event.call], self.at[event.call] = _ENDS[type(event)], place
                case PauseOpened():
                    self.open_pauses.add(event.call)
                case PauseAnswered() | PauseExpired():
                    self.open_pauses.discard(event.call)
                case _:
                    pass


def _own_state(branch: str, facts: _Facts) -> State:
    call = CallId(f"{branch}0")
    if any(pause.startswith(branch) for pause in facts.open_pauses):
        return "paused"
    if call in facts.ends:
        return facts.ends[call]
    return "running" if call in facts.started else "waiting"


def _is_passed_by(
    node: str, branches: Mapping[str, str], arrows: Sequence[Arrow], found: Mapping[str, State], facts: _Facts
) -> bool:
    """Everything before the node is decided, and yet the run went on without it."""
    sources = [arrow.source for arrow in arrows if arrow.target == node]
    if facts.is_suspended or any(found[source] not in ("done", "skipped") for source in sources):
        return False
    ends = [facts.at.get(CallId(f"{branches[source]}0"), -1) for source in sources if source != START]
    return max(ends, default=-1) < facts.length - 1


# -- Mermaid ------------------------------------------------------------------------------------------------------------

_COLOURS: dict[State, str] = {
    "waiting": "fill:#f1f3f5,stroke:#868e96,color:#212529",
    "running": "fill:#d0ebff,stroke:#1971c2,color:#212529",
    "paused": "fill:#fff3bf,stroke:#e67700,color:#212529",
    "done": "fill:#d3f9d8,stroke:#2b8a3e,color:#212529",
    "failed": "fill:#ffe3e3,stroke:#c92a2a,color:#212529",
    "skipped": "fill:#ffffff,stroke:#adb5bd,color:#868e96,stroke-dasharray:4 4",
    "cancelled": "fill:#f8f0fc,stroke:#862e9c,color:#212529",
}


def to_mermaid(nodes: Sequence[str], arrows: Sequence[Arrow], states: Mapping[str, State] | None) -> str:
    ids = {START: "start", END: "finish", **{node: f"n{index}" for index, node in enumerate(nodes)}}
    lines = ["flowchart TD", "    start([start])"]
    lines += [f'    {ids[node]}["{_quoted(node)}"]' for node in nodes]
    lines += ["    finish([end])"]
    for source, target, label in arrows:
        arrow = "-->" if label is None else f'-->|"{_quoted(label)}"|'
        lines.append(f"    {ids[source]} {arrow} {ids[target]}")
    for state in sorted(set((states or {}).values())):
        members = ",".join(ids[node] for node in nodes if (states or {}).get(node) == state)
        lines += [f"    classDef {state} {_COLOURS[state]}", f"    class {members} {state}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside the quotes of a label: whatever means something to Mermaid or to HTML, as a character code."""
    return re.sub(r"[^\w\s,:?!()]|\b_|_\b", lambda found: f"#{ord(found[0])};", " ".join(text.split()))


# -- text ---------------------------------------------------------------------------------------------------------------

_MARKS: dict[State | None, str] = {
    None: "●",
    "waiting": "○",
    "running": "▶",
    "paused": "‖",
    "done": "✓",
    "failed": "✗",
    "skipped": "-",
    "cancelled": "/",
}


def to_text(
    title: str, nodes: Sequence[str], arrows: Sequence[Arrow], states: Mapping[str, State] | None, *, width: int
) -> str:
    """One line for each node, from the start down. To their left run the edges, side by side, from node to node."""
    order = [START, *_in_order(nodes, arrows), END]
    lanes, lines = _Lanes(arrows), [title]
    for node in order:
        state = states.get(node) if states is not None else None
        mark = "◇" if node in (START, END) else _MARKS[state]
        text = _described(node, state, arrows)
        lines += [*lanes.joined(node), f"{lanes.through(node, mark)}  {text}", *lanes.split(node)]
    if 2 * lanes.widest > width // 2:  # more side by side than a terminal can show
        lines = [title, *(_listed(node, states, arrows) for node in order)]
    return "\n".join(_cut(line, width) for line in lines) + "\n"


def _described(node: str, state: State | None, arrows: Sequence[Arrow]) -> str:
    """The node's name, its state, and the conditions on the way to it."""
    incoming = [arrow for arrow in arrows if arrow.target == node]
    several = len(incoming) > 1
    conditions = [
        f"{arrow.label} after {arrow.source}" if several else arrow.label
        for arrow in incoming
        if arrow.label is not None
    ]
    parts = [node.lower() if node in (START, END) else _printable(node)]
    if state is not None:
        parts.append(f"[{state}]")
    if conditions:
        parts.append(f"if {_printable(', '.join(conditions))}")
    return "  ".join(parts)


def _listed(node: str, states: Mapping[str, State] | None, arrows: Sequence[Arrow]) -> str:
    state = states.get(node) if states is not None else None
    mark = "◇" if node in (START, END) else _MARKS[state]
    sources = ", ".join(_printable(arrow.source) for arrow in arrows if arrow.target == node)
    return f"{mark}  {_described(node, state, arrows)}" + (f"  ← {sources}" if sources else "")


class _Lanes:
    """The edges that are under way, each a lane to the node that it leads to; None is a free lane."""

    def __init__(self, arrows: Sequence[Arrow]) -> None:
        self._arrows = arrows
        self._lanes: list[str | None] = []
        self._column = 0
        self.widest = 0

    def joined(self, node: str) -> Iterator[str]:
        """The edges that lead to `node` come together in the leftmost of them."""
        columns = [column for column, target in enumerate(self._lanes) if target == node]
        self._column = columns[0] if columns else self._free()
        if len(columns) > 1:
            yield self._row(columns, "├", "┴", "╯")
        for column in columns[1:]:
            self._lanes[column] = None
        self._put(self._column, node)

    def through(self, node: str, mark: str) -> str:
        """The row of `node` itself."""
        self._trim()
        return " ".join(mark if column == self._column else _bar(lane) for column, lane in enumerate(self._lanes))

    def split(self, node: str) -> Iterator[str]:
        """The edges that leave `node` go apart: the first goes on below it, the others get lanes of their own."""
        targets = [arrow.target for arrow in self._arrows if arrow.source == node]
        self._lanes[self._column] = targets[0] if targets else None
        columns = [self._column]
        for target in targets[1:]:
            columns.append(self._free(after=self._column))
            self._put(columns[-1], target)
        if len(columns) > 1:
            yield self._row(sorted(columns), "├", "┬", "╮")

    def _row(self, columns: Sequence[int], first: str, middle: str, last: str) -> str:
        """A line that ties these columns together and crosses the lanes between them."""
        cells: list[str] = []
        for column, lane in enumerate(self._lanes):
            inside = columns[0] <= column < columns[-1]
            if column in columns:
                mark = first if column == columns[0] else last if column == columns[-1] else middle
            else:
                mark = "─" if inside and lane is None else _bar(lane)
            cells.append(mark + ("─" if inside else " "))
        return "".join(cells).rstrip()

    def _free(self, *, after: int = -1) -> int:
        return next(column for column in count(after + 1) if column >= len(self._lanes) or self._lanes[column] is None)

    def _put(self, column: int, target: str) -> None:
        self._lanes += [None] * (column + 1 - len(self._lanes))
        self._lanes[column] = target
        self.widest = max(self.widest, len(self._lanes))

    def _trim(self) -> None:
        while self._lanes and self._lanes[-1] is None:
            self._lanes.pop()


def _bar(lane: str | None) -> str:
    return " " if lane is None else "│"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "�" for char in text)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


# -- order --------------------------------------------------------------------------------------------------------------


def _in_order(nodes: Sequence[str], arrows: Sequence[Arrow]) -> list[str]:
    """The nodes, each behind all that lead to it, and each branch as far down as it goes before the next one.

    A graph that is not finished yet may have nodes that nothing leads to, or a circle: those come where they were added."""
    waiting = {node: {arrow.source for arrow in arrows if arrow.target == node} - {START} for node in nodes}
    order: list[str] = []
    ready = [node for node in reversed(nodes) if not waiting[node]]
    while waiting:
        node = ready.pop() if ready else next(iter(waiting))
        if node not in waiting:
            continue
        del waiting[node]
        order.append(node)
        for arrow in reversed(arrows):
            if arrow.source == node and arrow.target in waiting:
                waiting[arrow.target].discard(node)
                if not waiting[arrow.target]:
                    ready.append(arrow.target)
    return order
