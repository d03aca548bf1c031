"""`flux migrate`: from one database to another."""

from __future__ import annotations

import asyncio

from flux import moving
from flux.cli import screen
from flux.cli.loading import Refused, check_exists
from flux.settings import Settings


def migrate(source: str, target: str, *, as_json: bool) -> None:
    check_exists(source)
    old, new = Settings.load(database=source), Settings.load(database=target)
    if old.database == new.database:
        raise Refused("The old and the new database are the same one.")

    def tell(count: int) -> None:
        if count % 1000 == 0:
            screen.say(f"{count:,} executions ...", "dim")

    moved = asyncio.run(moving.move(old, new, tell=tell))
    if as_json:
        screen.print_json({"executions": moved.executions, "arrived_before": moved.known})
        return
    before = f" ({moved.known:,} had arrived before)" if moved.known else ""
    screen.say(f"{moved.executions:,} executions are in the new database{before}; the old one is as it was.")
