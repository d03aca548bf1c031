"""Structured output: how a model is told the form of its answer, and how the answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from flux import schema
from flux.errors import InvalidInput, ModelRefused

OUTPUT_TOOL = "final_result"
WRAPPED = "response"
"""The one property of an answer that is no object: providers want an object at the root."""

_FORM_WORDS: Mapping[str, Sequence[str]] = {
    "native": ("response_format", "json_schema", "output_config", "responseJsonSchema"),
    "tool": ("tool_choice", "does not support tools"),
}
"""By which a refusal is known to be about the way in which a form was asked for: not every server knows what OpenAI knows."""

_FENCED = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


def is_about_form(said: str) -> bool:
    return any(word in said for words in _FORM_WORDS.values() for word in words)


class Output:
    """The form of an answer: text when there is no `type`."""

    def __init__(self, type: schema.ValueType | None) -> None:
        self._type = type
        described = {} if type is None else type.json_schema()
        self._wrapped = type is not None and not (described.get("type") == "object" and "properties" in described)
        self._schema = schema.object_with(WRAPPED, described) if self._wrapped else described

        self._refused: set[str] = set()

    @property
    def is_text(self) -> bool:
        return self._type is None

    def parameters(self, model: Model[Any], tools: list[ToolDefinition]) -> ModelRequestParameters:
        """The request's parameters: natively where the model can, by a tool otherwise, by words where it has no tools."""
        if self._type is None:
            return ModelRequestParameters(function_tools=tools)
        profile = model.profile
        together = model.system != "google" or not tools or profile.get("google_supports_tool_combination", False)
        if profile.get("supports_json_schema_output", False) and together and "native" not in self._refused:
            return ModelRequestParameters(
                function_tools=tools, output_mode="native", output_object=self._object(), allow_text_output=True
            )
        if profile.get("supports_tools", True) and "tool" not in self._refused:
            tool = ToolDefinition(
                name=OUTPUT_TOOL,
                description="Give the final answer, in this form. It ends the conversation.",
                parameters_json_schema=self._schema,
                kind="output",
            )
            return ModelRequestParameters(
                function_tools=tools, output_mode="tool", output_tools=[tool], allow_text_output=False
            )
        return ModelRequestParameters(
            function_tools=tools, output_mode="prompted", output_object=self._object(), allow_text_output=True
        )

    def falls_back(self, mode: str, refusal: ModelRefused) -> bool:
        """Whether to ask for the form in another way than this one, which the server turns out not to know."""
        if mode in self._refused or not any(word in str(refusal) for word in _FORM_WORDS.get(mode, ())):
            return False
        self._refused.add(mode)
        return True

    def _object(self) -> OutputObjectDefinition:
        return OutputObjectDefinition(json_schema=self._schema, name=OUTPUT_TOOL)

    def call_in(self, response: ModelResponse) -> ToolCallPart | None:
        """The call of the output tool."""
        calls = (part for part in response.parts if isinstance(part, ToolCallPart))
        return None if self.is_text else next((part for part in calls if part.tool_name == OUTPUT_TOOL), None)

    def read(self, response: ModelResponse) -> Any:
        """The answer. Raises InvalidInput, which says what does not fit."""
        call = self.call_in(response)
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        if self._type is None:
            if not text.strip():
                raise InvalidInput("The answer", [("", "it is empty")])
            return text
        return self._checked(self._parsed(text) if call is None else self._parsed(call.args))

    def _parsed(self, given: Any) -> Any:
        if not isinstance(given, str):
            return given or {}
        fenced = _FENCED.match(given)
        try:
            return json.loads(fenced[1] if fenced else given)
        except (ValueError, RecursionError) as exc:
            raise InvalidInput("The answer", [("", f"it is no JSON: {exc}")]) from None

    def _checked(self, value: Any) -> Any:
        assert self._type is not None, "a text needs no check"
        if self._wrapped and isinstance(value, dict) and WRAPPED in value:
            value = cast("dict[str, Any]", value)[WRAPPED]
        return self._type.validate(value, "The answer")

    def correction(self, fault: InvalidInput) -> str:
        if self._type is None:
            return f"{fault}\nGive your answer as text."
        asked = json.dumps(self._schema, ensure_ascii=False)
        return f"{fault}\nAnswer again, in JSON that fits this schema and nothing else: {asked}"
