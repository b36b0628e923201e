"""How noisy a benchmark is on a device, and by which number of a process it is decided on: the blocks to say it by, and what
was said."""

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
TIMED, TIMED_BLOCKS, TIMED_BYTES = 40, 200, 4 << 20  # as many at most, whose iterations are: 4 MiB of them as text
DUE = 30  # blocks after which it is looked again which number a cell is decided on: to read iterations takes up to 0.2 s
LISTED = 10_000
CELL = ("benchmark", "device", "backend")  # columns that tell a repository's cells apart
NEWEST = 2**63 - 1  # no experiment has that number
# Two cells differ by more than noise does, and a profiler adds its own.
NOT_OF_COMMITS = (model.RunType.COMPARE, model.RunType.PROFILE, model.RunType.SUBMISSION)

_e, _p, _n, _b, _s = schema.experiments, schema.pairs, schema.noises, schema.blocks, schema.samples


@dataclass(frozen=True, slots=True)
class Blocks:
    """Valid blocks of one experiment."""

    design: model.Design
    blocks: Sequence[experiments.Journalled]


@dataclass(frozen=True, slots=True)
class Iterations:
    """One valid block of two arms, in which the network was timed: each process's iterations, in order."""

    order: str
    treatment: Sequence[float]
    control: Sequence[float]


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a cell's noise, as :mod:`aibenchd.store.schema` says it."""

    blocks: int
    scale: float | None
    degrees: float | None
    slot: float | None
    slot_low: float | None
    slot_high: float | None


@dataclass(frozen=True, slots=True)
class Finds:
    """What the budget of a cell's newest test finds there, as a ratio minus 1.

    Attributes:
        smallest: None where it finds no effect, or that is not known.
        scale: of a block's log ratio; None where it is not known.
    """

    smallest: float | None
    scale: float | None


_OF_EXPERIMENT = (  # asked with each block
    sa.select(
        *(_n.c[field.name] for field in dataclasses.fields(Known)),
        _n.c.summary.label("known"),
        _e.c.design["summary"].label("own"),
    )
    .select_from(_e)
    .join(_p, _p.c.id == _e.c.pair)
    .join(_n, sa.and_(_n.c.repository == _p.c.repository, *(_n.c[name] == _e.c[name] for name in CELL)))
    .where(_e.c.id == sa.bindparam("experiment"))
)


def of_experiment(connection: sa.Connection, experiment: int) -> Known | None:
    """Of an experiment's cell; None where nothing is known yet of the number that it is decided on."""
    row = connection.execute(_OF_EXPERIMENT, {"experiment": experiment}).one_or_none()
    if row is None or not _alike(row.known, row.own):
        return None
    return Known(*row[: len(dataclasses.fields(Known))])


def finds(connection: sa.Connection, experiment: int) -> Finds | None:
    """Of an experiment's cell; None where nothing is known of the number that it is decided on."""
    query = (
        sa.select(_n.c.smallest, _n.c.scale, _n.c.summary.label("known"), _e.c.design["summary"].label("own"))
        .select_from(_e)
        .join(_p, _p.c.id == _e.c.pair)
        .join(_n, sa.and_(_n.c.repository == _p.c.repository, *(_n.c[name] == _e.c[name] for name in CELL)))
        .where(_e.c.id == experiment)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None or not _alike(row.known, row.own) else Finds(row.smallest, row.scale)


def _alike(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two summaries, as the journal keeps them, are the same number."""
    return _summary(one).same_number(_summary(other))


def summary_of(connection: sa.Connection, pair: int, cell: tuple[str, str, str]) -> model.Summary:
    """Which number of a process the next experiment of a cell is decided on, for a pair of its repository.

    Args:
        cell: its benchmark's digest, device and backend.
    """
    return _summary(connection.scalar(sa.select(_n.c.summary).join(_p, _same(cell)).where(_p.c.id == pair)))


def now(connection: sa.Connection, cell: suspicion.Cell) -> model.Summary:
    """As :func:`summary_of`."""
    return _summary(connection.scalar(sa.select(_n.c.summary).where(*_row(cell))))


def _row(cell: suspicion.Cell) -> list[sa.ColumnElement[bool]]:
    return [_n.c[name] == getattr(cell, name) for name in ("repository", *CELL)]


def _summary(stored: Mapping[str, Any] | None) -> model.Summary:
    return model.Summary(**(stored or {}))


def _same(cell: tuple[str, str, str]) -> sa.ColumnElement[bool]:
    """A cell's row, beside a pair of its repository."""
    return sa.and_(_n.c.repository == _p.c.repository, *(_n.c[name] == value for name, value in zip(CELL, cell, strict=True)))


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
    known = connection.execute(
        sa.select(_n.c.expected, _n.c.seconds, _n.c.summary).join(_p, _same(cell)).where(_p.c.id == pair)
    ).one_or_none()
    if known is None or known.expected is None or known.seconds is None or not _alike(known.summary, design.get("summary")):
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
    rows = connection.execute(_newest(cell, before).limit(EXPERIMENTS)).all()
    found = ((row, experiments.journalled(connection, row.id)) for row in rows)
    return [Blocks(experiments.design_of(row.design), [one for one in blocks if one.valid]) for row, blocks in found]


def due(connection: sa.Connection, cell: suspicion.Cell) -> int | None:
    """The newest experiment of a cell, where enough blocks have been run since its number was last chosen; else None."""
    chosen = sa.select(_n.c.chosen_at).where(*_row(cell)).scalar_subquery()
    since = _newest(cell, NEWEST).where(_e.c.id > sa.func.coalesce(chosen, 0)).subquery()
    blocks, newest = connection.execute(sa.select(sa.func.sum(since.c.blocks), sa.func.max(since.c.id))).one()
    return newest if (blocks or 0) >= DUE else None


def newest_iterations(connection: sa.Connection, cell: suspicion.Cell) -> list[list[Iterations]]:
    """Of the newest experiments of a cell the blocks whose samples are still there, oldest first; bounded."""
    found: list[list[Iterations]] = []
    blocks, size = 0, 0
    for row in connection.execute(_newest(cell, NEWEST).limit(TIMED)).all():
        size += connection.scalar(_timed(row.id, sa.func.sum(sa.func.length(sa.cast(_s.c["values"], sa.Text))))) or 0
        if size > TIMED_BYTES:
            break
        found.insert(0, _iterations(connection, row.id))
        blocks += len(found[0])
        if blocks >= TIMED_BLOCKS:
            break
    return found


def _newest(cell: suspicion.Cell, before: int) -> sa.Select[Any]:
    return (
        sa.select(_e.c.id, _e.c.design, _e.c.blocks)
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
    )


def _iterations(connection: sa.Connection, experiment: int) -> list[Iterations]:
    orders: dict[int, str] = {}
    times: dict[int, dict[str, Sequence[float]]] = {}
    columns = (_b.c.number, _b.c.order, schema.trials.c.arm, _s.c["values"])
    for number, order, arm, values in connection.execute(_timed(experiment, *columns).order_by(_b.c.number)):
        orders[number] = order
        times.setdefault(number, {})[arm] = values
    return [Iterations(orders[number], *(arms[arm] for arm in model.ArmName)) for number, arms in times.items() if len(arms) == 2]


def _timed(experiment: int, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of the samples of the network's time in an experiment's valid blocks."""
    trials, (type_, _, metric) = schema.trials, model.NETWORK.partition(" ")
    return (
        sa.select(*columns)
        .select_from(_b)
        .join(trials, sa.and_(trials.c.experiment == _b.c.experiment, trials.c.block == _b.c.number))
        .join(_s, _s.c.trial == trials.c.id)
        .where(_b.c.experiment == experiment, _b.c.valid, _s.c.type == type_, _s.c.metric == metric)
    )


def put(
    transaction: store.Transaction,
    cell: suspicion.Cell,
    facts: Mapping[str, float | int | None],
    summary: model.Summary,
    chosen_at: int | None = None,
) -> None:
    """Keep what is known of a cell now: ``blocks scale degrees slot slot_low slot_high smallest expected seconds``.

    With it the number of a process that its next experiments are decided on, which all of these are of.

    Args:
        chosen_at: its newest experiment, where that number was looked for anew.
    """
    key = {"repository": cell.repository, "device": cell.device, "benchmark": cell.benchmark, "backend": cell.backend}
    values = {"identifier": cell.identifier, "measured_at": datetime.now(UTC), "summary": dataclasses.asdict(summary), **facts}
    values |= {} if chosen_at is None else {"chosen_at": chosen_at}
    insert = sqlite.insert(_n).values(**key, **values)
    transaction.connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))


def listing(connection: sa.Connection, device: str | None = None) -> list[dict[str, Any]]:
    """Of all cells, or of one device's; the noisiest last. ``decided_on`` has the number of a process in words."""
    query = sa.select(_n).where(*([] if device is None else [_n.c.device == device]))
    rows = connection.execute(query.order_by(_n.c.device, _n.c.smallest.nulls_last()).limit(LISTED)).mappings()
    return [{**row, "measured_at": row["measured_at"].isoformat(), "decided_on": _summary(row["summary"]).name} for row in rows]


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
