"""Configuration values, read once and recorded."""

from __future__ import annotations

from typing import Any

from flux.decorators import task
from flux.engine.scope import require_scope
from flux.errors import ConfigNotFound


@task.with_options(name="get_config {key}")
async def get_config(key: str) -> Any:
    """The value that the configuration has for `key` when it is asked the first time. Raises ConfigNotFound."""
    value = await require_scope("get_config()").run.provisions.config.get(key)
    if value is None:
        raise ConfigNotFound(key, f"get_config({key!r})")
    return value
