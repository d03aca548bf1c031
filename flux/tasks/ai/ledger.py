"""What an execution has recorded of some kinds of calls, wherever in it they were made, in the order of their outcomes.

An agent that has finished does not run again on a replay, so what it remembered and spent is found in the history, not in
memory. The history is loaded once for each run, when it is first asked for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, cast
from weakref import WeakKeyDictionary

from flux.domain.calls import CallId
from flux.domain.events import CallReturned, CallStarted
from flux.engine.run import Run
from flux.engine.scope import require_scope

Entry = dict[str, Any]
"""What a call returned. `id` is its own place, see `own_place`."""

REMEMBERED = "memory:"
ASKED = ":llm"


class Ledger:
    def __init__(self) -> None:
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)

    def of(self, kind: str) -> list[Entry]:
        return list(self._entries[kind].values())

    def add(self, kind: str, entry: Entry) -> None:
        """An entry that has just been recorded. One that was loaded already keeps its place."""
        self._entries[kind].setdefault(entry["id"], entry)


_ledgers: WeakKeyDictionary[Run, asyncio.Future[Ledger]] = WeakKeyDictionary()


async def ledger_of(run: Run) -> Ledger:
    found = _ledgers.get(run)
    if found is None:
        found = _ledgers[run] = asyncio.get_running_loop().create_future()
        try:
            found.set_result(await _loaded(run))
        except BaseException as exc:  # others wait for the same reading
            del _ledgers[run]
            found.set_exception(exc if isinstance(exc, Exception) else asyncio.CancelledError())
            found.exception()  # whoever waits for it gets it; if nobody does, that is no news
            raise
    return await asyncio.shield(found)


def kind_of(name: str) -> str | None:
    """Under which kind the calls of this name stand; None for those of no interest."""
    if name.endswith(ASKED):
        return ASKED
    return name if name.startswith(REMEMBERED) else None


async def _loaded(run: Run) -> Ledger:
    ledger, kinds = Ledger(), dict[CallId, str]()
    for fact in await run.journal.facts():
        match fact:
            case CallStarted() if kind := kind_of(fact.name):
                kinds[fact.call] = kind
            case CallReturned() if fact.call in kinds:
                ledger.add(kinds[fact.call], cast("Entry", run.codec.decode(fact.value)))
            case _:
                pass
    return ledger


def own_place() -> str:
    """In a task's body: the place of its call in the execution, the same for every attempt."""
    path = require_scope("own_place()").path[:-1]
    above, dot, last = path.rpartition(".")
    return f"{above}{dot}{last.partition('~')[0]}"
