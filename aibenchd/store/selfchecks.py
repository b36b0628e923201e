"""One commit against itself: what is found there is a false alarm, and how often is the rate that the program really has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from aibenchd import model, statistics
from aibenchd.plan import order
from aibenchd.store import again, schema, store

LOTS = 2  # the lots of a seed that are drawn here: whether it is checked, and by which builds
_e, _p = schema.experiments, schema.pairs
ALARMS = (model.Verdict.REGRESSED, model.Verdict.IMPROVED, model.Verdict.BROKEN)


@dataclass(frozen=True, slots=True)
class Count:
    """Experiments of one commit against itself that have ended.

    Attributes:
        built_twice: whether the two arms were built independently.
        alpha: of their rule.
    """

    built_twice: bool
    alpha: float
    experiments: int
    alarms: int


def plan(transaction: store.Transaction, pair: int, share: float) -> None:
    """Have the treatments of some experiments of a pair compared with themselves, half of them by two builds; by their seeds."""
    two_arms = sa.select(_e, _p.c.repository, _p.c.treatment).join(_p).where(_e.c.pair == pair, _e.c.control_build.is_not(None))
    rows = transaction.connection.execute(two_arms).all()
    drawn = [row for row in rows if order.turn(row.design["seed"], -1) < share]
    if drawn:
        own = again.new_pair(transaction, drawn[0].repository, drawn[0].treatment, drawn[0].treatment, model.RunType.SELFCHECK)
        for row in drawn:
            copy = int(order.turn(row.design["seed"], -LOTS) < 1 / 2)
            arms = [row.treatment_build, again.build(transaction, row.treatment_build, row.priority, copy=copy)]
            again.experiment(transaction, row, own, arms, row.priority)


def counts(connection: sa.Connection, among: Iterable[sa.ColumnElement[bool]] = ()) -> list[Count]:
    """Of those that were planned with no one asking, among the experiments (and pairs) of which so much holds."""
    built_twice = (_e.c.treatment_build != _e.c.control_build).label("built_twice")
    alpha = _e.c.design["rule"]["alpha"].as_float().label("alpha")
    rows = connection.execute(
        sa.select(
            built_twice,
            alpha,
            sa.func.count(_e.c.verdict).label("experiments"),
            sa.func.count().filter(_e.c.verdict.in_(ALARMS)).label("alarms"),
        )
        .select_from(_p)
        .join(_e, _e.c.pair == _p.c.id)
        .where(_p.c.run_type == model.RunType.SELFCHECK, _p.c.request.is_(None), *among)
        .group_by(built_twice, alpha)
    )
    return [Count(bool(row.built_twice), row.alpha, row.experiments, row.alarms) for row in rows]


def rate(found: Sequence[Count]) -> model.JsonObject:
    """How often a commit was found to differ from itself, with the exact interval of the rate at 95 %; and what is promised."""
    experiments, alarms = sum(one.experiments for one in found), sum(one.alarms for one in found)
    low, high = statistics.exact_interval(alarms, experiments)
    promised = sum(one.alpha * one.experiments for one in found) / experiments if experiments else None
    twice = [one for one in found if one.built_twice]
    return {
        "experiments": experiments,
        "alarms": alarms,
        "rate": alarms / experiments if experiments else None,
        "low": low,
        "high": high,
        "promised": promised,
        "built_twice": {"experiments": sum(one.experiments for one in twice), "alarms": sum(one.alarms for one in twice)},
    }
