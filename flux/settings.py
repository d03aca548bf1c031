"""Settings: what a user may move from outside, by environment variables and command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from flux.errors import InvalidInput

Synchronous = Literal["full", "normal"]

MEMORY = ":memory:"
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`Settings.load()` reads FLUX_DATABASE, FLUX_SYNCHRONOUS, ...: one variable for each field, in capitals.

    `database` is an absolute path, ":memory:", or a URL of another kind of database. `synchronous` is SQLite's: "normal" is
    faster and may lose the last moments when the machine (not the process) dies. A run whose owner is silent for
    `lease_seconds` is taken over by another process, `max_recoveries` times at most. `poll_seconds` is how often the database is
    asked for what other processes did and for due timers. `task_threads` is how many plain `def` tasks run at once,
    0 for one per processor. A value whose JSON is longer than `inline_limit` characters is kept in a file beside the database.
    `worker_tags` say what this process has: it runs the workflows that need no more, and at most `concurrency` executions at
    once (None: no limit, 0: none), the rest is left to other processes. Executions are deleted `retention_days` after
    they have ended, by processes that recover; None keeps them for ever."""

    database: str
    synchronous: Synchronous = "full"
    lease_seconds: float = 15.0
    poll_seconds: float = 1.0
    max_recoveries: int = 10
    task_threads: int = 0
    inline_limit: int = 256 * 1024
    worker_tags: frozenset[str] = frozenset()
    concurrency: int | None = None
    retention_days: float | None = None

    @property
    def retention(self) -> float | None:
        """In seconds."""
        return None if self.retention_days is None else self.retention_days * 86_400

    @classmethod
    def load(cls, *, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Settings:
        """Overrides beat the environment, which beats the defaults. An override that is None was not given.

        Raises InvalidInput, which names every variable that does not fit."""
        values: dict[str, Any] = {}
        faults: list[tuple[str, str]] = []
        for field in fields(cls):
            variable = f"FLUX_{field.name.upper()}"
            override = overrides.pop(field.name, None)
            given, name = (override, field.name) if override is not None else (environ.get(variable), variable)
            if given is None or given == "":
                continue
            try:
                values[field.name] = _READERS[field.name](given)
            except ValueError as exc:
                faults.append((name, f"{exc}; got {given!r}"))
        if overrides:
            raise TypeError(f"no such setting: {', '.join(sorted(overrides))}")
        if faults:
            raise InvalidInput("a setting", faults)
        if "database" not in values:
            values["database"] = str(default_database())
        return cls(**values)


def default_database() -> Path:
    """In the user's data folder, which depends on the platform. Nothing is made by asking."""
    import platformdirs  # noqa: PLC0415 - start-up time: most say where their database is

    return platformdirs.user_data_path("flux", appauthor=False) / "flux.db"


def database_location(given: str | os.PathLike[str]) -> str:
    """Paths, and `sqlite:///` URLs too, as absolute paths: relative to the current folder, `~` is the home folder."""
    text = os.fspath(given)
    path = text.removeprefix(_SQLITE)
    if path in (MEMORY, "", "sqlite://", "memory://"):
        return MEMORY
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _number(least: float, *, above: bool = False, unit: str = "seconds") -> Callable[[Any], float]:
    def read(given: Any) -> float:
        try:
            number = float(given)
        except (TypeError, ValueError):
            raise ValueError(f"should be a number of {unit}") from None
        if not (number > least if above else number >= least) or number == float("inf"):
            raise ValueError(f"should be {'more than' if above else 'at least'} {least:g} {unit}")
        return number

    return read


def _count(given: Any) -> int:
    try:
        number = int(given)
    except (TypeError, ValueError):
        raise ValueError("should be a whole number") from None
    if number < 0:
        raise ValueError("should not be negative")
    return number


def _tags(given: Any) -> frozenset[str]:
    return frozenset(given.replace(",", " ").split() if isinstance(given, str) else given)


def _synchronous(given: Any) -> str:
    word = str(given).lower()
    if word not in get_args(Synchronous):
        raise ValueError("should be 'full' or 'normal'")
    return word


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "database": database_location,
    "synchronous": _synchronous,
    "lease_seconds": _number(0.1),
    "poll_seconds": _number(0, above=True),
    "max_recoveries": _count,
    "task_threads": _count,
    "inline_limit": _count,
    "worker_tags": _tags,
    "concurrency": _count,
    "retention_days": _number(0, above=True, unit="days"),
}
