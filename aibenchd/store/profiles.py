"""Profiles of confirmed regressions: which are to be made, which have been, and what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import again, schema, store

LIMIT = 100  # findings that one look deals with
FEW = 4  # of the findings of one commit, the clearest, are profiled: hundreds of cells say the same
RECENT = timedelta(days=7)  # what was confirmed before is not profiled: its builds may be gone
LEFT_OUT = "the {} clearest findings of its commit are"
PRIORITY = 150  # below what measures suspects again, above the searches: it is one block, and a person waits for it

_e, _p, _f, _t = schema.experiments, schema.pairs, schema.findings, schema.profiles
_clearness = _e.c.estimate / (_e.c.high - _e.c.low + 1e-9)


@dataclass(frozen=True, slots=True)
class Made:
    """A profile's experiment that has ended: how, and why it left none, where it says so."""

    finding: int
    experiment: int
    verdict: model.Verdict | None
    reason: str


def wanted(connection: sa.Connection, now: datetime) -> Sequence[int]:
    """Confirmed findings of a time that were not profiled yet: of each commit so many as make :data:`FEW`, the clearest first."""
    profiled = sa.exists().where(_t.c.finding == _f.c.id).correlate(_f)
    rows = connection.execute(
        sa.select(_f.c.id, _p.c.repository, _p.c.treatment, profiled.label("profiled"))
        .join(_e, _e.c.id == _f.c.suspect)
        .join(_p, _p.c.id == _e.c.pair)
        .where(
            _f.c.state == suspicion.OPEN,
            _f.c.verified_at > now - RECENT,
            _e.c.verdict == model.Verdict.REGRESSED,
            _e.c.low > 0,  # else it is its outputs that are wrong
        )
        .order_by(profiled.desc(), _clearness.desc(), _f.c.id.desc())
    ).all()
    few: Counter[tuple[str, str]] = Counter()
    found = []
    for row in rows:
        few[row.repository, row.treatment] += 1
        if not row.profiled and few[row.repository, row.treatment] <= FEW:
            found.append(row.id)
    return found[:LIMIT]


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
        .where(_t.c.made_at.is_(None), _e.c.state.not_in(schema.UNDECIDED_STATES))
        .order_by(_t.c.finding)
        .limit(LIMIT)
    )
    return [Made(row.finding, row.experiment, model.Verdict(row.verdict) if row.verdict else None, row.reason) for row in rows]


def put(transaction: store.Transaction, finding: int, facts: model.Json, reason: str) -> None:
    """What a profile says, or why there is none."""
    values = {"facts": facts, "reason": reason, "made_at": datetime.now(UTC)}
    transaction.connection.execute(_t.update().where(_t.c.finding == finding).values(values))
    transaction.announce("finding.profiled", id=finding)


def _left_out(connection: sa.Connection, finding: int) -> model.JsonObject | None:
    """That others of its commit are profiled, where they are: it waits for none."""
    commit = sa.select(_p.c.repository, _p.c.treatment).join(_e, _e.c.pair == _p.c.id).join(_f, _f.c.suspect == _e.c.id)
    of = connection.execute(commit.where(_f.c.id == finding, _f.c.state == suspicion.OPEN)).one_or_none()
    if of is None:
        return None
    others = (
        sa.select(sa.func.count())
        .select_from(_t)
        .join(_f, _f.c.id == _t.c.finding)
        .join(_e, _e.c.id == _f.c.suspect)
        .join(_p, _p.c.id == _e.c.pair)
        .where(_p.c.repository == of.repository, _p.c.treatment == of.treatment)
    )
    count = connection.execute(others).scalar_one()
    return {"experiment": None, "reason": LEFT_OUT.format(count)} if count >= FEW else None


def of_finding(connection: sa.Connection, finding: int) -> model.JsonObject | None:
    """``experiment reason`` and, once made, what :func:`aibenchd.measure.profiles.compared` has; None where none is wanted."""
    row = connection.execute(sa.select(_t).where(_t.c.finding == finding)).one_or_none()
    if row is None:
        return _left_out(connection, finding)
    made = {"also": [], "unread": [], **row.facts} if row.facts else {}  # the first ones were by one profiler alone
    return {"experiment": row.experiment, "reason": row.reason, **made}


def is_awaited(profile: model.JsonObject | None) -> bool:
    """Whether one, as :func:`of_finding` has it, is to be made or read yet."""
    return bool(profile and profile["experiment"] and not profile["reason"] and "rows" not in profile)
