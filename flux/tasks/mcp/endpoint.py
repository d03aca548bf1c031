"""HTTP to one server, so that a request which goes wrong harms no other one.

The SDK ends the whole connection when a request raises, and keeps the status of a response to itself. Here every fault becomes
the answer to its own request: a JSON-RPC error, whose data says what happened on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import httpx2
from mcp.client.auth.utils import extract_scope_from_www_auth
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR

from flux.tasks.mcp.auth import Auth
from flux.tasks.mcp.login import StoredLogin

HTTP = "flux/http"
"""The key in an error's data: `{"sent": bool, "status": int, "retry_after": str, "way_out": str}`, each where it is known."""

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class Endpoint(httpx2.AsyncClient):
    """`most` is how many bytes of an answer are read."""

    def __init__(
        self, address: str, headers: Mapping[str, str], auth: Auth | None, *, connect_timeout: float, most: int
    ) -> None:
        self._most = most
        self._sign_in_at = address.partition("?")[0] if isinstance(auth, StoredLogin) else None
        super().__init__(
            headers=dict(headers),
            auth=None if auth is None else auth.http(address),
            # how long an answer may take is known where it is waited for
            timeout=httpx2.Timeout(connect_timeout, read=None),
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # pyright: ignore[reportIncompatibleMethodOverride] - only passed on
        try:
            response = await super().send(request, **options)
            if request.method == "POST":
                return await self._contained(request, response)
            return response
        except _NOT_SENT as exc:
            return _answer(request, 503, CONNECTION_CLOSED, _said(exc), {"sent": False})
        except httpx2.TransportError as exc:
            return _answer(request, 502, CONNECTION_CLOSED, _said(exc), {"sent": True})
        except Exception as exc:  # noqa: BLE001 - a failed sign-in, above all: the request never went out
            return _answer(request, 401, INTERNAL_ERROR, _said(exc), {"sent": False, "status": 401})

    async def _contained(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """The response, read if it is not a stream of events."""
        if response.status_code < 400 and not response.headers.get("content-type", "").startswith("application/json"):
            return response
        body = await self._body(response)
        if body is None:
            return _answer(
                request, 502, CONNECTION_CLOSED, f"the answer is larger than {self._most} bytes", {"too_large": True}
            )
        if response.status_code < 400:
            headers = {key: value for key, value in response.headers.items() if key not in _OF_THE_BODY}
            return httpx2.Response(response.status_code, headers=headers, content=body, request=request)
        return _refusal(request, response, body, self._sign_in_at)

    async def _body(self, response: httpx2.Response) -> bytes | None:
        parts: list[bytes] = []
        try:
            async for part in response.aiter_bytes():
                parts.append(part)
                if sum(map(len, parts)) > 2 * self._most:
                    return None
        finally:
            await response.aclose()
        return b"".join(parts)


_OF_THE_BODY = {"content-length", "content-encoding", "transfer-encoding"}


def _refusal(
    request: httpx2.Request, response: httpx2.Response, body: bytes, sign_in_at: str | None
) -> httpx2.Response:
    """The server's own error, if it gives one, with the status in its data."""
    status = response.status_code
    told: dict[str, Any] = {"status": status}
    if sign_in_at is not None and status in (401, 403):
        scope = extract_scope_from_www_auth(response)
        wanted = f" --scope '{scope}'" if scope else ""
        told["way_out"] = f"`flux mcp login {sign_in_at}{wanted}` signs in"
    if "retry-after" in response.headers:
        told["retry_after"] = response.headers["retry-after"]
    error = _error_in(body)
    if error is None:
        return _answer(request, status, INTERNAL_ERROR, f"HTTP status {status} {response.reason_phrase}".strip(), told)
    data: Any = error.get("data")
    kept: dict[str, Any] = cast("dict[str, Any]", data) if isinstance(data, dict) else {"data": data} if data else {}
    return _answer(request, status, error["code"], str(error.get("message", "")), told, kept)


def _error_in(body: bytes) -> dict[str, Any] | None:
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        return None
    error: Any = cast("dict[str, Any]", parsed).get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict) or not isinstance(cast("dict[str, Any]", error).get("code"), int):
        return None
    return cast("dict[str, Any]", error)


def _answer(
    request: httpx2.Request,
    status: int,
    code: int,
    message: str,
    told: Mapping[str, Any],
    data: Mapping[str, Any] | None = None,
) -> httpx2.Response:
    error = {"code": code, "message": message, "data": {**(data or {}), HTTP: dict(told)}}
    return httpx2.Response(status, json={"jsonrpc": "2.0", "id": None, "error": error}, request=request)


def _said(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
