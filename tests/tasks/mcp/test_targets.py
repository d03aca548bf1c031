"""What `mcp()` takes for a server, and what it calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.server import Server

from flux.errors import DefinitionError
from flux.tasks.mcp import bearer, mcp, oauth
from flux.tasks.mcp.targets import Command, Url, target_of

NAMES: list[tuple[Any, str]] = [
    ("http://localhost:8080/mcp", "localhost:8080"),
    ("https://api.example.com/mcp", "api.example.com"),
    ("https://api.example.com/git/mcp/", "api.example.com/git"),
    ("https://api.example.com/v1/tools", "api.example.com/v1/tools"),
    ("python server.py", "server"),
    ("npx -y @modelcontextprotocol/server-memory@2", "server-memory"),
    (["uvx", "mcp-server-git"], "mcp-server-git"),
    (StdioServerParameters(command="weather", args=["--fast"]), "weather"),
    ({"command": "node", "args": ["/opt/files.js"]}, "files"),
    ({"url": "http://h/mcp"}, "h"),
    (Server("own"), "own"),
]


@pytest.mark.parametrize(("server", "name"), NAMES)
def test_a_server_is_named_after_its_address_or_its_program(server: Any, name: str) -> None:
    assert mcp(server).name == name
    assert mcp(server, name="mine").name == "mine"


def test_an_entry_of_a_configuration_file_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t")
    servers = {
        "files": {"command": "${RUNNER:-npx}", "args": ["server", "${TOKEN}"], "env": {"A": "${TOKEN}"}},
        "remote": {"type": "http", "url": "http://h/mcp", "headers": {"X-Key": "${TOKEN}"}},
    }
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    files, remote = target_of(path, "files"), target_of(str(path), "remote")
    assert isinstance(files, Command)
    assert (files.parameters.command, files.parameters.args, files.parameters.env) == (
        "npx",
        ["server", "t"],
        {"A": "t"},
    )
    assert remote == Url("http://h/mcp", {"X-Key": "t"})
    with pytest.raises(DefinitionError, match="files, remote"):
        mcp(path, name="other")


def test_a_python_file_is_run_by_this_python(tmp_path: Path) -> None:
    path = tmp_path / "my server.py"
    path.touch()
    target = target_of(str(path), None)
    assert isinstance(target, Command)
    assert (target.parameters.command, target.parameters.args) == (sys.executable, [str(path)])


MISTAKES: list[tuple[Any, str]] = [
    (7, "takes a URL"),
    ("", "empty command"),
    ("ftp://x", "only http"),
    ({"args": []}, "neither `command` nor `url`"),
    ({"type": "sse", "url": "http://x"}, "'sse' is not known"),
    ({"url": "http://${NOT_THERE_AT_ALL}"}, "no variable NOT_THERE_AT_ALL"),
]


@pytest.mark.parametrize(("server", "said"), MISTAKES)
def test_what_is_no_server_is_told(server: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        mcp(server)


def test_credentials_are_given_in_one_way_and_not_shown() -> None:
    with pytest.raises(DefinitionError):
        bearer()
    with pytest.raises(DefinitionError):
        bearer("a", secret="b")
    with pytest.raises(DefinitionError):
        oauth(client_id="me")
    assert "hidden" not in repr(bearer("hidden")) + repr(oauth(client_id="me", client_secret="hidden"))
