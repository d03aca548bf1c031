"""Workflows called by workflows."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, cast

from flux.decorators import UNSET, Workflow
from flux.engine.scope import Site, require_scope
from flux.engine.subflow import begin_child, output_of, run_child


def call(
    workflow: Workflow[Any, Any] | str, input: Any = UNSET, *, mode: Literal["sync", "async"] = "sync"
) -> Coroutine[Any, Any, Any]:
    """Run another workflow, by object or by the name under which this process knows it, as a child execution.

    With mode "sync" waits for its end and returns its output, or raises what it failed with; with "async" returns the
    child's execution id as soon as it has begun. Raises WorkflowNotFound, InvalidInput."""
    site = require_scope("call()").name_call()
    return _call(site, workflow, input, mode)


async def _call(site: Site, workflow: Workflow[Any, Any] | str, input: Any, mode: Literal["sync", "async"]) -> Any:
    run = site.scope.run
    body = cast("Workflow[Any, Any]", run.children.named(workflow)) if isinstance(workflow, str) else workflow
    encoded = body.encoded(input, run.codec)
    if mode == "async":
        return await begin_child(site, body, encoded)
    return output_of(run, await run_child(site, body, encoded), body.output_type)
