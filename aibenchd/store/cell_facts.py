"""Cells of the coverage matrix: what the journal knows of each that was planned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sa

from aibenchd.store import paging, schema

_e, _p = schema.experiments.c, schema.pairs.c

CELLS = 10_000  # of the coverage matrix


@dataclass(frozen=True, slots=True)
class Stand:
    """How an experiment ended or stands; fields as in :mod:`aibenchd.store.schema`."""

    id: int
    state: str
    verdict: str | None
    reason: str
    commit: str
    started: bool
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the journal knows of a cell that was planned.

    Attributes:
        newest: its newest experiment that no one asked for.
        decided: the newest of those whose verdict took blocks; None where there is none yet.
        numbers: of that one, the one number of each process of the treatment that did not fail, in order; the newest.
        series: of that one, what was measured of the network, of its accuracy and power, and of outputs:
            ``type metric unit treatment``.
    """

    newest: Stand
    decided: Stand | None
    numbers: Sequence[float] = ()
    series: Sequence[paging.Item] = ()


Key: TypeAlias = tuple[str, str, str, str]  # repository, digest of the benchmark, device, backend


def coverage(connection: sa.Connection, rows: Collection[tuple[str, str]]) -> dict[Key, Facts]:
    """What is known of each cell of these rows, (repository, digest of the benchmark); of those that were planned last."""
    table = schema.cells
    asked = (table.c.repository.in_({row[0] for row in rows}), table.c.benchmark.in_({row[1] for row in rows}))
    return of(connection, sa.select(table).where(*asked).order_by(table.c.newest.desc()).limit(CELLS))


def of(connection: sa.Connection, cells: sa.Select[Any]) -> dict[Key, Facts]:
    """What is known of cells; ``cells`` has the columns of :data:`aibenchd.store.schema.cells`."""
    shown = cells.cte("shown")
    numbers: dict[int, list[float]] = defaultdict(list)
    blocks = schema.blocks.c
    measured = sa.select(blocks.experiment, blocks.treatment).join(shown, shown.c.decided == blocks.experiment)
    for experiment, number in connection.execute(measured.where(blocks.treatment.is_not(None)).order_by(blocks.number)):
        numbers[experiment].append(number)
    series: dict[int, list[paging.Item]] = defaultdict(list)
    results = schema.results.c
    columns = (results.experiment, results.type, results.metric, results.unit, results.treatment)
    of_network = sa.or_(
        results.type == schema.MAIN_SERIES,
        results.metric.in_(schema.OTHER_METRICS),
        results.type.startswith(schema.OUTPUT_SERIES, autoescape=True),
    )
    select = sa.select(*columns).join(shown, shown.c.decided == results.experiment).where(of_network)
    for item in paging.items_of(connection, select):
        series[item.pop("experiment")].append(item)
    newest, decided = (_stands(connection, shown, column) for column in (shown.c.newest, shown.c.decided))
    return {
        (row.repository, row.benchmark, row.device, row.backend): Facts(
            newest[row.newest], decided.get(row.decided), numbers[row.decided][-paging.BLOCKS :], series[row.decided]
        )
        for row in connection.execute(sa.select(shown))
    }


def _stands(connection: sa.Connection, shown: sa.CTE, column: sa.ColumnElement[Any]) -> dict[int, Stand]:
    """The experiments that one column of the cells names."""
    rows = connection.execute(
        sa.select(_e.id, _e.state, _e.verdict, _e.reason, _p.treatment, _e.started_at, _e.decided_at)
        .select_from(shown)
        .join(schema.experiments, _e.id == column)
        .join(schema.pairs, _p.id == _e.pair)
    )
    return {
        row.id: Stand(row.id, row.state, row.verdict, row.reason, row.treatment, row.started_at is not None, row.decided_at)
        for row in rows
    }
