"""What the journal says of a stretch of time, or of commits: bounded reads, as JSON, newest first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import cell_facts, paging, schema, views

LEAST_PREFIX = 4  # characters of a commit that tell it apart
AMBIGUOUS = 5  # commits that begin alike, of which no more are told
CALLED = (model.Verdict.REGRESSED, model.Verdict.IMPROVED, model.Verdict.BROKEN)

_e, _p, _b, _r, _f = schema.experiments, schema.pairs, schema.builds, schema.revisions, schema.findings
_OF_COMMITS = _p.c.run_type == model.RunType.BENCHMARK  # the others say nothing new of a commit, or nothing of one


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of a line that is watched."""

    repository: str
    commit: str
    subject: str
    position: int


End: TypeAlias = datetime | Commit


@dataclass(frozen=True, slots=True)
class Period:
    """The experiments that ended from ``since`` on and before ``until``, of what is named.

    Where an end is a commit, those count whose treatments came after ``since``, and no later than ``until``, on its line.
    ``benchmark`` is an identifier, or the digest of one.
    """

    since: End
    until: End
    benchmark: str | None = None
    device: str | None = None
    repository: str | None = None

    def experiments(self) -> list[sa.ColumnElement[bool]]:
        """What holds of its experiments and their pairs."""
        return [*self.named(), *self._begun(), *self._not_ended()]

    def before(self) -> list[sa.ColumnElement[bool]]:
        """What holds of experiments that ended before it began."""
        earlier = _e.c.decided_at < self.since if isinstance(self.since, datetime) else _no_later_than(self.since)
        return [*self.named(), earlier]

    def named(self) -> list[sa.ColumnElement[bool]]:
        """What holds of all experiments of what is named, whenever they ended."""
        wanted = ((_e.c.device, self.device), (_p.c.repository, self.repository))
        return [*(column == value for column, value in wanted if value is not None), *views.of_benchmark(self.benchmark)]

    def builds(self) -> list[sa.ColumnElement[bool]]:
        """What holds of builds that ended in it."""
        ends: list[sa.ColumnElement[bool]] = []
        if isinstance(self.since, datetime):
            ends.append(_b.c.finished_at >= self.since)
        else:
            ends.append(_on_line(self.since, _b, _b.c.commit, _r.c.position > self.since.position))
        if isinstance(self.until, datetime):
            ends.append(_b.c.finished_at < self.until)
        else:
            ends.append(_on_line(self.until, _b, _b.c.commit, _r.c.position <= self.until.position))
        return ends + ([_b.c.repository == self.repository] if self.repository is not None else [])

    def _begun(self) -> list[sa.ColumnElement[bool]]:
        if isinstance(self.since, datetime):
            return [_e.c.decided_at >= self.since]
        return [_e.c.decided_at.is_not(None), _on_line(self.since, _p, _p.c.treatment, _r.c.position > self.since.position)]

    def _not_ended(self) -> list[sa.ColumnElement[bool]]:
        return [_e.c.decided_at < self.until if isinstance(self.until, datetime) else _no_later_than(self.until)]


@dataclass(frozen=True, slots=True)
class Worked:
    """What a device did for experiments that ended in a period.

    Attributes:
        blocks, invalid: how many, and of them those that do not count.
        seconds: from the begin of each block to its end, added up.
        fingerprints: how many different things it was found to be in them.
        trials: by outcome.
        excluded: trials that were run again, by cause.
    """

    blocks: int
    invalid: int
    seconds: float
    fingerprints: int
    trials: dict[str, int]
    excluded: dict[str, int]


def commits(connection: sa.Connection, prefix: str, repository: str | None) -> list[Commit]:
    """Those of watched lines that begin so, of one repository or of all; more than one where that is not clear."""
    columns = (_r.c.repository, _r.c.commit, _r.c.subject, _r.c.position)
    known = sa.select(*columns).where(_r.c.commit.startswith(prefix, autoescape=True), _r.c.on_branch)
    if repository is not None:
        known = known.where(_r.c.repository == repository)
    return [Commit(*row) for row in connection.execute(known.order_by(_r.c.id.desc()).limit(AMBIGUOUS))]


def names(connection: sa.Connection, digest: str | None) -> dict[str, set[str]]:
    """What the journal has experiments of, by ``benchmark device repository``; and of a benchmark the digest."""
    known = {
        name: set(connection.scalars(sa.select(column).distinct()))
        for name, column in (("benchmark", _e.c.identifier), ("device", _e.c.device), ("repository", _p.c.repository))
    }
    known["benchmark"] |= set(connection.scalars(sa.select(_e.c.benchmark).where(_e.c.benchmark == digest).limit(1)))
    return known


def counts(connection: sa.Connection, period: Period) -> list[paging.Item]:
    """How many experiments ended and how, ``device run_type ended experiments``."""
    ended = sa.func.coalesce(_e.c.verdict, _e.c.state).label("ended")
    query = sa.select(_e.c.device, _p.c.run_type, ended, sa.func.count().label("experiments"))
    rows = _of(query, period).group_by(_e.c.device, _p.c.run_type, ended)
    return [dict(row) for row in connection.execute(rows).mappings()]


def worked(connection: sa.Connection, period: Period) -> dict[str, Worked]:
    """By device."""
    blocks, trials, excluded = schema.blocks.c, schema.trials.c, schema.exclusions.c
    taken = sa.type_coerce(blocks.finished_at, sa.Float) - sa.type_coerce(blocks.started_at, sa.Float)
    figures = (
        sa.func.count().label("blocks"),
        sa.func.count().filter(~blocks.valid).label("invalid"),
        sa.func.sum(taken).label("seconds"),
        sa.func.count(blocks.fingerprint.distinct()).label("fingerprints"),
    )
    of_blocks = _of(sa.select(_e.c.device, *figures), period).join(schema.blocks, blocks.experiment == _e.c.id)
    outcomes = _tallied(connection, period, schema.trials, trials.experiment, trials.outcome)
    causes = _tallied(connection, period, schema.exclusions, excluded.experiment, excluded.cause)
    found = {row.device: row for row in connection.execute(of_blocks.group_by(_e.c.device))}
    return {
        name: Worked(row.blocks, row.invalid, row.seconds, row.fingerprints, outcomes.get(name, {}), causes.get(name, {}))
        for name, row in found.items()
    }


def experiments(connection: sa.Connection, period: Period, ended: Sequence[str], limit: int | None) -> list[paging.Item]:
    """Those of commits, newest first, that ended with one of these verdicts, or in one of these states where they have none."""
    return views.experiments_of(connection, [*period.experiments(), _OF_COMMITS, _ended(ended)], limit)


def unsure(connection: sa.Connection, period: Period, limit: int | None) -> list[paging.Item]:
    """Inconclusive verifications, newest first: each with its ``finding``, and ``of``, the experiment that showed that first.

    Of that ``id run_type verdict estimate low high in_tail``, and the finding's ``state``.
    """
    verifications = (_p.c.run_type == model.RunType.VERIFY, _e.c.verdict == model.Verdict.INCONCLUSIVE)
    items = views.experiments_of(connection, [*period.experiments(), *verifications], limit)
    of = _suspects(connection, {item["finding"] for item in items})
    return [item | {"of": of.get(item["finding"])} for item in items]


def _suspects(connection: sa.Connection, numbers: Collection[int]) -> dict[int, paging.Item]:
    """By finding, what showed it first."""
    columns = (_e.c.id, _p.c.run_type, _e.c.verdict, _e.c.estimate, _e.c.low, _e.c.high, _e.c.in_tail, _f.c.state)
    query = sa.select(_f.c.id.label("finding"), *columns).join(_e, _e.c.id == _f.c.suspect).join(_p, _p.c.id == _e.c.pair)
    items = paging.items_of(connection, query.where(_f.c.id.in_(numbers)))
    return {item.pop("finding"): item for item in items}


def history(connection: sa.Connection, period: Period, cell: cell_facts.Key, limit: int) -> list[paging.Item]:
    """The verdicts of one cell, newest first."""
    repository, *rest = cell
    own = (column == value for column, value in zip((_e.c.benchmark, _e.c.device, _e.c.backend), rest, strict=True))
    among = [*period.experiments(), _p.c.repository == repository, *own, _OF_COMMITS, _e.c.verdict.is_not(None)]
    return views.experiments_of(connection, among, limit)


def cells(connection: sa.Connection, period: Period) -> list[paging.Item]:
    """The cells that were measured: those with most that was called first.

    ``repository benchmark device backend identifier experiments called``, ``called`` being what regressed, improved or broke;
    ``framework`` and ``specified`` (a benchmark's JSON) of the newest.
    """
    key = (_p.c.repository, _e.c.benchmark, _e.c.device, _e.c.backend)
    called = sa.func.count().filter(_e.c.verdict.in_(CALLED))
    query = sa.select(*key, _e.c.identifier, sa.func.max(_e.c.id).label("newest"), sa.func.count().label("experiments"))
    found = _measured(query.add_columns(called.label("called")), period).group_by(*key).subquery()
    rows = connection.execute(
        sa.select(found, _b.c.framework, _e.c.design["benchmark"].label("specified"))
        .join(_e, _e.c.id == found.c.newest)
        .join(_b, _b.c.id == _e.c.treatment_build)
        .order_by(found.c.called.desc(), found.c.identifier, found.c.device, found.c.backend)
    )
    return [dict(row) for row in rows.mappings()]


def figures(connection: sa.Connection, period: Period) -> dict[cell_facts.Key, cell_facts.Facts]:
    """How fast each cell was found to be, by the newest of its experiments whose verdict took blocks."""
    key = (_p.c.repository, _e.c.benchmark, _e.c.device, _e.c.backend)
    took_blocks = sa.func.max(_e.c.id).filter(_e.c.verdict != model.Verdict.IDENTICAL)
    newest = sa.select(*key, sa.func.max(_e.c.id).label("newest"), took_blocks.label("decided"))
    return cell_facts.of(connection, _measured(newest, period).group_by(*key).order_by(sa.desc("newest")).limit(cell_facts.CELLS))


def findings(connection: sa.Connection, period: Period) -> list[int]:
    """What was found in it and not refuted, what is confirmed first, newest first."""
    return _findings(connection, [*period.experiments(), _f.c.state != suspicion.REFUTED])


def finding_states(connection: sa.Connection, period: Period) -> dict[str, int]:
    """How many of all that was found in it are in which state."""
    query = (
        sa.select(_f.c.state, sa.func.count().label("findings")).join(_e, _e.c.id == _f.c.suspect).join(_p, _p.c.id == _e.c.pair)
    )
    return {row.state: row.findings for row in connection.execute(query.where(*period.experiments()).group_by(_f.c.state))}


def standing(connection: sa.Connection, period: Period) -> list[int]:
    """What was found before it and confirmed, and is not mended or accepted today, newest first."""
    return _findings(connection, [*period.before(), _f.c.state == suspicion.OPEN, _f.c.mended.is_(None)])


def failed_builds(connection: sa.Connection, period: Period, limit: int | None) -> list[paging.Item]:
    """The newest builds that failed: ``repository commit framework platform reason finished_at``."""
    columns = (_b.c.id, _b.c.repository, _b.c.commit, _b.c.framework, _b.c.platform, _b.c.reason, _b.c.finished_at)
    query = sa.select(*columns).where(_b.c.state == "failed", *period.builds()).order_by(_b.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def not_run(connection: sa.Connection, period: Period, limit: int | None) -> list[paging.Item]:
    """Why experiments ended without a verdict, what most did first: ``state reason experiments``."""
    many = sa.func.count().label("experiments")
    query = _of(sa.select(_e.c.state, _e.c.reason, many), period).where(_e.c.verdict.is_(None))
    rows = connection.execute(query.group_by(_e.c.state, _e.c.reason).order_by(many.desc()).limit(limit))
    return [dict(row) for row in rows.mappings()]


def left_changed(connection: sa.Connection) -> dict[str, int]:
    """How many changes of each device are not undone yet."""
    rows = connection.execute(sa.select(schema.undo.c.device, sa.func.count().label("changes")).group_by(schema.undo.c.device))
    return {row.device: row.changes for row in rows}


def _findings(connection: sa.Connection, among: Sequence[sa.ColumnElement[bool]]) -> list[int]:
    query = sa.select(_f.c.id).join(_e, _e.c.id == _f.c.suspect).join(_p, _p.c.id == _e.c.pair).where(*among)
    return list(connection.scalars(query.order_by((_f.c.state == suspicion.OPEN).desc(), _f.c.id.desc())))


def _of(query: sa.Select[Any], period: Period) -> sa.Select[Any]:
    return query.select_from(_e).join(_p, _p.c.id == _e.c.pair).where(*period.experiments())


def _measured(query: sa.Select[Any], period: Period) -> sa.Select[Any]:
    return _of(query, period).where(_OF_COMMITS, _e.c.verdict.is_not(None))


def _tallied(
    connection: sa.Connection, period: Period, table: sa.Table, experiment: sa.ColumnElement[int], what: sa.ColumnElement[str]
) -> dict[str, dict[str, int]]:
    """By device, how many rows of a table its experiments have, by one of their columns."""
    query = _of(sa.select(_e.c.device, what.label("what"), sa.func.count().label("rows")), period)
    found: dict[str, dict[str, int]] = {}
    for device, name, rows in connection.execute(query.join(table, experiment == _e.c.id).group_by(_e.c.device, what)):
        found.setdefault(device, {})[name] = rows
    return found


def _ended(words: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.or_(_e.c.verdict.in_(words), sa.and_(_e.c.verdict.is_(None), _e.c.state.in_(words)))


def _no_later_than(end: Commit) -> sa.ColumnElement[bool]:
    return _on_line(end, _p, _p.c.treatment, _r.c.position <= end.position)


def _on_line(
    end: Commit, table: sa.Table, commit: sa.ColumnElement[str], place: sa.ColumnElement[bool]
) -> sa.ColumnElement[bool]:
    """That a row's commit is on the line of another one, at such a place."""
    there = sa.select(_r.c.commit).where(_r.c.repository == end.repository, _r.c.on_branch, place)
    return sa.and_(table.c.repository == end.repository, commit.in_(there))
