"""What an execution reports while somebody looks on: bars and a spinner in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flux.cli import screen
from flux.schema import to_json_value
from flux.tasks.progress import Spoken, Told, in_words, stream_of

MOST_LINES = 40  # finished tasks that get a line of their own; of more, only their number is told
MOST_BARS = 8
BAR_WIDTH = 30


class Step(NamedTuple):
    """Progress as a part of a whole, where it can be told. `text` says it in words."""

    fraction: float | None
    text: str


def step_of(value: Any) -> Step:
    """A fraction, or {"current": 3, "total": 10}, perhaps with a "message"; anything else is told as it is."""
    match to_json_value(value):
        case float() as fraction if 0 <= fraction <= 1:
            return Step(fraction, f"{fraction:.0%}")
        case {"current": int() | float() as current, "total": int() | float() as total, **rest} if total > 0:
            message = rest.get("message")
            said = f"{current:g} of {total:g}" + (f"  {screen.compact(message)}" if message is not None else "")
            return Step(min(max(current / total, 0.0), 1.0), said)
        case other:
            return Step(None, screen.compact(other))


class Display(Protocol):
    def hear(self, progress: Told) -> None: ...

    def sleeping(self, until: datetime | None) -> None: ...

    def shown(self) -> AbstractContextManager[object]:
        """Shows, as long as it is entered."""
        ...


class Silent:
    def hear(self, progress: Told) -> None: ...

    def sleeping(self, until: datetime | None) -> None: ...

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()


class Lines:
    """One line for each thing, on stderr. Of progress by numbers only every tenth part is told."""

    def __init__(self) -> None:
        self._spoken = Spoken()
        self._tenths: dict[str | None, int] = {}
        self._until: list[datetime | None] = []
        self._finished = 0

    def hear(self, progress: Told) -> None:
        self._until = []
        for message in self._spoken.messages(progress):
            task = message.task or "workflow"
            if message.value is None:
                self._end(task, progress.call)
            else:
                self._tell(task, progress.call, step_of(message.value))

    def _end(self, task: str, call: str | None) -> None:
        self._tenths.pop(call, None)
        self._finished += 1
        if self._finished <= MOST_LINES:
            self._say(f"{task} finished")
        elif self._finished % 1000 == 0:
            self._say(f"{self._finished} tasks finished")

    def _tell(self, task: str, call: str | None, step: Step) -> None:
        if step.fraction is not None:
            tenth = int(step.fraction * 10)
            if self._tenths.get(call) == tenth:
                return
            self._tenths[call] = tenth
        self._say(f"{task}: {step.text}")

    def sleeping(self, until: datetime | None) -> None:
        if self._until == [until]:  # told already: this is asked at every look at the clock
            return
        self._until = [until]
        self._say("sleeping" if until is None else f"sleeping until {screen.local_time(until)}")

    def shown(self) -> AbstractContextManager[object]:
        return nullcontext()

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{screen.printable(line)}\n")
        sys.stderr.flush()


class _Row(NamedTuple):
    """`stream` is what an agent said last, of the kind that `stream_of` names."""

    task: str
    step: Step
    kind: str | None = None
    stream: str = ""


def _row_after(before: _Row | None, task: str, value: Any) -> _Row:
    """What is shown of a call that was shown so `before`, now that it has told `value`."""
    kind = stream_of(value)
    if kind is None:
        return _Row(task, step_of(in_words(value)))
    stream = (before.stream if before is not None and before.kind == kind else "") + value[kind]
    stream = stream[-BAR_WIDTH * 3 :]
    return _Row(task, Step(None, " ".join(stream.split())), kind, stream)


class Bars:
    """In a terminal: finished tasks scroll away, and below them stands what is going on now."""

    def __init__(self, workflow: str) -> None:
        self._workflow = workflow
        self._console: Console = screen.err()
        self._spinner = Spinner("dots")
        self._began = time.monotonic()
        self._rows: dict[str | None, _Row] = {}
        self._finished = 0
        self._until: datetime | None = None
        self._asleep = False

    def hear(self, progress: Told) -> None:
        self._asleep = False
        task = progress.task or self._workflow
        if progress.value is not None:
            before = self._rows.get(progress.call)
            self._rows[progress.call] = _row_after(before, task, progress.value)
            return
        self._rows.pop(progress.call, None)
        self._finished += 1
        if self._finished <= MOST_LINES:
            self._console.print(Text.assemble(("• ", "green"), screen.bounded(screen.printable(task), 100)))
        elif self._finished == MOST_LINES + 1:
            self._console.print(Text("  ... and more", "dim"))

    def sleeping(self, until: datetime | None) -> None:
        self._asleep, self._until = True, until

    def shown(self) -> AbstractContextManager[object]:
        # a user's own `print` goes above the bars, unless stdout leads elsewhere
        return Live(
            get_renderable=self.renderable,
            console=self._console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=sys.stdout.isatty(),
        )

    def renderable(self) -> RenderableType:
        rows = list(self._rows.values())[-MOST_BARS:]
        return Group(*(self._shown(row.task, row.step) for row in rows), self._headline())

    def _headline(self) -> RenderableType:
        doing = "running"
        if self._asleep:
            doing = "sleeping" + ("" if self._until is None else f" until {screen.local_time(self._until)}")
        passed = screen.lasted(round(time.monotonic() - self._began))
        tasks = f"{self._finished} task{'' if self._finished == 1 else 's'} finished"
        self._spinner.update(
            text=Text.assemble((self._workflow, "bold"), f" {doing}  ", (f"{passed} · {tasks} · Ctrl-C lets go", "dim"))
        )
        return self._spinner

    def _shown(self, task: str, step: Step) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        row.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
        name = Text(f"  {screen.printable(task)}")
        if step.fraction is None:
            row.add_column(no_wrap=True, overflow="ellipsis")
            row.add_row(name, Text(screen.bounded(screen.printable(step.text), 200), "dim"))
            return row
        row.add_column(width=BAR_WIDTH)
        row.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=step.fraction, width=BAR_WIDTH)
        row.add_row(name, bar, Text(screen.bounded(screen.printable(step.text), 100), "dim"))
        return row


def display_of(workflow: str, *, follow: bool) -> Display:
    if not follow:
        return Silent()
    return Bars(workflow) if sys.stderr.isatty() else Lines()
