"""A request, with how its cells compare where they are on two devices: each was measured by itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from aibenchd import model
from aibenchd.store import experiments, paging, schema, views

ROUNDED = 6  # digits of a ratio


def request(connection: sa.Connection, number: int) -> paging.Item | None:
    """A request as the journal has it, with ``apart``: of each test that ran on two devices, both experiments and the ratio."""
    found = views.request(connection, number)
    return None if found is None else found | {"apart": _compared(connection, number)}


def _compared(connection: sa.Connection, number: int) -> list[paging.Item]:
    pairs, table = schema.pairs.c, schema.experiments.c
    rows = connection.execute(
        sa.select(table.id, table.pair, table.design, table.device, table.identifier)
        .join(schema.pairs, pairs.id == table.pair)
        .where(pairs.request == number, pairs.run_type == model.RunType.COMPARE.value, pairs.control.is_(None))
        .order_by(table.pair, table.id)
    ).all()
    sides = [list(side) for _, side in itertools.groupby(rows, lambda row: row.pair)]  # in the order in which they were planned
    return [_ratio(connection, both) for both in zip(*sides, strict=True)]


def _ratio(connection: sa.Connection, both: Sequence[sa.Row[Any]]) -> paging.Item:
    from aibenchd.decide import apart

    blocks = schema.blocks.c
    numbers = [
        connection.scalars(
            sa.select(blocks.treatment)
            .where(blocks.experiment == row.id, blocks.valid, blocks.treatment > 0)
            .order_by(blocks.number)
        ).all()
        for row in both
    ]
    treatment, control = both
    rule = experiments.design_of(treatment.design).rule
    found = apart.ratio(numbers[0], numbers[1], rule.alpha)
    ends = {name: None if found is None else round(getattr(found, name), ROUNDED) for name in ("estimate", "low", "high")}
    return {
        "benchmark": treatment.identifier,
        "treatment": treatment.id,
        "control": control.id,
        "devices": [row.device for row in both],
        "processes": [len(values) for values in numbers],
        "error": rule.alpha,
        "verdict": None if found is None else _verdict(found.low, found.high, rule.min_effect).value,
        **ends,
    }


def _verdict(low: float, high: float, min_effect: float) -> model.Verdict:
    if low > 0:
        return model.Verdict.REGRESSED
    if high < 0:
        return model.Verdict.IMPROVED
    within = high < min_effect and low > 1 / (1 + min_effect) - 1
    return model.Verdict.UNCHANGED if within else model.Verdict.INCONCLUSIVE
