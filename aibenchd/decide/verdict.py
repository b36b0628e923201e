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
at 1 % and ± 0.6 at 96 %):

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

import itertools
import math
from collections.abc import Sequence

import numpy as np

from aibenchd import model
from aibenchd.decide import sequential

NEVER = 1 << 30  # past every budget
TORN = "no one effect explains all blocks: it changed while it was measured"
STEPS = {"coin": 1, "pairs": 2}  # blocks that are one unit


def decide(
    treatment: Sequence[float] | sequential.Floats,
    control: Sequence[float] | sequential.Floats,
    rule: model.Rule,
    *,
    orders: Sequence[str],
    kind: str = "coin",
    numbers: Sequence[int] | None = None,
    seconds: float = 0.0,
) -> model.Decision:
    """What the blocks so far say; final once it says something.

    Args:
        treatment, control: shape (blocks,), one number per process, in the order of the blocks.
        rule: error rates, smallest effect, budget.
        orders: of each block, ``TC`` where the treatment ran first, else ``CT``.
        kind: how the orders were drawn: ``coin``, or ``pairs``, where blocks 2k and 2k + 1 are one unit.
        numbers: of the blocks, rising; their places where none is missing.
        seconds: that the blocks took.

    Raises:
        ValueError: a time is not positive and finite (the block is named), the lengths differ, both blocks of a pair have
            one order, or an unknown kind.
    """
    ratios = log_ratios(np.asarray(treatment, dtype=float), np.asarray(control, dtype=float))
    numbers = range(len(ratios)) if numbers is None else numbers
    if not len(ratios) == len(orders) == len(numbers):
        raise ValueError(f"{len(ratios)} blocks, but {len(orders)} orders and {len(numbers)} numbers")
    if kind not in STEPS:
        raise ValueError(f"expected an order of {' or '.join(map(repr, STEPS))}, not {kind!r}")
    step, ratios = STEPS[kind], ratios[: rule.max_blocks]
    units = paired(ratios, orders, numbers) if kind == "pairs" else ratios
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


def paired(ratios: sequential.Floats, orders: Sequence[str], numbers: Sequence[int]) -> sequential.Floats:
    """The mean of each blocks 2k and 2k + 1 that are both there: one toss made both orders, so it is symmetric as a whole.

    A block without its partner is passed over. To pair it with a block of another toss would spread that toss over
    several units, whose signs would then not be independent.

    Raises:
        ValueError: both blocks of a pair have one order.
    """
    units: list[float] = []
    for one, two in itertools.pairwise(range(len(ratios))):
        if numbers[one] % 2 == 0 and numbers[two] == numbers[one] + 1:
            if orders[one] == orders[two]:
                raise ValueError(f"blocks {numbers[one]} and {numbers[two]} are both {orders[one]}: expected opposite orders")
            units.append(float(ratios[one] + ratios[two]) / 2)
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
    if low > high:
        torn = verdict and model.Verdict.INCONCLUSIVE
        return model.Decision(torn, blocks, _change(_centre(units, math.nan, math.nan)), reason=TORN)
    return model.Decision(verdict, blocks, _change(_centre(units, low, high)), _change(low), _change(high))


def _change(theta: float) -> float:
    """A log ratio as a ratio minus 1; infinite where no float holds it."""
    try:
        return math.expm1(theta)
    except OverflowError:
        return math.inf


def _centre(units: sequential.Floats, low: float, high: float) -> float:
    """The Hodges-Lehmann estimate, the median of all means of two, brought into the interval."""
    if not units.size:
        return math.nan
    rows, columns = np.triu_indices(len(units))
    centre = float(np.median((units[rows] + units[columns]) / 2))
    return float(np.fmin(np.fmax(centre, low), high))
