"""Blocks become a decision.

θ is the log ratio of treatment to control, δ = log(1 + ``min_effect``). With the e-processes of
:mod:`aibenchd.decide.sequential`, at the first block where one of these holds:

- *unchanged*: θ ≥ δ and θ ≤ -δ are both rejected, each at β;
- *regressed*, *improved*: θ ≤ 0, or θ ≥ 0, is rejected at α / 2.

Where both hold at once it is *unchanged*: there is a difference, and it is smaller than what matters. Power is promised
at |θ| ≥ δ; between 0 and δ any verdict may come. A verdict is final: more blocks do not change it.

The interval is that of the tests which the verdict rests on: with confidence 1 - 2β where it is *unchanged*, and lies
within ±δ then; else with confidence 1 - α, and does not hold 0 where something *regressed* or *improved*.

Measured on 1,000 replays of each of four recorded tapes (α = 1 %, β = 5 %, δ = 2 %, 60 blocks at most, so ± 0.3 points
at 1 % and ± 0.6 at 96 %; ``make bench-decide`` measures it again):

=============  ==========================  ===========================  ==========================
tape           no change: alarms, trials   2 % slower: found, trials    5 % slower: found, trials
=============  ==========================  ===========================  ==========================
idle-1t        0.5 %, 29                   96 %, 34                     100 %, 18
idle-2t        0.3 %, 30                   96 %, 35                     100 %, 20
bursty-1t      0.2 %, 23                   96 %, 29                     100 %, 19
ramp-1t        0.1 %, 18                   98 %, 24                     100 %, 17
=============  ==========================  ===========================  ==========================
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aibenchd import model
from aibenchd.decide import sequential

NEVER = 1 << 30  # past every budget


def decide(
    treatment: Sequence[float] | sequential.Floats,
    control: Sequence[float] | sequential.Floats,
    rule: model.Rule,
    *,
    orders: Sequence[str],
    kind: str = "coin",
    seconds: float = 0.0,
) -> model.Decision:
    """What the blocks so far say; final once it says something.

    Args:
        treatment, control: shape (blocks,), one number per process, in the order of the blocks.
        rule: error rates, smallest effect, budget.
        orders: of each block, ``TC`` where the treatment ran first, else ``CT``.
        kind: how the orders were drawn: ``coin``, or ``pairs``, where two blocks of opposite orders are one unit.
        seconds: that the blocks took.

    Raises:
        ValueError: a time is not positive and finite (the block is named), or the lengths differ.
    """
    ratios = log_ratios(np.asarray(treatment, dtype=float), np.asarray(control, dtype=float))
    if len(orders) != len(ratios):
        raise ValueError(f"{len(ratios)} blocks, but {len(orders)} orders")
    ratios = ratios[: rule.max_blocks]
    step = 2 if kind == "pairs" else 1
    units = paired(ratios, orders) if kind == "pairs" else ratios
    scale = sequential.scales(units, math.log1p(rule.min_effect) / 2)
    verdict, stop = _reached(units, scale, rule)
    if verdict is not None:
        return _decision(verdict, units[: stop + 1], scale[: stop + 1], rule, (stop + 1) * step)
    if len(ratios) >= rule.max_blocks or seconds >= rule.max_seconds:
        verdict = model.Verdict.INCONCLUSIVE
    return _decision(verdict, units, scale, rule, len(ratios))


def log_ratios(treatment: sequential.Floats, control: sequential.Floats) -> sequential.Floats:
    """log(treatment / control) of each block.

    Raises:
        ValueError: as :func:`decide`.
    """
    if treatment.shape != control.shape or treatment.ndim != 1:
        raise ValueError(f"expected two equally long rows of times, not shapes {treatment.shape} and {control.shape}")
    for name, times in (("treatment", treatment), ("control", control)):
        bad = np.flatnonzero(~(np.isfinite(times) & (times > 0)))
        if bad.size:
            raise ValueError(f"block {bad[0]}: the {name} took {times[bad[0]]}: expected a positive, finite time")
    return np.log(treatment) - np.log(control)


def paired(ratios: sequential.Floats, orders: Sequence[str]) -> sequential.Floats:
    """The mean of each two blocks that follow each other with opposite orders; others are passed over.

    A block that failed leaves its partner alone, and the mean of two of one order would hold the slot's own effect.
    """
    units: list[float] = []
    waiting: int | None = None
    for index, order in enumerate(orders[: len(ratios)]):
        if waiting is not None and orders[waiting] != order:
            units.append(float(ratios[waiting] + ratios[index]) / 2)
            waiting = None
        else:
            waiting = index
    return np.array(units, dtype=float)


def stops(units: sequential.Floats, scale: sequential.Floats, rule: model.Rule) -> tuple[sequential.Ints, ...]:
    """After which unit each of *regressed*, *improved*, *unchanged* is first so; :data:`NEVER` where it is not.

    Args:
        units, scale: shape (…, units); see :mod:`aibenchd.decide.sequential`.
    """
    margin = math.log1p(rule.min_effect)
    certain, enough = math.log(2 / rule.alpha), math.log(1 / rule.beta)
    slower = first(sequential.evidence(units, scale, 0.0, +1) >= certain)
    faster = first(sequential.evidence(units, scale, 0.0, -1) >= certain)
    below = first(sequential.evidence(units, scale, margin, -1) >= enough)
    above = first(sequential.evidence(units, scale, -margin, +1) >= enough)
    return slower, faster, np.maximum(below, above)


def first(reached: sequential.Bools) -> sequential.Ints:
    """Index of the first True on the last axis; :data:`NEVER` where there is none."""
    if not reached.shape[-1]:
        return np.full(reached.shape[:-1], NEVER)
    found: sequential.Ints = np.where(reached.any(axis=-1), reached.argmax(axis=-1), NEVER)
    return found


def _reached(units: sequential.Floats, scale: sequential.Floats, rule: model.Rule) -> tuple[model.Verdict | None, int]:
    slower, faster, unchanged = (int(stop) for stop in stops(units, scale, rule))
    stop = min(slower, faster, unchanged)
    if stop == NEVER:
        return None, 0
    if stop == unchanged:
        return model.Verdict.UNCHANGED, stop
    return (model.Verdict.REGRESSED if stop == slower else model.Verdict.IMPROVED), stop


def _decision(
    verdict: model.Verdict | None, units: sequential.Floats, scale: sequential.Floats, rule: model.Rule, blocks: int
) -> model.Decision:
    error = 2 * rule.beta if verdict is model.Verdict.UNCHANGED else rule.alpha
    threshold = math.log(2 / error)
    low, high = (sequential.bound(units, scale, threshold, side) for side in (-1, +1))
    return model.Decision(verdict, blocks, math.expm1(_centre(units, low, high)), math.expm1(low), math.expm1(high))


def _centre(units: sequential.Floats, low: float, high: float) -> float:
    """The Hodges-Lehmann estimate, the median of all means of two, brought into the interval."""
    if not units.size:
        return math.nan
    rows, columns = np.triu_indices(len(units))
    centre = float(np.median((units[rows] + units[columns]) / 2))
    return float(np.fmin(np.fmax(centre, low), high))
