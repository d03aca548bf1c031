"""Outputs that are content, not data: they reach the client as they are."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from flux import workflow
from tests.mcp.serving import ERAS, Era, client_of, serving

pytestmark = pytest.mark.anyio

PIXEL = "iVBORw0KGgo="


@workflow
async def picture() -> ImageContent:
    return ImageContent(data=PIXEL, mime_type="image/png")


@workflow
async def mixed() -> list[ContentBlock]:
    document = TextResourceContents(uri="memo://1", text="a memo")
    return [
        TextContent(text="see"),
        AudioContent(data=PIXEL, mime_type="audio/wav"),
        EmbeddedResource(resource=document),
        ResourceLink(name="more", uri="memo://2"),
    ]


@workflow
async def undeclared():
    return [TextContent(text="one"), TextContent(text="two")]


@workflow
async def whole() -> CallToolResult:
    return CallToolResult(content=[TextContent(text="seen")], structured_content={"seen": True}, _meta={"own": 1})


@pytest.mark.parametrize("era", ERAS)
async def test_content_blocks_reach_the_client_as_they_are(era: Era) -> None:
    every: list[Any] = [picture, mixed, undeclared, whole]
    async with serving(*every) as server, client_of(server, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["picture"].output_schema is None
        shown = await client.call_tool("picture")
        assert shown.content == [ImageContent(data=PIXEL, mime_type="image/png")]
        assert shown.meta is not None
        assert shown.meta["flux/status"] == "completed"
        kinds = [block.type for block in (await client.call_tool("mixed")).content]
        assert kinds == ["text", "audio", "resource", "resource_link"]
        assert len((await client.call_tool("undeclared")).content) == 2
        result = await client.call_tool("whole")
        assert result.structured_content == {"seen": True}
        assert result.meta is not None
        assert result.meta.keys() >= {"own", "flux/executionId"}


@workflow
async def novel() -> list[TextContent]:
    return [TextContent(text="a" * 40_000), TextContent(text="b" * 40_000), TextContent(text="c")]


@pytest.mark.parametrize("era", ERAS)
async def test_texts_that_a_workflow_returns_are_cut_where_clients_would_and_linked_to_as_a_whole(era: Era) -> None:
    async with serving(novel) as server, client_of(server, era) as client:
        *texts, link = (await client.call_tool("novel")).content
        assert all(isinstance(block, TextContent) for block in texts)
        sizes = [len(block.text) for block in texts if isinstance(block, TextContent)]
        assert sizes == [40_000, 10_000 + len(" ..."), len(" ...")]
        assert isinstance(link, ResourceLink)
        (whole,) = (await client.read_resource(link.uri)).contents
        assert isinstance(whole, TextResourceContents)
        assert "b" * 40_000 in whole.text
