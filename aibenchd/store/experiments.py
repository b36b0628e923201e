"""What the worker of a device reads and writes: the next experiment, its blocks, its end."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import order
from aibenchd.store import builds, revisions, schema, store

_experiments, _pairs, _blocks, _trials = schema.experiments, schema.pairs, schema.blocks, schema.trials
_treatment, _control = schema.revisions.alias("treatment"), schema.revisions.alias("control")
_treatment_build, _control_build = schema.builds.alias("treatment_build"), schema.builds.alias("control_build")
_e = _experiments.c
_NEXT = (_e.priority.desc(), _e.out_of_reach, _e.pair.desc(), _e.wave, _e.round, _e.turn)  # as an index has them

# What is asked for each block is composed once: to compose a statement takes longer than to run it.
_OF_SUBMISSION = sa.exists().where(_pairs.c.id == _e.pair, _pairs.c.run_type == model.RunType.SUBMISSION)
_ANY = (
    sa.select(_e.id)
    .where(
        _e.device == sa.bindparam("device"),
        _e.state == "open",
        _e.id.not_in(sa.bindparam("resting", expanding=True)),
        sa.or_(_e.quota.is_(None), _e.blocks < _e.quota),
    )
    .order_by(*_NEXT)
    .limit(1)
)
_WHOLE = (
    sa.select(_experiments, _pairs.c.run_type, _treatment, _treatment_build, _control, _control_build)
    .join(_pairs, _pairs.c.id == _e.pair)
    .join(_treatment, sa.and_(_treatment.c.repository == _pairs.c.repository, _treatment.c.commit == _pairs.c.treatment))
    .join(_treatment_build, _treatment_build.c.id == _e.treatment_build)
    .outerjoin(_control_build, _control_build.c.id == _e.control_build)
    .outerjoin(
        _control,
        sa.and_(_control.c.repository == _control_build.c.repository, _control.c.commit == _control_build.c.commit),
    )
    .where(_e.id == sa.bindparam("experiment"))
)
_BLOCKS = (
    sa.select(
        *(_blocks.c[name] for name in ("number", "order", "valid", "treatment", "control", "started_at", "finished_at")),
        *(_blocks.c[name] for name in ("stratum", "fingerprint", "treatment_tail", "control_tail")),
    )
    .where(_blocks.c.experiment == sa.bindparam("experiment"))
    .order_by(_blocks.c.number)
)
_COMPARED = sa.select(_trials.c.block, _trials.c.arm, _trials.c.agreement).where(
    _trials.c.experiment == sa.bindparam("experiment"), _trials.c.agreement != model.Agreement.UNKNOWN
)
_BLOCK_OF_DEVICE = schema.devices.update().where(schema.devices.c.name == sa.bindparam("device"))
_BLOCK_OF = (
    _experiments.update()
    .where(_e.id == sa.bindparam("experiment"))
    .values(started_at=sa.func.coalesce(_e.started_at, sa.bindparam("began", type_=schema.Instant)))
)
_TRIAL = _trials.insert().returning(_trials.c.id)


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
    chosen = _ANY if submitted else _ANY.where(~_OF_SUBMISSION)
    found = connection.execute(chosen, {"device": device, "resting": list(resting)}).scalar()
    return None if found is None else by_id(connection, found)


def by_id(connection: sa.Connection, experiment: int) -> Experiment:
    """One experiment, whole."""
    columns = connection.execute(_WHOLE, {"experiment": experiment}).one()._mapping
    compared = columns[_e.control_build] is not None
    return Experiment(
        id=columns[_e.id],
        pair=columns[_e.pair],
        run_type=columns[_pairs.c.run_type],
        device=columns[_e.device],
        design=design_of(columns[_e.design]),
        treatment=revisions.of_row(columns, _treatment),
        control=revisions.of_row(columns, _control) if compared else None,
        treatment_build=_build(columns, _treatment_build),
        control_build=_build(columns, _control_build) if compared else None,
        blocks=columns[_e.blocks],
        round=columns[_e.round],
        created_at=columns[_e.created_at],
        meta=columns[_treatment_build.c.meta] or {},
        quota=columns[_e.quota],
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
    rows = connection.execute(_BLOCKS, {"experiment": experiment})
    compared = connection.execute(_COMPARED, {"experiment": experiment})
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
    started, interval = block.trials[0].started, _interval(decision)
    transaction.connection.execute(
        _blocks.insert(),
        {
            "experiment": experiment.id,
            "number": block.number,
            "order": analysed.order,
            "valid": analysed.valid,
            "treatment": analysed.treatment,
            "control": analysed.control,
            "treatment_tail": analysed.treatment_tail,
            "control_tail": analysed.control_tail,
            "started_at": started,
            "finished_at": finished,
            "stratum": analysed.stratum,
            "fingerprint": analysed.fingerprint,
            "conditions": conditions,
            **interval,
        },
    )
    transaction.connection.execute(
        _BLOCK_OF_DEVICE, {"device": experiment.device, "experiment": experiment.id, "block_at": finished}
    )
    _journal_trials(transaction, experiment.id, block)
    transaction.connection.execute(
        _BLOCK_OF,
        {
            "experiment": experiment.id,
            "began": started,
            "blocks": block.number + 1,
            "round": experiment.round + 1,
            "turn": turn,
            **interval,
            **outlook_columns(outlook),
        },
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


def _journal_trials(transaction: store.Transaction, experiment: int, block: model.Block) -> None:
    samples = []
    for trial in block.trials:
        row = {
            "experiment": experiment,
            "block": block.number,
            "arm": trial.arm,
            "outcome": trial.outcome,
            "reason": trial.reason,
            "backend": trial.backend,
            "seconds": trial.seconds,
            "agreement": trial.agreement,
            "log": trial.log,
            "started_at": trial.started,
        }
        number = transaction.connection.execute(_TRIAL, row).scalar_one()
        samples += [
            {
                "trial": number,
                "type": series.type,
                "metric": series.metric,
                "unit": series.unit,
                "values": list(series.values),
                "text": series.text,
            }
            for series in trial.series
        ]
    if samples:
        transaction.connection.execute(schema.samples.insert(), samples)


def _interval(decision: model.Decision) -> dict[str, float | None]:
    # JSON has no NaN and nothing infinite: what is not known yet, or has no bound, is null.
    values = {"estimate": decision.estimate, "low": decision.low, "high": decision.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _build(columns: Mapping[Any, Any], table: sa.FromClause) -> model.Build:
    """The build in a row that has the columns of an alias of their table."""
    return model.Build(*(columns[table.c[part.name]] for part in dataclasses.fields(model.Build)))
