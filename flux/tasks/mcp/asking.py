"""What is asked of a server, how far it has come, and how it goes over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import mcp_types as types
from mcp.client.session import ClientSession
from pydantic import TypeAdapter

from flux.domain.calls import Json
from flux.engine.ports import Codec
from flux.tasks.mcp.exchange import Send

Wire = dict[str, Any]
_wire: TypeAdapter[Any] = TypeAdapter(Wire)


class _Request(types.Request[Wire, str]):
    """Any request; what comes back is looked at here, whatever the SDK knows of it."""


class _TaskRequest(_Request):
    name_param = "taskId"


def request(method: str, params: Mapping[str, Any]) -> Send[Wire]:
    made = (_TaskRequest if method.startswith("tasks/") else _Request)(method=method, params=dict(params))

    async def send(session: ClientSession, progress: Any) -> Wire:
        answer: object = await session.send_request(made, _wire, progress_callback=progress)
        return cast(Wire, answer)

    return send


def task_request(params: Mapping[str, Any]) -> Send[Wire]:
    """A call of a tool that is to become a task of the protocol of 2025-11-25. The SDK would refuse the answer, having no
    place for it; so it goes by the dispatcher underneath, which is private."""

    async def send(session: ClientSession, progress: Any) -> Wire:
        dispatcher: Any = session._dispatcher  # pyright: ignore[reportPrivateUsage] - see above
        headers = {"mcp-protocol-version": session.protocol_version}
        options = {"on_progress": progress, "headers": headers}
        return cast(Wire, await dispatcher.send_raw_request("tools/call", {**params, "task": {}}, options))

    return send


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What to ask for. `safe`: it may be made twice. `owner` is the task's name, `what` the tool's, or what it is.
    `is_flux`: the server is one of ours, which gives handles for what takes long.
    `definition` is the tool as it was discovered."""

    server: str
    owner: str
    what: str
    method: Literal["tools/call", "resources/read", "prompts/get"]
    params: Wire
    safe: bool
    timeout: float | None
    key: str
    is_flux: bool = False
    definition: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """How far a request has come. `asked` are the questions of the last round, by key; `given` counts the answers that were
    handed back to questions which have no key of their own: each is used once. `task` and `handle` are the ids by which the
    server knows the work that it does for us; `old`: the task is one of the protocol of 2025-11-25."""

    round: int = 0
    sent: bool = False
    asked: Mapping[str, Wire] | None = None
    state: str | None = None
    links: bool = False
    given: int = 0
    task: str | None = None
    old: bool = False
    handle: str | None = None

    def text(self, codec: Codec) -> Json:
        told = {name: getattr(self, name) for name in self.__slots__}
        return codec.encode({name: value for name, value in told.items() if value}, owner="a note")

    @classmethod
    def read(cls, text: Json | None, codec: Codec) -> Note:
        return cls(**codec.decode(text)) if text else cls()
