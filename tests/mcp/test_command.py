"""The command line: options, variables, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flux_mcp_server.__main__ import read_options

ROOT = Path(__file__).parents[2]


def run(*arguments: str, folder: Path = ROOT, python: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-m", "flux_mcp_server", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option: str) -> None:
    ran = run(option)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = run(option, python=["-X", "importtime"]).stderr
    loaded = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    assert loaded & {"argparse", "asyncio", "pydantic", "mcp", "flux"} == {"argparse"}


def test_the_version_is_the_packages() -> None:
    assert re.fullmatch(r"flux-mcp-server \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_every_option_has_a_variable_and_options_win() -> None:
    environ = {
        "FLUX_MCP_WORKFLOWS": "one.py:two",
        "FLUX_MCP_TRANSPORT": "http",
        "FLUX_MCP_HOST": "localhost",
        "FLUX_MCP_PORT": "99",
        "FLUX_MCP_PATH": "/flux",
        "FLUX_DATABASE": "x.db",
        "FLUX_MCP_NAME": "mine",
        "FLUX_MCP_WAIT": "5",
        "FLUX_RETENTION_DAYS": "0.5",
    }
    options = read_options([], environ)
    assert options.targets == ["one.py", "two"]
    assert (options.transport, options.host, options.port, options.path) == ("http", "localhost", 99, "/flux")
    assert (options.database, options.name, options.wait) == ("x.db", "mine", 5)
    assert options.retention == 0.5
    assert read_options(["three", "--port", "7"], environ).port == 7
    assert read_options(["three", "--port", "7"], environ).targets == ["three"]
    shown = " ".join(run("--help").stdout.split())
    assert [name for name in environ if name not in shown] == []


def test_without_anything_the_current_folder_is_served_over_stdio() -> None:
    options = read_options([], {})
    assert (options.targets, options.transport, options.database) == ([], "stdio", None)


def test_a_whole_disk_is_never_searched_for_workflows() -> None:
    ran = run(folder=Path(ROOT.anchor))
    assert ran.returncode == 2
    assert ran.stderr.startswith("flux-mcp-server: no workflows are named, and ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "many"], "argument --port: should be a number from 0 to 65535, not 'many'"),
        (["--transport", "smoke"], "argument --transport: should be stdio or http, not 'smoke'"),
        (["--wait", "-1"], "argument --wait: should be a number of seconds, not '-1'"),
        (["--retention", "0"], "argument --retention: should be a number of days, more than 0, not '0'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--transport", "http", "--host", "0.0.0.0"], "nobody would have to say who they are"),
        (["no_such_file.py"], "There is no no_such_file.py"),
        (["hello.txt"], "hello.txt is no Python file"),
        ([str(ROOT / "examples" / "hello_world.py"), "--database", "."], "it is a folder"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "hello.txt").touch()
    ran = run(*arguments, folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("flux-mcp-server: ")
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_two_workflows_of_one_name_are_an_error_that_names_both_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        text = "from flux import workflow\n@workflow\nasync def same() -> None: ...\n"
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
    ran = run(folder=tmp_path)
    assert ran.returncode == 2
    assert "one.py:" in ran.stderr
    assert "two.py:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_example_configuration_is_a_command_that_we_understand() -> None:
    config = json.loads((ROOT / "claude_desktop_config.example.json").read_text("utf-8"))
    server = config["mcpServers"]["flux"]
    assert server["command"] == "flux-mcp-server"
    options = read_options(server["args"], server.get("env", {}))
    assert options.transport == "stdio"
    assert [target for target in options.targets if target.startswith("/path/to/")] == options.targets
