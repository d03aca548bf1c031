"""The MCP face of Flux: every workflow it finds becomes a tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux_mcp_server.declared import prompt, resource

__all__ = ["prompt", "resource"]


def __getattr__(name: str) -> Any:
    """`prompt` and `resource`, when they are asked for: on stdio nothing may be loaded before the descriptors are claimed."""
    if name in __all__:
        from flux_mcp_server import declared  # noqa: PLC0415 - for the reason above

        return getattr(declared, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
