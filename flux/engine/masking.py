"""Keeps secrets out of histories: once a run has fetched one, everything it writes down passes through here.

Errors, descriptions and progress are masked: nobody takes them for data. A value is refused instead, because a masked one would be
wrong."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote

from flux.domain.calls import Failure, Json
from flux.engine.ports import Codec
from flux.errors import NotStorable

MASK = "***"
SHORTEST = 4
"""Characters. What is shorter is found everywhere: to hide it would say what it is."""


def without(secrets: Mapping[str, str], codec: Codec) -> Codec:
    """A codec through which no secret passes."""
    known: dict[str, str] = {}
    if isinstance(codec, MaskingCodec):
        known, codec = codec.secrets, codec.inner
    return MaskingCodec(codec, {**known, **secrets})


def masked(value: Any, codec: Codec) -> Any:
    """What is told to people, without the secrets."""
    return codec.masked(value) if isinstance(codec, MaskingCodec) else value


class Pieces:
    """A text that is told in pieces. What may be the beginning of a secret is held back until the next piece decides."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, piece: str, codec: Codec) -> str:
        """What may be told by now."""
        if not isinstance(codec, MaskingCodec):
            return piece
        text = codec.masked(self._held + piece)
        self._held = codec.beginning(text)
        return text[: len(text) - len(self._held)]

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


class MaskingCodec:
    def __init__(self, inner: Codec, secrets: Mapping[str, str]) -> None:
        self.inner = inner
        self.secrets = dict(secrets)
        self._forms = {form: name for name, value in secrets.items() for form in _forms(value)}

    def encode(self, value: Any, *, owner: str, annotation: Any = None) -> Json:
        text = self.inner.encode(value, owner=owner, annotation=annotation)
        for form, name in self._forms.items():
            if form in text:
                reason = f"it contains the secret {name!r}, and a history is no place for secrets: leave it out of the value."
                raise NotStorable(owner, "", type(value).__qualname__, reason)
        return text

    def decode(self, text: Json, annotation: Any = None) -> Any:
        return self.inner.decode(text, annotation)

    def describe(self, value: Any, *, limit: int = 1024) -> tuple[str, Json]:
        _, text = self.inner.describe(value, limit=sys.maxsize)
        masked = self._masked(text)
        if masked == text:
            return self.inner.describe(value, limit=limit)
        # no digest: the secret may be another one when the call is replayed
        return "", Json(masked) if len(masked) <= limit else Json(json.dumps(MASK))

    def isolate(self, value: Any) -> Any:
        return self.inner.isolate(value)

    def encode_error(self, error: BaseException) -> Failure:
        return self._masked_failure(self.inner.encode_error(error))

    def decode_error(self, failure: Failure) -> BaseException:
        return self.inner.decode_error(failure)

    def masked(self, value: Any) -> Any:
        """The same value where it holds no secret. An object that does is hidden as a whole."""
        match value:
            case str():
                return self._masked(value)
            case dict():
                items = cast("dict[Any, Any]", value).items()
                return {self.masked(key): self.masked(item) for key, item in items}
            case list() | tuple():
                return [self.masked(item) for item in cast("list[Any]", value)]
            case None | bool() | int() | float():
                return value
            case _:
                _, text = self.inner.describe(value, limit=sys.maxsize)
                shown = f"{text} {value}"  # as a record, and as an object of some other kind
                return value if self._masked(shown) == shown else MASK

    def beginning(self, text: str) -> str:
        """The longest end of `text` with which a secret may begin."""
        longest = max(map(len, self._forms), default=1) - 1
        ends = (text[-length:] for length in range(min(longest, len(text)), 0, -1))
        return next((end for end in ends if any(form.startswith(end) for form in self._forms)), "")

    def _masked_failure(self, failure: Failure) -> Failure:
        return replace(
            failure,
            message=self._masked(failure.message),
            args=Json(self._masked(failure.args)),
            traceback=self._masked(failure.traceback),
            cause=None if failure.cause is None else self._masked_failure(failure.cause),
        )

    def _masked(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, MASK)
        return text


def _forms(secret: str) -> set[str]:
    """The ways in which a secret shows in text: as it is, in JSON, in `repr`, in a URL, in a header or as bytes."""
    if len(secret) < SHORTEST:
        return set()
    plain = secret.encode("utf-8", "surrogatepass")
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        repr(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(plain).decode("ascii").rstrip("="),
    }
