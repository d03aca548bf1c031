"""Telling whoever waits how far the work is."""

from __future__ import annotations

from typing import Any

from flux.engine.scope import require_scope


def progress(value: Any) -> None:
    """Report progress: a text, a number, or any value that makes sense to a person. It reaches whoever follows the
    execution now, is not recorded, and is not repeated on replay. Works in async and in plain functions."""
    scope = require_scope("progress()")
    scope.run.tell(scope.task, value)
