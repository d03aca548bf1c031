"""What a server answered, as values that a workflow can keep.

The structured content, if there is any, is the value, as the server says it: `{"result": 3}` stays that. Otherwise one text is a
text (or the JSON that the output schema promises), and anything else a list of blocks."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flux.errors import ResultTooLarge, ToolExecutionError, UnusableResult
from flux.tasks.mcp.schemas import faults_in

Wire = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TextBlock:
    text: str


@dataclass(frozen=True, slots=True)
class ImageBlock:
    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True)
class AudioBlock:
    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceBlock:
    """What a resource holds: `text`, or `data` when it is binary."""

    uri: str
    mime_type: str | None = None
    text: str | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkBlock:
    """A resource to be read when it is needed: `await client.read_resource(link.uri)`."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None


Block = TextBlock | ImageBlock | AudioBlock | ResourceBlock | LinkBlock


@dataclass(frozen=True, slots=True)
class PromptMessage:
    role: str
    content: Block


@dataclass(frozen=True, slots=True)
class Prompt:
    description: str | None
    messages: list[PromptMessage]


class Results:
    """Makes values of the answers of one server. `most` is how many bytes of one are kept."""

    def __init__(self, server: str, most: int) -> None:
        self._server = server
        self._most = most

    def of_tool(self, tool: str, answer: Wire, output_schema: Mapping[str, Any] | None) -> Any:
        """Raises ToolExecutionError when the tool says that it failed, ResultTooLarge, UnusableResult."""
        self.check_size(f"tool {tool!r}", answer)
        blocks = [self._block(each) for each in cast("list[Wire]", answer.get("content") or [])]
        if answer.get("isError"):
            raise ToolExecutionError(tool, _said(blocks) or "it does not say why", self._server)
        if answer.get("structuredContent") is not None:
            return self._fitting(tool, answer["structuredContent"], output_schema)
        if not blocks:
            return None
        if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
            return self._text(tool, blocks[0].text, output_schema)
        return blocks

    def of_resource(self, uri: str, answer: Wire) -> list[ResourceBlock]:
        self.check_size(f"resource {uri!r}", answer)
        return [self._contents(each) for each in cast("list[Wire]", answer.get("contents") or [])]

    def of_prompt(self, name: str, answer: Wire) -> Prompt:
        self.check_size(f"prompt {name!r}", answer)
        messages = cast("list[Wire]", answer.get("messages") or [])
        return Prompt(
            answer.get("description"),
            [
                PromptMessage(str(each.get("role")), self._block(cast(Wire, each.get("content") or {})))
                for each in messages
            ],
        )

    def check_size(self, what: str, answer: Any) -> None:
        size = _size(answer)
        if size > self._most:
            raise ResultTooLarge(
                self._server,
                f"{what} answered about {size:,} bytes, and {self._most:,} are kept at most. Ask for less, or give mcp() a "
                "larger `max_result_bytes`.",
            )

    def _text(self, tool: str, text: str, output_schema: Mapping[str, Any] | None) -> Any:
        if output_schema is None:
            return text
        try:
            value = json.loads(text)
        except ValueError:
            raise UnusableResult(
                self._server,
                f"tool {tool!r} declares the form of its results, and answered with plain text: {text[:200]!r}",
            ) from None
        return self._fitting(tool, value, output_schema)

    def _fitting(self, tool: str, value: Any, output_schema: Mapping[str, Any] | None) -> Any:
        faults = faults_in(value, output_schema) if output_schema is not None else []
        if faults:
            found = "; ".join(f"{path or 'the result'}: {message}" for path, message in faults[:3])
            raise UnusableResult(
                self._server, f"tool {tool!r} answered what does not fit its own output schema: {found}"
            )
        return value

    def _block(self, block: Wire) -> Block:
        match block.get("type"):
            case "text":
                return TextBlock(str(block.get("text", "")))
            case "image":
                return ImageBlock(self._bytes(block.get("data")), str(block.get("mimeType", "")))
            case "audio":
                return AudioBlock(self._bytes(block.get("data")), str(block.get("mimeType", "")))
            case "resource":
                return self._contents(cast(Wire, block.get("resource") or {}))
            case "resource_link":
                return LinkBlock(
                    uri=str(block.get("uri", "")),
                    name=str(block.get("name", "")),
                    title=block.get("title"),
                    description=block.get("description"),
                    mime_type=block.get("mimeType"),
                    size=block.get("size"),
                )
            case _:
                return TextBlock(json.dumps(dict(block), ensure_ascii=False))

    def _contents(self, found: Wire) -> ResourceBlock:
        blob = found.get("blob")
        return ResourceBlock(
            uri=str(found.get("uri", "")),
            mime_type=found.get("mimeType"),
            text=found.get("text"),
            data=None if blob is None else self._bytes(blob),
        )

    def _bytes(self, text: Any) -> bytes:
        try:
            return base64.b64decode(str(text or ""), validate=False)
        except (binascii.Error, ValueError):
            raise UnusableResult(self._server, "binary content that is not base64") from None


def _said(blocks: list[Block]) -> str:
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock | ResourceBlock) and block.text)


def _size(value: Any) -> int:
    """About how many bytes of JSON it is, without writing it."""
    total, todo = 0, [value]
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            total += len(each) + 2
        elif isinstance(each, dict):
            todo += cast("dict[Any, Any]", each)
            todo += cast("dict[Any, Any]", each).values()
        elif isinstance(each, list):
            todo += cast("list[Any]", each)
        else:
            total += 8
    return total
