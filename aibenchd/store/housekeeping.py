"""What is kept for a time only: raw samples of old trials, those that did not count, what experiments need until they end."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import experiments as stored
from aibenchd.store import schema, store

_ENDED = sa.select(schema.experiments.c.id).where(  # asked with each block
    schema.experiments.c.id.in_(sa.bindparam("experiments", expanding=True)),
    schema.experiments.c.state.not_in(schema.UNDECIDED_STATES),
)
TRIALS = 500  # of which one transaction removes something at most: it holds up the writes of blocks


def forget_samples(transaction: store.Transaction, before: datetime) -> int:
    """Remove raw samples of trials that began earlier, oldest first; how many trials' went. Call it again until it says 0.

    Those of experiments that are not decided stay: their records are made of them.
    """
    trials, experiments, samples = schema.trials, schema.experiments, schema.samples
    old = transaction.connection.scalars(
        sa.select(trials.c.id)
        .join(experiments, experiments.c.id == trials.c.experiment)
        .where(
            trials.c.started_at < before,
            experiments.c.state.not_in(schema.UNDECIDED_STATES),
            sa.exists().where(samples.c.trial == trials.c.id),
        )
        .order_by(trials.c.started_at)
        .limit(TRIALS)
    ).all()
    transaction.connection.execute(samples.delete().where(samples.c.trial.in_(old)))
    return len(old)


def forget_exclusions(transaction: store.Transaction, before: datetime) -> int:
    """Remove what was written down earlier of trials that do not count, as :func:`forget_samples` does."""
    exclusions, experiments = schema.exclusions, schema.experiments
    old = transaction.connection.scalars(
        sa.select(exclusions.c.id)
        .join(experiments, experiments.c.id == exclusions.c.experiment)
        .where(exclusions.c.excluded_at < before, experiments.c.state.not_in(schema.UNDECIDED_STATES))
        .order_by(exclusions.c.id)
        .limit(TRIALS)
    ).all()
    transaction.connection.execute(exclusions.delete().where(exclusions.c.id.in_(old)))
    return len(old)


def ended(connection: sa.Connection, experiments: Collection[int]) -> list[int]:
    """Those of these experiments that have ended; at most 1,000 can be asked for."""
    return list(connection.scalars(_ENDED, {"experiments": list(experiments)}))


def needed(connection: sa.Connection) -> list[model.Benchmark]:
    """The benchmarks of all experiments that wait or are open, each once or more."""
    table, pairs = schema.experiments, schema.pairs
    undecided = table.c.state.in_(schema.UNDECIDED_STATES)
    compared = sa.select(pairs.c.id).where(pairs.c.run_type == model.RunType.COMPARE.value)
    one_of_each = sa.select(sa.func.max(table.c.id)).where(undecided).group_by(table.c.benchmark)
    # Only where two cells are compared do the arms run different benchmarks.
    query = sa.select(table.c.design).where(undecided, table.c.id.in_(one_of_each) | table.c.pair.in_(compared))
    designs = [stored.design_of(design) for design in connection.scalars(query)]
    return [design.of(arm).benchmark for design in designs for arm in model.ArmName]
