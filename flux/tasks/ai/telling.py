"""What a model says while it says it, as progress: `{"token": ...}` and `{"reasoning": ...}`, without secrets."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic_ai.messages import (
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)

from flux.engine.masking import Pieces
from flux.engine.run import Run
from flux.engine.scope import require_scope


class Telling:
    """One reply, told in the name of `agent` by the call that makes the request."""

    def __init__(self, run: Run, agent: str) -> None:
        self._run = run
        self._agent = agent
        self._call = require_scope("An agent").call
        self._pieces: defaultdict[str, Pieces] = defaultdict(Pieces)

    def hear(self, event: Any) -> None:
        """A piece of the stream."""
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                self._add("token", text)
            case PartStartEvent(part=ThinkingPart(content=text)):
                self._add("reasoning", text)
            case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str() as text)):
                self._add("reasoning", text)
            case _:
                pass

    def end(self) -> None:
        for kind, pieces in self._pieces.items():
            self._tell(kind, pieces.rest())

    def break_off(self) -> None:
        """What was told is no reply: whoever shows it hears that it may come again, from its beginning."""
        if self._pieces:
            self._run.tell(self._agent, {"type": "broken_off"}, call=self._call)

    def _add(self, kind: str, text: str) -> None:
        self._tell(kind, self._pieces[kind].add(text, self._run.codec))

    def _tell(self, kind: str, text: str) -> None:
        if text:
            self._run.tell(self._agent, {kind: text}, call=self._call)
