"""An execution as a row of the table `executions`, the same in every SQL database: its owner, its lease, its place, its listing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flux.domain.execution import Status
from flux.domain.queues import Place
from flux.engine.ports import Lease, Listing, Owner

LISTING = """
SELECT id, workflow, status, created_at, updated_at, principal, parent, wake_at, key,
       queue, partition, priority, deduplication,
       owner_host, owner_pid, owner_started, owner_token FROM executions
"""
"""What `listing_from` reads."""


def listing_from(row: Sequence[Any]) -> Listing:
    queue, partition, priority, mark = row[9:13]
    return Listing(
        id=row[0],
        workflow=row[1],
        status=Status(row[2]),
        created_at=row[3],
        updated_at=row[4],
        principal=row[5],
        parent=row[6],
        wake_at=row[7],
        key=row[8],
        place=None if queue is None else Place(queue=queue, partition=partition, priority=priority, deduplication=mark),
        owner=owner_from(row[13:]),
    )


def owner_from(columns: Iterable[Any]) -> Owner | None:
    """The owner columns (host, pid, started, token) as an Owner."""
    host, pid, started, token = columns
    return Owner(host=host, pid=pid, started=started, token=token) if token is not None else None


def owner_columns(owner: Owner | None) -> tuple[Any, ...]:
    return (owner.host, owner.pid, owner.started, owner.token) if owner else (None, None, None, None)


def place_columns(place: Place | None) -> tuple[Any, ...]:
    """queue, partition, priority, deduplication."""
    return (place.queue, place.partition, place.priority, place.deduplication) if place else (None, None, 0, None)


def lease_columns(lease: Lease) -> tuple[str, int, str]:
    """id, epoch, token."""
    return lease.execution_id, lease.epoch, lease.owner.token
