"""Values that are too large for a history, or belong elsewhere: kept in files, and read when somebody looks at them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from flux.codec import JsonCodec
from flux.domain import events as facts
from flux.domain.calls import Json
from flux.domain.events import Event
from flux.engine.ports import Lease, Store
from flux.engine.tags import KEPT, REDACTED, SPILLED, tag_of, tagged, untagged
from flux.errors import ExecutionNotFound, NotReadable, StoreError
from flux.secrets import write_private
from flux.settings import MEMORY, Settings, default_database


class InlineOutputStorage:
    """The history itself: what a task has without the option."""

    name = "inline"

    async def store(self, key: str, value: Json) -> str:
        return value

    async def retrieve(self, reference: str) -> Json:
        return Json(reference)

    async def delete(self, reference: str) -> None: ...


class LocalFileStorage:
    """Files in a folder, each named by the digest of what is in it: the same value is kept once, and a file that has been
    changed is found out. Without a folder they are beside the database."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, name: str = "local_file") -> None:
        self._given = folder
        self._name = name

    @property
    def folder(self) -> Path:
        if self._given is not None:
            return Path(self._given)
        database = Settings.load().database
        return default_database().with_name("outputs") if database == MEMORY else Path(f"{database}.outputs")

    @property
    def name(self) -> str:
        return self._name

    async def store(self, key: str, value: Json) -> str:
        return await asyncio.to_thread(self.write, value)

    async def retrieve(self, reference: str) -> Json:
        return await asyncio.to_thread(self.read, reference)

    async def delete(self, reference: str) -> None:
        self._path(reference).unlink(missing_ok=True)

    def write(self, value: Json) -> str:
        """Keep a value, on disk on return, and return its digest."""
        content = value.encode()
        reference = sha256(content).hexdigest()
        path = self._path(reference)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(write_private(path.parent, content), path)
            for folder in (path.parent, self.folder):  # the names have to be durable, too
                _sync(folder)
        return reference

    def read(self, reference: str) -> Json:
        path = self._path(reference)
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise NotReadable(f"A stored value is gone: the file {path} cannot be read ({exc.strerror}).") from exc
        if sha256(content).hexdigest() != reference:
            raise NotReadable(f"A stored value is damaged: the file {path} is not what was written.")
        return Json(content.decode())

    async def stream(self, reference: str, *, size: int = 1 << 16) -> AsyncGenerator[bytes]:
        """The stored text (JSON, UTF-8) in pieces of at most `size` bytes, for what does not fit into memory. Raises
        NotReadable, at the end when the file has been changed."""
        path, digest = self._path(reference), sha256()
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError as exc:
            raise NotReadable(f"A stored value is gone: the file {path} cannot be read ({exc.strerror}).") from exc
        with file:
            while piece := await asyncio.to_thread(file.read, size):
                digest.update(piece)
                yield piece
        if digest.hexdigest() != reference:
            raise NotReadable(f"A stored value is damaged: the file {path} is not what was written.")

    def _path(self, reference: str) -> Path:
        if not reference.isalnum():
            raise NotReadable(f"{reference!r} is no reference of {self.name!r}.")
        return self.folder / reference[:2] / f"{reference}.json"


def _sync(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# -- values spilled from histories -----------------------------------------------------------------------------------------


class SpilledValues:
    """A folder for each execution, so that they go together: named by a digest, because an id may be any text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, execution_id: str, value: Json) -> Json:
        """Keep a value, on disk on return, and return what stands for it."""
        home = _home(execution_id)
        try:
            if not (self._folder / home / LABEL).exists():
                self._found(home, execution_id)
            return tagged(SPILLED, f"{home}/{self._of(home).write(value)}")
        except OSError as exc:
            raise StoreError(f"A large value could not be written to {self._folder}: {exc}.") from exc

    def own(self, execution_id: str, value: Json) -> Json:
        """What stands for the same value in the folder of this execution: each has to last as long as its own history."""
        if untagged(SPILLED, value).startswith(f"{_home(execution_id)}/"):
            return value
        return self.write(execution_id, self.read(value))

    def _found(self, home: str, execution_id: str) -> None:
        folder = self._folder / home
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(write_private(folder, json.dumps(execution_id).encode("ascii")), folder / LABEL)
        for above in (self._folder, self._folder.parent):
            _sync(above)

    def inlined(self, event: Event) -> Event:
        """The fact with its value in itself. Raises NotReadable."""
        if not _is_spilled(event):
            return event
        field = _VALUES[type(event)]
        return replace(cast(Any, event), **{field: self.read(getattr(event, field))})

    def read(self, value: Json) -> Json:
        """Raises NotReadable."""
        home, _, reference = untagged(SPILLED, value).partition("/")
        if not home.isalnum():
            raise NotReadable(f"{home!r} is no place of a value.")
        return self._of(home).read(reference)

    def homes(self) -> Iterator[tuple[str, Path]]:
        """The executions that have values here, with the folder of each; not those of the last moments, which may not be
        in the database yet."""
        for label in self._folder.glob(f"*/{LABEL}"):
            if time.time() - label.stat().st_mtime > YOUNG:
                yield cast(str, json.loads(label.read_text("ascii"))), label.parent

    def _of(self, home: str) -> LocalFileStorage:
        return LocalFileStorage(self._folder / home)


def _home(execution_id: str) -> str:
    return sha256(execution_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class SpillingStore:
    """A store whose facts hold references instead of the values that are longer than `limit`. The files are on disk before
    the facts are. Everything else is the store's own."""

    def __init__(self, store: Store, values: SpilledValues, *, limit: int) -> None:
        self._store = store
        self._values = values
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, id: str, events: Sequence[Event], **rest: Any) -> Lease | None:
        if any(_is_spilled(event) for event in events):  # of a fork, which shares its beginning with another execution
            events = await asyncio.to_thread(lambda: [self._owned(id, event) for event in events])
        return await self._store.create(id, await self._small(id, events), **rest)

    async def append(self, id: str, events: Sequence[Event], **rest: Any) -> None:
        await self._store.append(id, await self._small(id, events), **rest)

    async def post(self, id: str, events: Sequence[Event], **rest: Any) -> None:
        await self._store.post(id, await self._small(id, events), **rest)

    async def prune(self, *, before: float) -> int:
        count = await self._store.prune(before=before)
        for id, folder in list(self._values.homes()):
            try:
                await self._store.last(id)
            except ExecutionNotFound:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return count

    async def _small(self, id: str, events: Sequence[Event]) -> Sequence[Event]:
        if not any(self._is_large(event) for event in events):
            return events
        return await asyncio.to_thread(lambda: [self._spilled(id, event) for event in events])

    def _is_large(self, event: Event) -> bool:
        field = _VALUES.get(type(event))
        value = getattr(event, field) if field else None
        # what is sealed stays where it is: nobody could tell from a reference that it must not be shown
        return value is not None and len(value) > self._limit and tag_of(value) is None

    def _spilled(self, id: str, event: Event) -> Event:
        if not self._is_large(event):
            return event
        field = _VALUES[type(event)]
        return replace(cast(Any, event), **{field: self._values.write(id, getattr(event, field))})

    def _owned(self, id: str, event: Event) -> Event:
        if not _is_spilled(event):
            return event
        field = _VALUES[type(event)]
        return replace(cast(Any, event), **{field: self._values.own(id, getattr(event, field))})


def _is_spilled(event: Event) -> bool:
    field = _VALUES.get(type(event))
    value = getattr(event, field) if field else None
    return value is not None and tag_of(value) == SPILLED


LABEL = "execution.json"
YOUNG = 3600.0  # seconds

_VALUES: Mapping[type[Event], str] = {
    facts.ExecutionStarted: "input",
    facts.ExecutionCompleted: "output",
    facts.PauseOpened: "output",
    facts.PauseAnswered: "answer",
    facts.CallReturned: "value",
}


# -- what people see of a value that is not in the history ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReference:
    """A result that a task keeps in a storage of its own: where, and under what."""

    storage: str
    reference: str


class StoredCodec(JsonCodec):
    """Reads what stands for a value, too: a spilled value is fetched when it is looked at, a sensitive one stays unread."""

    def __init__(self, values: SpilledValues | None = None) -> None:
        self._values = values

    def decode(self, text: Json, annotation: Any = None) -> Any:
        match tag_of(text):
            case None:
                return super().decode(text, annotation)
            case "sealed":
                return REDACTED
            case "kept":
                storage, _, reference = untagged(KEPT, text).partition(":")
                return OutputReference(storage=storage, reference=reference)
            case "spilled":
                return super().decode(self._fetched(text), annotation)

    def _fetched(self, text: Json) -> Json:
        if self._values is None:
            raise NotReadable("A large value is in a file beside its database, which is not the one that is open here.")
        return self._values.read(text)
