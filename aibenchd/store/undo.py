"""How to undo what was changed on devices: written before the change, removed once it is undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd.store import schema, store

_undo = schema.undo


@dataclass(frozen=True, slots=True)
class Undo:
    """One row; ``action`` is what the device's kind takes."""

    id: int
    action: Mapping[str, Any]


def remember(tx: store.Transaction, device: str, action: Mapping[str, Any]) -> int:
    """Write down how to undo what is about to be changed; what the row is called."""
    insert = _undo.insert().values(device=device, action=dict(action), created_at=datetime.now(UTC))
    return int(tx.connection.execute(insert.returning(_undo.c.id)).scalar_one())


def of(connection: sa.Connection, device: str) -> list[Undo]:
    """What is to be undone on a device, the last change first."""
    rows = connection.execute(sa.select(_undo.c.id, _undo.c.action).where(_undo.c.device == device).order_by(_undo.c.id.desc()))
    return [Undo(row.id, row.action) for row in rows]


def forget(tx: store.Transaction, undone: int) -> None:
    """It is undone, or was never done."""
    tx.connection.execute(_undo.delete().where(_undo.c.id == undone))


def left(connection: sa.Connection) -> Sequence[str]:
    """The devices on which something is to be undone; sorted."""
    return connection.scalars(sa.select(_undo.c.device).distinct().order_by(_undo.c.device)).all()
