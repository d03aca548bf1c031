"""How a call ended, as it is written down and as the workflow gets it: sealed, kept elsewhere, or plain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from flux.domain.calls import Failure, Json, Outcome, Raised, Returned
from flux.engine.run import Run
from flux.engine.spec import Call
from flux.engine.tags import KEPT, REDACTED, SEALED, tag_of, tagged, untagged
from flux.errors import FluxError, InvalidInput, NotReadable, Suspend, TaskFailed


async def returned(call: Call, value: Any, *, by: str = "") -> Returned:
    """The value as it is recorded. Raises NotStorable."""
    spec, run = call.spec, call.run
    text = run.codec.encode(value, owner=f"{by}{call.owner}", annotation=spec.output_type)
    if spec.sensitive:
        text = tagged(SEALED, run.provisions.vault.seal(text))
    if spec.storage is not None:
        reference = await spec.storage.store(f"{run.id}/{call.site.id}", text)
        text = tagged(KEPT, f"{spec.storage.name}:{reference}")
    return Returned(text)


def raised(call: Call, error: BaseException) -> Raised:
    return Raised(failure(call, error))


def failure(call: Call, error: BaseException) -> Failure:
    """The error as it is recorded. Of a sensitive task's error only the class: its text may tell what must not be told."""
    recorded = call.run.codec.encode_error(error)
    if not call.spec.sensitive or (isinstance(error, FluxError) and not isinstance(error, TaskFailed | InvalidInput)):
        return recorded
    try:
        return call.run.codec.encode_error(cast("Callable[[str], BaseException]", type(error))(REDACTED))
    except Exception:  # noqa: BLE001 - the constructor is the user's and may raise anything
        return replace(recorded, message=REDACTED, args=Json(""), rebuilt=False, traceback="", cause=None)


async def handed_over(call: Call, outcome: Outcome | None) -> Any:
    """What the workflow sees. The recorded form decides, live as well: so a replay cannot differ."""
    if isinstance(outcome, Returned) and tag_of(outcome.value) in (SEALED, KEPT):
        outcome = Returned(await _opened(call, outcome.value))
    return delivered(call.run, outcome, call.spec.output_type)


def delivered(run: Run, outcome: Outcome | None, output_type: Any) -> Any:
    match outcome:
        case Returned(value):
            return run.codec.decode(value, output_type)
        case Raised(error):
            raise run.codec.decode_error(error)
        case None:
            raise Suspend


async def _opened(call: Call, value: Json) -> Json:
    if tag_of(value) == KEPT:
        name, _, reference = untagged(KEPT, value).partition(":")
        storage = call.spec.storage
        if storage is None or storage.name != name:
            raise NotReadable(
                f"The result of {call.owner} is kept in the storage {name!r}, which the task no longer has."
            )
        value = await storage.retrieve(reference)
    if tag_of(value) == SEALED:
        value = Json(call.run.provisions.vault.unseal(untagged(SEALED, value)))
    return value
