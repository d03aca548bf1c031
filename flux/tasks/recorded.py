"""Values that must be the same on every replay: the time, random choices, new ids."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from flux.decorators import task
from flux.engine.scope import require_scope

T = TypeVar("T")


@task
async def now() -> datetime:
    """The local time, without a zone."""
    return datetime.fromtimestamp(require_scope("now()").run.clock.now())


@task
async def uuid4() -> uuid.UUID:
    """A new random id."""
    return uuid.uuid4()


@task
async def choice(options: Sequence[T]) -> T:
    """One of `options`, by chance."""
    return random.choice(options)


@task
async def randint(a: int, b: int) -> int:
    """A random number from `a` to `b`, both included."""
    return random.randint(a, b)


@task
async def randrange(start: int, stop: int | None = None, step: int = 1) -> int:
    """A random number of `range(start, stop, step)`; of `range(start)` without a `stop`."""
    return random.randrange(start) if stop is None else random.randrange(start, stop, step)
