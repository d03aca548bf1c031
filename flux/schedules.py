"""When a workflow starts by itself: by a cron expression, at an interval, or once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from flux.errors import DefinitionError

Overlap = Literal["skip", "allow"]
Missed = Literal["latest", "all", "skip"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`overlap` says what happens when the run before has not ended: "skip" the new one, or "allow" both. `missed` says
    what becomes of starts that came while no server ran: only the "latest", "all" of them, or none ("skip"). `input` is
    what each run is given."""

    timezone: str = "UTC"
    overlap: Overlap = "skip"
    missed: Missed = "latest"
    input: Any = None

    def __post_init__(self) -> None:
        if self.overlap not in ("skip", "allow") or self.missed not in ("latest", "all", "skip"):
            raise DefinitionError('A schedule has overlap="skip" or "allow", and missed="latest", "all" or "skip".')
        _ = self.zone

    @cached_property
    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as exc:
            raise DefinitionError(
                f"Schedule: no time zone {self.timezone!r}; use a name such as 'Europe/Berlin' or 'UTC'."
            ) from exc

    def next_after(self, moment: float) -> float | None:
        """The first start after `moment`, both in seconds since the epoch; None when there is none any more."""
        raise NotImplementedError

    def _local(self, moment: datetime) -> datetime:
        """A time without a zone is meant in the schedule's."""
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=self.zone)


@dataclass(frozen=True, kw_only=True)
class Cron(Schedule):
    expression: str

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            CronSim(self.expression, datetime.now(UTC))
        except CronSimError as exc:
            raise DefinitionError(f"Schedule: {self.expression!r} is no cron expression: {exc}.") from exc

    def next_after(self, moment: float) -> float | None:
        times = CronSim(self.expression, datetime.fromtimestamp(moment, self.zone))
        following = next(times, None)
        return None if following is None else following.timestamp()


@dataclass(frozen=True, kw_only=True)
class Interval(Schedule):
    every: timedelta
    start_time: datetime | None = None
    end_time: datetime | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every <= timedelta(0):
            raise DefinitionError("Schedule: an interval is longer than nothing.")

    def next_after(self, moment: float) -> float | None:
        start = 0.0 if self.start_time is None else self._local(self.start_time).timestamp()
        every = self.every.total_seconds()
        following = start if moment < start else start + ((moment - start) // every + 1) * every
        over = self.end_time is not None and following > self._local(self.end_time).timestamp()
        return None if over else following


@dataclass(frozen=True, kw_only=True)
class Once(Schedule):
    run_time: datetime

    def next_after(self, moment: float) -> float | None:
        at = self._local(self.run_time).timestamp()
        return at if at > moment else None


def cron(
    expression: str,
    *,
    timezone: str = "UTC",
    overlap: Overlap = "skip",
    missed: Missed = "latest",
    input: Any = None,
) -> Schedule:
    """Start at the times of a cron expression, in the time of a zone: where clocks change, a time that does not exist is
    made up for, and one that comes twice counts once."""
    return Cron(expression=expression, timezone=timezone, overlap=overlap, missed=missed, input=input)


def interval(
    *,
    seconds: float = 0,
    minutes: float = 0,
    hours: float = 0,
    days: float = 0,
    weeks: float = 0,
    timezone: str = "UTC",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    overlap: Overlap = "skip",
    missed: Missed = "latest",
    input: Any = None,
) -> Schedule:
    """Start again and again after a fixed time, from `start_time` to `end_time` (without a zone: in `timezone`)."""
    return Interval(
        every=timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days, weeks=weeks),
        timezone=timezone,
        start_time=start_time,
        end_time=end_time,
        overlap=overlap,
        missed=missed,
        input=input,
    )


def once(run_time: datetime, *, timezone: str = "UTC", missed: Missed = "latest", input: Any = None) -> Schedule:
    """Start a single time; `run_time` without a zone is meant in `timezone`."""
    return Once(run_time=run_time, timezone=timezone, missed=missed, input=input)
