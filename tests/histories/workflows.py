"""Workflows whose recorded histories lie beside this file: today's code must still replay them. Do not change a workflow
here; add another one, and its history with `python tests/histories/record.py NAME`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from flux import ExecutionContext, pause, task, workflow
from flux.tasks import Graph, parallel, sleep


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    number: int
    price: Decimal


@dataclass
class Line:
    text: str
    when: datetime


attempts: list[int] = []


@task
async def price(order: Order) -> Decimal:
    return order.price * 2


@task
async def line(text: str) -> Line:
    return Line(text, datetime(2026, 7, 28, 12, 30, tzinfo=UTC))


@task.with_options(retry_max_attempts=2, retry_delay=0)
async def unsteady() -> tuple[int, set[str]]:
    attempts.append(1)
    if len(attempts) % 2:
        raise ConnectionError("try again")
    return 1, {"a", "b"}


@task
async def fails(why: str) -> None:
    raise ValueError(why)


@task
async def nested(depth: int) -> int:
    return depth if depth == 0 else 1 + await nested(depth - 1)


@workflow
async def values(ctx: ExecutionContext[Order]) -> list[Any]:
    caught = ""
    try:
        await fails("on purpose")
    except ValueError as exc:
        caught = str(exc)
    return [await price(ctx.input), await line("x"), await unsteady(), Colour.RED, caught, await nested(3)]


@workflow
async def branches(ctx: ExecutionContext[int]) -> list[Any]:
    async def branch(n: int) -> Any:
        await asyncio.sleep(0)
        return [await nested(n), await line(str(n))]

    async with asyncio.TaskGroup() as group:
        grouped = [group.create_task(branch(n)) for n in range(2)]
    mapped = await nested.map(range(3))
    return [[each.result() for each in grouped], mapped, await parallel(branch(1), branch(2))]


@workflow
async def questions(ctx: ExecutionContext[str]) -> list[Any]:
    both = await parallel(pause("a", response=Order), pause("b", {"shown": ctx.input}))
    await sleep(timedelta(days=1))
    return [*both, await pause("c", response=bool)]


@workflow
async def drawn(ctx: ExecutionContext[int]) -> Any:
    graph = (
        Graph("drawn")
        .add_node("start", nested)
        .add_node("low", line)
        .add_node("high", nested)
        .add_edge("start", "low", condition=lambda n: n < 2)
        .add_edge("start", "high", condition=lambda n: n >= 2)
        .start_with("start")
        .end_with("high")
        .end_with("low")
    )
    return await graph(ctx.input)


@workflow
async def family(ctx: ExecutionContext[int]) -> Any:
    return [await drawn(ctx.input), await nested(1)]


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "values": (values, {"number": 1, "price": "2.50"}, {}),
    "branches": (branches, 3, {}),
    "questions": (questions, "hello", {"a": {"number": 2, "price": "1"}, "b": "any", "c": True}),
    "drawn": (drawn, 2, {}),
    "family": (family, 3, {}),
}
"""Each with its workflow, input, and the answers to its pauses."""
