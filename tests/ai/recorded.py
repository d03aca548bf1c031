"""A provider on this machine that says what stands in `wire/<provider>`: whole replies in `.json`, streamed ones in `.sse`, an error
in a file that is named by its status."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.ai.fake_openai import running
from tests.ai.legal import fault

WIRE = Path(__file__).parent / "wire"


@dataclass
class Recorded:
    """It says the files in `first`, one after the other, by their names without endings; then the file whose number is that of
    the turn, as often as it is asked. `requests` are the bodies that came."""

    folder: Path
    first: list[str]
    requests: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    url: str = ""

    async def answer(self, request: Request) -> Response:
        body = {**await request.json(), "path": request.url.path}
        self.requests.append(body)
        if found := fault(body["path"], body):
            return JSONResponse({"error": {"message": found}}, 400)
        name = self.first.pop(0) if self.first else _turn(body)
        if name.isdigit() and len(name) == 3:
            headers = {"retry-after": "0", "x-should-retry": "false"}  # it is Flux that tries again, not the client
            return Response(self._read(f"{name}.json"), int(name), headers, "application/json")
        if body.get("stream") or "streamGenerateContent" in body["path"]:
            return Response(self._read(f"{name}.sse"), media_type="text/event-stream")
        return Response(self._read(f"{name}.json"), media_type="application/json")

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def _turn(body: dict[str, Any]) -> str:
    said = [turn["role"] for turn in body.get("messages") or body["contents"]]
    return str(1 + said.count("assistant") + said.count("model"))


@contextmanager
def replaying(provider: str, *first: str) -> Generator[Recorded]:
    recorded = Recorded(WIRE / provider, list(first))
    app = Starlette(routes=[Route("/{path:path}", recorded.answer, methods=["POST"])])
    with running(app) as recorded.url:
        yield recorded
