"""Two servers with an engine each on one PostgreSQL, behind a proxy: what the tests of one server are run against once more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from flux_mcp_server.http import Http, serve_http
from flux_mcp_server.server import Served
from tests.mcp.proxy import proxy


@dataclass(frozen=True, slots=True)
class Replicas:
    """On the database of this URL. Without sessions no request knows of another, and each goes to the other server than the last.
    With a worker the servers run nothing themselves."""

    database: str
    keep_sessions: bool
    worker: bool

    @asynccontextmanager
    async def behind_a_proxy(self, servers: Sequence[Served]) -> AsyncGenerator[str]:
        """The URL of the proxy."""
        stopping = asyncio.Event()
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in servers]
        running = [asyncio.create_task(self._serve(*each, stopping)) for each in zip(servers, listening, strict=True)]
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}/mcp" for each in listening]
        with ExitStack() as stack:
            try:
                yield stack.enter_context(proxy(urls, keeps_sessions=self.keep_sessions))
            finally:
                stopping.set()
                await asyncio.gather(asyncio.to_thread(stack.close), *running)

    async def _serve(self, served: Served, listening: socket.socket, stopping: asyncio.Event) -> None:
        with listening:
            await serve_http(
                served.server,
                listening,
                host="127.0.0.1",
                path="/mcp",
                stopping=stopping,
                http=Http(stateless=not self.keep_sessions),
                ending=served.listening.close,
            )
