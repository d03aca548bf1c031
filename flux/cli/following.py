"""Seeing an execution through: run it to rest in this process, ask what it asks, say how it ended, let go on Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flux.cli import screen
from flux.cli.asking import ask
from flux.cli.display import Display, display_of
from flux.cli.loading import AnyWorkflow, Chosen, Refused, source_note
from flux.cli.views import execution_view, type_words
from flux.context import ExecutionContext, OpenPause
from flux.domain.execution import Status
from flux.errors import ExecutionBusy, InvalidAnswer, LeaseLost
from flux.service import Flux

Begin = Callable[[Flux], Awaitable[object]]

DONE, FAILED, PAUSED, INTERRUPTED = 0, 1, 3, 130
"""What the command exits with. 2 is for the person's own mistakes."""

LET_GO_WITHIN = 5.0  # seconds from Ctrl-C to the end: a plain function in a thread may not listen to anybody
LOOK = 0.5  # seconds between two looks at the timers of an execution that sleeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An execution, and how the person wants to see it. `pause` is the question that they mean to answer first."""

    id: str
    database: str | None
    follow: bool = True
    as_json: bool = False
    pause: str | None = None

    @property
    def can_ask(self) -> bool:
        return self.follow and not self.as_json and sys.stdin.isatty() and sys.stderr.isatty()

    def command(self, *words: str) -> str:
        return screen.command(*words, database=self.database)


def see_through(case: Case, chosen: Chosen, begin: Begin) -> int:
    """Begin, and stay until the execution has ended or waits for somebody else. Returns what to exit with."""
    while True:
        try:
            execution = drive(case, chosen, begin)
        except InvalidAnswer as exc:
            if not case.can_ask:
                raise
            screen.say(str(exc), "red")
            execution = _look(case, chosen)
        if execution is None:
            return INTERRUPTED
        if not (execution.is_paused and case.can_ask):
            return report(case, execution, chosen.workflow)
        pause = _to_be_asked(case, execution)
        try:
            begin = answering(case.id, ask(pause), pause)
        except (KeyboardInterrupt, EOFError):
            screen.say("\nIt stays paused. To answer later:")
            screen.say(f"  {case.command('resume', case.id)}", "bold")
            return PAUSED


def _to_be_asked(case: Case, execution: ExecutionContext[Any]) -> OpenPause:
    wanted = [pause for pause in execution.pauses if case.pause in (pause.id, pause.name)]
    return (wanted or execution.pauses)[0]


def answering(id: str, answer: Any, pause: OpenPause) -> Begin:
    return lambda flux: flux.answer(id, answer, pause=pause.id)


async def going_on(flux: Flux, id: str) -> None:
    """Go on with an execution unless it waits for an answer, has ended, or is being run by another process: that is watched."""
    execution = await flux.get(id)
    if not execution.has_finished and not execution.is_paused:
        try:
            await flux.go_on(id)
        except ExecutionBusy:
            screen.say("Another process runs it; this one looks on.", "dim")


# -- running -------------------------------------------------------------------------------------------------------------


def drive(case: Case, chosen: Chosen, begin: Begin) -> ExecutionContext[Any] | None:
    """The execution once it is at rest; None when the person let go of it before."""
    display = display_of(chosen.workflow.name, follow=case.follow)
    letting_go = _LettingGo(case)
    with display.shown(), _results_only(case):
        try:
            return asyncio.run(_drive(case, chosen, begin, display, letting_go))
        except KeyboardInterrupt:
            pass
        except SystemExit as exc:  # what it asked for by that is not a result
            raise Refused(
                f"The code of {chosen.workflow.name!r} ended the process (SystemExit: {exc.code}); let it raise an error "
                f"instead. The execution is where it was: {case.command('show', case.id)}"
            ) from exc
    letting_go.say()
    return None


def _look(case: Case, chosen: Chosen) -> ExecutionContext[Any]:
    async def main() -> ExecutionContext[Any]:
        async with Flux(case.database, workflows=chosen.workflows, recover=False) as flux:
            return await flux.get(case.id)

    return asyncio.run(main())


async def _drive(
    case: Case, chosen: Chosen, begin: Begin, display: Display, letting_go: _LettingGo
) -> ExecutionContext[Any]:
    async with Flux(case.database, workflows=chosen.workflows, recover=False) as flux:
        try:
            with flux.observed(case.id, display.hear):
                await begin(flux)
                letting_go.has_begun = True
                await flux.engine.store.remember(*source_note(chosen))
                return await _to_rest(flux, case.id, display)
        except asyncio.CancelledError:
            letting_go.start()
            raise


async def _to_rest(flux: Flux, id: str, display: Display) -> ExecutionContext[Any]:
    while True:
        try:
            execution = await flux.wait(id)
        except LeaseLost:  # another process has taken it over: then it is watched
            continue
        if execution.status is not Status.SLEEPING:
            return execution
        display.sleeping(execution.wake_at)
        left = LOOK if execution.wake_at is None else execution.wake_at.timestamp() - time.time()
        await asyncio.sleep(min(LOOK, max(0.0, left)))
        await flux.wake(id)


@contextmanager
def _results_only(case: Case) -> Generator[None]:
    """What the workflow prints must not get between the JSON."""
    with contextlib.redirect_stdout(sys.stderr) if case.as_json else contextlib.nullcontext():
        yield


class _LettingGo:
    """What happens on Ctrl-C: the process gives the execution up, says so and ends, if need be by force."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.has_begun = False
        self._has_said = False

    def start(self) -> None:
        # also for what comes after the loop has ended: Python itself waits for threads before it exits
        timer = threading.Timer(LET_GO_WITHIN, self._leave)
        timer.daemon = True
        timer.start()

    def say(self) -> None:
        if not self.has_begun or self._has_said:
            return
        self._has_said = True
        screen.say(f"Let go of {self._case.id}: what is finished stays finished. To go on:")
        screen.say(f"  {self._case.command('resume', self._case.id)}", "bold")

    def _leave(self) -> None:
        self.say()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # whoever goes on sees that this process is gone


# -- how it ended --------------------------------------------------------------------------------------------------------


def report(case: Case, execution: ExecutionContext[Any], workflow: AnyWorkflow | None) -> int:
    """Print the result, say how the execution ended or what it waits for; returns what to exit with."""
    view = execution_view(execution, workflow)
    if case.as_json:
        screen.print_json(view)
    else:
        screen.print_value(view["output"])
        if case.follow or not execution.has_succeeded:
            _say_ending(case, execution)
    if execution.has_finished:
        return DONE if execution.has_succeeded else FAILED
    return PAUSED


def _say_ending(case: Case, execution: ExecutionContext[Any]) -> None:
    mark, style = screen.ending(execution.status)
    took = screen.lasted((execution.updated_at - execution.created_at).total_seconds())
    said = f"{execution.workflow_name} {execution.status.value}"
    screen.say(Text.assemble((f"{mark} {said}", style), (f" after {took}  {execution.execution_id}", "dim")))
    if execution.has_failed:
        screen.say(f"  {type(execution.error).__name__}: {execution.error}", "red")
        screen.say(f"To see what happened: {case.command('show', case.id, '--events')}")
        screen.say(f"To try again from the failure: {case.command('retry', case.id)}")
    elif execution.is_paused:
        for pause in execution.pauses:
            _say_question(case, pause, several=len(execution.pauses) > 1)
    elif not execution.has_finished:
        screen.say(f"To go on: {case.command('resume', case.id)}")


def _say_question(case: Case, pause: OpenPause, *, several: bool) -> None:
    screen.say(Text.assemble(f"It asks {pause.name!r}", f": {pause.message}" if pause.message else "."))
    if pause.schema is not None:
        screen.say(f"  the answer: {screen.bounded(type_words(pause.schema), 300)}", "dim")
    which = ["--pause", pause.name] if several else []
    screen.say(f"To answer: {case.command('resume', case.id, 'ANSWER', *which)}")
