"""How the commits stand that were planned with no one asking, and what was told of them last."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from aibenchd import model
from aibenchd.report import standing
from aibenchd.store import schema, store

LIMIT = 100  # commits that one look deals with

_e, _p, _f, _s = schema.experiments, schema.pairs, schema.findings, schema.standings


@dataclass(frozen=True, slots=True)
class Told:
    """A commit, what was told of it last as JSON (empty before the first), and how often something was."""

    repository: str
    commit: str
    last: str
    number: int


def stale(connection: sa.Connection) -> list[Told]:
    """The commits that may stand otherwise than was told."""
    columns = (_s.c.repository, _s.c.commit, _s.c.told, _s.c.number)
    return [Told(*row) for row in connection.execute(sa.select(*columns).where(_s.c.stale).limit(LIMIT))]


def forget(transaction: store.Transaction) -> None:
    """Nobody wants to be told: what comes later is told to those who will."""
    transaction.connection.execute(_s.update().where(_s.c.stale).values(stale=False))


def cells(connection: sa.Connection, told: Told, devices: Collection[str], unverified: Collection[str]) -> list[standing.Cell]:
    """The newest experiment of each cell of a commit.

    Args:
        devices: those that there are; what waits for another may wait for ever, and is left out.
        unverified: the reasons of findings that no one measured again.
    """
    sighted = sa.exists().where(schema.sightings.c.experiment == _e.c.id).label("sighted")
    columns = (_e.c.benchmark.label("digest"), _e.c.backend, _e.c.identifier, _e.c.device, _e.c.state, _e.c.verdict, _e.c.reason)
    rows = connection.execute(
        sa.select(
            *columns, _e.c.estimate, _e.c.in_tail, sighted, _f.c.id, _f.c.state.label("finding_state"), _f.c.reason.label("why")
        )
        .join(_p, _p.c.id == _e.c.pair)
        .outerjoin(_f, _f.c.suspect == _e.c.id)
        .where(
            _p.c.repository == told.repository,
            _p.c.treatment == told.commit,
            _p.c.run_type == model.RunType.BENCHMARK,
            _p.c.request.is_(None),
            sa.or_(_e.c.state.not_in(schema.UNDECIDED_STATES), _e.c.device.in_(devices)),
        )
        .order_by(_e.c.id)
    )
    newest = {(row.digest, row.device, row.backend): row for row in rows}
    return [
        standing.Cell(
            row.identifier,
            row.device,
            row.state,
            model.Verdict(row.verdict) if row.verdict else None,
            row.reason,
            row.estimate,
            row.id,
            row.finding_state,
            row.why in unverified,
            row.sighted,
            row.in_tail,
        )
        for row in newest.values()
    ]


def tell(transaction: store.Transaction, told: Told, said: model.JsonObject | None) -> None:
    """Write down what is told of a commit now; None where that is what was told."""
    again = {} if said is None else {"told": json.dumps(said, sort_keys=True), "number": told.number + 1}
    of_commit = sa.and_(_s.c.repository == told.repository, _s.c.commit == told.commit)
    transaction.connection.execute(_s.update().where(of_commit).values(stale=False, **again))
