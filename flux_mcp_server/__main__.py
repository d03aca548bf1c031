"""`flux-mcp-server`, or `python -m flux_mcp_server`: arguments to settings to a server that runs."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NoReturn

from flux_mcp_server.wire import Wire, claim_stdio

LOOPBACK_NAMES = {"localhost"}

_EPILOG = """\
Files, folders and modules can be mixed; without any, the current folder is served. Each option can be given by its
environment variable instead: options beat variables. FLUX_MCP_WORKFLOWS holds targets, separated as in PATH.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment say. Without targets the current folder is meant, without a database the one
    in the user's data folder."""

    targets: Sequence[str]
    transport: str
    host: str
    port: int
    path: str
    database: str | None
    name: str
    wait: float


class _Usage(Exception):
    """Something the user can mend, said in a sentence."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    options = read_options(arguments, os.environ)
    wire = claim_stdio() if options.transport == "stdio" else None
    try:
        _serve(options, wire)
    except _Usage as exc:
        _refuse(str(exc))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"flux-mcp-server: {sentence}\n")
    sys.exit(2)


def read_options(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Options:
    """Ends the process for --help, --version and what cannot be understood."""
    given = _parser(environ).parse_args(arguments)
    targets = given.targets or [each for each in environ.get("FLUX_MCP_WORKFLOWS", "").split(os.pathsep) if each]
    if not given.path.startswith("/"):
        _refuse(f"--path should begin with a slash: {given.path!r}")
    if given.transport == "http" and not is_loopback(given.host):
        _refuse(
            f"--host {given.host}: this version knows no authentication, so it listens on this machine only. "
            "Use 127.0.0.1, and put something that authenticates in front of it."
        )
    return Options(
        targets=targets,
        transport=given.transport,
        host=given.host,
        port=given.port,
        path=given.path,
        database=given.database,
        name=given.name,
        wait=given.wait,
    )


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="flux-mcp-server",
        description="Serve durable workflows to MCP clients: each workflow found is a tool.",
        epilog=_EPILOG,
    )

    def option(name: str, variable: str, default: str | None, help: str, **more: object) -> None:
        value = environ.get(variable) or default
        shown = "" if default is None else f" (default {default})"
        parser.add_argument(name, default=value, help=f"{help}{shown} [{variable}]", **more)  # pyright: ignore[reportArgumentType] - argparse's own options

    parser.add_argument("targets", nargs="*", metavar="PATH|MODULE", help="a .py file, a folder or a dotted module")
    option("--transport", "FLUX_MCP_TRANSPORT", "stdio", "stdio or http", type=_transport, metavar="stdio|http")
    option("--host", "FLUX_MCP_HOST", "127.0.0.1", "the address http listens on")
    option("--port", "FLUX_MCP_PORT", "8765", "the port http listens on, 0 for any", type=_port)
    option("--path", "FLUX_MCP_PATH", "/mcp", "where http serves")
    option("--database", "FLUX_DATABASE", None, "the SQLite file, or :memory: (default: in your data folder)")
    option("--name", "FLUX_MCP_NAME", "flux", "what the server calls itself")
    option("--wait", "FLUX_MCP_WAIT", "45", "how many seconds a call may take", type=_seconds, metavar="SECONDS")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _refuse(f"{message}. `flux-mcp-server --help` shows all options.")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        sys.stdout.write(f"flux-mcp-server {version('flux-mcp-server')}\n")
        parser.exit()


def _transport(text: str) -> str:
    if text not in ("stdio", "http"):
        raise argparse.ArgumentTypeError(f"should be stdio or http, not {text!r}")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"should be a number from 0 to 65535, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"should be a number of seconds, not {text!r}")
    return seconds


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def _serve(options: Options, wire: Wire | None) -> None:
    from flux.errors import FluxError  # noqa: PLC0415 - --help and --version answer without loading the engine
    from flux_mcp_server.running import serve  # noqa: PLC0415 - so here too

    try:
        serve(options, wire)
    except FluxError as exc:
        raise _Usage(str(exc)) from exc


if __name__ == "__main__":
    main()
