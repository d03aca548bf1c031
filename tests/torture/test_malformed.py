"""What no client should send: the server answers or ignores it, and goes on."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mcp.serving import stdio_parameters
from tests.mcp.test_http import HELLO_HEADERS, SERVED, http_server, port_of
from tests.torture.forms import size

pytestmark = pytest.mark.timeout(size(120, 900))

HELLO: dict[str, Any] = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "t", "version": "0"},
}
VALUES: list[Any] = [None, True, -1, 1e308, 10**400, "", "\ud800", "\0", "x" * 5000, [], {}, [[[[]]]], {"a": {"b": []}}]
METHODS = [
    *("initialize", "ping", "tools/list", "tools/call", "resources/read", "resources/list", "prompts/get", "tasks/get"),
    *("completion/complete", "logging/setLevel", "notifications/cancelled", "notifications/progress", "nonsense", ""),
]


def frame(chance: random.Random) -> bytes:
    """One line: noise, a message cut short, or one whose parts are not what they should be."""
    match chance.randrange(4):
        case 0:
            return bytes(byte for byte in chance.randbytes(chance.randrange(1, 200)) if byte != 10)
        case 1:
            whole = json.dumps(message(chance)).encode()
            return whole[: chance.randrange(len(whole))]
        case 2:
            return json.dumps(chance.choice(VALUES)).encode()
        case _:
            return json.dumps(message(chance)).encode()


def message(chance: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": chance.randrange(1000),
        "method": chance.choice(METHODS),
        "params": {},
    }
    for key in ("jsonrpc", "id", "method", "params"):
        if not chance.randrange(4):
            made[key] = deepcopy(chance.choice(VALUES))
    params: Any = made["params"]
    if isinstance(params, dict):
        for key in ("name", "arguments", "uri", "_meta", "cursor", "requestId", "ref", "argument", "taskId", "level"):
            if not chance.randrange(3):
                params[key] = deepcopy(chance.choice(VALUES))
    return {key: value for key, value in made.items() if chance.randrange(12)}


def test_no_frame_on_stdio_ends_the_server(tmp_path: Path) -> None:
    chance = random.Random(0)
    server = stdio_parameters(SERVED, folder=tmp_path)
    process = subprocess.Popen(
        [server.command, *server.args],
        env=server.env,
        cwd=server.cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answered = threading.Event()

    def read(stdout: Any) -> None:
        for line in stdout:
            assert json.loads(line)["jsonrpc"] == "2.0"
            if b'"the last"' in line:
                answered.set()

    reading = threading.Thread(target=read, args=(process.stdout,), daemon=True)
    reading.start()
    try:
        hello = {"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": HELLO}
        process.stdin.write(json.dumps(hello).encode() + b"\n")
        for _ in range(size(3_000, 100_000)):
            process.stdin.write(frame(chance) + b"\n")
        process.stdin.write(b'{"jsonrpc": "2.0", "id": "the last", "method": "ping"}\n')
        process.stdin.flush()
        assert answered.wait(size(90, 800)), "the server does not answer any more"
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_no_body_over_http_ends_the_server(tmp_path: Path) -> None:
    chance = random.Random(1)
    with http_server(tmp_path) as (running, url), httpx.Client(headers=HELLO_HEADERS, timeout=30) as client:
        for number in range(size(150, 5_000)):
            headers = {
                "Content-Type": chance.choice(["application/json", "text/plain", ""]),
                "Mcp-Session-Id": f"{number}",
            }
            with client.stream(
                chance.choice(["POST", "POST", "PUT"]), url, content=frame(chance), headers=headers
            ) as answer:
                assert answer.status_code < 500
        for _ in range(size(20, 500)):
            with socket.create_connection(("127.0.0.1", port_of(url))) as line:
                line.sendall(chance.randbytes(chance.randrange(1, 300)))
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
        assert client.post(url, json=hello).status_code == 200
        assert running.poll() is None
