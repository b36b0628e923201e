"""What people ask for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from aibenchd.store import schema, store


def add(
    tx: store.Transaction,
    *,
    repository: str,
    treatment: str,
    control: str,
    benchmarks: Sequence[str],
    devices: Sequence[str],
    priority: int,
    requested_by: str,
) -> int:
    """Ask for a comparison; its number. The planner takes it from there."""
    number: int = tx.connection.execute(
        schema.requests.insert()
        .values(
            repository=repository,
            treatment=treatment,
            control=control,
            benchmarks=list(benchmarks),
            devices=list(devices),
            priority=priority,
            state="new",
            requested_by=requested_by,
            created_at=datetime.now(UTC),
        )
        .returning(schema.requests.c.id)
    ).scalar_one()
    tx.announce("request.new", id=number, repository=repository, treatment=treatment)
    return number
