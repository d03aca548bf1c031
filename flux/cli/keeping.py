"""`flux prune`: what is old enough is deleted."""

from __future__ import annotations

import sys
import time

from rich.text import Text

from flux.cli import screen
from flux.cli.loading import Refused, check_exists, with_flux
from flux.cli.words import seconds_of


def prune(older_than: str, *, yes: bool, as_json: bool, database: str | None) -> None:
    seconds = seconds_of(older_than)
    check_exists(database)
    if not yes and not _confirmed(seconds):
        screen.say("Nothing is deleted.")
        return
    count = with_flux(lambda flux: flux.prune(older_than=seconds), database=database)
    if as_json:
        screen.print_json({"deleted": count})
    else:
        screen.say(f"{count:,} execution{'' if count == 1 else 's'} deleted.")


def _confirmed(seconds: float) -> bool:
    if not sys.stdin.isatty():
        raise Refused("This deletes for good: say so with --yes.")
    before = screen.local_time(screen.at(time.time() - seconds))
    question = Text(f"Delete all executions that ended before {before}? [y/N] ")  # a text: no markup in brackets
    return screen.err().input(question).strip().lower() in ("y", "yes")
