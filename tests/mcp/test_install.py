"""The commands beside serving: install, inspect, dev, token."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flux_mcp_server.__main__ import PIPE_CLOSED
from flux_mcp_server.commands import run
from flux_mcp_server.install import CLIENTS, CannotInstall
from flux_mcp_server.tokens import StaticTokens, TokenFileInvalid

SERVED = str(Path(__file__).parents[2] / "examples" / "hello_world.py")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def install(client: str, config: Path, *more: str) -> None:
    assert run("install", [client, SERVED, "--config", str(config), *more]) == 0


def server_in(config: Path, client: str, name: str = "flux") -> dict[str, Any]:
    text = config.read_text("utf-8")
    known = tomllib.loads(text) if CLIENTS[client].form == "toml" else json.loads(text)
    return known[CLIENTS[client].key][name]


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_gets_a_command_with_full_paths_and_twice_is_once(client: str, config: Path) -> None:
    install(client, config, "--env", "A=b", "--database", "x.db")
    server = server_in(config, client)
    assert Path(server["command"]).is_absolute()
    assert str(Path(SERVED).resolve()) in server["args"]
    assert server["args"][-1] == str(Path("x.db").resolve())
    assert server["env"] == {"A": "b"}
    before = config.read_text("utf-8")
    install(client, config, "--env", "A=b", "--database", "x.db")
    assert config.read_text("utf-8") == before
    assert [path.name for path in config.parent.iterdir()] == ["config"]


@pytest.mark.parametrize("client", ["claude-desktop", "cursor", "vscode"])
def test_what_stands_there_stays_and_is_copied_first(
    client: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = CLIENTS[client].key
    known = {"theme": "dark", key: {"other": {"command": "x"}, "flux": {"command": "old", "env": {"KEY": "kept"}}}}
    config.write_text(json.dumps(known), "utf-8")
    install(client, config)
    after = json.loads(config.read_text("utf-8"))
    assert (after["theme"], after[key]["other"]) == ("dark", {"command": "x"})
    assert after[key]["flux"]["env"] == {"KEY": "kept"}
    assert after[key]["flux"]["command"] != "old"
    (backup,) = config.parent.glob("config.*.bak")
    assert json.loads(backup.read_text("utf-8")) == known
    said = capsys.readouterr().out
    assert str(backup) in said
    assert "was changed in" in said


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ("cursor", "{// a comment\n}"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", "= nonsense"),
        ("codex", "[mcp_servers.flux]\n"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_left_as_it_is(client: str, text: str, config: Path) -> None:
    config.write_text(text, "utf-8")
    with pytest.raises(CannotInstall):
        install(client, config)
    assert config.read_text("utf-8") == text
    assert [path.name for path in config.parent.iterdir()] == ["config"]


@pytest.mark.parametrize("target", ["nosuch.py", "no.such.module", "../nosuch", "pathlib.nosuch"])
def test_what_could_not_be_served_is_not_installed(target: str, config: Path) -> None:
    with pytest.raises(CannotInstall, match="There is no"):
        run("install", ["cursor", target, "--config", str(config)])
    assert not config.exists()


def test_an_installed_module_is_named_as_it_is(config: Path) -> None:
    run("install", ["cursor", "json.tool", "--config", str(config)])
    assert server_in(config, "cursor")["args"][-1] == "json.tool"


def test_toml_keeps_its_comments(config: Path) -> None:
    config.write_text('# mine\nmodel = "x"', "utf-8")
    install("codex", config)
    assert config.read_text("utf-8").startswith('# mine\nmodel = "x"\n\n[mcp_servers.flux]\n')


def test_json_only_shows_what_to_add(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("install", ["json", SERVED, "--name", "mine"]) == 0
    assert SERVED in json.loads(capsys.readouterr().out)["mcpServers"]["mine"]["args"]


def test_inspect_shows_the_tools_as_clients_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", [SERVED, "--json"]) == 0
    tools = {tool["name"]: tool for tool in json.loads(capsys.readouterr().out)["tools"]}
    assert tools["hello_world"]["inputSchema"]["properties"] == {"input": {"type": "string"}}
    assert "get_execution" in tools


def test_every_example_can_be_served_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", [str(Path(SERVED).parent), "--json"]) == 0
    names = {tool["name"] for tool in json.loads(capsys.readouterr().out)["tools"]}
    assert {"hello_world", "resume_approve_order", "assist"} <= names


def dev(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flux_mcp_server", "dev", "examples/hello_world.py"],
        cwd=Path(SERVED).parents[1],
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_reader_who_has_seen_enough_of_the_tools_is_shown_no_traceback() -> None:
    command = [sys.executable, "-m", "flux_mcp_server", "inspect", SERVED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as inspecting:
        assert inspecting.stdout is not None
        assert inspecting.stderr is not None
        inspecting.stdout.close()
        assert inspecting.stderr.read() == ""
    assert inspecting.returncode == PIPE_CLOSED


def test_dev_starts_the_inspector_with_a_server_that_reloads(tmp_path: Path) -> None:
    npx = tmp_path / "npx"
    npx.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n', "utf-8")
    npx.chmod(0o755)
    started = dev(tmp_path)
    assert started.returncode == 0
    inspector, *server = started.stdout.splitlines()[1:]
    assert inspector == "@modelcontextprotocol/inspector"
    assert server == [sys.executable, "-m", "flux_mcp_server", str(Path(SERVED).resolve()), "--reload"]


def test_dev_says_what_is_missing_where_there_is_no_node(tmp_path: Path) -> None:
    refused = dev(tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "flux-mcp-server: MCP Inspector needs node: there is no npx here. Install node 22 or newer, then try again.\n"
    )


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens"
    assert run("token", ["ada", "--scopes", "run,read", "--file", str(path)]) == 0
    token = capsys.readouterr().out.strip()
    assert token not in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (known,) = StaticTokens(path).known()
    assert (known.name, known.scopes) == ("ada", ["run", "read"])
    with pytest.raises(TokenFileInvalid, match="there is no scope 'fly'"):
        run("token", ["ada", "--scopes", "fly", "--file", str(path)])
