"""What was sent to older clients over HTTP, for those whose stream is cut: they come back and ask for what they have missed."""

from __future__ import annotations

from collections import OrderedDict

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage

MOST_STREAMS = 1000
MOST_MESSAGES = 500  # of one stream


class Sent(EventStore):
    """The latest messages of the latest streams, in memory: the sessions they belong to end with the process, too."""

    def __init__(self) -> None:
        self._streams: OrderedDict[StreamId, list[tuple[int, JSONRPCMessage | None]]] = OrderedDict()
        self._last = 0

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._last += 1
        stream = self._streams.setdefault(stream_id, [])
        self._streams.move_to_end(stream_id)
        stream.append((self._last, message))
        del stream[:-MOST_MESSAGES]
        while len(self._streams) > MOST_STREAMS:
            self._streams.popitem(last=False)
        return f"{self._last}/{stream_id}"

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        number, _, stream_id = last_event_id.partition("/")
        stream = self._streams.get(stream_id)
        if stream is None or not number.isdecimal():
            return None
        for event, message in list(stream):
            if event > int(number) and message is not None:
                await send_callback(EventMessage(message, f"{event}/{stream_id}"))
        return stream_id
