"""`flux list` and `flux show`: executions as they are, whatever runs them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from rich.text import Text

from flux.cli import screen
from flux.cli.code import graphs_of
from flux.cli.loading import (
    INTERRUPTED,
    MOST_RUNNING,
    QUEUED,
    STANDINGS,
    Refused,
    database_file,
    full_id,
    known,
    standing,
    standing_of,
    with_flux,
    workflow_of,
)
from flux.cli.timeline import CallLine, bar, lines_of, span_of
from flux.cli.views import pause_view, type_words
from flux.context import ExecutionContext
from flux.domain.calls import Failure
from flux.domain.events import Event, ExecutionCancelled, ExecutionCompleted, ExecutionFailed, ExecutionStarted
from flux.domain.execution import Status
from flux.errors import NotReadable, TaskFailed
from flux.events import ExecutionEvent, shown
from flux.schema import to_json_value
from flux.service import Flux, Listing
from flux.tasks import Graph

SHORT = 12  # characters of an id that a terminal shows: enough to name it by
LONGEST = 4000  # characters of a value that `show` shows
BOUNDED = 200  # characters of a value in a table
MOST_LINES = 2000  # lines of a table in a terminal
NAME_WIDTH = 32
WORDS_WIDTH = 34  # columns of a timeline's words, beside the names and bars


# -- list ----------------------------------------------------------------------------------------------------------------


def list_executions(
    *, workflow: str | None, statuses: Sequence[str], limit: int, as_json: bool, database: str | None
) -> None:
    wanted = {_status(each) for each in statuses}
    words = {each.lower() for each in statuses}
    path = database_file(database)
    if path is not None and not path.exists():
        if as_json:
            screen.print_json([])
        screen.say(f"There are no executions yet: there is no database {path}.")
        return
    sifts = bool(words & {*STANDINGS}) and Status.RUNNING.value not in words  # which of those, no database can tell
    rows = with_flux(
        lambda flux: flux.list(workflow=workflow, status=wanted or None, limit=MOST_RUNNING if sifts else limit),
        database=database,
    )
    if sifts:
        rows = [row for row in rows if standing(row) in words][:limit]
    if as_json:
        screen.print_json([_row_view(row) for row in rows])
        return
    if not rows:
        screen.say("There are no such executions." if workflow or wanted else "There are no executions yet.")
        return
    table = [
        (
            _short(row.id),
            row.workflow,
            screen.status_text(standing(row)),
            screen.ago(screen.at(row.created_at)),
            screen.lasted(row.updated_at - row.created_at) if row.status.is_final else "",
        )
        for row in rows
    ]
    screen.print_table(("id", "workflow", "status", "started", "took"), table)
    if len(rows) == limit and sys.stdout.isatty():
        screen.say(f"The newest {limit}; --limit shows more.", "dim")


def list_queues(*, as_json: bool, database: str | None) -> None:
    states = with_flux(lambda flux: flux.queues(), database=database)
    if as_json:
        screen.print_json(
            [{"queue": state.name, "running": state.running, "waiting": state.waiting} for state in states]
        )
    elif states:
        table = [(state.name, str(state.running), str(state.waiting)) for state in states]
        screen.print_table(("queue", "running", "waiting"), table)
    else:
        screen.say("Nothing runs or waits in a queue.")


def _status(given: str) -> Status:
    try:
        return Status.RUNNING if given.lower() in STANDINGS else Status(given.lower())
    except ValueError:
        raise Refused(f"{given!r} is no status; there are: {', '.join([*STANDINGS, *Status])}.") from None


def _row_view(row: Listing) -> dict[str, Any]:
    times = {key: getattr(row, key) for key in ("created_at", "updated_at", "wake_at")}
    return {
        "execution_id": row.id,
        "workflow": row.workflow,
        "status": row.status.value,
        QUEUED: standing(row) == QUEUED,
        INTERRUPTED: standing(row) == INTERRUPTED,
        **{key: None if at is None else screen.iso(screen.at(at)) for key, at in times.items()},
        "parent": row.parent,
        "principal": row.principal,
        "queue": row.queue,
    }


def _short(id: str) -> str:
    """In a terminal the beginning of an id that was made for the execution; one that somebody chose stays whole."""
    is_made = len(id) == 32 and all(char in "0123456789abcdef" for char in id)
    return id[:SHORT] if is_made and sys.stdout.isatty() else id


# -- show ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What else is to be shown."""

    events: bool
    timeline: bool
    graph: bool


def show(given: str, parts: Parts, *, sources: Sequence[str], as_json: bool, database: str | None) -> None:
    found = with_flux(lambda flux: _read(flux, given), database=database)
    execution, history = found.execution, found.history
    graphs = _graphs(execution.execution_id, sources, database) if parts.graph else []
    if as_json:
        view = _view(found)
        if parts.events:
            view["events"] = [_event_view(event) for event in _events(execution, history)]
        if parts.timeline:
            view["timeline"] = [_line_view(line) for line in lines_of(history)]
        if parts.graph:
            view["graphs"] = [{"name": graph.name, "states": graph.states(history)} for graph in graphs]
        screen.print_json(view)
        return
    tables = [parts.events, parts.timeline, parts.graph]
    if not any(tables) or sys.stdout.isatty():
        screen.print_fields(_fields(found, database))
    for graph in graphs:
        screen.out().print(Text(f"\n{graph.to_text(graph.states(history), width=_width())}"))
    if parts.timeline:
        _print_timeline(lines_of(history), start=history[0].at)
    if parts.events:
        _print_events(_events(execution, history))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    execution: ExecutionContext[Any]
    history: Sequence[Event]
    standing: str

    @property
    def is_interrupted(self) -> bool:
        return self.standing == INTERRUPTED

    @property
    def started(self) -> ExecutionStarted:
        first = self.history[0]
        assert isinstance(first, ExecutionStarted)
        return first


async def _read(flux: Flux, given: str) -> Found:
    id = await full_id(flux, given)
    execution = await flux.get(id)
    standing = await standing_of(flux, id, execution.status)
    return Found(execution=execution, history=await flux.history(id), standing=standing)


def _fields(found: Found, database: str | None) -> list[tuple[str, screen.Cell]]:
    execution, history, started = found.execution, found.history, found.started
    id = execution.execution_id
    moment = screen.iso(execution.created_at) if not sys.stdout.isatty() else screen.local_time(execution.created_at)
    fields: list[tuple[str, screen.Cell]] = [
        ("id", id),
        ("workflow", execution.workflow_name),
        ("status", screen.status_text(found.standing)),
        ("started", moment or ""),
    ]
    if execution.has_finished:
        fields.append(("took", screen.lasted((execution.updated_at - execution.created_at).total_seconds())))
    if execution.wake_at is not None:
        fields.append(("goes on", screen.local_time(execution.wake_at)))
    fields += [
        (name, value) for name, value in (("parent", started.parent), ("forked from", started.forked_from)) if value
    ]
    fields.append(("input", _said(screen.plain(started.input))))
    ended = _end(execution, history)
    if execution.has_succeeded:
        fields.append(("output", _said(ended)))
    elif ended is not None:
        fields.append(("error" if execution.has_failed else "reason", Text(screen.printable(_said(ended)), "red")))
    for pause in execution.pauses:
        fields.append(("asks", _said({key: value for key, value in _question(pause_view(pause)).items() if value})))
        answer = ["--pause", pause.name] if len(execution.pauses) > 1 else []
        fields.append(("to answer", screen.command("resume", id, "ANSWER", *answer, database=database)))
    if found.is_interrupted:
        fields.append(("to go on", screen.command("resume", id, database=database)))
    if execution.has_failed:
        fields.append(("to retry", screen.command("retry", id, database=database)))
    return [(name, screen.printable(value) if isinstance(value, str) else value) for name, value in fields]


def _question(view: dict[str, Any]) -> dict[str, Any]:
    schema = view.pop("schema")
    return {**view, "answer": None if schema is None else type_words(schema)}


def _said(value: Any) -> str:
    text = screen.compact(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters; all of it with --json)"


def _view(found: Found) -> dict[str, Any]:
    execution, history, started = found.execution, found.history, found.started
    ended = _end(execution, history)
    return {
        "execution_id": execution.execution_id,
        "workflow": execution.workflow_name,
        "status": execution.status.value,
        QUEUED: found.standing == QUEUED,
        INTERRUPTED: found.is_interrupted,
        "created_at": screen.iso(execution.created_at),
        "updated_at": screen.iso(execution.updated_at),
        "wake_at": screen.iso(execution.wake_at),
        "parent": started.parent,
        "forked_from": started.forked_from,
        "input": screen.plain(started.input),
        "output": ended if execution.has_succeeded else None,
        "error": ended if execution.has_failed else None,
        "pauses": [pause_view(pause) for pause in execution.pauses],
        "events_count": len(history),
    }


def _end(execution: ExecutionContext[Any], history: Sequence[Event]) -> Any:
    """The output, the error, or the reason for the cancellation, as JSON."""
    last = next((event for event in reversed(history) if isinstance(event, _ENDS)), None)
    match last:
        case ExecutionCompleted():
            try:
                return to_json_value(execution.output)
            except NotReadable:  # its classes are not to be had here
                return screen.plain(last.output)
        case ExecutionFailed() if execution.has_failed:
            return f"{last.error.type.rpartition(':')[2]}: {last.error.message}"
        case ExecutionCancelled():
            return last.reason
        case _:
            return None


_ENDS = (ExecutionCompleted, ExecutionFailed, ExecutionCancelled)


# -- events --------------------------------------------------------------------------------------------------------------


class _Plain:
    """Reads stored values without their classes, so that every history can be shown."""

    def decode(self, text: str, annotation: Any = None) -> Any:
        return screen.plain(text)

    def decode_error(self, failure: Failure) -> BaseException:
        return TaskFailed(replace(failure, type=failure.type.rpartition(":")[2]))


def _events(execution: ExecutionContext[Any], history: Sequence[Event]) -> list[ExecutionEvent]:
    return shown(execution.execution_id, history, cast(Any, _Plain()))


def _event_view(event: ExecutionEvent) -> dict[str, Any]:
    return {
        "number": event.number,
        "time": screen.iso(event.time),
        "type": event.type.value,
        "name": event.name,
        "source_id": event.source_id,
        "value": to_json_value(event.value),
    }


def _print_events(events: Sequence[ExecutionEvent]) -> None:
    is_terminal = sys.stdout.isatty()
    left_out = max(0, len(events) - MOST_LINES) if is_terminal else 0
    rows = [
        (
            str(event.number),
            event.time.astimezone().strftime("%H:%M:%S.%f")[:-3] if is_terminal else event.time.isoformat(),
            Text(event.type.value, _event_style(event.type.value)),
            event.name,
            screen.bounded(screen.compact(to_json_value(event.value)), BOUNDED) if event.value is not None else "",
        )
        for event in events[left_out:]
    ]
    if is_terminal:
        screen.out().print()
    screen.print_table(("#", "time", "event", "name", "value"), rows, flexible="value")
    if left_out:
        screen.say(f"The last {MOST_LINES:,} of {len(events):,}; in a pipe, or with --json, there are all.", "dim")


def _event_style(type: str) -> str:
    last = type.rpartition("_")[2].lower()
    return {"started": "", "resumed": ""}.get(last, screen.STYLES.get(last, ""))


# -- timeline ------------------------------------------------------------------------------------------------------------


def _line_view(line: CallLine) -> dict[str, Any]:
    return {
        "call": line.call,
        "name": line.name,
        "depth": line.depth,
        "state": line.state,
        "attempts": line.attempts,
        "started_at": screen.iso(screen.at(line.start)),
        "seconds": None if line.end is None else round(line.end - line.start, 6),
    }


def _print_timeline(lines: Sequence[CallLine], *, start: float) -> None:
    if not sys.stdout.isatty():
        screen.print_table(
            ("start", "call", "took", "attempts", "status"),
            [
                (f"{line.start - start:.3f}", line.name, _took(line, 0), str(line.attempts), line.state)
                for line in lines
            ],
        )
        return
    shown_lines = lines[:MOST_LINES]
    names = [f"{'  ' * line.depth}{line.name}" for line in shown_lines]
    name_width = min(max(map(len, names), default=0), NAME_WIDTH)
    width = max(8, _width() - name_width - WORDS_WIDTH)
    now = time.time()
    begin, end = span_of(lines, start=start, now=now)
    rows: list[Sequence[screen.Cell]] = []
    for name, line in zip(names, shown_lines, strict=True):
        space, filled = bar(line, start=begin, end=end, width=width)
        style = screen.STYLES.get(line.state, "")
        rows.append(
            (
                screen.bounded(name, NAME_WIDTH) if name.strip() == name else Text(screen.printable(name[:NAME_WIDTH])),
                f"+{screen.lasted(line.start - start)}",
                Text.assemble(space, (filled, style)),
                _took(line, now),
                Text(line.state + (f" x{line.attempts}" if line.attempts > 1 else ""), style),
            )
        )
    screen.out().print()
    screen.print_table(("call", "start", "", "took", "status"), rows)
    if len(lines) > len(shown_lines):
        screen.say(
            f"The first {MOST_LINES:,} of {len(lines):,} calls; in a pipe, or with --json, there are all.", "dim"
        )


def _took(line: CallLine, now: float) -> str:
    if line.end is None:
        return f"{screen.lasted(now - line.start)}..." if now else ""
    return screen.lasted(line.end - line.start) if now else f"{line.end - line.start:.3f}"


# -- graph ---------------------------------------------------------------------------------------------------------------


def _graphs(id: str, sources: Sequence[str], database: str | None) -> list[Graph]:
    execution = with_flux(lambda flux: known(flux, id), database=database)
    graphs = graphs_of(workflow_of(execution, sources).workflow.func.__globals__)
    if not graphs:
        raise Refused(
            f"There is no graph to draw for {execution.workflow!r}: its module has none at its top level. --timeline shows its calls."
        )
    return graphs


def _width() -> int:
    return min(screen.out().width, 200)
