"""`flux-mcp-server`, or `python -m flux_mcp_server`: arguments to settings to a server that runs."""

from __future__ import annotations

import argparse
import gc
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NoReturn

from flux_mcp_server.wire import Wire, claim_stdio

PIPE_CLOSED = 141  # exit status, as shells tell that the reader of an output has gone
LOOPBACK_NAMES = {"localhost"}

_EPILOG = """\
Files, folders and modules can be mixed; without any, the current folder is served. Each option can be given by its
environment variable instead: options beat variables. FLUX_MCP_WORKFLOWS holds targets, separated as in PATH.

Other commands: install CLIENT, inspect, dev, token NAME. Each has its own --help.
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
    tags: frozenset[str] = frozenset()
    reload: bool = False
    most_tools: int = 40
    mask_errors: bool = False
    most_calls: int = 1000
    tokens: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwks_url: str | None = None
    public_url: str | None = None
    allow_hosts: Sequence[str] = ()
    no_auth: bool = False
    rate: float | None = None
    most_each: int = 100
    most_body: int = 4 * 1024 * 1024
    drain: float = 1.0
    tls_cert: str | None = None
    tls_key: str | None = None
    stateless: bool = False
    retention: float | None = None

    @property
    def has_auth(self) -> bool:
        return self.tokens is not None or self.jwt_issuer is not None


class _Usage(Exception):
    """Something the user can mend, said in a sentence."""


COMMANDS = ("install", "inspect", "dev", "token")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in COMMANDS and not os.path.exists(given[0]):
        _command(given[0], given[1:])
    options = read_options(arguments, os.environ)
    wire = claim_stdio() if options.transport == "stdio" else None
    try:
        _serve(options, wire)
    except _Usage as exc:
        _refuse(str(exc))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _command(name: str, arguments: Sequence[str]) -> NoReturn:
    from flux.errors import FluxError  # noqa: PLC0415 - --help and --version answer without loading the engine
    from flux_mcp_server import commands  # noqa: PLC0415 - so here too

    try:
        status = commands.run(name, arguments)
        sys.stdout.flush()
    except FluxError as exc:
        _refuse(str(exc))
    except BrokenPipeError:  # whoever read the output has seen enough; what is left of it has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PIPE_CLOSED
    sys.exit(status)


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"flux-mcp-server: {sentence}\n")
    sys.exit(2)


def read_options(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> Options:
    """Ends the process for --help, --version and what cannot be understood."""
    given = _parser(environ).parse_args(arguments)
    targets = given.targets or [each for each in environ.get("FLUX_MCP_WORKFLOWS", "").split(os.pathsep) if each]
    if not given.path.startswith("/"):
        _refuse(f"--path should begin with a slash: {given.path!r}")
    options = Options(
        targets=targets,
        transport=given.transport,
        host=given.host,
        port=given.port,
        path=given.path,
        database=given.database,
        name=given.name,
        wait=given.wait,
        tags=frozenset(_words(given.tags)),
        reload=_is_set(given.reload),
        most_tools=given.max_tools,
        mask_errors=_is_set(given.mask_errors),
        most_calls=given.max_calls,
        tokens=given.auth_tokens,
        jwt_issuer=given.jwt_issuer,
        jwt_audience=given.jwt_audience or given.public_url,
        jwks_url=given.jwks_url,
        public_url=given.public_url,
        allow_hosts=_words(given.allow_hosts),
        no_auth=_is_set(given.no_auth),
        rate=given.rate,
        most_each=given.max_calls_each,
        most_body=given.max_body,
        drain=given.drain,
        tls_cert=given.tls_cert,
        tls_key=given.tls_key,
        stateless=_is_set(given.stateless),
        retention=given.retention,
    )
    _check_http(options)
    return options


def _check_http(options: Options) -> None:
    if options.transport != "http":
        return
    if not is_loopback(options.host) and not options.has_auth and not options.no_auth:
        _refuse(
            f"--host {options.host} is reached from other machines, and nobody would have to say who they are. Give --auth-tokens FILE "
            "(`flux-mcp-server token NAME` makes one) or --jwt-issuer URL; or --no-auth, if something in front of it authenticates."
        )
    if options.jwt_issuer and not (options.jwks_url and options.public_url):
        _refuse(
            "--jwt-issuer needs --jwks-url, where its keys are, and --public-url, by which clients know this server."
        )
    if (options.tls_cert is None) != (options.tls_key is None):
        _refuse("--tls-cert and --tls-key go together.")


def _words(text: str | None) -> list[str]:
    return [word for word in (text or "").replace(",", " ").split() if word]


def _is_set(given: str | bool | None) -> bool:
    return given is True or str(given or "").lower() in ("1", "true", "yes", "on")


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
    option(
        "--retention",
        "FLUX_RETENTION_DAYS",
        None,
        "delete executions so long after they have ended (default: never)",
        type=_days,
        metavar="DAYS",
    )
    option("--name", "FLUX_MCP_NAME", "flux", "what the server calls itself")
    option("--wait", "FLUX_MCP_WAIT", "45", "how many seconds a call may take", type=_seconds, metavar="SECONDS")

    def flag(name: str, variable: str, help: str) -> None:
        parser.add_argument(name, action="store_true", default=environ.get(variable), help=f"{help} [{variable}]")

    option("--tags", "FLUX_MCP_TAGS", None, "serve only workflows with one of these tags", metavar="A,B")
    flag("--reload", "FLUX_MCP_RELOAD", "read workflows again when their files change")
    option(
        "--max-tools",
        "FLUX_MCP_MAX_TOOLS",
        "40",
        "of more workflows, none is a tool: two tools find and run them",
        type=_whole,
    )
    flag(
        "--mask-errors", "FLUX_MCP_MASK_ERRORS", "tell clients only of failures that a workflow declares as its errors"
    )
    option("--max-calls", "FLUX_MCP_MAX_CALLS", "1000", "how many calls may be under way", type=_whole)
    option("--auth-tokens", "FLUX_MCP_AUTH_TOKENS", None, "a file of hashed bearer tokens", metavar="FILE")
    option("--jwt-issuer", "FLUX_MCP_JWT_ISSUER", None, "whose JWTs are taken", metavar="URL")
    option("--jwt-audience", "FLUX_MCP_JWT_AUDIENCE", None, "for whom they have to be (default: the public URL)")
    option("--jwks-url", "FLUX_MCP_JWKS_URL", None, "where the issuer's keys are", metavar="URL")
    option("--public-url", "FLUX_MCP_PUBLIC_URL", None, "by which clients know this server", metavar="URL")
    option("--allow-hosts", "FLUX_MCP_ALLOW_HOSTS", None, "more names that this server is called by", metavar="A,B")
    flag("--no-auth", "FLUX_MCP_NO_AUTH", "let anybody in, also from other machines")
    option(
        "--rate", "FLUX_MCP_RATE", None, "calls a minute that each known caller may make", type=_seconds, metavar="N"
    )
    option("--max-calls-each", "FLUX_MCP_MAX_CALLS_EACH", "100", "of them, by one known caller", type=_whole)
    option("--max-body", "FLUX_MCP_MAX_BODY", "4194304", "bytes of a request", type=_whole)
    option("--drain", "FLUX_MCP_DRAIN", "1", "seconds that open calls may take when http stops", type=_seconds)
    option("--tls-cert", "FLUX_MCP_TLS_CERT", None, "serve https with this certificate", metavar="FILE")
    option("--tls-key", "FLUX_MCP_TLS_KEY", None, "its key", metavar="FILE")
    flag(
        "--stateless",
        "FLUX_MCP_STATELESS",
        "keep no sessions of older clients: for several replicas behind one address",
    )
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


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"should be a whole number, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"should be a number of seconds, not {text!r}")
    return seconds


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days < float("inf"):
        raise argparse.ArgumentTypeError(f"should be a number of days, more than 0, not {text!r}")
    return days


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK_NAMES


def _serve(options: Options, wire: Wire | None) -> None:
    gc.disable()  # until it serves: what is loaded until then stays, and looking through it again and again takes time
    from flux.errors import FluxError  # noqa: PLC0415 - --help and --version answer without loading the engine
    from flux_mcp_server.running import serve  # noqa: PLC0415 - so here too

    try:
        serve(options, wire)
    except FluxError as exc:
        raise _Usage(str(exc)) from exc


if __name__ == "__main__":
    main()
