"""Budgets: what agents may spend in one execution. Spending is counted from what the execution has recorded, so neither a
crash nor a resume starts the count again."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flux.engine.run import Run
from flux.errors import BudgetExceeded, DefinitionError
from flux.tasks.ai.ledger import ASKED, Entry, ledger_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was spent. `usd` is the sum of the prices that are known; `seconds` run from the first request on."""

    tokens: int = 0
    usd: float = 0.0
    tool_calls: int = 0
    seconds: float = 0.0


@dataclass(kw_only=True)
class Budget:
    """The most that agents may spend in one execution, sub-agents included: give one budget to several agents and they share
    it. `max_seconds` is wall time since the first request, waiting for people included.

    It is checked before each request, and a request that is under way is paid for: the last one may go over the limit.
    `name` tells budgets of one execution apart, and is by default the name of the agent that has it first."""

    max_tokens: int | None = None
    max_usd: float | None = None
    max_tool_calls: int | None = None
    max_seconds: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for limit in ("max_tokens", "max_usd", "max_tool_calls", "max_seconds"):
            value = getattr(self, limit)
            if value is not None and value < 0:
                raise DefinitionError(f"Budget({limit}={value!r}): a limit is not negative.")

    @property
    def label(self) -> str:
        return self.name or "budget"

    async def spent(self, run: Run) -> Usage:
        """What the execution's history says has been spent by now."""
        entries = (await ledger_of(run)).of(ASKED)
        return spent([entry for entry in entries if self.label in entry["budgets"]], run.clock.now())

    async def check(self, run: Run) -> Usage:
        """Raises BudgetExceeded when nothing is left for another request."""
        usage = await self.spent(run)
        for limit, used in (("max_tokens", usage.tokens), ("max_usd", usage.usd), ("max_seconds", usage.seconds)):
            maximum = getattr(self, limit)
            if maximum is not None and used >= maximum:
                raise BudgetExceeded(self.label, limit, used, maximum)
        return usage

    def tool_calls_left(self, usage: Usage) -> float:
        return float("inf") if self.max_tool_calls is None else self.max_tool_calls - usage.tool_calls


def spent(entries: Sequence[Entry], now: float) -> Usage:
    def total(field: str) -> Any:
        return sum(entry[field] or 0 for entry in entries)

    began = min((entry["asked_at"] for entry in entries), default=now)
    return Usage(tokens=total("tokens"), usd=total("usd"), tool_calls=total("tool_calls"), seconds=now - began)


in_force: ContextVar[tuple[Budget, ...]] = ContextVar("flux_budgets", default=())
"""The budgets of the agents around, which sub-agents draw on, too."""
