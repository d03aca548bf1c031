"""Servers that ask for the words of a language model: an agent answers. What it said is recorded, and asked for once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from flux.engine.invoke import invoke
from flux.engine.scope import Site
from flux.engine.spec import Call
from flux.errors import UnusableResult
from flux.schema import to_json_value
from flux.tasks.ai.agents import Agent, agent
from flux.tasks.mcp.questions import place_of

METHOD = "sampling/createMessage"

Sampling = Any
"""An agent, or a model as `agent(model=...)` takes it. A model is told what the server wants it to be told, an agent has its
own instructions, and gets the server's as context."""

_PLAIN = "You answer a program, not a person."


async def sampled(
    around: Site, sampling: Sampling, asked: Mapping[str, Any], *, key: str, server: str
) -> dict[str, Any]:
    """A `CreateMessageResult`. Raises what the agent raises; UnusableResult for what is no text."""
    messages = cast("list[Mapping[str, Any]]", asked.get("messages") or [])
    instruction = "\n\n".join(_said(each, is_alone=len(messages) == 1, server=server) for each in messages)
    if isinstance(sampling, Agent):
        worker, context = cast("Agent[Any]", sampling), str(asked.get("systemPrompt") or "")
    else:
        worker, context = _agent_for(sampling, asked, server), ""
    site = Site(around.scope, place_of(around.id, METHOD, key, instruction, context), around.file, around.line)
    answer = await invoke(Call(worker.spec, site, worker.name, (instruction, context), {}))
    return {
        "role": "assistant",
        "content": {"type": "text", "text": answer if isinstance(answer, str) else _json(answer)},
        "model": _name_of(worker.definition.model),
        "stopReason": "endTurn",
    }


def _agent_for(model: Any, asked: Mapping[str, Any], server: str) -> Agent[str]:
    stop: Any = asked.get("stopSequences")
    return agent(
        asked.get("systemPrompt") or _PLAIN,
        model=model,
        name=f"sampling for {server}",
        max_tokens=asked.get("maxTokens"),
        temperature=asked.get("temperature"),
        model_settings={"stop_sequences": stop} if stop else None,
    )


def _said(message: Mapping[str, Any], *, is_alone: bool, server: str) -> str:
    content: Any = message.get("content")
    blocks = cast("list[Mapping[str, Any]]", content if isinstance(content, list) else [content])
    strange = next((block.get("type") for block in blocks if block.get("type") != "text"), None)
    if strange is not None:
        raise UnusableResult(server, f"it asks a model about content of the type {strange!r}; agents take text")
    text = "\n".join(str(block.get("text", "")) for block in blocks)
    return text if is_alone else f"{message.get('role', 'user')}: {text}"


def _json(value: Any) -> str:
    return json.dumps(to_json_value(value), ensure_ascii=False)


def _name_of(model: Any) -> str:
    return model if isinstance(model, str) else str(getattr(model, "model_name", "unknown"))
