"""What can go wrong with a request, told apart by the one thing that matters: whether it may have been carried out."""

from __future__ import annotations

from typing import Any, cast

import mcp_types as types
from mcp import MCPError

from flux.errors import FluxError, NotAuthorized, RequestRefused, ServerUnreachable, UnusableResult
from flux.tasks.mcp.endpoint import HTTP

_SESSION_IS_GONE = ("session terminated", "session not found", "no valid session")


class NotSent(Exception):
    """Nothing has been carried out. `stale`: on a new connection the request may well succeed."""

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        super().__init__(reason)
        self.stale = stale


class Lost(Exception):
    """The request is out, and no answer will come."""


class Slow(Lost):
    """The same: the time for the answer is over."""


def sorted_out(exc: Exception, server: str) -> Exception:
    """`exc` as NotSent, Lost, or the error that the workflow gets; an MCPError that asks for something is left as it is."""
    if isinstance(exc, NotSent | Lost | FluxError):
        return exc
    if not isinstance(exc, MCPError):
        return UnusableResult(server, f"it answered what the protocol does not allow: {_first_line(exc)}")
    if exc.code == types.URL_ELICITATION_REQUIRED:
        return exc
    told = _told(exc)
    status = told.get("status")
    if told.get("sent") is False and status is None:
        return NotSent(exc.message)
    if any(phrase in exc.message.lower() for phrase in _SESSION_IS_GONE):
        return NotSent(exc.message, stale=True)
    if status in (401, 403):
        way_out = f"; {told['way_out']}" if "way_out" in told else ""
        said = f"HTTP status {status}: it wants other credentials ({exc.message}){way_out}"
        return NotAuthorized(server, said, exc.code)
    if status in (429, 503):
        return ServerUnreachable(server, _busy(status, told.get("retry_after")))
    if exc.code in (types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT) or status in (500, 502, 504):
        return Lost(exc.message)
    if exc.code == types.PARSE_ERROR:
        return Lost("the answer is not JSON")
    return RequestRefused(server, exc.message, exc.code)


def _busy(status: int, retry_after: str | None) -> str:
    after = f"; it asks to come back after {retry_after}" if retry_after else ""
    return f"it does not take calls now (HTTP status {status}{after})"


def _told(exc: MCPError) -> dict[str, Any]:
    data: Any = exc.error.data
    told: Any = cast("dict[str, Any]", data).get(HTTP) if isinstance(data, dict) else None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _first_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}".partition("\n")[0][:500]


def innermost(exc: BaseException) -> BaseException:
    """The first exception that is no group: what a connection's task group ended with."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast("BaseExceptionGroup[BaseException]", exc).exceptions[0]
    return exc
