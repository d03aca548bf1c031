"""`flux run` and `flux resume`: whatever makes an execution go on here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux.cli import screen
from flux.cli.asking import ask_for
from flux.cli.following import DONE, Case, going_on, report, see_through
from flux.cli.loading import (
    AnyWorkflow,
    Chosen,
    Known,
    Refused,
    choose,
    database_file,
    full_id,
    known,
    runs_nowhere,
    with_flux,
    workflow_of,
)
from flux.cli.views import execution_view
from flux.cli.words import candidates, input_of, text_of
from flux.context import ExecutionContext
from flux.decorators import UNSET
from flux.domain.execution import Status
from flux.errors import FluxError, InvalidAnswer, InvalidInput, WorkflowMismatch
from flux.schema import input_schema, to_json_value
from flux.service import Flux

START_WITHIN = 30.0  # seconds that a detached process has to begin
CANCEL_WITHIN = 20.0  # seconds that rollbacks are waited for
SUSPEND_WITHIN = 5.0


def run(
    file: str,
    input: str | None,
    *,
    id: str | None,
    follow: bool,
    detach: bool,
    as_json: bool,
    database: str | None,
) -> int:
    chosen = choose(file)
    case = Case(id=id or uuid.uuid4().hex, database=database, follow=follow, as_json=as_json)
    value = input_of(chosen.workflow, input)
    if value is UNSET and case.can_ask:
        value = _asked_input(chosen.workflow)
    if detach:
        return _detached(case, chosen, value)

    async def begin(flux: Flux) -> None:
        if id is None or not await flux.exists(id):
            await flux.start(chosen.workflow, value, execution_id=case.id)
            return
        execution = await flux.get(id)
        if execution.workflow_name != chosen.workflow.name:
            raise WorkflowMismatch(id, belongs_to=execution.workflow_name, asked=chosen.workflow.name)
        await going_on(flux, id)

    return see_through(case, chosen, begin)


def _asked_input(workflow: AnyWorkflow) -> Any:
    """Ask for an input where there has to be one and nobody gave it."""
    schema = input_schema(workflow.input)
    if not schema.schema.get("required"):
        return UNSET
    screen.say(f"{workflow.name} takes an input:", "bold")
    what = f"The input of workflow {workflow.name!r}"
    while True:
        value = schema.unwrap(ask_for(schema.schema, workflow.name), what)
        try:
            workflow.input.validate(value, what)
        except InvalidInput as exc:  # a schema does not say everything that a type does
            screen.say(str(exc), "red")
        else:
            return value


# -- in the background ---------------------------------------------------------------------------------------------------


def _detached(case: Case, chosen: Chosen, value: Any) -> int:
    """Let another process do it, and return once the execution has begun there."""
    chosen.workflow.input.validate(None if value is UNSET else value, f"The input of workflow {chosen.workflow.name!r}")
    descriptor, name = tempfile.mkstemp(prefix=f"flux-{case.id[:12]}-", suffix=".log")
    try:
        process = _spawn(case, chosen, value, descriptor)
    finally:
        os.close(descriptor)
    if not _began(case, process):
        said = Path(name).read_text("utf-8", "replace").strip().removeprefix("flux: ")
        raise Refused(said or f"The execution has not begun; {name} may say why.")
    if case.as_json:
        screen.print_json({"execution_id": case.id, "workflow": chosen.workflow.name, "log": name})
        return DONE
    sys.stdout.write(f"{case.id}\n")
    screen.say(f"It runs in the background, and writes what it says to {name}.")
    screen.say(f"To see how it is: {case.command('show', case.id)}")
    return DONE


def _spawn(case: Case, chosen: Chosen, value: Any, log: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "flux.cli", "run", f"{chosen.target}:{chosen.workflow.name}"]
    words += [] if value is UNSET else ["-"]
    words += ["--id", case.id, *(["--database", case.database] if case.database is not None else [])]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # it may have ended already: its log says why
        stdin.write(b"" if value is UNSET else json.dumps(to_json_value(value)).encode())
    return process


def _began(case: Case, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_WITHIN
    path = database_file(case.database)
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None  # asked first: it may begin and end between the two
        if (path is None or path.exists()) and with_flux(lambda flux: flux.exists(case.id), database=case.database):
            return True
        if has_ended:
            return False
        time.sleep(0.05)
    return False


# -- going on ------------------------------------------------------------------------------------------------------------


def resume(
    given: str,
    answer: str | None,
    *,
    pause: str | None,
    sources: Sequence[str],
    follow: bool,
    as_json: bool,
    database: str | None,
) -> int:
    execution = with_flux(lambda flux: known(flux, given), database=database)
    case = Case(id=execution.id, database=database, follow=follow, as_json=as_json, pause=pause)
    if execution.is_final and answer is None:
        return ended(case, execution, sources)
    chosen = workflow_of(execution, sources)
    if answer is None:
        return see_through(case, chosen, lambda flux: going_on(flux, case.id))
    meanings = candidates(text_of(answer))
    return see_through(case, chosen, lambda flux: _answer(flux, case.id, meanings, pause))


async def _answer(flux: Flux, id: str, meanings: Sequence[Any], pause: str | None) -> None:
    """The first meaning of the answer that fits. Raises InvalidAnswer as the first one does."""
    faults: list[InvalidAnswer] = []
    for meaning in meanings:
        try:
            await flux.answer(id, meaning, pause=pause)
        except InvalidAnswer as exc:
            faults.append(exc)
        else:
            return
    raise faults[0]


def retry(given: str, *, sources: Sequence[str], follow: bool, as_json: bool, database: str | None) -> int:
    execution = with_flux(lambda flux: known(flux, given), database=database)
    case = Case(id=execution.id, database=database, follow=follow, as_json=as_json)
    return see_through(case, workflow_of(execution, sources), lambda flux: flux.retry(case.id))


def fork(
    given: str,
    *,
    at: int | None,
    new_id: str | None,
    sources: Sequence[str],
    follow: bool,
    as_json: bool,
    database: str | None,
) -> int:
    execution = with_flux(lambda flux: known(flux, given), database=database)
    case = Case(id=new_id or uuid.uuid4().hex, database=database, follow=follow, as_json=as_json)

    async def begin(flux: Flux) -> None:
        try:
            await flux.fork(execution.id, at=at, new_id=case.id)
        except ValueError as exc:
            raise Refused(str(exc)) from exc

    return see_through(case, workflow_of(execution, sources), begin)


def ended(case: Case, execution: Known, sources: Sequence[str] = ()) -> int:
    """Show how an execution has ended, with its code where that is at hand."""
    try:
        chosen = workflow_of(execution, sources)
    except FluxError:
        chosen = None
    found = with_flux(
        lambda flux: flux.get(case.id), database=case.database, workflows=chosen.workflows if chosen else ()
    )
    return report(case, found, chosen.workflow if chosen else None)


# -- stopping ------------------------------------------------------------------------------------------------------------


def cancel(given: str, *, reason: str | None, sources: Sequence[str], as_json: bool, database: str | None) -> int:
    """Where no other process runs the execution it is ended here, for which its code is needed: it may have to roll back."""
    execution = with_flux(lambda flux: known(flux, given), database=database)
    workflows = _at_hand(execution, sources)

    async def work(flux: Flux) -> ExecutionContext[Any]:
        await flux.cancel(execution.id, reason=reason)
        if not workflows and await runs_nowhere(flux, execution.id):
            return await flux.get(execution.id)
        return await flux.wait(execution.id, timeout=CANCEL_WITHIN)

    found = with_flux(work, database=database, workflows=workflows)
    if as_json:
        screen.print_json(execution_view(found))
    elif found.is_cancelled:
        screen.say(f"{execution.id} is cancelled.")
    elif found.has_finished:
        screen.say(f"{execution.id} was {found.status.value} before it could be cancelled.")
    else:
        screen.say(f"{execution.id} is asked to end; it does when a process that has its code looks at it:")
        words = screen.command("cancel", execution.id, "--from", "FILE", database=database)
        screen.say(f"  {words}, or a server that serves {execution.workflow!r}")
    return DONE


def suspend(given: str, *, as_json: bool, database: str | None) -> int:
    async def work(flux: Flux) -> ExecutionContext[Any]:
        id = await full_id(flux, given)
        await flux.suspend(id)
        return await flux.wait(id, timeout=SUSPEND_WITHIN)

    found = with_flux(work, database=database)
    id = found.execution_id
    if as_json:
        screen.print_json(execution_view(found))
    else:
        stops = "is suspended" if found.status is Status.SUSPENDED else "is asked to stop, and does at its next call"
        screen.say(f"{id} {stops}. To go on: {screen.command('resume', id, database=database)}")
    return DONE


def _at_hand(execution: Known, sources: Sequence[str]) -> Sequence[AnyWorkflow]:
    try:
        return workflow_of(execution, sources).workflows
    except FluxError:
        if sources:
            raise
        return ()
