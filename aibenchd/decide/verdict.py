"""Blocks become a decision.

θ is the log ratio of treatment to control, δ = log(1 + ``min_effect``). With the e-processes of
:mod:`aibenchd.decide.sequential`, at the first block where one of these holds:

- *unchanged*: θ ≥ δ and θ ≤ -δ are both rejected, each at β;
- *regressed*, *improved*: θ ≤ 0, or θ ≥ 0, is rejected at α / 2.

Where both hold at once it is *unchanged*: there is a difference, and it is smaller than what matters. Power is promised
at |θ| ≥ δ; between 0 and δ any verdict may come. A verdict is final: more blocks do not change it.

The interval is that of the tests which the verdict rests on: with confidence 1 - 2β where it is *unchanged*, and lies
within ±δ then; else with confidence 1 - α, and does not hold 0 where something *regressed* or *improved*. Where each θ has
been rejected from one side or the other, at whatever block, no one effect explains all blocks: *inconclusive*.

Measured on 4,000 replays of each of four recorded tapes and of synthetic noise, with orders as the daemon draws them
(α = 1 %, β = 5 %, δ = 2 %, 60 blocks at most): alarms where nothing changed; how often 2 % slower was found; mean trials,
two a block, to a verdict where nothing changed, at 1 %, 2 % and 5 %. Standard errors: at most 0.14 points of alarms, 0.8
of what was found, 0.7 trials; replays of one tape share its processes, so that for noise of its kind they are larger.

=================================  ======  =========  ====  ====  ====  ====
coin                               alarms  2 % found  same   1 %   2 %   5 %
=================================  ======  =========  ====  ====  ====  ====
idle-1t                            0.22 %     96.7 %  29.2  42.1  34.7  17.9
idle-2t                            0.50 %     95.7 %  30.2  46.5  35.1  19.3
bursty-1t                          0.12 %     97.1 %  23.0  32.8  29.5  18.8
ramp-1t                            0.27 %     96.9 %  17.8  27.2  24.8  17.3
normal, 1 % a process              0.07 %     97.0 %  17.3  29.7  24.3  16.8
Student's t, 2 degrees, 1 %        0.73 %     90.2 %  45.4  67.2  49.7  21.3
normal, a tenth in bursts of 20 %  0.65 %     86.6 %  47.5  65.6  49.8  28.7
autoregressive, 0.9                0.00 %     97.8 %  12.1  19.2  19.5  16.2
normal, second slot 2 % slower     0.57 %     96.4 %  33.8  53.0  36.5  17.9
=================================  ======  =========  ====  ====  ====  ====

=================================  ======  =========  ====  ====  ====  ====
pairs                              alarms  2 % found  same   1 %   2 %   5 %
=================================  ======  =========  ====  ====  ====  ====
idle-1t                            0.15 %     96.9 %  32.2  48.3  45.8  34.0
idle-2t                            0.10 %     94.5 %  41.7  55.0  53.4  40.6
bursty-1t                          0.20 %     96.7 %  34.9  46.5  49.4  35.6
ramp-1t                            0.03 %     97.4 %  27.1  38.5  41.4  33.9
normal, 1 % a process              0.00 %     98.1 %  24.1  36.9  38.5  32.7
Student's t, 2 degrees, 1 %        0.50 %     86.0 %  56.7  76.0  66.9  38.5
normal, a tenth in bursts of 20 %  0.55 %     56.0 %  82.9  89.5  86.3  65.9
autoregressive, 0.9                0.00 %     97.7 %  20.9  28.5  36.1  32.1
normal, second slot 2 % slower     0.00 %     98.1 %  24.1  36.9  38.5  32.7
=================================  ======  =========  ====  ====  ====  ====

So the coin is the better default: pairs need 16 blocks at the least, and pay only where the second slot is much slower.
Where noise is heavy beside δ, 60 blocks do not give the power that is promised on the tapes.
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
    if kind == "pairs":
        units = paired(ratios, orders, numbers)
        signs = np.zeros(len(units))  # the slot's effect cancels
    else:
        units = ratios
        signs = np.array([1.0 if order == "TC" else -1.0 for order in orders[: len(units)]])
    units, scale = cleared(units, signs, rule)
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


def cleared(units: sequential.Floats, signs: sequential.Floats, rule: model.Rule) -> tuple[sequential.Floats, sequential.Floats]:
    """The units less what is expected of their slots, and the noise that is expected of them.

    Args:
        units, signs: shape (…, units); see :func:`aibenchd.decide.sequential.foreseen`.
    """
    slots, scale = sequential.foreseen(units, signs, math.log1p(rule.min_effect) / 2)
    return units - signs * slots, scale


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
