"""What people ask for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from aibenchd.store import schema, store

OLDEST = 100  # requests that are planned in one go


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


def new(connection: sa.Connection) -> Sequence[sa.Row[tuple[object, ...]]]:
    """What people asked for and has not been planned yet, oldest first."""
    table = schema.requests
    return connection.execute(sa.select(table).where(table.c.state == "new").order_by(table.c.id).limit(OLDEST)).all()


def granted(tx: store.Transaction, request: int) -> None:
    """What a person asked for is planned."""
    _settle(tx, request, "planned", "")


def refuse(tx: store.Transaction, request: int, reason: str) -> None:
    """What a person asked for cannot be done; ``reason`` is for them."""
    _settle(tx, request, "refused", reason)


def _settle(tx: store.Transaction, request: int, state: str, reason: str) -> None:
    tx.connection.execute(schema.requests.update().where(schema.requests.c.id == request).values(state=state, reason=reason))
    tx.announce(f"request.{state}", id=request, reason=reason)
