"""What a task's functions are given besides their arguments: secrets, configuration, and which attempt this is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from flux.engine.masking import without
from flux.engine.run import Run
from flux.engine.spec import Call
from flux.errors import ConfigNotFound, SecretNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetadata:
    """`task_id` names the call in its execution, and is the same for every attempt and after every crash: a good
    idempotency key for the systems that a task talks to. `attempt` counts from 1."""

    task_id: str
    task_name: str
    attempt: int


async def with_offers(call: Call) -> Call:
    """The call with what it asks for. Raises SecretNotFound, ConfigNotFound, KeyUnusable, before anything has run."""
    spec, run = call.spec, call.run
    if spec.sensitive:
        run.provisions.vault.check()
    offers: dict[str, dict[str, Any]] = {}
    if spec.secrets:
        offers["secrets"] = await secrets_for(run, spec.secrets, f"Task {call.name!r}")
    if spec.config:
        offers["config"] = await _config(call)
    return replace(call, offers=offers) if offers else call


async def secrets_for(run: Run, names: Iterable[str], asker: str) -> dict[str, str]:
    """The secrets; from here on none of them passes into the run's history. Raises SecretNotFound."""
    found: dict[str, str] = {}
    for name in names:
        value = await run.provisions.secrets.get(name)
        if value is None:
            raise SecretNotFound(name, asker)
        found[name] = value
    run.codec = without(found, run.codec)
    return found


async def _config(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {}
    arguments = call.spec.arguments(call.args, call.kwargs)
    for template in call.spec.config:
        name = template.format(**arguments)
        value = await call.run.provisions.config.get(name)
        if value is None:
            raise ConfigNotFound(name, f"Task {call.name!r}")
        found[name] = value
    return found


def accepted(call: Call, func: Callable[..., Any], attempt: int) -> dict[str, Any]:
    """What is offered, as far as `func` takes it: a fallback need not have the parameters of the task."""
    offers: dict[str, Any] = {name: dict(value) for name, value in (call.offers or {}).items()}
    if call.spec.metadata:
        task_id = f"{call.run.id}/{call.site.id}"
        offers["metadata"] = TaskMetadata(task_id=task_id, task_name=call.name, attempt=attempt)
    signature = inspect.signature(func)
    return {name: value for name, value in offers.items() if takes(signature, name)}


def takes(signature: inspect.Signature, name: str) -> bool:
    """Whether a function can be given `name` as a keyword."""
    found = signature.parameters.get(name)
    if found is not None:
        return found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY)
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
