"""`flux schedule`: workflows that start by themselves."""

from __future__ import annotations

from collections.abc import Sequence

from flux.cli import screen
from flux.cli.loading import AnyWorkflow, with_flux
from flux.discovery import discover
from flux.registry import Registry
from flux.schedules import Cron, Interval, Once, Schedule


def list_schedules(paths: Sequence[str], *, as_json: bool, database: str | None) -> None:
    workflows = _workflows(paths)
    states = with_flux(lambda flux: flux.schedules(), database=database, workflows=workflows)
    rows = [
        {
            "workflow": state.workflow,
            "schedule": _words(workflows.get(state.workflow).schedule),
            "state": "paused" if state.paused else "active" if state.next_at is not None else "over",
            "next_at": None if state.paused or state.next_at is None else screen.iso(screen.at(state.next_at)),
        }
        for state in states
    ]
    if as_json:
        screen.print_json(rows)
    elif rows:
        table = [
            (row["workflow"] or "", row["schedule"] or "", _state(row["state"] or ""), row["next_at"] or "")
            for row in rows
        ]
        screen.print_table(("workflow", "schedule", "state", "next start"), table)
        screen.say("Schedules start their workflows where a server serves them: flux-mcp-server PATH.", "dim")
    else:
        screen.say(f"No workflow in {', '.join(paths)} has a schedule.")


def pause(workflow: str, *, sources: Sequence[str], database: str | None) -> None:
    workflows = _workflows(sources)
    with_flux(lambda flux: flux.pause_schedule(workflow), database=database, workflows=workflows)
    screen.say(f"{workflow} is started no more by its schedule. To go on: flux schedule resume {workflow}")


def resume(workflow: str, *, sources: Sequence[str], database: str | None) -> None:
    workflows = _workflows(sources)
    state = with_flux(lambda flux: flux.resume_schedule(workflow), database=database, workflows=workflows)
    when = "never again" if state.next_at is None else screen.local_time(screen.at(state.next_at))
    screen.say(f"{workflow} is started by its schedule again, next: {when}.")


def _workflows(paths: Sequence[str]) -> Registry[AnyWorkflow]:
    found = discover(paths)
    for problem in found.problems:
        screen.say(f"{problem.path}: {problem.summary}", "red")
    return Registry(found.workflows)


def _state(state: str) -> screen.Cell:
    return screen.Text(state, {"active": "green", "paused": "yellow"}.get(state, "dim"))


def _words(schedule: Schedule | None) -> str:
    match schedule:
        case Cron():
            return f"cron {schedule.expression} ({schedule.timezone})"
        case Interval():
            return f"every {schedule.every}"
        case Once():
            return f"once, {schedule.run_time}"
        case _:
            return ""
