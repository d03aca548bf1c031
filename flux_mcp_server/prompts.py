"""Prompts: what users have declared with `@prompt`, as clients list, fill in and get it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import mcp_types as types
from mcp import MCPError

from flux_mcp_server._sdk import Context
from flux_mcp_server.declared import Declared, Prompt

Got = types.GetPromptResult | types.InputRequiredResult


def listed(declared: Declared) -> list[types.Prompt]:
    return [_listed(declared.prompts[name]) for name in sorted(declared.prompts)]


def _listed(prompt: Prompt) -> types.Prompt:
    arguments = [
        types.PromptArgument(name=name, required=parameter.default is parameter.empty)
        for name, parameter in prompt.parameters.items()
    ]
    return types.Prompt(
        name=prompt.name, title=prompt.title, description=prompt.description, arguments=arguments or None
    )


async def got(declared: Declared, _client: Context, params: types.GetPromptRequestParams) -> Got:
    """Raises MCPError for a prompt that is not there and for arguments that do not fit."""
    prompt = declared.prompts.get(params.name)
    if prompt is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt {params.name!r}.")
    given = dict(params.arguments or {})
    missing = [name for name, each in prompt.parameters.items() if each.default is each.empty and name not in given]
    unknown = sorted(given.keys() - prompt.parameters.keys())
    if missing or unknown:
        said = [f"{name} is required" for name in missing] + [f"{name} is not an argument" for name in unknown]
        raise MCPError(types.INVALID_PARAMS, f"Prompt {params.name!r}: {'; '.join(said)}.")
    more = {"answers": params.input_responses} if prompt.takes_answers else {}
    made = prompt.func(**given, **more)
    return _result(await made if inspect.isawaitable(made) else made, prompt.description)


def _result(made: Any, description: str | None) -> Got:
    if isinstance(made, types.GetPromptResult | types.InputRequiredResult):
        return made
    parts = cast("Sequence[Any]", made) if isinstance(made, list | tuple) else [made]
    return types.GetPromptResult(description=description, messages=[_message(part) for part in parts])


def _message(part: Any) -> types.PromptMessage:
    """A text or a content block is what the user says."""
    if isinstance(part, types.PromptMessage):
        return part
    content = types.TextContent(text=part) if isinstance(part, str) else part
    return types.PromptMessage(role="user", content=content)


def completed(declared: Declared, name: str, argument: str) -> Sequence[str]:
    prompt = declared.prompts.get(name)
    return () if prompt is None else prompt.choices.get(argument, ())
