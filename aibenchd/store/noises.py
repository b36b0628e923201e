"""How noisy a benchmark is on a device: the blocks to say it by, and what was said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from aibenchd import model
from aibenchd.plan import suspicion
from aibenchd.store import experiments, schema, store

EXPERIMENTS = 10  # the newest, whose blocks are looked at
LISTED = 10_000
CELL = ("benchmark", "device", "backend")  # columns that tell a repository's cells apart
NEWEST = 2**63 - 1  # no experiment has that number
# Two cells differ by more than noise does, and a profiler adds its own.
NOT_OF_COMMITS = (model.RunType.COMPARE, model.RunType.PROFILE, model.RunType.SUBMISSION)

_e, _p, _n = schema.experiments, schema.pairs, schema.noises


@dataclass(frozen=True, slots=True)
class Blocks:
    """Valid blocks of one experiment."""

    design: model.Design
    blocks: Sequence[experiments.Journalled]


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a cell's noise, as :mod:`aibenchd.store.schema` says it."""

    blocks: int
    scale: float | None
    degrees: float | None
    slot: float | None
    slot_low: float | None
    slot_high: float | None


def of_experiment(connection: sa.Connection, experiment: int) -> Known | None:
    """Of an experiment's cell; None where nothing is known yet."""
    columns = (_n.c[field.name] for field in dataclasses.fields(Known))
    row = connection.execute(
        sa.select(*columns)
        .select_from(_e)
        .join(_p, _p.c.id == _e.c.pair)
        .join(_n, sa.and_(_n.c.repository == _p.c.repository, *(_n.c[name] == _e.c[name] for name in CELL)))
        .where(_e.c.id == experiment)
    ).one_or_none()
    return None if row is None else Known(*row)


def expected(
    connection: sa.Connection, pair: int, cell: tuple[str, str, str], design: Mapping[str, Any], quota: int | None = None
) -> dict[str, Any]:
    """What an experiment is expected to take that has no block yet, as its columns say it; nothing where nothing is known.

    A test that ends when its blocks say so is taken to find no change.

    Args:
        cell: its benchmark's digest, device and backend.
        design: as the journal keeps it.
        quota: blocks that a search gives it.
    """
    same = sa.and_(_n.c.repository == _p.c.repository, *(_n.c[name] == value for name, value in zip(CELL, cell, strict=True)))
    known = connection.execute(sa.select(_n.c.expected, _n.c.seconds).join(_p, same).where(_p.c.id == pair)).one_or_none()
    if known is None or known.expected is None or known.seconds is None:
        return {}
    blocks = quota if quota is not None else _blocks(design, known.expected)
    return experiments.outlook_columns(model.Outlook(blocks, math.ceil(blocks * known.seconds)))


def _blocks(design: Mapping[str, Any], usual: float) -> int:
    """That an experiment takes, where a test that finds no change takes so many."""
    if design.get("profiled"):
        return 1
    if design["arms"] == 1:
        return int(design["blocks"])
    rule = model.Rule(**design["rule"])
    return math.ceil(min(usual, rule.max_blocks)) if rule.decides else rule.max_blocks


def newest_blocks(connection: sa.Connection, cell: suspicion.Cell, before: int = NEWEST) -> list[Blocks]:
    """Of the newest experiments of a cell, newest first; of those before one of them."""
    rows = connection.execute(
        sa.select(_e.c.id, _e.c.design)
        .join(_p, _p.c.id == _e.c.pair)
        .where(
            _p.c.repository == cell.repository,
            _e.c.benchmark == cell.benchmark,
            _e.c.device == cell.device,
            _e.c.backend == cell.backend,
            _e.c.control_build.is_not(None),
            _e.c.verdict.is_not(None),
            _e.c.id < before,
            _p.c.run_type.not_in(NOT_OF_COMMITS),
        )
        .order_by(_e.c.id.desc())
        .limit(EXPERIMENTS)
    ).all()
    found = ((row, experiments.journalled(connection, row.id)) for row in rows)
    return [Blocks(experiments.design_of(row.design), [one for one in blocks if one.valid]) for row, blocks in found]


def put(transaction: store.Transaction, cell: suspicion.Cell, facts: Mapping[str, float | int | None]) -> None:
    """Keep what is known of a cell now: ``blocks scale degrees slot slot_low slot_high smallest expected seconds``."""
    key = {"repository": cell.repository, "device": cell.device, "benchmark": cell.benchmark, "backend": cell.backend}
    values = {"identifier": cell.identifier, "measured_at": datetime.now(UTC), **facts}
    insert = sqlite.insert(_n).values(**key, **values)
    transaction.connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))


def listing(connection: sa.Connection, device: str | None = None) -> list[dict[str, Any]]:
    """Of all cells, or of one device's; the noisiest last."""
    query = sa.select(_n).where(*([] if device is None else [_n.c.device == device]))
    rows = connection.execute(query.order_by(_n.c.device, _n.c.smallest.nulls_last()).limit(LISTED)).mappings()
    return [{**row, "measured_at": row["measured_at"].isoformat()} for row in rows]


def smallest_by_device(connection: sa.Connection) -> dict[str, tuple[float | None, float | None]]:
    """By device, the smallest effect that is found: of its quietest benchmark, and of its noisiest; None where no effect is."""
    rows = connection.execute(
        sa.select(
            _n.c.device,
            sa.func.min(_n.c.smallest).label("least"),
            sa.func.max(_n.c.smallest).label("most"),
            sa.func.count().label("cells"),
            sa.func.count(_n.c.smallest).label("finite"),
        ).group_by(_n.c.device)
    )
    return {row.device: (row.least, row.most if row.cells == row.finite else None) for row in rows}
