"""Providers on this machine: a server over real HTTP that speaks as OpenAI (and Ollama), Anthropic and Google do, and says what
a test has written down."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.ai.legal import fault


@dataclass(frozen=True)
class Call:
    """A call of a tool, for the server to answer with."""

    name: str
    arguments: dict[str, Any]


Reply = str | list[Call]


@dataclass
class FakeProvider:
    """`requests` are the bodies as they came, with the path and the headers under `path` and `headers`."""

    reply: Callable[[dict[str, Any]], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    url: str = ""

    async def answered(self, request: Request) -> tuple[dict[str, Any], Reply]:
        body = {**await request.json(), "path": request.url.path, "headers": dict(request.headers)}
        self.requests.append(body)
        if found := fault(request.url.path, body):
            raise HTTPException(400, found)
        return body, self.reply(body)

    # -- OpenAI -----------------------------------------------------------------------------------------------------

    async def openai(self, request: Request) -> Response:
        body, reply = await self.answered(request)
        message: dict[str, Any] = {"role": "assistant", "content": reply if isinstance(reply, str) else None}
        if not isinstance(reply, str):
            message["tool_calls"] = [
                {
                    "id": f"call_{len(self.requests)}_{index}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for index, call in enumerate(reply)
            ]
        if body.get("stream"):
            return StreamingResponse(self._chunks(body, message), media_type="text/event-stream")
        finish = "stop" if isinstance(reply, str) else "tool_calls"
        return JSONResponse(
            {
                **self._head(body, "chat.completion"),
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
            }
        )

    def _head(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{len(self.requests)}",
            "object": kind,
            "created": 1_800_000_000,
            "model": body["model"],
        }

    def _chunks(self, body: dict[str, Any], message: dict[str, Any]) -> Generator[str]:
        head = self._head(body, "chat.completion.chunk")
        for word in (message["content"] or "").split(" "):
            choice = {"index": 0, "delta": {"role": "assistant", "content": f"{word} "}, "finish_reason": None}
            yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
        end: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield f"data: {json.dumps({**head, 'choices': [end]})}\n\n"
        usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

    # -- Anthropic --------------------------------------------------------------------------------------------------

    async def anthropic(self, request: Request) -> Response:
        body, reply = await self.answered(request)
        content: list[dict[str, Any]] = (
            [{"type": "text", "text": reply}]
            if isinstance(reply, str)
            else [
                {
                    "type": "tool_use",
                    "id": f"toolu_{len(self.requests)}_{i}",
                    "name": call.name,
                    "input": call.arguments,
                }
                for i, call in enumerate(reply)
            ]
        )
        return JSONResponse(
            {
                "id": f"msg_{len(self.requests)}",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": content,
                "stop_reason": "end_turn" if isinstance(reply, str) else "tool_use",
                "stop_sequence": None,
                "usage": {"input_tokens": 12, "output_tokens": 3},
            }
        )

    # -- Google -----------------------------------------------------------------------------------------------------

    async def google(self, request: Request) -> Response:
        _, reply = await self.answered(request)
        parts: list[dict[str, Any]] = (
            [{"text": reply}]
            if isinstance(reply, str)
            else [{"functionCall": {"name": call.name, "args": call.arguments}} for call in reply]
        )
        return JSONResponse(
            {
                "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 3, "totalTokenCount": 15},
                "modelVersion": "gemini",
            }
        )

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.openai, methods=["POST"]),
                Route("/v1/messages", self.anthropic, methods=["POST"]),
                Route("/v1beta/models/{rest:path}", self.google, methods=["POST"]),
            ]
        )


@contextmanager
def serving(reply: Callable[[dict[str, Any]], Reply]) -> Generator[FakeProvider]:
    """The server, on a port of its own, while the block runs."""
    provider = FakeProvider(reply)
    with running(provider.app) as provider.url:
        yield provider


@contextmanager
def running(app: Starlette) -> Generator[str]:
    """A server in a thread, on a port of its own, while the block runs; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    started = threading.Event()
    startup = server.startup

    async def starting(*args: Any, **kwargs: Any) -> None:
        await startup(*args, **kwargs)
        started.set()

    server.startup = starting
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(10), "the server does not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
