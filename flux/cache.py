"""Results of cached tasks: one small file each, beside the database, so that every process of it has them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

from flux.domain.calls import Json
from flux.secrets import write_private


class MemoryCache:
    def __init__(self) -> None:
        self._kept: dict[str, tuple[Json, float | None]] = {}

    async def get(self, key: str, *, now: float) -> Json | None:
        value, expires_at = self._kept.get(key, (None, None))
        return None if expires_at is not None and expires_at <= now else value

    async def put(self, key: str, value: Json, *, expires_at: float | None) -> None:
        self._kept[key] = value, expires_at

    async def clear(self) -> None:
        self._kept.clear()


class FileCache:
    """A file is replaced as a whole, so that a reader sees an old result or a new one and never half of one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, key: str, *, now: float) -> Json | None:
        return await asyncio.to_thread(self._read, key, now)

    async def put(self, key: str, value: Json, *, expires_at: float | None) -> None:
        await asyncio.to_thread(self._write, key, value, expires_at)

    async def clear(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _read(self, key: str, now: float) -> Json | None:
        try:
            kept = json.loads(self._path(key).read_text("ascii"))
            of, expires_at, value = kept["key"], kept["expires_at"], kept["value"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # nothing there, or nothing that can be trusted
        if of != key or (expires_at is not None and expires_at <= now):
            return None
        return Json(value)

    def _write(self, key: str, value: Json, expires_at: float | None) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": key, "expires_at": expires_at, "value": value})
        os.replace(write_private(path.parent, text.encode("ascii")), path)

    def _path(self, key: str) -> Path:
        name = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / f"{name}.json"
