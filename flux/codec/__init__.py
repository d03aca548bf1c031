"""Values as text and back, exactly.

The text is compact ASCII JSON. What JSON has itself stays plain, so that a history can be read; everything else is a small
object with a tag, `{"$":"tuple","v":[1,2]}`. A user's dict that has a "$" key, or keys that are not text, is written as
`{"$":"dict","v":[[key,value],...]}`, so a "$" is always a tag.

A value is stored exactly or refused: no subclass is cut down to its base, nothing goes through `str`. Models and dataclasses
are taken apart and put together field by field, without running their validators or `__init__`: both may change a value
that has been through them once already. Places in a value are written `.items[2].name`, as in Python, from the value itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, cast

from flux.codec import reading, writing
from flux.codec.classes import Kind, name_of
from flux.codec.failures import error_of, failure_of, text_of
from flux.codec.isolation import isolate
from flux.codec.writing import Node, Writing, dumps, dumps_sorted, encode_facts
from flux.domain.calls import Failure, Json


class JsonCodec:
    """Implements the engine's `Codec` port. It keeps nothing: one serves a whole process."""

    def encode(self, value: Any, *, owner: str, annotation: Any = None) -> Json:
        return writing.encode(value, owner=owner, annotation=annotation)

    def decode(self, text: Json, annotation: Any = None) -> Any:
        return reading.decode(text, annotation)

    def describe(self, value: Any, *, limit: int = 1024) -> tuple[str, Json]:
        """The digest does not depend on the order of dicts and sets. The copy has a "…" wherever something was left out;
        a `limit` below 8 counts as 8."""
        try:
            node = _Describing().node(value)
            whole = dumps_sorted(node)
        except Exception:  # noqa: BLE001 - a value's own code may raise anything, and a description never fails
            node = _opaque(value)
            whole = dumps(node)
        digest = blake2b(whole.encode("ascii"), digest_size=8).hexdigest()
        return digest, Json(_in_given_order(node, whole) if len(whole) <= limit else _cut_to(node, limit))

    def isolate(self, value: Any) -> Any:
        return isolate(value)

    def encode_error(self, error: BaseException) -> Failure:
        return failure_of(error, encode=encode_facts, decode=reading.decode)

    def decode_error(self, failure: Failure) -> BaseException:
        return error_of(failure, decode=reading.decode)


# -- describing -------------------------------------------------------------------------------------------------------


class _Describing(Writing):
    """The same for values that are only looked at: nothing is refused."""

    def refuse(self, value: object, reason: str) -> Node:
        return _opaque(value)

    def ref(self, value: object, kind: Kind) -> Node:
        return name_of(type(value))

    def unordered(self, values: Mapping[Any, Any]) -> list[Node]:
        return sorted(self.pairs(values), key=dumps_sorted)

    def error(self, error: BaseException) -> Node:
        return {"$": "error", "c": name_of(type(error)), "v": text_of(error)}


def _in_given_order(node: Node, in_order: str) -> str:
    """The text of a node that is known with sorted keys. Most calls have one argument, where there is nothing to be sorted."""
    is_sorted = isinstance(node, dict) and len(cast("dict[str, Node]", node)) == 1 and "{" not in in_order[1:]
    return in_order if is_sorted else dumps(node)


def _opaque(value: object) -> Node:
    return {"$": "opaque", "c": name_of(type(value))}


def _cut_to(node: Node, limit: int) -> str:
    """The most of a node that fits into `limit` characters of JSON."""
    for cut in _CUTS:
        text = dumps(cut.node(node, cut.depth))
        if len(text) <= limit:
            return text
    return dumps("…")


@dataclass(frozen=True, slots=True)
class _Cut:
    """How much is kept: characters of a text, members of a container, containers inside each other."""

    length: int
    items: int
    depth: int

    def node(self, node: Node, depth: int) -> Node:
        match node:
            case str():
                return self.text(node)
            case int() if node.bit_length() > 4 * self.length:
                return "…"
            case dict() | list() if depth == 0:
                return "…"
            case dict():
                return self.members(cast("dict[str, Node]", node), depth - 1)
            case list():
                return self.sequence(cast("list[Node]", node), depth - 1)
            case _:
                return node

    def text(self, text: str) -> str:
        return text if len(text) <= self.length else text[: self.length] + "…"

    def members(self, nodes: dict[str, Node], depth: int) -> Node:
        kept = {self.text(name): self.node(node, depth) for name, node in islice(nodes.items(), self.items)}
        return kept if len(nodes) <= self.items else {**kept, "…": f"{len(nodes) - self.items} more"}

    def sequence(self, nodes: list[Node], depth: int) -> Node:
        kept = [self.node(node, depth) for node in nodes[: self.items]]
        return kept if len(nodes) <= self.items else [*kept, f"… {len(nodes) - self.items} more"]


_CUTS = (_Cut(400, 40, 8), _Cut(120, 12, 5), _Cut(40, 6, 4), _Cut(20, 4, 3), _Cut(8, 2, 2))
