"""What a block measured, and what it decides, on its way into the journal with the records that go out."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import crashpoints, errors, model
from aibenchd.measure import conditioning, resting
from aibenchd.plan import order
from aibenchd.store import devices as stored
from aibenchd.store import experiments, housekeeping, noises, store

log = structlog.get_logger()

Left = TypeVar("Left")


class Recorder(Protocol[Left]):
    """Makes the records that go out, and writes them inside the transaction of the block that they are of."""

    def of_block(self, experiment: experiments.Experiment, block: model.Block, fingerprint: Mapping[str, str]) -> Left:
        """What one block measured."""

    def of_decision(
        self,
        experiment: experiments.Experiment,
        decision: model.Decision,
        latest: Sequence[model.Series],
        series: Mapping[model.ArmName, Sequence[model.Series]],
        backend: str,
        fingerprint: Mapping[str, str],
    ) -> Left:
        """What an experiment ended with."""

    def write(self, tx: store.Transaction, experiment: int, left: Left) -> None:
        """Write what was made."""


class Journal:
    """Writes what becomes of experiments on one device; ``recorder`` makes the records."""

    def __init__(self, journal: store.Store, recorder: Recorder[Any]) -> None:
        self._store, self._recorder = journal, recorder

    async def block(
        self,
        experiment: experiments.Experiment,
        block: model.Block,
        fingerprint: Mapping[str, str],
        before: conditioning.Look,
        after: conditioning.Look,
    ) -> model.Decision | None:
        """Judge a block and write it, what it decided and the records that go out, as one.

        What is decided by it; None where somebody cancelled the experiment meanwhile: its end stands.
        """
        finished = datetime.now(UTC)

        def known(connection: sa.Connection) -> tuple[list[experiments.Journalled], noises.Known | None]:
            return experiments.journalled(connection, experiment.id), noises.of_experiment(connection, experiment.id)

        def judge() -> tuple[_Judged, Any]:
            judged = _judge(experiment, earlier, cell, block, before.number, finished)
            return judged, self._recorder.of_block(experiment, block, fingerprint)

        earlier, cell = await self._store.read(known)
        judged, of_block = await anyio.to_thread.run_sync(judge)  # it may take seconds: whoever reads would wait for a thread
        decision, left = judged.decision, [of_block]
        if decision.verdict is not None:
            left.append(await self._left_by(experiment, decision, block, fingerprint))
        turn = order.turn(experiment.design.seed, experiment.round + 1)

        def write(tx: store.Transaction) -> bool:
            if housekeeping.ended(tx.connection, [experiment.id]):
                return False
            conditions = {"before": dict(before.state), "after": dict(after.state)}
            experiments.journal(tx, experiment, block, judged.latest, decision, judged.outlook, turn, finished, conditions)
            if decision.verdict is not None:
                experiments.decide(tx, experiment.id, decision)
            for one in left:
                self._recorder.write(tx, experiment.id, one)
            crashpoints.reach("block.before-commit")
            return True

        if not await self._store.write(write):
            return None
        crashpoints.reach("block.after-commit")
        return decision

    async def exclude(self, experiment: experiments.Experiment, begun: Sequence[model.ArmName], error: Exception) -> None:
        """Say which trials do not count. The block is run again whatever became of its trials: of both arms, or neither."""
        cause = model.Outcome.HARNESS.value
        if isinstance(error, errors.DeviceLostError):
            cause = model.Outcome.LOST.value
        elif isinstance(error, conditioning.ChangedError):
            cause = stored.CHANGED
        arms = tuple(begun)
        log.warning("block does not count", number=experiment.blocks, cause=cause, arms=arms, reason=str(error))
        await self._store.write(
            lambda tx: stored.exclude(tx, experiment.id, experiment.blocks, arms, cause, str(error)),
        )

    async def loses(
        self, experiment: experiments.Experiment, rest: resting.Rest, fingerprint: Mapping[str, str]
    ) -> model.Decision:
        """End an experiment that loses the device, before it does so again; how it ended."""
        earlier = await self._store.read(functools.partial(experiments.journalled, experiment=experiment.id))
        decision = await anyio.to_thread.run_sync(_judge_losses, experiment, earlier, rest)
        left = await self._left_by(experiment, decision, model.Block(experiment.blocks, ()), fingerprint)

        def write(tx: store.Transaction) -> None:
            experiments.decide(tx, experiment.id, decision)
            self._recorder.write(tx, experiment.id, left)

        await self._store.write(write)
        return decision

    async def _left_by(
        self, experiment: experiments.Experiment, decision: model.Decision, latest: model.Block, fingerprint: Mapping[str, str]
    ) -> Any:
        """The records of an experiment that ends; its ``latest`` block is not journalled yet."""
        series, backend = await self._store.read(lambda connection: experiments.measured(connection, experiment.id, latest))
        of_treatment = [one for trial in latest.trials if trial.arm is model.ArmName.TREATMENT for one in trial.series]
        return await anyio.to_thread.run_sync(
            self._recorder.of_decision, experiment, decision, of_treatment, series, backend, fingerprint
        )


@dataclass(frozen=True, slots=True)
class _Judged:
    """A block as it is analysed, what is decided by it, and what the experiment takes still."""

    latest: experiments.Journalled
    decision: model.Decision
    outlook: model.Outlook


def _judge(
    experiment: experiments.Experiment,
    earlier: list[experiments.Journalled],
    cell: noises.Known | None,
    block: model.Block,
    fingerprint: int,
    finished: datetime,
) -> _Judged:
    from aibenchd.measure import judging, outlook

    numbers = judging.numbers(block, experiment.design.benchmark.metric, experiment.design.summary)
    tails = judging.tails(block, experiment.design)
    latest = experiments.Journalled(
        number=block.number,
        order="".join(one.arm.value[0].upper() for one in block.trials),
        valid=block.valid,
        treatment=numbers[model.ArmName.TREATMENT],
        control=numbers.get(model.ArmName.CONTROL),
        seconds=(finished - block.trials[0].started).total_seconds(),
        agreements={one.arm: one.agreement for one in block.trials},
        stratum=_stratum(earlier, fingerprint),
        fingerprint=fingerprint,
        treatment_tail=tails.get(model.ArmName.TREATMENT),
        control_tail=tails.get(model.ArmName.CONTROL),
    )
    reasons = {one.arm: one.reason for one in block.trials}
    if experiment.design.profiled:
        return _Judged(latest, judging.profiled(reasons), model.Outlook())  # after one block, whatever it says
    judge = judging.decision if experiment.quota is None else judging.estimate
    decision = judge(experiment.design, earlier, latest, reasons, outlook.first_look(experiment.design, cell))
    ahead = outlook.ahead(experiment.design, [*earlier, latest], decision, cell, experiment.quota)
    return _Judged(latest, decision, ahead)


def _judge_losses(
    experiment: experiments.Experiment, earlier: Sequence[experiments.Journalled], rest: resting.Rest
) -> model.Decision:
    from aibenchd.measure import judging

    return judging.lost(experiment.design, earlier, rest.losses, rest.lost)


def _stratum(earlier: Sequence[experiments.Journalled], fingerprint: int) -> int:
    """One more than that of the block before where the device is another since."""
    if not earlier:
        return 0
    return earlier[-1].stratum + (earlier[-1].fingerprint not in (None, fingerprint))
