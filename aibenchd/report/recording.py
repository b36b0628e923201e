"""What a block or an experiment leaves for the sinks, written in the transaction that journals it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from aibenchd import model, settings, statistics
from aibenchd.report import records
from aibenchd.store import experiments, meta, outbox, schema, store


class Recorder:
    """Makes records of experiments. ``current`` gives the settings as they are now."""

    def __init__(self, current: Callable[[], settings.Settings]) -> None:
        self._current = current

    def block(
        self, tx: store.Transaction, experiment: experiments.Experiment, block: model.Block, fingerprint: Mapping[str, str]
    ) -> None:
        """Queue the samples of one block, for the sinks that want them."""
        now = self._current()
        wanting = [(sink.name, sink.records) for sink in now.sinks if sink.records == "all"]
        if wanting and block.valid:
            facts = self._facts(tx, experiment, fingerprint, _decided_on(block.trials[0].series, experiment.design))
            outbox.put(tx, wanting, records.samples_records(facts, block, time=datetime.now(UTC)))

    def decided(
        self,
        tx: store.Transaction,
        experiment: experiments.Experiment,
        decision: model.Decision,
        fingerprint: Mapping[str, str],
    ) -> None:
        """Keep what stays of each series, and queue one record per metric."""
        series = experiments.samples(tx.connection, experiment.id)
        experiments.keep_results(tx, experiment.id, _summaries(experiment.design, series))
        facts = self._facts(tx, experiment, fingerprint, _decided_on(series.get(model.ArmName.TREATMENT, ()), experiment.design))
        made = records.verdict_records(
            facts, decision, series, backend=_ran(tx.connection, experiment.id), time=datetime.now(UTC)
        )
        outbox.put(tx, [(sink.name, sink.records) for sink in self._current().sinks], made)

    def _facts(
        self,
        tx: store.Transaction,
        experiment: experiments.Experiment,
        fingerprint: Mapping[str, str],
        decided_on: str,
    ) -> records.Experiment:
        now = self._current()
        control = experiment.control
        return records.Experiment(
            installation=meta.installation(tx),
            id=experiment.id,
            repository=experiment.treatment.repository,
            run_type=model.RunType(experiment.run_type),
            treatment=records.Commit(experiment.treatment.commit, experiment.treatment.time),
            control=None if control is None else records.Commit(control.commit, control.time),
            design=experiment.design,
            decided_on=decided_on,
            platform=experiment.treatment_build.platform,
            device=records.Device(experiment.device, fingerprint.get("hash", experiment.device), fingerprint),
            user_identifier=now.user_identifier,
            user=now.user_string,
            meta=experiment.meta,
        )


def _decided_on(series: Sequence[model.Series], design: model.Design) -> str:
    found = model.decisive(series, design.benchmark.metric)
    return model.NETWORK if found is None else found.key


def _summaries(
    design: model.Design, series: Mapping[model.ArmName, Sequence[model.Series]]
) -> list[tuple[model.Series, model.JsonObject, model.JsonObject | None]]:
    named = design.benchmark.test.get("statistics")
    wanted = [str(name) for name in named] if isinstance(named, list | tuple) else statistics.DEFAULT
    pooled = {arm: _pooled(of_arm) for arm, of_arm in series.items()}
    control = pooled.get(model.ArmName.CONTROL, {})
    return [
        (one, statistics.summary(one.values, wanted), statistics.summary(control[key].values, wanted) if key in control else None)
        for key, one in pooled.get(model.ArmName.TREATMENT, {}).items()
    ]


def _pooled(series: Sequence[model.Series]) -> dict[str, model.Series]:
    pooled: dict[str, model.Series] = {}
    for one in series:
        before = pooled.get(one.key)
        pooled[one.key] = one if before is None else dataclasses.replace(one, values=before.values + one.values)
    return pooled


def _ran(connection: sa.Connection, experiment: int) -> str:
    """What the trials proved to have executed; all of them that say agree, or the first that says."""
    trials = schema.trials
    found = connection.scalar(
        sa.select(trials.c.backend)
        .where(trials.c.experiment == experiment, trials.c.backend != "")
        .order_by(trials.c.outcome != model.Outcome.OK, trials.c.id)
        .limit(1)
    )
    return found or ""
