"""What a block or an experiment leaves for the sinks: made before the transaction that journals it, written within it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aibenchd import model, settings
from aibenchd.report import records
from aibenchd.store import experiments, outbox, store

# Records are of commits. What two cells of the matrix are to each other is for the person who asked, and what a commit is to
# itself is for those who ask how often the program errs. What ran under a profiler was no measurement.
UNREPORTED = (model.RunType.COMPARE, model.RunType.SELFCHECK, model.RunType.PROFILE)

Series = Mapping[model.ArmName, Sequence[model.Series]]  # of each arm, of all its valid trials, in order of blocks


@dataclass(frozen=True, slots=True)
class Left:
    """Records, and what stays of each series of a decided experiment: (series, treatment's statistics, control's)."""

    samples: Sequence[model.Record] = ()
    verdicts: Sequence[model.Record] = ()
    alerts: Sequence[model.Record] = ()
    statuses: Sequence[model.Record] = ()
    results: Sequence[tuple[model.Series, model.JsonObject, model.JsonObject | None]] = ()


class Recorder:
    """Makes records of experiments, and writes them.

    Args:
        current: gives the settings as they are now.
        installation: of :func:`aibenchd.store.meta.installation`.
    """

    def __init__(self, current: Callable[[], settings.Settings], installation: str) -> None:
        self._current, self._installation = current, installation

    def of_block(self, experiment: experiments.Experiment, block: model.Block, fingerprint: Mapping[str, str]) -> Left:
        """The samples of one block, where a sink wants them. Takes milliseconds where there are many operators."""
        if not block.valid or experiment.run_type in UNREPORTED or not self.wanted("all"):
            return Left()
        facts = self._facts(experiment, fingerprint, block.trials[0].series)
        return Left(samples=records.samples_records(facts, block, time=datetime.now(UTC)))

    def of_decision(
        self,
        experiment: experiments.Experiment,
        decision: model.Decision,
        latest: Sequence[model.Series],
        series: Series,
        backend: str,
        fingerprint: Mapping[str, str],
    ) -> Left:
        """What an experiment ended with. Takes milliseconds, as :meth:`of_block`.

        Args:
            latest: of the treatment's last trial, in the order that a journal does not keep, and the first may be decided on.
            backend: that its trials proved to have executed; empty where they did not.
        """
        facts = self._facts(experiment, fingerprint, [*latest, *series.get(model.ArmName.TREATMENT, ())])
        made = records.verdict_records(facts, decision, series, backend=backend, time=datetime.now(UTC))
        measured = {one.key for arm in series.values() for one in arm} if series.get(model.ArmName.TREATMENT) else set()
        results = [_result(payload) for payload in (record.payload for record in made) if payload["key"] in measured]
        return Left(verdicts=[] if experiment.run_type in UNREPORTED else made, results=results)

    def of_confirmation(
        self,
        verified: experiments.Experiment,
        decision: model.Decision,
        first: model.Decision,
        series: Series,
        backend: str,
        fingerprint: Mapping[str, str],
    ) -> Left:
        """A confirmed regression, as the experiment that confirmed it measured it.

        Args:
            first: what it was first seen by; the others are as of :meth:`of_decision`.
        """
        facts = self._facts(verified, fingerprint, series.get(model.ArmName.TREATMENT, ()))
        made = records.confirmed_record(facts, decision, first, series, backend=backend, time=datetime.now(UTC))
        return Left(verdicts=[made])

    def identical(self, tx: store.Transaction, experiment: int) -> None:
        """Decide an experiment whose arms are the same, and write what it leaves."""
        decision = model.Decision(model.Verdict.IDENTICAL, 0, 0.0, 0.0, 0.0, "programs, files and commands are the same")
        experiments.decide(tx, experiment, decision)
        left = self.of_decision(experiments.by_id(tx.connection, experiment), decision, (), {}, "", {})
        self.write(tx, experiment, left)

    def of_alert(
        self,
        verified: experiments.Experiment,
        alert: records.Alert,
        decision: model.Decision,
        series: Series,
        backend: str,
        fingerprint: Mapping[str, str],
    ) -> Left:
        """What a person is told of a finding; arguments as of :meth:`of_confirmation`."""
        facts = self._facts(verified, fingerprint, series.get(model.ArmName.TREATMENT, ()))
        return Left(alerts=[records.alert_record(facts, alert, decision, backend=backend, time=datetime.now(UTC))])

    def of_commit(self, repository: str, commit: str, number: int, standing: model.JsonObject) -> Left:
        """How a commit stands; arguments as of :func:`aibenchd.report.records.status_record`."""
        made = records.status_record(self._installation, repository, commit, number, standing, time=datetime.now(UTC))
        return Left(statuses=[made])

    def write(self, tx: store.Transaction, experiment: int, left: Left) -> None:
        """Queue records for the sinks that want them, and keep results."""
        self.queue(tx, left)
        experiments.keep_results(tx, experiment, left.results)

    def queue(self, tx: store.Transaction, left: Left) -> None:
        """Queue records for the sinks that want them."""
        sinks = [(sink.name, sink.wants) for sink in self._current().sinks]
        for made in (left.samples, left.verdicts, left.alerts, left.statuses):
            outbox.put(tx, sinks, made)

    def wanted(self, wants: str) -> bool:
        """Whether any sink wants such records."""
        return any(sink.wants == wants for sink in self._current().sinks)

    def _facts(
        self, experiment: experiments.Experiment, fingerprint: Mapping[str, str], series: Sequence[model.Series]
    ) -> records.Experiment:
        now, control = self._current(), experiment.control
        metric = experiment.design.benchmark.metric
        decided_on = model.decisive(series, metric)
        if decided_on is None and metric == "error":  # without a golden output, between the arms
            decided_on = next((one for one in series if one.type.startswith("ARMS ")), None)
        return records.Experiment(
            installation=self._installation,
            id=experiment.id,
            repository=experiment.treatment.repository,
            run_type=model.RunType(experiment.run_type),
            treatment=records.Commit(experiment.treatment.commit, experiment.treatment.time),
            control=None if control is None else records.Commit(control.commit, control.time),
            design=experiment.design,
            decided_on=model.NETWORK if decided_on is None else decided_on.key,
            platform=experiment.treatment_build.platform,
            device=records.Device(experiment.device, fingerprint.get("hash", experiment.device), fingerprint),
            user_identifier=now.user_identifier,
            user=now.user_string,
            meta=experiment.meta,
        )


def _result(payload: model.JsonObject) -> tuple[model.Series, model.JsonObject, model.JsonObject | None]:
    """What stays of the series that a record is of, when its samples are gone."""
    type_, metric, unit, text = (str(payload[name]) for name in ("type", "metric", "unit", "info_string"))
    statistics = payload["statistics"]
    assert isinstance(statistics, dict)  # noqa: S101  our own record
    return model.Series(type_, metric, unit, text=text), statistics["treatment"], statistics["control"] or None
