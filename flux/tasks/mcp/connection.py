"""A connection to a server: opened, used and closed by one asyncio task of its own, which belongs to no workflow.

The SDK's clients live in cancel scopes, which have to be left in the task that entered them. So nobody but the owner enters
any, and whoever has a request hands it over. Each request, too, is a task of its own outside of every workflow: it can be
waited for by one run, left, and waited for by the next."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.client import advertise
from mcp.client.session import ClientRequestContext, ClientSession
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from flux.engine.masking import without
from flux.engine.ports import SecretStore
from flux.engine.run import Run
from flux.errors import UnusableResult
from flux.tasks.mcp.auth import Auth
from flux.tasks.mcp.exchange import Exchange, Pushed, Send, T, Tell
from flux.tasks.mcp.faults import Lost, NotSent, innermost
from flux.tasks.mcp.streams import Streams
from flux.tasks.mcp.targets import Command, Local, Target, Url

log = logging.getLogger("flux.mcp")

TASKS = "io.modelcontextprotocol/tasks"
CLOSE_WITHIN = 10.0  # seconds that closing may take whoever waits for it
SETTLE = 8  # turns of the loop from the end of a pipe to whoever reads it
PAGES = 200  # of a list: a server that never ends it is not followed for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How to connect. `protocol` is "auto", "legacy" or a version; `most` the bytes of an answer that are kept."""

    server: str
    target: Target
    auth: Auth | None
    connect_timeout: float
    protocol: str
    most: int
    offers_sampling: bool = False


class Connection:
    """`lost` is done once no answer comes any more, with the reason. `last_for` is the execution that used it last."""

    session: ClientSession

    def __init__(self, terms: Terms, secrets: SecretStore) -> None:
        self.terms = terms
        self.tools: dict[str, types.Tool] | None = None
        self._auth: Auth | None = None
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = loop.create_future()
        self._secrets = secrets
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closing = asyncio.Event()
        self._exchanges: set[Exchange[Any]] = set()
        self._released = False
        self._listing = asyncio.Lock()
        self._reserved: Counter[str] = Counter()
        self.last_for = ""
        self._owner = loop.create_task(self._own(), context=Context(), name=f"mcp {terms.server}")

    # -- its life ---------------------------------------------------------------------------------------------------

    async def _own(self) -> None:
        reason = "the connection was closed"
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(await self._client(stack))
                self.session = client.session
                self._opened.set_result(None)
                await self._closing.wait()
                self._break(reason)  # whoever still waits is told before the session goes
                for exchange in list(self._exchanges):
                    exchange.abandon()
        except (Exception, BaseExceptionGroup) as exc:  # noqa: BLE001 - whatever ends a connection, those who use it are told
            cause = innermost(exc)
            reason = f"{type(cause).__name__}: {cause}"
            if not self._opened.done():
                self._opened.set_exception(cause)
                self._opened.exception()  # looked at: nobody may be waiting any more
        finally:
            self._break(reason)
            if not self._opened.done():
                self._opened.set_exception(NotSent(reason))
                self._opened.exception()

    async def _client(self, stack: AsyncExitStack) -> Client:
        terms = self.terms
        server: Any
        match terms.target:
            case Local():
                server = terms.target.server
            case Command():
                server = terms.target.transport(Streams(heard=self._heard, broken=self._break_and_close))
            case Url():
                wanted = terms.auth or terms.target.login
                self._auth = None if wanted is None else await wanted.resolved(self._secrets, terms.server)
                endpoint = terms.target.endpoint(self._auth, connect_timeout=terms.connect_timeout, most=terms.most)
                await stack.enter_async_context(endpoint)
                server = terms.target.transport(endpoint, terms.most)
        return Client(
            server,
            mode=terms.protocol,
            cache=None,
            client_info=types.Implementation(name="flux", version="1"),
            elicitation_callback=self._elicit,
            sampling_callback=self._sample if terms.offers_sampling else None,
            logging_callback=self._logged,
            message_handler=self._message,
            log_level="info",
            extensions=[advertise(TASKS, {})],
        )

    async def ready(self) -> None:
        """Raises why it could not be opened; NotSent when it takes too long."""
        opened = asyncio.shield(self._opened)
        try:
            async with asyncio.timeout(self._patience):
                await opened
        except TimeoutError:
            if self._opened.done():
                raise
            self._owner.cancel()
            raise NotSent(f"no connection within {self.terms.connect_timeout:g} s") from None

    async def settled(self) -> None:
        """Let what a server's process has said meanwhile arrive, above all that it is no more."""
        if isinstance(self.terms.target, Command):
            for _ in range(SETTLE):
                await asyncio.sleep(0)

    @property
    def _patience(self) -> float:
        """Servers of the older protocols may leave the first message unanswered: the SDK gives it 10 s, then speaks theirs."""
        probing = 10.0 if isinstance(self.terms.target, Command) and self.terms.protocol == "auto" else 0.0
        return self.terms.connect_timeout + probing

    def hide_secrets(self, run: Run) -> None:
        """From now on nothing that the run writes down has our credentials in it, those of now."""
        if self._auth is not None and self._auth.known_secrets:
            run.codec = without(self._auth.known_secrets, run.codec)

    @property
    def is_usable(self) -> bool:
        return not self.lost.done() and not self._released

    @property
    def is_modern(self) -> bool:
        return self.session.protocol_version in MODERN_PROTOCOL_VERSIONS

    def _break(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)

    def _break_and_close(self, reason: str) -> None:
        self._break(reason)
        self._closing.set()

    def release(self) -> None:
        """Close it as soon as nobody waits for an answer, or keeps it for later."""
        self._released = True
        self._close_if_free()

    def _close_if_free(self) -> None:
        if self._released and not self._exchanges and not self._reserved:
            self._closing.set()

    async def aclose(self) -> None:
        """Close it, unless answers are still waited for; return when that is done."""
        self.release()
        if self._closing.is_set():
            # a cancelled caller leaves, the owner goes on
            await asyncio.wait({self._owner}, timeout=CLOSE_WITHIN)

    # -- whose it is ------------------------------------------------------------------------------------------------

    @contextmanager
    def reserved_for(self, execution: str) -> Generator[None]:
        """Until a call is under way, which reserves it as well."""
        self.reserve(execution)
        try:
            yield
        finally:
            self.unreserve(execution)

    def reserve(self, execution: str) -> None:
        self._reserved[execution] += 1
        self.last_for = execution

    def unreserve(self, execution: str) -> None:
        self._reserved[execution] -= 1
        self._reserved = +self._reserved
        self._close_if_free()

    def is_for(self, execution: str) -> bool:
        """Whether no other execution has a call open here, or was first to want one."""
        calling = {exchange.execution for exchange in self._exchanges if exchange.execution}
        return calling == {execution} or (not calling and next(iter(self._reserved), execution) == execution)

    # -- requests ---------------------------------------------------------------------------------------------------

    def begin(self, send: Send[T], *, execution: str = "", tell: Tell | None = None) -> Exchange[T]:
        if self.lost.done():
            raise NotSent(self.lost.result(), stale=True)
        exchange = Exchange(self, send, execution=execution, tell=tell)
        self._exchanges.add(exchange)
        return exchange

    def ended(self, exchange: Exchange[Any]) -> None:
        self._exchanges.discard(exchange)
        self._close_if_free()

    async def request(self, send: Send[T], timeout: float | None = None, *, tell: Tell | None = None) -> T:
        """For requests that ask nothing."""
        exchange = self.begin(send, tell=tell)
        try:
            answer = await exchange.step(timeout)
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        assert not isinstance(answer, Pushed), "a question needs an execution"
        return answer

    async def probe(self) -> None:
        """Raises Lost when the server does not answer even this."""
        version = self.session.protocol_version or ""

        async def ask() -> object:
            if self.is_modern:
                return await self.session.send_discover(version)
            return await self.session.send_ping()

        asking = asyncio.get_running_loop().create_task(ask(), context=Context())
        await asyncio.wait({asking}, timeout=self.terms.connect_timeout)
        if not asking.done():
            asking.cancel()
            raise Lost("it does not react any more")
        asking.exception()  # an error is an answer, too

    async def listed(self) -> dict[str, types.Tool]:
        """The tools as they are now, by name."""
        async with self._listing:
            if self.tools is None:
                self.tools = {tool.name: tool for tool in await list_tools(self)}
            return self.tools

    def makes_old_tasks_of(self, tool: str) -> bool:
        """Whether calls of the tool can be tasks as the protocol of 2025-11-25 has them."""
        if self.is_modern:
            return False
        capabilities = self.session.server_capabilities
        tasks = None if capabilities is None else capabilities.tasks
        if tasks is None or tasks.requests is None or tasks.requests.tools is None or tasks.requests.tools.call is None:
            return False
        execution = (self.tools or {})[tool].execution if tool in (self.tools or {}) else None
        return execution is not None and execution.task_support in ("optional", "required")

    # -- what the server says by itself -----------------------------------------------------------------------------

    def _heard(self) -> None:
        for exchange in self._exchanges:
            exchange.heard()

    async def _elicit(
        self, context: ClientRequestContext, params: types.ElicitRequestParams
    ) -> types.ElicitResult | types.ErrorData:
        answer = await self._asked("elicitation/create", params)
        if answer is None:
            return types.ElicitResult(action="cancel")
        return answer if isinstance(answer, types.ErrorData) else types.ElicitResult.model_validate(answer)

    async def _sample(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.ErrorData:
        answer = await self._asked("sampling/createMessage", params)
        if answer is None:
            return types.ErrorData(code=types.INVALID_REQUEST, message="The call is over")
        return answer if isinstance(answer, types.ErrorData) else types.CreateMessageResult.model_validate(answer)

    async def _asked(self, method: str, params: types.RequestParams) -> dict[str, Any] | types.ErrorData | None:
        """The answer; None when the call that it was asked for is over. The older protocols do not say which call a question
        belongs to, so it must be clear."""
        asking = [exchange for exchange in self._exchanges if exchange.execution]
        if len({exchange.execution for exchange in asking}) != 1:
            log.warning("MCP server %r asks %r while there is no call of one execution", self.terms.server, method)
            return types.ErrorData(code=types.INVALID_REQUEST, message="Nobody waits for an answer that asks this")
        told = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        try:
            return await asking[-1].ask({"method": method, "params": told})
        except asyncio.CancelledError:
            if asking[-1] in self._exchanges:
                raise
            return None

    async def _logged(self, params: types.LoggingMessageNotificationParams) -> None:
        value = {"log": params.level, "message": params.data}
        listening = [exchange for exchange in self._exchanges if exchange.tell is not None]
        if len({exchange.execution for exchange in listening}) == 1:
            listening[-1].say(value)
        else:
            log.debug("MCP server %r: %s", self.terms.server, value)

    async def _message(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.tools = None


async def list_tools(connection: Connection) -> list[types.Tool]:
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(PAGES):
        params = types.PaginatedRequestParams(cursor=cursor)
        page = await connection.request(partial(_page, params), timeout=3 * connection.terms.connect_timeout)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            return tools
    raise UnusableResult(connection.terms.server, f"its list of tools has no end: {PAGES} pages and more")


async def _page(params: types.PaginatedRequestParams, session: ClientSession, _: object) -> types.ListToolsResult:
    return await session.list_tools(params=params)
