from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from flux.testing import imported, replayed_from

HERE = Path(__file__).parent
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def cases() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """The workflows under the module name that the histories know their classes by."""
    spec = importlib.util.spec_from_file_location("workflows", HERE / "workflows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["workflows"] = module
    spec.loader.exec_module(module)
    return module.CASES


@pytest.mark.parametrize("file", sorted(HERE.glob("*.json")), ids=lambda file: file.stem)
async def test_a_recorded_history_still_replays_to_its_recorded_end(
    file: Path, cases: dict[str, tuple[Any, Any, dict[str, Any]]]
) -> None:
    workflow, _, answers = cases[file.stem]
    id, history = imported(file.read_text(encoding="utf-8"))
    again = await replayed_from(workflow, id, history[:-1], answers=answers)
    assert again.has_succeeded, again.output
    last = again.events[-1].fact
    assert type(last) is type(history[-1])
    assert getattr(last, "output", None) == getattr(history[-1], "output", None)
    assert len(again.events) == len(history)  # nothing was done again
