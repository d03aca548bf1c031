"""What the providers demand of the history in a request. They answer 400 where it is not so, and so do the servers of our tests."""

from __future__ import annotations

import json
from typing import Any

Body = dict[str, Any]


def fault(path: str, body: Body) -> str | None:
    """What is wrong with the conversation in a request to this path; None when nothing is."""
    if path.endswith("/chat/completions"):
        return _openai(body["messages"])
    if path.endswith("/messages"):
        return _anthropic(body["messages"])
    return _google(body["contents"])


def _openai(messages: list[Body]) -> str | None:
    open_calls: list[str] = []
    said = [message for message in messages if message["role"] not in ("system", "developer")]
    if said[0]["role"] != "user":
        return f"the conversation begins with {said[0]['role']}"
    for message in said:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                return f"a result without a call: {message['tool_call_id']}"
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return f"calls without a result: {open_calls}"
        for call in message.get("tool_calls", ()):
            if not isinstance(json.loads(call["function"]["arguments"]), dict):
                return f"the arguments of {call['id']} are no object"
            open_calls.append(call["id"])
    return f"calls without a result: {open_calls}" if open_calls else None


def _anthropic(messages: list[Body]) -> str | None:
    open_calls: list[str] = []
    if messages[0]["role"] != "user":
        return "the conversation begins with the assistant"
    for message in messages:
        blocks = _blocks(message["content"])
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(open_calls):
            return f"calls {open_calls}, but results {results}"
        if results and kinds[: len(results)] != ["tool_result"] * len(results):
            return "results have to stand first"
        if not blocks or any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return "empty content"
        if any(block["type"] == "tool_use" and not isinstance(block["input"], dict) for block in blocks):
            return "the input of a call is no object"
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if open_calls and message["role"] != "assistant":
            return "the user calls a tool"
    return f"calls without a result: {open_calls}" if open_calls else None


def _blocks(content: str | list[Body]) -> list[Body]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _google(contents: list[Body]) -> str | None:
    open_calls: list[str] = []
    before = "model"
    for content in contents:
        if content["role"] == before:
            return f"two turns of {before}"
        results = [part["functionResponse"]["name"] for part in content["parts"] if "functionResponse" in part]
        if results != open_calls:
            return f"calls {open_calls}, but results {results}"
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        if any(not isinstance(call.get("args", {}), dict) for call in calls):
            return "the args of a call are no object"
        open_calls = [call["name"] for call in calls]
        before = content["role"]
    return f"calls without a result: {open_calls}" if open_calls else None
