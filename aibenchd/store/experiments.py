"""What the worker of a device reads and writes: the next experiment, its blocks, its end."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import order
from aibenchd.store import builds, revisions, schema, store

_experiments, _pairs, _blocks, _trials = schema.experiments, schema.pairs, schema.blocks, schema.trials
_e = _experiments.c
_NEXT = (_e.priority.desc(), _e.out_of_reach, _e.pair.desc(), _e.wave, _e.round, _e.turn)  # as an index has them


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as its device's worker needs it.

    Attributes:
        blocks: how many are journalled; the number of the next one.
        round: how many rounds it took part in.
        quota: blocks that a search has given it, which judges them; None where its own rule does.
        meta: what its treatment's build says of itself.
    """

    id: int
    pair: int
    run_type: str
    device: str
    design: model.Design
    treatment: model.Revision
    control: model.Revision | None
    treatment_build: model.Build
    control_build: model.Build | None
    blocks: int
    round: int
    created_at: datetime
    meta: model.JsonObject
    quota: int | None = None

    @property
    def submitted(self) -> bool:
        """Whether its programs are what a person sent."""
        return self.run_type == model.RunType.SUBMISSION


@dataclass(frozen=True, slots=True)
class Journalled:
    """One block as it is analysed.

    Attributes:
        treatment, control: the one number of each process, None where it failed.
        agreements: of the outputs of those trials that had any to compare.
        stratum, fingerprint: the number of what the device was like, in the experiment and in the journal. A ratio is taken
            within a block, and what is expected of one only has to rest on those before it: so whatever a change of stratum
            does to their noise, no false alarm comes of it, and none of them need be left out.
        treatment_tail, control_tail: the number of each process's slow iterations; None where these are not judged.
    """

    number: int
    order: str
    valid: bool
    treatment: float | None
    control: float | None
    seconds: float
    agreements: Mapping[model.ArmName, model.Agreement] = field(default_factory=dict)
    stratum: int = 0
    fingerprint: int | None = None
    treatment_tail: float | None = None
    control_tail: float | None = None


def next_of(
    connection: sa.Connection, device: str, resting: Collection[int] = (), *, submitted: bool = True
) -> Experiment | None:
    """The experiment whose block is next on ``device``: highest priority, newest pair, first wave, fewest rounds, then by lot.

    Those out of reach come after all others of their priority (:mod:`aibenchd.plan.order`); those ``resting`` are passed over,
    and so are submissions where these are not wanted.
    """
    of_submission = sa.exists().where(_pairs.c.id == _experiments.c.pair, _pairs.c.run_type == model.RunType.SUBMISSION)
    found = connection.execute(
        sa.select(_experiments.c.id)
        .where(
            _experiments.c.device == device,
            _experiments.c.state == "open",
            _experiments.c.id.not_in(resting),
            *(() if submitted else (~of_submission,)),
            sa.or_(_experiments.c.quota.is_(None), _experiments.c.blocks < _experiments.c.quota),
        )
        .order_by(*_NEXT)
        .limit(1)
    ).scalar()
    return None if found is None else by_id(connection, found)


def by_id(connection: sa.Connection, experiment: int) -> Experiment:
    """One experiment, whole."""
    row = connection.execute(
        sa.select(_experiments, _pairs.c.repository, _pairs.c.treatment, _pairs.c.control, _pairs.c.run_type)
        .join(_pairs)
        .where(_experiments.c.id == experiment)
    ).one()
    control = None if row.control_build is None else _build(connection, row.control_build)
    return Experiment(
        id=row.id,
        pair=row.pair,
        run_type=row.run_type,
        device=row.device,
        design=design_of(row.design),
        treatment=revisions.one(connection, row.repository, row.treatment),
        control=None if control is None else revisions.one(connection, control.repository, control.commit),
        treatment_build=_build(connection, row.treatment_build),
        control_build=control,
        blocks=row.blocks,
        round=row.round,
        created_at=row.created_at,
        meta=connection.execute(sa.select(schema.builds.c.meta).where(schema.builds.c.id == row.treatment_build)).scalar() or {},
        quota=row.quota,
    )


def design_of(stored: Mapping[str, Any]) -> model.Design:
    """A design as the journal keeps it, as a value again. What was planned before there was a guard goes on without one."""
    parts = dict(stored)
    control = parts.pop("control", None)
    return model.Design(
        benchmark=model.Benchmark(**parts.pop("benchmark")),
        rule=model.Rule(**parts.pop("rule")),
        summary=model.Summary(**parts.pop("summary", {"guard": False})),
        control=None if control is None else model.Variant(**{**control, "benchmark": model.Benchmark(**control["benchmark"])}),
        **parts,
    )


def journalled(connection: sa.Connection, experiment: int) -> list[Journalled]:
    """All blocks of an experiment, in order."""
    rows = connection.execute(sa.select(_blocks).where(_blocks.c.experiment == experiment).order_by(_blocks.c.number))
    compared = connection.execute(
        sa.select(_trials.c.block, _trials.c.arm, _trials.c.agreement).where(
            _trials.c.experiment == experiment, _trials.c.agreement != model.Agreement.UNKNOWN
        )
    )
    agreements: dict[int, dict[model.ArmName, model.Agreement]] = {}
    for trial in compared:
        agreements.setdefault(trial.block, {})[model.ArmName(trial.arm)] = model.Agreement(trial.agreement)
    return [
        Journalled(
            row.number,
            row.order,
            row.valid,
            row.treatment,
            row.control,
            (row.finished_at - row.started_at).total_seconds(),
            agreements.get(row.number, {}),
            row.stratum,
            row.fingerprint,
            row.treatment_tail,
            row.control_tail,
        )
        for row in rows
    ]


def journal(
    transaction: store.Transaction,
    experiment: Experiment,
    block: model.Block,
    analysed: Journalled,
    decision: model.Decision,
    outlook: model.Outlook,
    turn: float,
    finished: datetime,
    conditions: model.JsonObject,
) -> None:
    """Write a block with its trials and samples, what is decided by it, and what the experiment takes still.

    Args:
        turn: of the experiment in its next round.
        conditions: the device's state ``before`` and ``after`` the block.
    """
    started = block.trials[0].started
    transaction.connection.execute(
        _blocks.insert().values(
            experiment=experiment.id,
            number=block.number,
            order=analysed.order,
            valid=analysed.valid,
            treatment=analysed.treatment,
            control=analysed.control,
            treatment_tail=analysed.treatment_tail,
            control_tail=analysed.control_tail,
            started_at=started,
            finished_at=finished,
            stratum=analysed.stratum,
            fingerprint=analysed.fingerprint,
            conditions=conditions,
            **_interval(decision),
        )
    )
    transaction.connection.execute(
        schema.devices.update()
        .where(schema.devices.c.name == experiment.device)
        .values(experiment=experiment.id, block_at=finished)
    )
    for trial in block.trials:
        _journal_trial(transaction, experiment.id, block.number, trial)
    transaction.connection.execute(
        _experiments.update()
        .where(_experiments.c.id == experiment.id)
        .values(
            blocks=block.number + 1,
            round=experiment.round + 1,
            turn=turn,
            started_at=sa.func.coalesce(_experiments.c.started_at, started.timestamp()),
            **_interval(decision),
            **outlook_columns(outlook),
        )
    )
    transaction.announce(
        "block.done",
        experiment=experiment.id,
        block=block.number,
        device=experiment.device,
        valid=block.valid,
        **_interval(decision),
    )
    if experiment.quota is not None:
        transaction.announce("search.block", experiment=experiment.id)


def outlook_columns(outlook: model.Outlook) -> dict[str, Any]:
    """An outlook as the journal keeps it with its experiment."""
    return {
        "blocks_left": outlook.blocks,
        "seconds_left": outlook.seconds,
        "wave": order.wave(outlook.seconds),
        "out_of_reach": outlook.out_of_reach,
    }


def decide(transaction: store.Transaction, experiment: int, decision: model.Decision) -> None:
    """End an experiment with a verdict, for good; the decision has one. Without a reason, that of its planning stays."""
    transaction.connection.execute(
        _experiments.update()
        .where(_experiments.c.id == experiment)
        .values(
            state="decided",
            verdict=decision.verdict,
            reason=decision.reason or _experiments.c.reason,
            decided_at=datetime.now(UTC),
            in_tail=decision.in_tail,
            **_interval(decision),
        )
    )
    transaction.announce("experiment.decided", id=experiment, verdict=decision.verdict, **_interval(decision))


def keep_results(
    transaction: store.Transaction,
    experiment: int,
    summaries: Sequence[tuple[model.Series, model.JsonObject, model.JsonObject | None]],
) -> None:
    """Write what stays of each series when its samples are gone: (series, treatment's statistics, control's)."""
    if summaries:
        transaction.connection.execute(
            schema.results.insert(),
            [
                {
                    "experiment": experiment,
                    "type": series.type,
                    "metric": series.metric,
                    "unit": series.unit,
                    "treatment": treatment,
                    "control": control,
                    "text": series.text,
                }
                for series, treatment, control in summaries
            ],
        )


def samples(connection: sa.Connection, experiment: int) -> dict[model.ArmName, list[model.Series]]:
    """The series of all trials of an experiment's valid blocks, per arm, in order of blocks."""
    gathered: dict[model.ArmName, list[model.Series]] = {}
    for _, arm, series in samples_by_block(connection, experiment):
        gathered.setdefault(arm, []).append(series)
    return gathered


def samples_by_block(connection: sa.Connection, experiment: int) -> Iterator[tuple[int, model.ArmName, model.Series]]:
    """Block, arm and series of all trials of an experiment's valid blocks, in order of blocks."""
    table = schema.samples
    rows = connection.execute(
        sa.select(_trials.c.block, _trials.c.arm, table)
        .join(_trials, _trials.c.id == table.c.trial)
        .join(_blocks, sa.and_(_blocks.c.experiment == _trials.c.experiment, _blocks.c.number == _trials.c.block))
        .where(_trials.c.experiment == experiment, _blocks.c.valid)
        .order_by(_trials.c.block, _trials.c.id)
    )
    for row in rows.mappings():
        series = model.Series(row["type"], row["metric"], row["unit"], tuple(row["values"]), row["text"])
        yield row["block"], model.ArmName(row["arm"]), series


def measured(
    connection: sa.Connection, experiment: int, latest: model.Block
) -> tuple[dict[model.ArmName, list[model.Series]], str]:
    """All series of an experiment's valid blocks by arm, with those of its ``latest``, which is not journalled yet.

    With them the backend that the trials proved to have executed: all of them that say agree, or the first that says.
    """
    series = samples(connection, experiment)
    for one in latest.trials if latest.valid else ():
        series.setdefault(one.arm, []).extend(one.series)
    journalled_backend = connection.scalar(
        sa.select(_trials.c.backend)
        .where(_trials.c.experiment == experiment, _trials.c.backend != "")
        .order_by(_trials.c.outcome != model.Outcome.OK, _trials.c.id)
        .limit(1)
    )
    stated = (one.backend for one in sorted(latest.trials, key=lambda one: one.outcome is not model.Outcome.OK) if one.backend)
    return series, journalled_backend or next(stated, "")


def await_builds(transaction: store.Transaction, experiment: int, missing: Collection[str]) -> None:
    """Let an experiment wait until the builds have been made again whose directories are ``missing``."""
    table = schema.builds
    gone = transaction.connection.scalars(sa.select(table.c.id).where(table.c.directory.in_(missing), table.c.state == "built"))
    builds.lose(transaction, gone.all())
    still = (_experiments.c.id == experiment, _experiments.c.state == "open")  # nobody has cancelled it meanwhile
    transaction.connection.execute(_experiments.update().where(*still).values(state="waiting"))
    transaction.announce("build.gone", experiment=experiment)


def skip(transaction: store.Transaction, experiment: int, reason: str) -> None:
    """End an experiment that cannot be measured at all, unless it has ended."""
    transaction.connection.execute(
        _experiments.update()
        .where(_experiments.c.id == experiment, _experiments.c.state.in_(schema.UNDECIDED_STATES))
        .values(state="skipped", reason=reason, decided_at=datetime.now(UTC))
    )
    transaction.announce("experiment.skipped", id=experiment, reason=reason)


def cell_text(experiment: Experiment) -> str:
    """An experiment in a few words, for logs and the board."""
    benchmark = experiment.design.benchmark.identifier
    arms = experiment.treatment.commit[:12] + (f" vs {experiment.control.commit[:12]}" if experiment.control else "")
    return f"{benchmark} {experiment.design.backend} {arms}".replace("  ", " ")


def _journal_trial(transaction: store.Transaction, experiment: int, block: int, trial: model.Trial) -> None:
    number = transaction.connection.execute(
        _trials.insert()
        .values(
            experiment=experiment,
            block=block,
            arm=trial.arm,
            outcome=trial.outcome,
            reason=trial.reason,
            backend=trial.backend,
            seconds=trial.seconds,
            agreement=trial.agreement,
            log=trial.log,
            started_at=trial.started,
        )
        .returning(_trials.c.id)
    ).scalar_one()
    if trial.series:
        transaction.connection.execute(
            schema.samples.insert(),
            [
                {
                    "trial": number,
                    "type": series.type,
                    "metric": series.metric,
                    "unit": series.unit,
                    "values": list(series.values),
                    "text": series.text,
                }
                for series in trial.series
            ],
        )


def _interval(decision: model.Decision) -> dict[str, float | None]:
    # JSON has no NaN and nothing infinite: what is not known yet, or has no bound, is null.
    values = {"estimate": decision.estimate, "low": decision.low, "high": decision.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _build(connection: sa.Connection, build: int) -> model.Build:
    row = connection.execute(sa.select(schema.builds).where(schema.builds.c.id == build)).one()
    return model.Build(
        row.repository,
        row.commit,
        row.framework,
        row.platform,
        cast("str", row.directory),
        row.program,
        row.digest,
    )
