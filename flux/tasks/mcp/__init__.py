"""`mcp()`: the tools of other MCP servers as durable steps."""

from flux.tasks.mcp.auth import Auth, bearer, oauth
from flux.tasks.mcp.client import MCPClient, mcp
from flux.tasks.mcp.results import (
    AudioBlock,
    Block,
    ImageBlock,
    LinkBlock,
    Prompt,
    PromptMessage,
    ResourceBlock,
    TextBlock,
)
from flux.tasks.mcp.tools import NoSuchTool, Tool, ToolSet

__all__ = [
    "AudioBlock",
    "Auth",
    "Block",
    "ImageBlock",
    "LinkBlock",
    "MCPClient",
    "NoSuchTool",
    "Prompt",
    "PromptMessage",
    "ResourceBlock",
    "TextBlock",
    "Tool",
    "ToolSet",
    "bearer",
    "mcp",
    "oauth",
]
