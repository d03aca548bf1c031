"""The workflows that the tests of this folder run."""

from __future__ import annotations

import os
import time
from decimal import Decimal
from enum import Enum

from pydantic import BaseModel

from flux import ExecutionContext, interval, pause, task, workflow
from flux.tasks import Graph, progress


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Answer(BaseModel):
    agreed: bool
    size: Size = Size.SMALL


class Load(BaseModel):
    kilos: Decimal


def note(line: str) -> None:
    with open(os.environ["LEDGER"], "a") as file:
        file.write(line + "\n")


@task
async def step(name: str) -> str:
    note(name)
    return name


@task
def slow(number: int) -> int:
    note(f"slow {number}")
    time.sleep(0.02)
    return number


@workflow
async def greet(ctx: ExecutionContext[str]) -> dict[str, str]:
    """Greet somebody."""
    progress("on the way")
    return {"said": await step(f"Hello, {ctx.input}")}


@workflow.with_options(schedule=interval(hours=1))
async def asks(ctx: ExecutionContext[None]) -> list[str]:
    """Ask one thing."""
    before = await step("before")
    answer = await pause("agree", response=Answer, message="Do you agree?")
    return [before, str(answer.agreed), answer.size.value]


@workflow
async def weighed(ctx: ExecutionContext[Load]) -> str:
    return f"{ctx.input.kilos:.2f} kg"


@workflow
async def long(ctx: ExecutionContext[int]) -> int:
    return sum([await slow(number) for number in range(ctx.input)])


@workflow
async def fails(ctx: ExecutionContext[str]) -> None:
    await step("tried")
    raise ValueError(f"{ctx.input} went wrong")


way = Graph("way").add_node("first", step).add_node("last", step).add_edge("first", "last")
way.start_with("first").end_with("last")
