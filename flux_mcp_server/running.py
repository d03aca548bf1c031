"""From options to a server that runs: find the workflows, open the engine, serve until the client or the system says stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mcp.server.auth.provider import TokenVerifier

from flux.discovery import Discovery, discover
from flux.engine.watchdog import watched_loop
from flux.errors import FluxError
from flux.registry import Registry
from flux.service import Flux
from flux.settings import Settings
from flux_mcp_server.catalog import AnyWorkflow, Catalog
from flux_mcp_server.declared import Declared, declared_in
from flux_mcp_server.http import Http, serve_http
from flux_mcp_server.limits import Limits
from flux_mcp_server.reload import watch
from flux_mcp_server.server import Served, assemble
from flux_mcp_server.stdio import serve_stdio
from flux_mcp_server.stopping import leave_within, stop_on_signals
from flux_mcp_server.wire import Wire

if TYPE_CHECKING:  # the command line is the one that runs us
    from flux_mcp_server.__main__ import Options

log = logging.getLogger("flux.mcp")

SEAL = "mcp/seal"
"""The note with the key that seals what clients hand back: the same for all servers on the database, now and later."""
EXIT_WITHIN = 4.5  # seconds from the first sign that the server should stop


class CannotServe(FluxError):
    """The server cannot start, for a reason its user can mend."""


def serve(options: Options, wire: Wire | None) -> None:
    """Serve until told to stop: on stdio when the protocol's descriptors are given, else over HTTP.

    Raises FluxError, with a sentence for the user."""
    _log_to_stderr()
    settings = Settings.load(database=options.database, retention_days=options.retention)
    _check_certificate(options)
    listening = None if wire else _listen(options.host, options.port)
    found = found_in(options.targets)
    workflows = Registry[AnyWorkflow](found.workflows)
    catalog = Catalog(
        visible(found, options.tags), found.problems, most_listed=options.most_tools, mask_errors=options.mask_errors
    )
    declared = declared_in(found.sources)
    serving = _Serving(options, settings, found, workflows, catalog, declared)
    with asyncio.Runner(loop_factory=None if wire else _loop_for_many()) as runner:
        runner.run(serving.run(wire, listening))


@dataclass(frozen=True, slots=True)
class _Serving:
    options: Options
    settings: Settings
    found: Discovery
    workflows: Registry[AnyWorkflow]
    catalog: Catalog
    declared: Declared

    async def run(self, wire: Wire | None, listening: socket.socket | None) -> None:
        stopping, options = asyncio.Event(), self.options
        within = EXIT_WITHIN + (0 if wire else options.drain)
        with stop_on_signals(stopping, then=lambda: leave_within(within)):
            async with AsyncExitStack() as stack:
                flux = await stack.enter_async_context(Flux(workflows=self.workflows, settings=self.settings))
                served = self._assembled(flux, bytes.fromhex(await flux.agree(SEAL, secrets.token_hex(32))))
                await stack.enter_async_context(watched_loop())
                stack.enter_context(served.logs.installed())
                telling = asyncio.ensure_future(served.notices.tell_of_executions(flux))
                stack.callback(telling.cancel)
                if options.reload:
                    reloading = asyncio.ensure_future(
                        watch(options.targets or ["."], self.found, self._reloader(served))
                    )
                    stack.callback(reloading.cancel)
                _spare_what_stays()
                if wire is not None:
                    await serve_stdio(served.server, wire, stopping)
                elif listening is not None:
                    await self._serve_http(flux, served, listening, stopping)
                leave_within(within)

    def _assembled(self, flux: Flux, secret: bytes) -> Served:
        options = self.options
        return assemble(
            flux,
            self.catalog,
            name=options.name,
            patience=options.wait,
            secret=secret,
            declared=self.declared,
            limits=Limits(most=options.most_calls, most_each=options.most_each, per_minute=options.rate),
        )

    async def _serve_http(self, flux: Flux, served: Served, listening: socket.socket, stopping: asyncio.Event) -> None:
        options = self.options

        async def is_ready() -> bool:
            try:
                async with asyncio.timeout(2):
                    await flux.list(limit=1)
            except (FluxError, TimeoutError):
                return False
            return True

        http = Http(
            verifier=_verifier(options),
            issuer=options.jwt_issuer,
            public_url=options.public_url,
            allow_hosts=options.allow_hosts,
            stateless=options.stateless,
            most_body=options.most_body,
            drain=options.drain,
            tls_cert=options.tls_cert,
            tls_key=options.tls_key,
            is_ready=is_ready,
        )
        count = len(self.workflows)
        log.info("%d workflow%s served at %s", count, "" if count == 1 else "s", _address(listening, options))
        await serve_http(
            served.server,
            listening,
            host=options.host,
            path=options.path,
            stopping=stopping,
            http=http,
            ending=served.listening.close,
            needs=served.needs,
        )

    def _reloader(self, served: Served) -> Callable[[Discovery], Awaitable[None]]:
        async def reload(found: Discovery) -> None:
            """Raises FluxError before anything is changed."""
            _say_problems(found)
            declared = declared_in(found.sources)
            Registry[AnyWorkflow](found.workflows)
            self.catalog.replace(visible(found, self.options.tags), found.problems)
            self.workflows.replace(found.workflows)
            served.flux.workflows.replace(found.workflows)
            served.declared = declared
            await served.notices.tools_changed()
            await served.notices.prompts_changed()
            await served.notices.resources_changed()

        return reload


def _loop_for_many() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """A loop that takes less of each call, where there is one; None for asyncio's own. A single client on stdio does not notice it,
    and would wait for it to be loaded."""
    try:
        import uvloop  # noqa: PLC0415 - see above
    except ImportError:  # Windows, PyPy
        return None
    return uvloop.new_event_loop


def _spare_what_stays() -> None:
    """From here on garbage is collected, but never looked for in what was loaded so far: calls would wait for that."""
    gc.freeze()
    gc.enable()


def visible(found: Discovery, tags: frozenset[str]) -> list[AnyWorkflow]:
    """The workflows that clients are offered: those with one of the tags, where any are named."""
    return [workflow for workflow in found.workflows if not tags or tags & workflow.tags]


def _verifier(options: Options) -> TokenVerifier | None:
    from flux_mcp_server.tokens import Either, SignedTokens, StaticTokens  # noqa: PLC0415 - start-up time: stdio needs none

    verifiers: list[TokenVerifier] = []
    if options.tokens is not None:
        static = StaticTokens(Path(options.tokens))
        if not static.known():
            raise CannotServe(f"there are no tokens in {options.tokens}: `flux-mcp-server token NAME` makes one.")
        verifiers.append(static)
    if options.jwt_issuer and options.jwks_url:
        verifiers.append(SignedTokens(options.jwt_issuer, options.jwt_audience or "", options.jwks_url))
    return Either(verifiers) if verifiers else None


def found_in(targets: Sequence[str]) -> Discovery:
    here = Path.cwd()
    if not targets and here in (Path.home(), Path(here.anchor)):  # where desktop clients start their servers
        raise CannotServe(
            f"no workflows are named, and {here} is no place to look for them: name files, folders or modules."
        )
    found = discover(targets or ["."])
    _say_problems(found)
    if not found.workflows:
        sys.stderr.write(f"flux-mcp-server: no workflows found in {', '.join(targets) or here}\n")
    return found


def _say_problems(found: Discovery) -> None:
    for problem in found.problems:
        sys.stderr.write(f"flux-mcp-server: {problem.path} is not served: {problem.summary}\n{problem.traceback}")


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("flux").setLevel(logging.INFO)


def _check_certificate(options: Options) -> None:
    if options.tls_cert is None or options.tls_key is None:
        return
    try:  # with a password, for else a key that has one would be asked for at the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key, password="-")
    except OSError as exc:  # errors of ssl, too
        raise CannotServe(
            f"https cannot be served with {options.tls_cert} and {options.tls_key}: {exc.strerror or exc}. It takes a "
            "certificate and its key as PEM files, the key without a password."
        ) from exc


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
    scheme = "http" if options.tls_cert is None else "https"
    return f"{scheme}://{host}:{listening.getsockname()[1]}{options.path}"
