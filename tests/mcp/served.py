"""Workflows for the tests that start real servers. Tasks write what they do into the file that TRACE names."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import subprocess
import time
import warnings
from pathlib import Path

from pydantic import BaseModel

from flux import ExecutionContext, task, workflow
from flux.tasks import pause

TRACE = Path(os.environ.get("TRACE", os.devnull))


def trace(text: str) -> None:
    with TRACE.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


class Approval(BaseModel):
    approved: bool


@task
async def reserve(order: str) -> str:
    trace(f"reserve {order}")
    return f"reserved {order}"


@task
async def ship(order: str) -> str:
    trace(f"ship {order}")
    return f"shipped {order}"


@workflow
async def approve(ctx: ExecutionContext[str]) -> str:
    """Reserve an order, ask, ship it."""
    await reserve(ctx.input)
    answer = await pause("approval", message="Ship it?", response=Approval)
    return await ship(ctx.input) if answer.approved else "declined"


@task
async def until_there(path: str) -> None:
    trace("waiting")
    while not Path(path).exists():  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(0.02)
    trace("seen")


@workflow
async def wait_for(ctx: ExecutionContext[str]) -> str:
    """Wait until there is a file of this name."""
    await until_there(ctx.input)
    return await ship("it")


@task
def stubborn() -> None:
    trace("stubborn")
    time.sleep(60)


@workflow
async def busy_thread() -> None:
    await stubborn()


@task
async def block() -> str:
    time.sleep(2)  # noqa: ASYNC251 - this is what the test is about
    return "at last"


@workflow
async def blocks() -> str:
    """Keep everybody waiting."""
    return await block()


@task
def make_noise() -> str:
    print("from print")  # noqa: T201 - this is what the test is about
    logging.getLogger("user").warning("from logging")
    warnings.warn("from warnings", stacklevel=1)
    os.write(1, b"from os.write\n")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["echo", "from a child"], check=True)
    subprocess.run("cat", shell=True, check=True)
    return "quiet"


@workflow
async def noisy() -> str:
    """Write to stdout in every way there is."""
    print("from a workflow")  # noqa: T201 - this is what the test is about
    return await make_noise()


print("from an import")  # noqa: T201 - this is what the test is about
