"""Experiments that wait for their builds: opened once these are there, ended where they never will be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import builds, experiments, noises, schema, store

_pairs, _experiments = schema.pairs, schema.experiments

SAME_PROGRAMS = "no control: its programs are the same as these, and it has not been measured here before"
REBUILT_DIFFERENTLY = "its programs were lost from the cache and came out different when they were built again"
TREATMENT_DOES_NOT_BUILD = "the treatment does not build"
# Two cells run the same programs in different ways; a search asks what blocks of two commits look like; a self-check wants this;
# a profile is of what was measured, equal or not.
MEASURED_ANYWAY = (model.RunType.COMPARE, model.RunType.REGRESS, model.RunType.SELFCHECK, model.RunType.PROFILE)


def promote(transaction: store.Transaction, identical: Callable[[store.Transaction, int], None]) -> int:
    """Open the experiments whose builds are there, and end those whose builds never will be; how many were moved.

    ``identical`` is called with each experiment whose two builds are byte for byte the same, to decide it. One that nobody
    asked for is opened with one arm instead where its cell would never be measured otherwise.
    """
    waiting = transaction.connection.execute(_ended_waits().limit(1_000)).all()
    for row in waiting:
        digests = f"{row.treatment_digest} {row.control_digest or '-'}"
        if row.treatment == "failed":
            experiments.skip(transaction, row.id, TREATMENT_DOES_NOT_BUILD)
        elif row.control == "failed":
            experiments.skip(transaction, row.id, schema.CONTROL_DOES_NOT_BUILD)
        elif row.blocks and row.digests != digests:
            experiments.skip(transaction, row.id, REBUILT_DIFFERENTLY)
        elif row.treatment_digest != row.control_digest or row.run_type in MEASURED_ANYWAY:
            _open(transaction, row.id, digests=digests)
        elif (
            row.run_type == model.RunType.BENCHMARK
            and row.request is None
            and not _measured_otherwise(transaction.connection, row)
        ):
            _open_alone(transaction, row)
        else:
            identical(transaction, row.id)
    return len(waiting)


def _measured_otherwise(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether a cell has been measured with no one asking, or another of its experiments is to tell."""
    known = sa.exists().where(
        schema.cells.c.repository == row.repository,
        *(schema.cells.c[name] == row._mapping[name] for name in schema.CELL),
        schema.cells.c.decided.is_not(None),
    )
    other = sa.exists().where(
        _experiments.c.state.in_(schema.UNDECIDED_STATES),
        *(_experiments.c[name] == row._mapping[name] for name in schema.CELL),
        _experiments.c.id != row.id,
        _pairs.c.id == _experiments.c.pair,
        _pairs.c.repository == row.repository,
        _pairs.c.request.is_(None),
        _pairs.c.run_type == model.RunType.BENCHMARK,
    )
    return bool(connection.scalar(sa.select(sa.or_(known, other))))


def _open(transaction: store.Transaction, experiment: int, **values: object) -> None:
    opened = _experiments.update().where(_experiments.c.id == experiment).values(state="open", **values)
    device = transaction.connection.execute(opened.returning(_experiments.c.device)).scalar_one()
    transaction.announce(f"experiment.open.{device}", id=experiment)  # of a thousand devices, this one is woken


def _open_alone(transaction: store.Transaction, row: sa.Row[Any]) -> None:
    """Open an experiment with its treatment alone."""
    design = transaction.connection.scalars(sa.select(_experiments.c.design).where(_experiments.c.id == row.id)).one()
    design = {**design, "arms": 1}
    alone = {"control_build": None, "design": design, "reason": SAME_PROGRAMS}
    expected = noises.expected(transaction.connection, row.pair, (row.benchmark, row.device, row.backend), design)
    _open(transaction, row.id, digests=f"{row.treatment_digest} -", **alone, **expected)


def promotable(connection: sa.Connection) -> bool:
    """Whether there is anything for :func:`promote`."""
    return bool(connection.execute(_ended_waits().limit(1)).first())


def evicted_but_needed(connection: sa.Connection) -> list[builds.Entry]:
    """Builds that experiments need and the cache no longer holds."""
    table = schema.builds
    needed = [
        sa.exists().where(_experiments.c[arm] == table.c.id, _experiments.c.state.in_(schema.UNDECIDED_STATES))
        for arm in ("treatment_build", "control_build")
    ]
    found = connection.scalars(sa.select(table.c.id).where(table.c.state == "evicted", sa.or_(*needed)).limit(1_000)).all()
    return [entry for build in found if (entry := builds.by_id(connection, build)) is not None]


def want_again(transaction: store.Transaction, lost: Iterable[builds.Entry]) -> None:
    """Queue builds that were evicted."""
    for entry in lost:
        builds.want(transaction, entry.key, entry.priority)


def _ended_waits() -> sa.Select[Any]:
    """Experiments that wait for builds which are there, or never will be, with what is known of these."""
    treatment, control = schema.builds.alias("treatment"), schema.builds.alias("control")
    return (
        sa.select(
            _experiments.c.id,
            treatment.c.state.label("treatment"),
            control.c.state.label("control"),
            treatment.c.digest.label("treatment_digest"),
            control.c.digest.label("control_digest"),
            _experiments.c.pair,
            _experiments.c.blocks,
            _experiments.c.digests,
            _pairs.c.run_type,
            _pairs.c.request,
            _pairs.c.repository,
            *(_experiments.c[name] for name in schema.CELL),
        )
        .join(_pairs, _pairs.c.id == _experiments.c.pair)
        .join(treatment, treatment.c.id == _experiments.c.treatment_build)
        .outerjoin(control, control.c.id == _experiments.c.control_build)
        .where(
            _experiments.c.state == "waiting",
            sa.or_(
                treatment.c.state == "failed",
                control.c.state == "failed",
                sa.and_(treatment.c.state == "built", sa.or_(control.c.state == "built", control.c.id.is_(None))),
            ),
        )
    )
