"""What an agent is: all that `agent()` was given, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flux import schema
from flux.errors import ModelError
from flux.tasks.ai.budget import Budget
from flux.tasks.ai.memory import WorkingMemory
from flux.tasks.ai.tools import Tool

Effort = Literal["minimal", "low", "medium", "high"]

RETRIES: Mapping[str, Any] = {"retry_max_attempts": 2, "retry_delay": 1.0, "retry_backoff": 2.0, "retry_on": ModelError}
"""How requests are retried: only those that the provider did not answer; one that it refuses is not asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """`settings` are for the model, as pydantic-ai names them. `retries` are options of the task that makes a request."""

    name: str
    instructions: str
    model: Any
    tools: Sequence[Tool]
    output: schema.ValueType | None
    memory: WorkingMemory | None
    budget: Budget | None
    settings: Mapping[str, Any]
    max_tool_calls: int
    max_concurrent_tools: int | None
    max_schema_retries: int
    stream: bool
    base_url: str | None
    api_key: str | None
    retries: Mapping[str, Any] = field(default_factory=lambda: dict(RETRIES))
