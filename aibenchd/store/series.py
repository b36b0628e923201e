"""The history of one benchmark on one device and backend, as the journal keeps it: what comparisons of commits have said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import again, experiments, findings, schema, store

EDGES = 2_000  # comparisons of one series, the newest
CELLS = 1_000  # that one look deals with
PRIORITY = 50  # of what compares commits that are far apart: above what is measured with no one asking, below searches
OF_SERIES = (model.RunType.BENCHMARK, model.RunType.VERIFY, model.RunType.ANCHOR)
SILENT = (model.Verdict.BROKEN, model.Verdict.MEASURED)  # of how the times compare

_e, _p, _b, _r = schema.experiments, schema.pairs, schema.builds, schema.revisions


@dataclass(frozen=True, slots=True)
class Guarded:
    """An experiment whose verdict is of its slow iterations alone: its blocks say what became of the others."""

    design: model.Design
    blocks: Sequence[experiments.Journalled]


@dataclass(frozen=True, slots=True)
class Edge:
    """What one experiment says of two commits, by their positions on the branch.

    Attributes:
        number: of a process, that was compared.
        in_tail: the experiment, where ``decision`` is of its slow iterations alone, which are not what was compared.
    """

    experiment: int
    older: int
    newer: int
    run_type: model.RunType
    decision: model.Decision
    rule: model.Rule
    number: model.Summary = field(default_factory=model.Summary)
    in_tail: Guarded | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """All comparisons of one cell.

    Attributes:
        commits: by their positions.
        edges: the newest first.
        known: changes that are no creep, each from an older position to a newer one: findings that stand or wait to be
            confirmed, but for those in the tail, where the times that are compared did not change; and improvements.
        unbuildable: positions of those of the commits that do not build any more.
        pending: whether commits that are far apart are being compared already.
        anchored: position of the newest commit that was compared with one far apart, or was to be; None where none was.
    """

    cell: suspicion.Cell
    edges: Sequence[Edge]
    commits: Mapping[int, str]
    known: Sequence[tuple[int, int]]
    unbuildable: frozenset[int] = frozenset()
    pending: bool = False
    anchored: int | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """The cells in which two commits have been compared, until when: what is decided is there in the order of its times."""

    cells: Sequence[suspicion.Cell]
    until: datetime


def decided_since(connection: sa.Connection, when: datetime) -> Decided:
    """What has been decided since then, the oldest first where it is much."""
    cell = (_p.c.repository, _e.c.benchmark, _e.c.device, _e.c.backend, _e.c.identifier)
    newest = sa.func.max(_e.c.decided_at)
    rows = connection.execute(
        sa.select(*cell, newest)
        .join(_p, _p.c.id == _e.c.pair)
        .where(
            _e.c.verdict.is_not(None),
            _e.c.decided_at > when,
            _e.c.control_build.is_not(None),
            _p.c.run_type.in_((model.RunType.BENCHMARK, model.RunType.ANCHOR, model.RunType.SELFCHECK)),
        )
        .group_by(*cell)
        .order_by(newest)
        .limit(CELLS)
    ).all()
    return Decided([suspicion.Cell(*row[:-1]) for row in rows], rows[-1][-1] if rows else when)


def of_cell(connection: sa.Connection, cell: suspicion.Cell) -> Series:
    """The history of one cell; commits that are not on the branch, or not any more, are left out."""
    newer, older = _r.alias("newer"), _r.alias("older")
    treatment, control = _b.alias("treatment"), _b.alias("control")
    positions = (newer.c.position.label("newer"), older.c.position.label("older"))
    states = (treatment.c.state.label("newer_build"), control.c.state.label("older_build"))
    rows = connection.execute(
        sa.select(_e, _p.c.run_type, _p.c.treatment, _p.c.control, *positions, *states)
        .join(_p, _p.c.id == _e.c.pair)
        .join(newer, _on_branch(newer, _p.c.treatment))
        .join(older, _on_branch(older, _p.c.control))
        .join(treatment, treatment.c.id == _e.c.treatment_build)
        .join(control, control.c.id == _e.c.control_build)
        .where(
            *_in(cell),
            _e.c.verdict.not_in(SILENT),
            _e.c.control_build.is_not(None),
            _p.c.run_type.in_(OF_SERIES),
            ~_of_tail(),
            older.c.position < newer.c.position,
        )
        .order_by(_e.c.id.desc())
        .limit(EDGES)
    ).all()
    edges = [_edge(connection, row) for row in rows]
    improved = [(edge.older, edge.newer) for edge in edges if edge.decision.verdict is model.Verdict.IMPROVED]
    commits = {row.newer: row.treatment for row in rows} | {row.older: row.control for row in rows}
    unbuildable = {row.newer for row in rows if row.newer_build == "failed"}
    unbuildable |= {row.older for row in rows if row.older_build == "failed"}
    known = [*_of_findings(connection, cell), *improved]
    return Series(cell, edges, commits, known, frozenset(unbuildable), *_anchored(connection, cell))


def compare(transaction: store.Transaction, cell: suspicion.Cell, older: str, newer: str) -> None:
    """Have two commits compared that are far apart, as the newest of a series are that are planned with no one asking.

    None where none is planned so: what a person asked for, or what follows from verdicts, goes before other things.
    """
    planned = (_p.c.run_type == model.RunType.BENCHMARK, _p.c.request.is_(None), _e.c.control_build.is_not(None))
    query = sa.select(_e).join(_p, _p.c.id == _e.c.pair).where(*_in(cell), *planned)
    like = transaction.connection.execute(query.order_by(_e.c.id.desc()).limit(1)).one_or_none()
    if like is None:
        return
    pair = again.new_pair(transaction, cell.repository, newer, older, model.RunType.ANCHOR)
    rank = like.priority + PRIORITY
    arms = [again.build(transaction, like.treatment_build, rank, commit=commit) for commit in (newer, older)]
    again.experiment(transaction, like, pair, arms, rank)


def _of_tail() -> sa.ColumnElement[bool]:
    """Whether what was compared are the slow iterations alone: their ratio is none of the series'."""
    return sa.func.coalesce(_e.c.design["summary"]["low"].as_float(), 0.0) >= model.TAIL


def _edge(connection: sa.Connection, row: sa.Row[Any]) -> Edge:
    rule, number = model.Rule(**row.design["rule"]), model.Summary(**row.design.get("summary", {}))
    in_tail = Guarded(experiments.design_of(row.design), findings.valid_blocks(connection, row.id)) if row.in_tail else None
    decision = findings.decision(row)
    return Edge(row.id, row.older, row.newer, model.RunType(row.run_type), decision, rule, number, in_tail)


def _on_branch(revision: sa.FromClause, commit: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.and_(revision.c.repository == _p.c.repository, revision.c.commit == commit, revision.c.on_branch)


def _in(cell: suspicion.Cell) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _p.c.repository == cell.repository,
        _e.c.benchmark == cell.benchmark,
        _e.c.device == cell.device,
        _e.c.backend == cell.backend,
    )


def _of_findings(connection: sa.Connection, cell: suspicion.Cell) -> list[tuple[int, int]]:
    known = findings.known(connection, cell)
    return [span for one in known if one.suspect.fault is not suspicion.Fault.TAIL for span in one.spans]


def _anchored(connection: sa.Connection, cell: suspicion.Cell) -> tuple[bool, int | None]:
    """Whether the newest comparison of commits that are far apart is still to end, and the position of its newer commit."""
    row = connection.execute(
        sa.select(_e.c.state, _r.c.position)
        .join(_p, _p.c.id == _e.c.pair)
        .outerjoin(_r, _on_branch(_r, _p.c.treatment))
        .where(*_in(cell), _p.c.run_type == model.RunType.ANCHOR)
        .order_by(_e.c.id.desc())
        .limit(1)
    ).one_or_none()
    return (False, None) if row is None else (row.state in schema.UNDECIDED_STATES, row.position)
