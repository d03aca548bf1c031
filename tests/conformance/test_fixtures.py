"""The server that the suites are run against starts, and has what they look for. The suites themselves need node: `make conformance`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

SERVE = Path(__file__).parent / "serve.py"


def test_the_conformance_server_serves_its_fixtures() -> None:
    with subprocess.Popen(
        [sys.executable, SERVE, "0"], cwd=SERVE.parents[2], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            url = server.stderr.readline().split()[-1]
            meta: dict[str, Any] = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            asked: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
            headers = {
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "tools/list",
            }
            tools = httpx.post(url, json=asked, headers=headers, timeout=20).json()["result"]["tools"]
            assert {"test_simple_text", "confirm_delete", "test_x_mcp_header"} <= {tool["name"] for tool in tools}
        finally:
            server.terminate()
