"""What is tested with one server is tested once more with two, which share a database and nothing else."""

from __future__ import annotations

import inspect

import pytest

from tests.mcp import serving
from tests.mcp.replicas import Replicas
from tests.torture.forms import IS_LONG

IN_MEMORY = {
    "calls",
    "catalog",
    "content",
    "controls",
    "humans",
    "listing",
    "questions",
    "resources",
    "results",
    "tasks",
}
PROCESSES = {"auth", "http", "pains"}  # seconds each: in the long form only


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "servers" in metafunc.fixturenames:
        metafunc.parametrize("servers", [1, 2] if is_run_twice(metafunc) else [1], indirect=True)


def is_run_twice(metafunc: pytest.Metafunc) -> bool:
    if any(mark.name == "one_server" for mark in metafunc.definition.iter_markers()):
        return False
    name = metafunc.definition.path.stem.removeprefix("test_")
    return (name in IN_MEMORY and inspect.iscoroutinefunction(metafunc.function)) or (name in PROCESSES and IS_LONG)


@pytest.fixture(autouse=True)
def servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == 2:
        keep_sessions = request.node.get_closest_marker("needs_session") is not None
        replicas = Replicas(request.getfixturevalue("postgres"), keep_sessions=keep_sessions)
        monkeypatch.setattr(serving, "REPLICAS", replicas)
