"""What the planner sees of a repository: a bounded window, whatever the journal holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model, settings
from aibenchd.devices import base
from aibenchd.plan import planner, suspicion
from aibenchd.store import revisions, schema

_revisions, _pairs, _experiments = schema.revisions, schema.pairs, schema.experiments

LINE = 2_000  # revisions of the watched line that the planner sees
PENDING = 2_000  # revisions that wait for a plan; older ones are seen when these are dealt with
ORPHANS = 100


def of(
    connection: sa.Connection,
    repository: settings.RepositorySettings,
    devices: Sequence[base.DeviceSettings],
    now: datetime,
) -> planner.Window:
    """What the planner sees of ``repository``; only these ``devices`` hold a pair undecided."""
    name, platforms = repository.name, base.platforms(devices)
    return planner.Window(
        now=now,
        pending=_ranked(revisions.newest_pending(connection, name, PENDING)),
        line=_ranked(revisions.recent(connection, name, LINE)),
        undecided=_undecided(connection, name, [device.name for device in devices]),
        planned_at=connection.execute(
            sa.select(schema.repositories.c.planned_at).where(schema.repositories.c.name == name)
        ).scalar(),
        newest=_newest(connection, repository, platforms),
        orphans=_orphans(connection, name),
        unbuildable={platform: _unbuildable(connection, repository, platform) for platform in platforms},
        good=_good(connection, name),
    )


def _ranked(known: Iterable[revisions.Known]) -> list[planner.Ranked]:
    return [planner.Ranked(one.revision, one.state) for one in known]


def _undecided(connection: sa.Connection, repository: str, present: Collection[str]) -> int:
    waits = sa.exists().where(_experiments.c.pair == _pairs.c.id, schema.UNDECIDED, _experiments.c.device.in_(present))
    recent = _recent(repository)
    return connection.execute(sa.select(sa.func.count(_pairs.c.treatment.distinct())).where(*recent, waits)).scalar_one()


def _recent(repository: str) -> tuple[sa.ColumnElement[bool], ...]:
    """The newest pairs that were planned without being asked for; a bound on what any query here reads."""
    planned = (_pairs.c.repository == repository, _pairs.c.request.is_(None), _pairs.c.run_type == model.RunType.BENCHMARK)
    oldest = sa.select(_pairs.c.id).where(*planned).order_by(_pairs.c.id.desc()).limit(1).offset(LINE).scalar_subquery()
    return (*planned, _pairs.c.id > sa.func.coalesce(oldest, 0))


def _newest(
    connection: sa.Connection, repository: settings.RepositorySettings, platforms: Sequence[str]
) -> dict[str, planner.Pair]:
    """By platform, the newest pair whose treatment may build there."""
    rows = {platform: _newest_of(connection, repository, platform) for platform in platforms}
    made = {
        row.id: planner.Pair(row.id, revisions.one(connection, repository.name, row.treatment), _covered(connection, row))
        for row in {row.id: row for row in rows.values() if row}.values()
    }
    return {platform: made[row.id] for platform, row in rows.items() if row}


def _newest_of(connection: sa.Connection, repository: settings.RepositorySettings, platform: str) -> sa.Row[Any] | None:
    unbuildable = sa.exists().where(_failed(repository, platform), schema.builds.c.commit == _pairs.c.treatment)
    return connection.execute(
        sa.select(_pairs)
        .join(_revisions, sa.and_(_revisions.c.repository == _pairs.c.repository, _revisions.c.commit == _pairs.c.treatment))
        .where(*_recent(repository.name), ~unbuildable)
        .order_by(_revisions.c.position.desc(), _pairs.c.id.desc())
        .limit(1)
    ).one_or_none()


def _unbuildable(connection: sa.Connection, repository: settings.RepositorySettings, platform: str) -> frozenset[str]:
    commits = sa.select(schema.builds.c.commit).where(_failed(repository, platform))
    return frozenset(connection.scalars(commits.order_by(schema.builds.c.id.desc()).limit(LINE)))


def _failed(repository: settings.RepositorySettings, platform: str) -> sa.ColumnElement[bool]:
    """Builds of a repository that failed for a platform.

    That another's failed says nothing of it, nor does a copy's: one that is to be laid out otherwise may be more than its
    linker can do.
    """
    table = schema.builds
    return sa.and_(
        table.c.repository == repository.name,
        table.c.framework == repository.framework,
        table.c.platform == platform,
        table.c.copy == 0,
        table.c.state == "failed",
    )


def _covered(connection: sa.Connection, pair: sa.Row[Any]) -> frozenset[tuple[str, str, str]]:
    """The cells that are planned at a pair's treatment, whichever control each was given."""
    found = connection.execute(
        sa.select(*(_experiments.c[name] for name in schema.CELL))
        .join(_pairs)
        .where(
            _pairs.c.repository == pair.repository,
            _pairs.c.treatment == pair.treatment,
            _pairs.c.request.is_(None),
            _pairs.c.run_type == model.RunType.BENCHMARK,
        )
    )
    return frozenset(tuple(cell) for cell in found)


def _orphans(connection: sa.Connection, repository: str) -> list[planner.Pair]:
    """Pairs with those of their cells whose control does not build and that have not been given another; newest first."""
    lost = (schema.ORPHANED, ~_replaced())
    rows = connection.execute(
        sa.select(_pairs.c.id, _pairs.c.treatment)
        .where(*_recent(repository), sa.exists().where(_experiments.c.pair == _pairs.c.id, *lost))
        .order_by(_pairs.c.id.desc())
        .limit(ORPHANS)
    ).all()
    named = (_experiments.c[name] for name in schema.CELL)
    of_rows = _experiments.c.pair.in_([row.id for row in rows])
    cells: dict[int, list[tuple[str, str, str]]] = {row.id: [] for row in rows}
    for pair, *cell in connection.execute(sa.select(_experiments.c.pair, *named).join(_pairs).where(of_rows, *lost)):
        cells[pair].append(tuple(cell))
    return [planner.Pair(row.id, revisions.one(connection, repository, row.treatment), frozenset(cells[row.id])) for row in rows]


def _replaced() -> sa.ColumnElement[bool]:
    """Whether an experiment of :data:`_pairs` has a later one of the same cell and treatment."""
    later, again = _pairs.alias("later"), _experiments.alias("again")
    return (
        sa.exists()
        .where(
            later.c.request.is_(None),
            later.c.run_type == model.RunType.BENCHMARK,
            later.c.repository == _pairs.c.repository,
            later.c.treatment == _pairs.c.treatment,
            later.c.id > _pairs.c.id,
            again.c.pair == later.c.id,
            *(again.c[name] == _experiments.c[name] for name in schema.CELL),
        )
        .correlate(_pairs, _experiments)
    )


def _good(connection: sa.Connection, repository: str) -> frozenset[str]:
    """Commits of which all has ended, and nothing regressed or broke.

    Of each pair, a row or none is read of each of two indexes that hold few; and where there is none, of one that was decided.
    """
    waits, bad, decided = (
        sa.exists().where(_experiments.c.pair == _pairs.c.id, *of).correlate(_pairs)
        for of in ([schema.UNDECIDED], [schema.BAD, ~_as_good()], [_experiments.c.verdict.is_not(None)])
    )
    ended_well = sa.case((sa.or_(waits, bad), False), (decided, True))  # NULL of a pair that says nothing
    rows = connection.execute(sa.select(_pairs.c.treatment, ended_well).where(*_recent(repository))).all()
    return frozenset(commit for commit, well in rows if well).difference(commit for commit, well in rows if well == 0)


def _as_good() -> sa.ColumnElement[bool]:
    """Whether what an experiment shows is refuted, or is accepted as the new baseline, be it there or before."""
    finding = schema.findings.c
    settled = sa.exists().where(finding.suspect == _experiments.c.id, finding.state.in_((suspicion.REFUTED, suspicion.ACCEPTED)))
    sighted = sa.exists().where(
        schema.sightings.c.experiment == _experiments.c.id,
        schema.sightings.c.finding == finding.id,
        finding.state == suspicion.ACCEPTED,
    )
    return sa.or_(settled, sighted)
