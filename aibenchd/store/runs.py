"""What a run in one process reads and writes beside the rooms: it finds nothing to do of earlier runs, and leaves none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from aibenchd.store import outbox, schema, store

RECIPE = "recipe"  # in the table meta: a digest of all that builds are made by, beside their sources

_e, _b, _p = schema.experiments, schema.builds, schema.pairs


def begin(tx: store.Transaction, *, recipe: str, passing: Collection[str]) -> None:
    """Forget what an earlier run left undone, and the builds that would come out otherwise now.

    What did not build is tried again: what it lacked may be there by now.

    Args:
        recipe: of the builds; where it is another than the last time, none of them is used again.
        passing: repositories whose commits may stand for other programs the next time.
    """
    left = sa.select(_e.c.id).where(_e.c.state.in_(schema.UNDECIDED_STATES))
    cancel(tx, tx.connection.scalars(left).all(), "an earlier run left it undone")
    outbox.forget(tx)
    stale = [_b.c.state != "built", _b.c.repository.in_(passing)]
    if _is_new(tx, recipe):
        stale.append(sa.true())
    tx.connection.execute(_b.update().where(sa.or_(*stale)).values(state="evicted", directory="", reason=""))


def cancel(tx: store.Transaction, experiments: Collection[int], reason: str) -> None:
    """End experiments that nobody waits for any more."""
    unfinished = _e.update().where(_e.c.id.in_(experiments), _e.c.state.in_(schema.UNDECIDED_STATES))
    tx.connection.execute(unfinished.values(state="cancelled", reason=reason, decided_at=datetime.now(UTC)))


def give_up(tx: store.Transaction, requests: Collection[int], unit: str, reason: str) -> None:
    """End the experiments of requests that something stands in the way of.

    Args:
        unit: of the board: those of its device, else those of its repository, else all.
    """
    kind, name = unit.split("/")[:2]
    where: list[sa.ColumnElement[bool]] = [_p.c.request.in_(requests)]
    if kind == "device":
        where.append(_e.c.device == name)
    elif kind == "build":
        where.append(_p.c.repository == name)
    cancel(tx, tx.connection.scalars(sa.select(_e.c.id).join(_p).where(*where)).all(), reason)


def of_requests(connection: sa.Connection, requests: Collection[int]) -> Sequence[int]:
    """The experiments that were planned for requests."""
    return connection.scalars(sa.select(_e.c.id).join(_p).where(_p.c.request.in_(requests)).order_by(_e.c.id)).all()


def planned(connection: sa.Connection, requests: Collection[int]) -> Mapping[int, tuple[str, int]]:
    """By experiment, what it is called, and how many blocks it has at most."""
    query = sa.select(_e.c.id, _e.c.identifier, _e.c.device, _e.c.backend, _e.c.design).join(_p)
    rows = connection.execute(query.where(_p.c.request.in_(requests)).order_by(_e.c.id))
    return {
        row.id: (
            f"{row.identifier} on {row.device} {row.backend}".rstrip(),
            row.design["blocks"] if row.design["arms"] == 1 else row.design["rule"]["max_blocks"],
        )
        for row in rows
    }


def unfinished(connection: sa.Connection, requests: Collection[int]) -> bool:
    """Whether any of them has not ended."""
    query = sa.select(_e.c.id).join(_p).where(_p.c.request.in_(requests), _e.c.state.in_(schema.UNDECIDED_STATES))
    return connection.execute(query.limit(1)).first() is not None


def _is_new(tx: store.Transaction, recipe: str) -> bool:
    table = schema.meta
    known = tx.connection.scalar(sa.select(table.c.value).where(table.c.key == RECIPE))
    if known is None:
        tx.connection.execute(table.insert().values(key=RECIPE, value=recipe))
    elif known != recipe:
        tx.connection.execute(table.update().where(table.c.key == RECIPE).values(value=recipe))
    return known != recipe
