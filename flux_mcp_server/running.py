"""From options to a server that runs: find the workflows, open the engine, serve until the client or the system says stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flux.discovery import Discovery, discover
from flux.errors import FluxError
from flux.registry import Registry
from flux.service import Flux
from flux.settings import MEMORY, Settings
from flux_mcp_server.catalog import AnyWorkflow, Catalog
from flux_mcp_server.server import make_server
from flux_mcp_server.transports import leave_within, serve_http, serve_stdio, stop_on_signals
from flux_mcp_server.wire import Wire

if TYPE_CHECKING:  # the command line is the one that runs us
    from flux_mcp_server.__main__ import Options

log = logging.getLogger("flux.mcp")

EXIT_WITHIN = 4.5  # seconds from the first sign that the server should stop


class CannotServe(FluxError):
    """The server cannot start, for a reason its user can mend."""


def serve(options: Options, wire: Wire | None) -> None:
    """Serve until told to stop: on stdio when the protocol's descriptors are given, else over HTTP.

    Raises FluxError, with a sentence for the user."""
    _log_to_stderr()
    settings = Settings.load(database=options.database)
    listening = None if wire else _listen(options.host, options.port)
    found = _found(options.targets)
    workflows = Registry[AnyWorkflow](found.workflows)
    catalog = Catalog(workflows, found.problems)
    asyncio.run(_serve(options, settings, workflows, catalog, wire=wire, listening=listening))


async def _serve(
    options: Options,
    settings: Settings,
    workflows: Registry[AnyWorkflow],
    catalog: Catalog,
    *,
    wire: Wire | None,
    listening: socket.socket | None,
) -> None:
    stopping = asyncio.Event()
    with stop_on_signals(stopping, then=lambda: leave_within(EXIT_WITHIN)):
        async with Flux(workflows=workflows, settings=settings) as flux:
            secret = secret_of(settings.database)
            server = make_server(flux, catalog, name=options.name, patience=options.wait, secret=secret)
            if wire is not None:
                await serve_stdio(server, wire, stopping)
            elif listening is not None:
                log.info("serving %d workflows at %s", len(workflows), _address(listening, options))
                await serve_http(server, listening, host=options.host, path=options.path, stopping=stopping)
            leave_within(EXIT_WITHIN)


def _found(targets: Sequence[str]) -> Discovery:
    here = Path.cwd()
    if not targets and here in (Path.home(), Path(here.anchor)):  # where desktop clients start their servers
        raise CannotServe(
            f"no workflows are named, and {here} is no place to look for them: name files, folders or modules."
        )
    found = discover(targets or ["."])
    for problem in found.problems:
        sys.stderr.write(f"flux-mcp-server: {problem.path} is not served: {problem.summary}\n{problem.traceback}")
    if not found.workflows:
        sys.stderr.write(f"flux-mcp-server: no workflows found in {', '.join(targets) or here}\n")
    return found


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flux").setLevel(logging.INFO)


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything else is done, so that a port in use is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as exc:
        raise CannotServe(f"cannot listen on {host} port {port}: {exc.strerror}. Choose another --port.") from exc
    return listening


def _address(listening: socket.socket, options: Options) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}:{listening.getsockname()[1]}{options.path}"


def secret_of(database: str) -> bytes:
    """The key that seals what clients hand back: kept beside the database, so that it outlives this process."""
    if database == MEMORY or "://" in database:
        return secrets.token_bytes(32)
    path = Path(f"{database}.key")
    if not path.exists():
        _write_secret(path)
    return path.read_bytes()


def _write_secret(path: Path) -> None:
    """Whole or not at all, for its owner only; of two processes the first one wins."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".flux-key-") as new:
        new.write(secrets.token_bytes(32))
        new.flush()
        with contextlib.suppress(FileExistsError):
            os.link(new.name, path)
