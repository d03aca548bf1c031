"""What is tested with one server is tested once more with two, which share a database and nothing else; and, in the long form, with
two that leave the running to a worker."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from tests.mcp import serving
from tests.mcp.replicas import Replicas
from tests.torture.forms import IS_LONG

CHANGES_HANDS = {"humans", "tasks"}  # what one replica begins and another ends
IN_MEMORY = {*CHANGES_HANDS, "calls", "catalog", "content", "controls", "listing", "questions", "resources", "results"}
PROCESSES = {"auth", "http", "pains"}  # seconds each: in the long form only


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "servers" in metafunc.fixturenames:
        metafunc.parametrize("servers", list(forms(metafunc)), indirect=True)


def forms(metafunc: pytest.Metafunc) -> Iterator[str]:
    yield "1"
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    name = metafunc.definition.path.stem.removeprefix("test_")
    in_memory = name in IN_MEMORY and inspect.iscoroutinefunction(metafunc.function)
    wanted = in_memory or name in PROCESSES if IS_LONG else in_memory and name in CHANGES_HANDS
    if "one_server" not in marks and wanted:
        yield "2"
        if in_memory and (IS_LONG or name == "humans") and "hears_runs" not in marks:
            yield "2+worker"


@pytest.fixture(autouse=True)
def servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "1":
        keep_sessions = request.node.get_closest_marker("needs_session") is not None
        url = request.getfixturevalue("postgres")
        monkeypatch.setattr(serving, "REPLICAS", Replicas(url, keep_sessions, worker=request.param == "2+worker"))
