"""The commands beside serving: `install`, `inspect`, `dev`, `token`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from flux.errors import FluxError
from flux.settings import default_database
from flux_mcp_server import install
from flux_mcp_server.catalog import Catalog
from flux_mcp_server.running import found_in, visible
from flux_mcp_server.tokens import add_token

INSPECTOR = "@modelcontextprotocol/inspector"


class CommandFailed(FluxError):
    """A command cannot do its work, for a reason its user can mend."""


def run(name: str, arguments: Sequence[str]) -> int:
    return {"install": _install, "inspect": _inspect, "dev": _dev, "token": _token}[name](arguments)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"flux-mcp-server {command}", description=description)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


# -- install -----------------------------------------------------------------------------------------------------------


def _install(arguments: Sequence[str]) -> int:
    parser = _parser(
        "install",
        "Add the server to a client's own configuration. What stands there stays, and the file is copied first.",
    )
    parser.add_argument("client", choices=[*install.CLIENTS, "json"], help="json: print what to add, change nothing")
    parser.add_argument("targets", nargs="*", metavar="PATH|MODULE", help="what to serve (default: this folder)")
    parser.add_argument("--name", default="flux", help="what the client calls the server (default flux)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable for the server")
    parser.add_argument("--database", help="the database that the server uses")
    parser.add_argument("--config", type=Path, help="the client's file, if it is not at its usual place")
    given = parser.parse_args(arguments)
    server = install.Server.of(given.targets, database=given.database, variables=given.env)
    if given.client == "json":
        _say(json.dumps({"mcpServers": {given.name: server.as_json()}}, indent=2))
        return 0
    _say(install.into(install.CLIENTS[given.client], given.name, server, config=given.config))
    return 0


# -- inspect -----------------------------------------------------------------------------------------------------------


def _inspect(arguments: Sequence[str]) -> int:
    parser = _parser("inspect", "Print the tools that clients would see, with their schemas. Nothing is run.")
    parser.add_argument("targets", nargs="*", metavar="PATH|MODULE")
    parser.add_argument("--tags", default="", metavar="A,B", help="only workflows with one of these tags")
    parser.add_argument("--json", action="store_true", help="as clients get it")
    given = parser.parse_args(arguments)
    found = found_in(given.targets)
    catalog = Catalog(visible(found, frozenset(given.tags.replace(",", " ").split())), found.problems)
    shown = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in catalog.tools]
    if given.json:
        _say(json.dumps({"tools": shown}, indent=2, ensure_ascii=False))
        return 0
    for tool in shown:
        _say(f"{tool['name']}\n  {tool['description'].splitlines()[0]}")
        for side in ("inputSchema", "outputSchema"):
            _say(f"  {side}: {json.dumps(tool.get(side), ensure_ascii=False)}")
    return 1 if found.problems else 0


# -- dev ---------------------------------------------------------------------------------------------------------------


def _dev(arguments: Sequence[str]) -> int:
    parser = _parser("dev", "Start MCP Inspector with the server, which reads the files again when they change.")
    parser.add_argument("targets", nargs="*", metavar="PATH|MODULE")
    given = parser.parse_args(arguments)
    npx = shutil.which("npx")
    if npx is None:
        raise CommandFailed("MCP Inspector needs node: there is no npx here. Install node 22 or newer, then try again.")
    targets = [str(Path(each).resolve()) if Path(each).exists() else each for each in given.targets]
    command = [npx, "--yes", INSPECTOR, sys.executable, "-m", "flux_mcp_server", *targets, "--reload"]
    os.execvp(npx, command)


# -- token -------------------------------------------------------------------------------------------------------------


def _token(arguments: Sequence[str]) -> int:
    parser = _parser(
        "token", "Make a bearer token and add its hash to a file. The token is shown once, and kept nowhere."
    )
    parser.add_argument("name", help="whose it is: executions are theirs who start them")
    parser.add_argument("--scopes", default="run,read,control", help="what they may do (default run,read,control)")
    parser.add_argument("--file", type=Path, help="the file of hashes (default: tokens beside the database)")
    given = parser.parse_args(arguments)
    path: Path = given.file or default_database().with_name("tokens")
    token = add_token(path, given.name, given.scopes.split(","))
    _say(token)
    sys.stderr.write(f"Its hash is in {path}. Serve with: flux-mcp-server --transport http --auth-tokens {path}\n")
    return 0
