"""Profiles of confirmed regressions: which are to be made, which have been, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import again, schema, store

LIMIT = 100  # findings that one look deals with
RECENT = timedelta(days=7)  # what was confirmed before is not profiled: its builds may be gone
PRIORITY = 150  # below what measures suspects again, above the searches: it is one block, and a person waits for it
UNDECIDED = ("waiting", "open")

_e, _p, _f, _t = schema.experiments, schema.pairs, schema.findings, schema.profiles


@dataclass(frozen=True, slots=True)
class Made:
    """A profile's experiment that has ended: how, and why it left none, where it says so."""

    finding: int
    experiment: int
    verdict: model.Verdict | None
    reason: str


def wanted(connection: sa.Connection, now: datetime) -> Sequence[int]:
    """Confirmed findings of a time that were not profiled yet, newest first."""
    return connection.scalars(
        sa.select(_f.c.id)
        .join(_e, _e.c.id == _f.c.suspect)
        .where(
            _f.c.state == suspicion.OPEN,
            _f.c.verified_at > now - RECENT,
            _e.c.verdict == model.Verdict.REGRESSED,
            _e.c.low > 0,  # else it is its outputs that are wrong
            ~sa.exists().where(_t.c.finding == _f.c.id),
        )
        .order_by(_f.c.id.desc())
        .limit(LIMIT)
    ).all()


def ask(transaction: store.Transaction, finding: int) -> None:
    """Have the builds that confirmed a finding run under a profiler."""
    suspect = sa.select(_e.c.priority).join(_f, _f.c.suspect == _e.c.id).where(_f.c.id == finding)
    row = transaction.connection.execute(
        sa.select(_e, _p.c.repository, _p.c.treatment, _p.c.control)
        .join(_p, _p.c.id == _e.c.pair)
        .where(_e.c.finding == finding, _p.c.run_type == model.RunType.VERIFY)
        .order_by(_e.c.id.desc())
        .limit(1)
    ).one()
    pair = again.new_pair(transaction, row.repository, row.treatment, row.control, model.RunType.PROFILE)
    arms = (row.treatment_build, row.control_build)
    rank = transaction.connection.execute(suspect).scalar_one() + PRIORITY
    experiment = again.experiment(transaction, row, pair, arms, rank, finding=finding, profiled=True)
    transaction.connection.execute(_t.insert().values(finding=finding, experiment=experiment, reason=""))


def made(connection: sa.Connection) -> list[Made]:
    """Those that have ended, and were not read yet."""
    rows = connection.execute(
        sa.select(_t.c.finding, _t.c.experiment, _e.c.verdict, _e.c.reason)
        .join(_e, _e.c.id == _t.c.experiment)
        .where(_t.c.made_at.is_(None), _e.c.state.not_in(UNDECIDED))
        .order_by(_t.c.finding)
        .limit(LIMIT)
    )
    return [Made(row.finding, row.experiment, model.Verdict(row.verdict) if row.verdict else None, row.reason) for row in rows]


def put(transaction: store.Transaction, finding: int, facts: model.Json, reason: str) -> None:
    """What a profile says, or why there is none."""
    values = {"facts": facts, "reason": reason, "made_at": datetime.now(UTC)}
    transaction.connection.execute(_t.update().where(_t.c.finding == finding).values(values))
    transaction.announce("finding.profiled", id=finding)


def of_finding(connection: sa.Connection, finding: int) -> model.JsonObject | None:
    """``experiment reason`` and, where it was made, ``profiler per unit rows files also unread``; None where none is wanted."""
    row = connection.execute(sa.select(_t).where(_t.c.finding == finding)).one_or_none()
    if row is None:
        return None
    made = {"also": [], "unread": [], **row.facts} if row.facts else {}  # the first ones were by one profiler alone
    return {"experiment": row.experiment, "reason": row.reason, **made}
