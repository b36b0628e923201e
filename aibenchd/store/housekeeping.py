"""What is kept for a time only: raw samples of old trials."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from aibenchd.store import schema, store

TRIALS = 500  # whose samples one transaction removes at most: it holds up the writes of blocks


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
            experiments.c.state.not_in(("waiting", "open")),
            sa.exists().where(samples.c.trial == trials.c.id),
        )
        .order_by(trials.c.started_at)
        .limit(TRIALS)
    ).all()
    transaction.connection.execute(samples.delete().where(samples.c.trial.in_(old)))
    return len(old)


def ended(connection: sa.Connection, experiments: Collection[int]) -> list[int]:
    """Those of these experiments that have ended; at most 1,000 can be asked for."""
    table = schema.experiments
    query = sa.select(table.c.id).where(table.c.id.in_(experiments), table.c.state.not_in(("waiting", "open")))
    return list(connection.scalars(query))
