"""From the words on the command line to executions and workflows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flux.decorators import Workflow
from flux.discovery import Problem, discover
from flux.domain.execution import Status
from flux.errors import DiscoveryError, DuplicateWorkflow, FluxError
from flux.host import is_dead
from flux.service import Flux
from flux.settings import MEMORY, Settings

T = TypeVar("T")
AnyWorkflow = Workflow[Any, Any]

PAGE = 1000  # executions read at a time while looking for the beginning of an id
MOST_RUNNING = 100_000  # running executions looked at, at most
MOST_LISTED = 8  # ids named when the beginning of one fits several


class Refused(FluxError):
    """Something the person can mend, in a sentence."""


# -- the database --------------------------------------------------------------------------------------------------------


def database_file(database: str | None) -> Path | None:
    """Where the database is, None when it is not a file."""
    location = Settings.load(database=database).database
    return None if location == MEMORY or "://" in location else Path(location)


def check_exists(database: str | None) -> None:
    """A database that is only looked at is not made: its name may be mistyped. Raises Refused."""
    path = database_file(database)
    if path is not None and not path.exists():
        raise Refused(f"There is no database {path}. `flux run` makes it; another one is named by --database.")


def with_flux(
    work: Callable[[Flux], Awaitable[T]], *, database: str | None, workflows: Iterable[AnyWorkflow] = ()
) -> T:
    """Do something with the executions of an existing database, and close it again."""
    check_exists(database)

    async def main() -> T:
        async with Flux(database, workflows=workflows, recover=False) as flux:
            return await work(flux)

    return asyncio.run(main())


# -- executions ----------------------------------------------------------------------------------------------------------


async def full_id(flux: Flux, given: str) -> str:
    """The id that `given` is, or begins. Raises Refused when there is none, or more than one."""
    if await flux.exists(given):
        return given
    found = await _beginning_with(flux, given) if given else []
    if not found:
        raise Refused(f"There is no execution {given!r}. `flux list` shows the ones there are.")
    if len(found) > 1:
        listed = ", ".join(found[:MOST_LISTED]) + (", ..." if len(found) > MOST_LISTED else "")
        raise Refused(f"{given!r} is the beginning of several ids: {listed}. Give more of it.")
    return found[0]


async def _beginning_with(flux: Flux, given: str) -> list[str]:
    found: list[str] = []
    before: tuple[float, str] | None = None
    while page := await flux.list(before=before, limit=PAGE):
        found += [row.id for row in page if row.id.startswith(given)]
        before = (page[-1].created_at, page[-1].id)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An execution that a command is about. `source` is where its workflow was read from when it was started by `flux run`."""

    id: str
    workflow: str
    is_final: bool
    source: str | None


async def known(flux: Flux, given: str) -> Known:
    execution = await flux.get(await full_id(flux, given))
    return Known(
        id=execution.execution_id,
        workflow=execution.workflow_name,
        is_final=execution.has_finished,
        source=await flux.engine.store.recall(_source_key(execution.workflow_name)),
    )


INTERRUPTED = "interrupted"
QUEUED = "queued"
STANDINGS = (QUEUED, INTERRUPTED)
"""Words for executions that are running, for all that the database knows, and that no process runs."""


class Listed(Protocol):
    @property
    def status(self) -> Status: ...

    @property
    def owner(self) -> Any: ...

    @property
    def is_queued(self) -> bool: ...


def is_interrupted(row: Listed) -> bool:
    """Should be running, and no process runs it: it was let go of, or its process has died."""
    return standing(row) == INTERRUPTED


def standing(row: Listed) -> str:
    """The status, more exactly: of a running one, whether it waits in its queue, or was left."""
    if row.status is not Status.RUNNING:
        return row.status.value
    if row.is_queued:
        return QUEUED
    return INTERRUPTED if row.owner is None or is_dead(row.owner) else row.status.value


async def standing_of(flux: Flux, id: str, status: Status) -> str:
    if status is Status.RUNNING:
        for row in await flux.list(status=status, limit=MOST_RUNNING):
            if row.id == id:
                return standing(row)
    return status.value


async def runs_nowhere(flux: Flux, id: str) -> bool:
    return await standing_of(flux, id, Status.RUNNING) == INTERRUPTED


# -- workflows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One workflow, those beside it, which it may call, and what was read to find it."""

    workflow: AnyWorkflow
    workflows: Sequence[AnyWorkflow]
    target: str


def choose(given: str) -> Chosen:
    """The workflow that FILE or FILE:NAME names. Raises DiscoveryError, Refused."""
    target, name = split(given)
    found = discover([target])
    if not found.workflows:
        raise _nothing_in(target, found.problems)
    workflow = _only(found.workflows, target) if name is None else _named(name, found.workflows, target, found.problems)
    return Chosen(workflow=workflow, workflows=_beside(workflow, found.workflows), target=_lasting(target))


def split(given: str) -> tuple[str, str | None]:
    """FILE:NAME in two; a colon may also belong to the path (`C:\\flows.py`)."""
    file, colon, name = given.rpartition(":")
    if not colon or Path(given).exists() or os.sep in name or "/" in name:
        return given, None
    return file, name


def workflow_of(execution: Known, sources: Sequence[str]) -> Chosen:
    """The code of an execution's workflow: in `sources`, or where `flux run` found it, or in the current folder.

    Raises Refused, which says what to do."""
    remembered = [execution.source] if execution.source is not None else []
    places = [list(sources)] if sources else [remembered, ["."]]
    problems: list[Problem] = []
    for targets in places:
        try:
            found = discover(targets)
        except DiscoveryError:
            if sources:
                raise
            continue  # the file has been moved since
        problems += found.problems
        if any(workflow.name == execution.workflow for workflow in found.workflows):
            workflow = _named(execution.workflow, found.workflows, ", ".join(targets), found.problems)
            target = _lasting(targets[0]) if len(targets) == 1 else targets[0]
            return Chosen(workflow=workflow, workflows=_beside(workflow, found.workflows), target=target)
    looked = ", ".join(sources) or " and ".join([*remembered, f"the current folder ({Path.cwd()})"])
    raise Refused(
        f"The code of workflow {execution.workflow!r} is needed to go on, and is not in {looked}. "
        f"Name its file or folder: --from FILE.{_told(problems)}"
    )


def source_note(chosen: Chosen) -> tuple[str, str]:
    """What to remember, so that `flux resume` finds the code again from any folder."""
    return _source_key(chosen.workflow.name), chosen.target


def _source_key(workflow: str) -> str:
    return f"source/{workflow}"


def _lasting(target: str) -> str:
    """The target as it can be found from another folder, too."""
    path = Path(target).expanduser()
    return str(path.resolve()) if path.exists() else target


def _only(workflows: Sequence[AnyWorkflow], target: str) -> AnyWorkflow:
    if len(workflows) > 1:
        names = ", ".join(sorted(workflow.name for workflow in workflows))
        raise Refused(f"{target} has several workflows: {names}. Say which: {target}:NAME.")
    return workflows[0]


def _named(name: str, workflows: Sequence[AnyWorkflow], target: str, problems: Sequence[Problem]) -> AnyWorkflow:
    found = [workflow for workflow in workflows if workflow.name == name] or [
        workflow for workflow in workflows if getattr(workflow, "__name__", None) == name
    ]
    if not found:
        names = ", ".join(sorted(workflow.name for workflow in workflows))
        raise Refused(f"{target} has no workflow {name!r}; it has: {names}.{_told(problems)}")
    if len(found) > 1:
        raise DuplicateWorkflow(name, found[0].source, found[1].source)
    return found[0]


def _beside(workflow: AnyWorkflow, workflows: Sequence[AnyWorkflow]) -> list[AnyWorkflow]:
    """Of several with one name, the first: that somebody else's names clash is no reason not to run this one."""
    by_name = {each.name: each for each in reversed(workflows)}
    return list({**by_name, workflow.name: workflow}.values())


def _nothing_in(target: str, problems: Sequence[Problem]) -> Refused:
    return Refused(f"There is no workflow in {target}.{_told(problems)}")


def _told(problems: Sequence[Problem]) -> str:
    return "".join(f"\n  {problem.path}: {problem.summary}" for problem in problems)
