"""What people are told of regressions: that one is confirmed, and what has come of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
import sqlalchemy as sa

from aibenchd import model
from aibenchd import settings as configuration
from aibenchd.report import recording, records
from aibenchd.store import experiments, findings, store


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a record of an experiment is made of."""

    experiment: experiments.Experiment
    decision: model.Decision
    series: Mapping[model.ArmName, Sequence[model.Series]]
    backend: str
    fingerprint: Mapping[str, str]
    between: int | None


class Telling:
    """Makes what people are told of findings that are confirmed; whoever settles one has it written with that."""

    def __init__(self, journal: store.Store, current: Callable[[], configuration.Settings], recorder: recording.Recorder) -> None:
        self._store, self._current, self._recorder = journal, current, recorder

    async def alert(self, facts: Measured, confirmed: findings.Confirmed, event: str, **more: Any) -> recording.Left:
        """``facts`` are of what confirmed it; ``more`` is what has come of it since."""
        treatment = facts.experiment.treatment
        alert = records.Alert(
            event=event,
            finding=confirmed.finding,
            author=treatment.author,
            subject=treatment.subject,
            between=facts.between,
            evidence=confirmed.evidence,
            promise=promise(self._current().verify),
            explained=confirmed.explained or {},
            **more,
        )
        return await anyio.to_thread.run_sync(
            self._recorder.of_alert, facts.experiment, alert, facts.decision, facts.series, facts.backend, facts.fingerprint
        )

    async def told(self, finding: int, event: str, **more: Any) -> recording.Left:
        """Of a finding that was confirmed before; nothing where no sink takes alerts."""
        if not self._recorder.wanted("alerts"):
            return recording.Left()
        confirmed = await self._store.read(functools.partial(findings.confirmed, finding=finding))
        facts = await self._store.read(functools.partial(measured, experiment=confirmed.verify))
        return await self.alert(facts, confirmed, event, **more)

    async def named(self, finding: int, culprits: Any) -> recording.Left:
        """Of the commits that the search of a finding has named; ``culprits`` is what the journal has of it."""
        commits = {commit for one in culprits["culprits"] for commit in one["commits"]}
        known = await self._store.read(functools.partial(findings.commits, finding=finding, commits=commits))
        return await self.told(finding, "culprit", culprits=culprits, named=known)


def measured(connection: sa.Connection, experiment: int) -> Measured:
    """Read it, of an experiment that has blocks."""
    whole = experiments.by_id(connection, experiment)
    series, backend = experiments.measured(connection, experiment, model.Block(whole.blocks, ()))
    decision = findings.decision_of(connection, experiment)
    fingerprint, between = findings.fingerprint_of(connection, experiment), findings.between(connection, experiment)
    return Measured(whole, decision, series, backend, fingerprint, between)


def promise(rule: configuration.VerifySettings) -> str:
    """The rate of false alarms that what is confirmed keeps to, in words."""
    if rule.pages_a_month is None:
        return f"at a false discovery rate of {rule.false_discovery_rate:g}"
    return f"within {rule.pages_a_month:g} false pages a month"
