"""Blocks become a decision.

θ is the log ratio of treatment to control, δ = log(1 + ``min_effect``). At the first block where one of these holds, the
experiment is decided, and more blocks do not change it:

- *unchanged*: θ ≥ δ and θ ≤ -δ are both rejected, each at β;
- *regressed*, *improved*: θ ≤ 0, or θ ≥ 0, is rejected at α / 2.

Where both hold at once it is *unchanged*: there is a difference, and it is smaller than what matters. Power is promised
at |θ| ≥ δ; between 0 and δ any verdict may come.

The evidence is :mod:`aibenchd.decide.likelihood`'s, which declares what the noise is like. Three checks keep it honest:

- A change needs two blocks of either order, so that a slower slot is not taken for one, and a result that the coins alone
  would seldom make (:mod:`aibenchd.decide.chance`): at n blocks with a chance of at most :data:`BY_COINS` α · 8 / n, one-sided,
  which eight blocks can have at α = 1 % if they all point one way. At eight blocks this holds α whatever the noise is like: coins
  alone pass 0.8 % of experiments. Within 60 they pass 0.9 to 3.4 %, as the size of the noise falls, stays or rises; a bound that
  falls as (8 / n)³ would hold them at 1.3 %, for five trials more at 2 %, and an exact one, which is spent like an error of group
  sequential trials, at α, for seven.
- Noise that comes in a few fixed amounts (two modes of a clock, a coarse timer) is not the model's: where more than a
  :data:`CLUMPED` of all pairs of blocks lie closer than a sixteenth of their spread, the experiment is decided by
  :mod:`aibenchd.decide.sequential`'s bets on the coins from there on, which hold for noise of any kind, and take longer.
- Evidence that grows in steps oversteps its threshold, by more the larger the effect is in units of the noise (Siegmund
  1985, "Sequential analysis", ch. 8), so that the thresholds of Ville's inequality are too high there; and the prior gives most
  of its errors to loud noise. :func:`credit` corrects both, as measured.

The interval is that of the test which the verdict rests on: with confidence 1 - 2β where it is *unchanged*, and lies
within ±δ then; else with confidence 1 - α, and does not hold 0 where something *regressed* or *improved*. Where each θ has
been rejected from one side or the other, at whatever block, no one effect explains all blocks: *inconclusive*.

Measured with α = 1 %, β = 5 %, δ = 2 %, 60 blocks at most and orders as the daemon draws them, on four recorded tapes and on
synthetic noise, 1,500 replays by coin and 750 in pairs: false alarms; how often 2 % slower was found, and how often it was
missed, as *unchanged*, all in percent; mean trials, two a block, to a verdict where nothing changed, at 1 %, 2 % and 5 %.
Standard errors, by coin and in pairs: of alarms of 1 % 0.3 and 0.4 points, of what was found at most 1.3 and 1.8, of what was
missed at most 0.7 and 1.1, of trials at most 1.2 and 1.7; replays of one tape share its processes, so that for noise of its kind
they are larger.

========================================= ======  =====  ======  =====  =====  =====  =====
coin                                      alarms  found  missed   same    1 %    2 %    5 %
========================================= ======  =====  ======  =====  =====  =====  =====
idle-1t                                     0.13   96.7     3.3   23.1   40.9   32.4   19.3
idle-2t                                     0.20   96.9     2.9   24.5   43.4   33.9   20.9
bursty-1t                                   0.07   97.9     2.1   18.5   32.2   27.7   19.7
ramp-1t                                     0.00   96.6     3.4   14.7   26.2   22.4   17.1
normal, 1 % a block                         0.00   97.7     2.3    9.9   17.9   17.7   16.3
normal, 2 %                                 0.67   94.9     5.0   26.0   46.2   34.9   19.0
normal, 2.8 %                               0.47   88.2     5.5   46.8   75.8   61.9   25.0
normal, 4 %                                 0.53   49.4     3.9   85.4   99.4   96.3   37.1
Student's t, 2 degrees, 1 % a process       0.13   94.5     3.7   33.6   63.0   46.2   23.4
normal, a tenth in bursts of 20 %           0.07   94.9     2.4   33.6   66.0   48.4   30.3
autoregressive, 0.9                         0.00   98.3     1.7   10.4   18.5   18.0   16.3
normal, 2 % or 0.1 % by a toss              0.00   98.5     1.4   11.5   19.0   22.8   16.9
normal, second slot 2 % slower              0.00   98.3     1.7   15.5   25.7   24.0   16.7
second slot 3 % slower, next to no noise    1.40   92.8     7.2   18.6   26.4   28.7   16.5
two modes 4 % apart                         0.73   53.5     4.8   50.1   71.9   83.5   24.0
two levels, 4 %, by turns of 3 processes    1.07   92.9     6.5   30.3   53.9   41.9   19.9
a slot 4 % slower, by turns of blocks       1.13    0.7     3.0  118.3  118.8  116.7   22.3
========================================= ======  =====  ======  =====  =====  =====  =====

========================================= ======  =====  ======  =====  =====  =====  =====
pairs                                     alarms  found  missed   same    1 %    2 %    5 %
========================================= ======  =====  ======  =====  =====  =====  =====
idle-1t                                     0.13   95.6     4.0   21.8   40.6   41.2   32.6
idle-2t                                     0.00   94.0     5.1   23.1   45.0   45.9   37.8
bursty-1t                                   0.00   98.3     1.7   17.3   32.0   42.6   34.1
ramp-1t                                     0.00   95.5     4.5   13.9   27.8   35.0   32.6
normal, 1 % a block                         0.00   98.0     2.0    9.2   19.7   31.8   32.0
normal, 2 %                                 0.00   94.7     5.2   25.6   49.0   42.6   32.0
normal, 2.8 %                               0.67   85.9     6.8   44.5   75.0   63.2   32.7
normal, 4 %                                 0.53   44.8     4.7   85.4   99.4   98.7   40.9
Student's t, 2 degrees, 1 % a process       0.00   93.1     3.2   32.5   66.2   56.9   35.4
normal, a tenth in bursts of 20 %           0.00   73.7     2.5   34.7   70.5   73.9   55.7
autoregressive, 0.9                         0.00   96.7     3.3    9.5   20.2   31.6   32.0
normal, 2 % or 0.1 % by a toss              0.00   98.7     1.3   10.1   18.9   35.2   32.0
normal, second slot 2 % slower              0.00   99.5     0.5   13.8   26.3   32.1   32.0
second slot 3 % slower, next to no noise    0.00  100.0     0.0   12.0   18.8   32.0   32.0
two modes 4 % apart                         0.40   80.0     7.3   35.2   67.9   71.9   33.6
two levels, 4 %, by turns of 3 processes    2.00   89.3    10.7   26.8   57.3   46.9   32.0
a slot 4 % slower, by turns of blocks       1.20    0.8     2.8  119.1  119.0  117.8   28.7
========================================= ======  =====  ======  =====  =====  =====  =====

So alarms are within α, and misses within β, on the tapes and where noise has tails, drifts or comes in bursts.
The exceptions:

- Blocks that differ by one amount and little else, in a direction of their own, as where slots are slower by turns: alarms of 1.0
  to 2.1 ± 0.3 % by coin and 1.2 to 1.5 % in pairs, for amounts of 2 to 8 % and other noise of an 80th to a quarter of them, 3,000
  and 1,500 replays each; 0.8 to 1.7 % by coin where directions are drawn, and 1.1 % where noise is uniform within ± 6 %. Eight
  blocks that chance to point one way are no different from a change, and fair coins make them in one experiment of 128; what is
  above that comes later. Levels by turns: 0.8 and 1.1 % by coin and 1.5 and 2.0 % in pairs, and 2 % is missed in 6 and in 11 % of
  replays. With seven blocks at the least, for 1.5 trials fewer at 2 %, these were 1.6 to 3.5 %.
- Normal noise of 2 to 2.8 % a block: 2 % is missed in 5 to 7 % of replays; beside a second slot of 3 % and next to no noise,
  in 7 % by coin.
- A change of δ is found in fewer than 95 % where noise is about 2.8 % a block and more, in pairs under bursts, and where
  noise comes in a few amounts: what is not found is *inconclusive* but for those that are missed.

The coin is quicker to a change, for which pairs need 16 blocks at the least; pairs raise fewer alarms in noise like the tapes'.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd import model
from aibenchd.decide import chance, likelihood, sequential

NEVER = 1 << 30  # past every budget
KINDS = ("coin", "pairs")  # how orders are drawn
BY_COINS = 0.4  # chance of coins alone that a change may have, in units of alpha, at EIGHT blocks and fewer
EIGHT = 8
MIXED = 2  # blocks of either order before a change is called
LEAST = 2  # blocks, one of either order, before anything is called
CLUMPED = 1 / 4
FEW = 6  # blocks, of which it cannot be told whether they are clumped with fewer
CLOSE = 1 / 16  # of the spread
TAIL = 0.15  # of the blocks on either side that the spread leaves out
CREDIT_RISE, CREDIT_FROM, CREDIT_LEAST, CREDIT_MOST = 1.8, 1.4, 0.3, 2.6


@dataclass(frozen=True, slots=True)
class Experiment:
    """Blocks as they are analysed; arrays of shape (…, blocks), axes before the last are independent repetitions.

    Attributes:
        ratios: log(treatment / control).
        signs: +1 where the treatment ran first, -1 where it ran second.
        units: what one toss decided: the ratios, or the means of those of balanced pairs.
        unit_signs: as ``signs``; 0 where a unit has both orders, in which what a slot adds cancels.
        complete: of each block, how many units are complete with it; shape (blocks,).
    """

    ratios: sequential.Floats
    signs: sequential.Floats
    units: sequential.Floats
    unit_signs: sequential.Floats
    complete: sequential.Ints

    def by_block(self, of_units: sequential.Bools) -> sequential.Bools:
        """What holds after each unit, after each block; before any unit is complete nothing does."""
        nothing = np.zeros((*of_units.shape[:-1], 1), dtype=bool)
        found: sequential.Bools = np.concatenate([nothing, of_units], axis=-1)[..., self.complete]
        return found

    def less(self, amount: float) -> Experiment:
        """With a log ratio taken off each block."""
        return dataclasses.replace(self, ratios=self.ratios - amount, units=self.units - amount)

    def up_to(self, blocks: int) -> Experiment:
        """Its first ``blocks``."""
        units = slice(int(self.complete[blocks - 1]) if blocks else 0)
        return Experiment(
            self.ratios[..., :blocks],
            self.signs[..., :blocks],
            self.units[..., units],
            self.unit_signs[..., units],
            self.complete[:blocks],
        )


@dataclass(frozen=True, slots=True)
class Held:
    """Whether each verdict holds after each block, whether by the model of the noise or by the coins; and that noise's size."""

    slower: sequential.Bools
    faster: sequential.Bools
    unchanged: sequential.Bools
    by_model: sequential.Bools
    scale: sequential.Floats


def decide(
    treatment: Sequence[float] | sequential.Floats,
    control: Sequence[float] | sequential.Floats,
    rule: model.Rule,
    *,
    orders: Sequence[str],
    kind: str = "coin",
    numbers: Sequence[int] | None = None,
    seconds: float = 0.0,
    first_look: int = 0,
) -> model.Decision:
    """What the blocks so far say; final once it says something.

    To look later for the first time changes no verdict and no rate: the evidence may be looked at whenever one likes, and what
    held after an earlier block is the verdict, with the estimate and the interval of that block. What is lost are the blocks
    from there to the look.

    Where part of the ratio is known (``rule.known``) it is asked whether the treatment is slower by more than that, which is as
    asking it of ratios without that part. What is not, is *inconclusive*: it is no statement of how the two arms compare.

    Args:
        treatment, control: shape (blocks,), one number per process, in the order of the blocks.
        rule: error rates, smallest effect, budget.
        orders: of each block, ``TC`` where the treatment ran first, else ``CT``.
        kind: how the orders were drawn: ``coin``, or ``pairs``, where blocks 2k and 2k + 1 are one unit.
        numbers: of the blocks, rising; their places where none is missing.
        seconds: that the blocks took.
        first_look: with fewer blocks there is an estimate only, while the budget lasts: a look costs milliseconds.

    Raises:
        ValueError: a time is not positive and finite (the block is named), the lengths differ, both blocks of a pair have
            one order, or an unknown kind.
    """
    whole = seen(treatment, control, orders, kind, range(len(orders)) if numbers is None else numbers)
    return _with_known(_decided(whole.less(math.log1p(rule.known)), rule, seconds, first_look), rule.known)


def _decided(whole: Experiment, rule: model.Rule, seconds: float, first_look: int) -> model.Decision:
    blocks = len(whole.ratios)
    within = whole.up_to(min(blocks, rule.max_blocks))
    spent = blocks >= rule.max_blocks or seconds >= rule.max_seconds
    if blocks < first_look and not spent:
        return model.Decision(None, blocks, change(centre(within.units)))
    found = held(within, rule)
    verdict, stop = _reached(found)
    if verdict is not None:
        return _decision(verdict, within.up_to(stop + 1), found, rule)
    return _decision(model.Verdict.INCONCLUSIVE if spent else None, within, found, rule)


def _with_known(decision: model.Decision, known: float) -> model.Decision:
    """A decision on ratios that ``known``, as a ratio minus 1, was taken off, as one on all of them."""
    if not known:
        return decision
    # No logarithm: a bound of garbage may be so low that as a ratio it is none.
    estimate, low, high = (one * (1 + known) + known for one in (decision.estimate, decision.low, decision.high))
    whole = dataclasses.replace(decision, estimate=estimate, low=low, high=high)
    if decision.verdict in (model.Verdict.IMPROVED, model.Verdict.UNCHANGED):
        return dataclasses.replace(whole, verdict=model.Verdict.INCONCLUSIVE, reason=model.NO_MORE)
    return whole


def seen(
    treatment: Sequence[float] | sequential.Floats,
    control: Sequence[float] | sequential.Floats,
    orders: Sequence[str],
    kind: str,
    numbers: Sequence[int],
) -> Experiment:
    """Blocks as they are analysed; arguments and errors as of :func:`decide`."""
    ratios = log_ratios(np.asarray(treatment, dtype=float), np.asarray(control, dtype=float))
    if not len(ratios) == len(orders) == len(numbers):
        raise ValueError(f"{len(ratios)} blocks, but {len(orders)} orders and {len(numbers)} numbers")
    if kind not in KINDS:
        raise ValueError(f"expected an order of {' or '.join(map(repr, KINDS))}, not {kind!r}")
    signs = np.array([1.0 if order == "TC" else -1.0 for order in orders])
    return by_coin(ratios, signs) if kind == "coin" else in_pairs(ratios, signs, numbers)


def log_ratios(treatment: sequential.Floats, control: sequential.Floats) -> sequential.Floats:
    """log(treatment / control) of each block; all of shape (blocks,).

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


def by_coin(ratios: sequential.Floats, signs: sequential.Floats) -> Experiment:
    """Blocks whose orders were tossed one by one."""
    return Experiment(ratios, signs, ratios, signs, np.arange(1, ratios.shape[-1] + 1))


def in_pairs(ratios: sequential.Floats, signs: sequential.Floats, numbers: Sequence[int]) -> Experiment:
    """Blocks of which each 2k and 2k + 1 were ordered by one toss.

    A block without its partner is in no unit. To pair it with a block of another toss would spread that toss over
    several units, whose signs would then not be independent.

    Raises:
        ValueError: both blocks of a pair have one order.
    """
    units, complete = [], np.zeros(ratios.shape[-1], dtype=np.int64)
    for one, two in itertools.pairwise(range(ratios.shape[-1])):
        if numbers[one] % 2 == 0 and numbers[two] == numbers[one] + 1:
            if (signs[..., one] == signs[..., two]).any():
                order = "TC" if np.ravel(signs[..., one])[0] > 0 else "CT"
                raise ValueError(f"blocks {numbers[one]} and {numbers[two]} are both {order}: expected opposite orders")
            units.append((ratios[..., one] + ratios[..., two]) / 2)
            complete[two:] = len(units)
    stacked = np.stack(units, axis=-1) if units else ratios[..., :0]
    return Experiment(ratios, signs, stacked, np.zeros(stacked.shape), complete)


def held(seen: Experiment, rule: model.Rule) -> Held:
    """Which verdicts hold after each block."""
    slots, scale = sequential.foreseen(seen.units, seen.unit_signs, math.log1p(rule.min_effect) / 2)
    units = seen.units - seen.unit_signs * slots
    by_model = ~np.logical_or.accumulate(seen.by_block(clumped(units)), axis=-1)
    evidence = likelihood.weigh(seen.ratios, seen.signs, math.log1p(rule.min_effect))
    found = _by_model(seen, evidence, units, scale, rule)
    if not by_model.all():
        coins = _by_coins(seen, units, scale, rule)
        found = tuple(np.where(by_model, one, other) for one, other in zip(found, coins, strict=True))
    slower, faster, unchanged = found
    rarer = _rarer_order(seen)
    if rule.e_value > 0:
        slower = slower & seen.by_block(sequential.evidence(units, scale, 0.0, +1) >= math.log(rule.e_value))
    return Held(slower & (rarer >= MIXED), faster & (rarer >= MIXED), unchanged & (rarer >= 1), by_model, evidence.scale)


def _rarer_order(seen: Experiment) -> sequential.Ints:
    """How many blocks ran in the rarer of the two orders, after each block."""
    ahead = np.cumsum(seen.signs > 0, axis=-1)
    found: sequential.Ints = np.minimum(ahead, np.arange(1, seen.signs.shape[-1] + 1) - ahead)
    return found


def stops(seen: Experiment, rule: model.Rule) -> tuple[sequential.Ints, ...]:
    """After which block each of *regressed*, *improved*, *unchanged* is first so; :data:`NEVER` where it is not."""
    found = held(seen, rule)
    return first(found.slower), first(found.faster), first(found.unchanged)


def credit(scale: sequential.Floats, margin: float) -> sequential.Floats:
    """By how much evidence may fall short of a threshold of Ville's, as a factor; more where the noise is small.

    ``scale`` and ``margin`` are in log ratio; shape as ``scale``.
    """
    found: sequential.Floats = np.clip(np.exp(CREDIT_RISE * (margin / scale - CREDIT_FROM)), CREDIT_LEAST, CREDIT_MOST)
    return found


def clumped(units: sequential.Floats) -> sequential.Bools:
    """After each block, whether so many blocks are nearly equal, beside their spread, as noise with one peak seldom makes.

    Args:
        units: shape (…, blocks).
    """
    found = np.zeros(units.shape, dtype=bool)
    low, high = (_quantiles_so_far(units, share) for share in (TAIL, 1 - TAIL))
    apart = np.abs(units[..., :, None] - units[..., None, :])
    for blocks in range(FEW, units.shape[-1] + 1):
        reach = CLOSE * (high - low)[..., blocks - 1, None, None]
        near = np.count_nonzero(apart[..., :blocks, :blocks] <= reach, axis=(-1, -2))
        found[..., blocks - 1] = (near - blocks) / (blocks * (blocks - 1)) > CLUMPED
    return found & (high > low)


def _quantiles_so_far(values: sequential.Floats, share: float) -> sequential.Floats:
    """After each block, the quantile of those so far on the last axis, between two of them as :func:`numpy.quantile` has it."""
    blocks = values.shape[-1]
    so_far = np.sort(np.where(np.tri(blocks, dtype=bool), values[..., None, :], np.inf), axis=-1)
    place = np.arange(blocks) * share
    below, row = np.floor(place).astype(np.int64), np.arange(blocks)
    one, other, between = so_far[..., row, below], so_far[..., row, np.minimum(below + 1, row)], place - below
    found: sequential.Floats = np.where(between < 1 / 2, one + (other - one) * between, other - (other - one) * (1 - between))
    return found


def first(reached: sequential.Bools) -> sequential.Ints:
    """Index of the first True on the last axis; :data:`NEVER` where there is none."""
    if not reached.shape[-1]:
        return np.full(reached.shape[:-1], NEVER)
    found: sequential.Ints = np.where(reached.any(axis=-1), reached.argmax(axis=-1), NEVER)
    return found


def _by_model(
    seen: Experiment, evidence: likelihood.Evidence, units: sequential.Floats, scale: sequential.Floats, rule: model.Rule
) -> tuple[sequential.Bools, ...]:
    allowance = np.log(credit(evidence.scale, math.log1p(rule.min_effect)))
    certain, enough = math.log(2 / rule.alpha) - allowance, math.log(1 / rule.beta) - np.maximum(allowance, 0.0)
    seldom = BY_COINS * rule.alpha * np.minimum(1.0, EIGHT / np.arange(1, units.shape[-1] + 1))
    slower, faster = (seen.by_block(found <= seldom) for found in chance.of_coins(units, scale))
    return (
        (evidence.slower >= certain) & slower,
        (evidence.faster >= certain) & faster,
        (evidence.below >= enough) & (evidence.above >= enough),
    )


def _by_coins(
    seen: Experiment, units: sequential.Floats, scale: sequential.Floats, rule: model.Rule
) -> tuple[sequential.Bools, ...]:
    margin = math.log1p(rule.min_effect)
    certain, enough = math.log(2 / rule.alpha), math.log(1 / rule.beta)

    def reached(theta: float, side: int, threshold: float) -> sequential.Bools:
        rejected = sequential.evidence(units, scale, theta, side) >= threshold
        return seen.by_block(np.logical_or.accumulate(rejected, axis=-1))

    unchanged = reached(margin, -1, enough) & reached(-margin, +1, enough)
    return reached(0.0, +1, certain), reached(0.0, -1, certain), unchanged


def _reached(found: Held) -> tuple[model.Verdict | None, int]:
    """The verdict, and after which block; of one repetition."""
    slower, faster, unchanged = (int(first(one)) for one in (found.slower, found.faster, found.unchanged))
    stop = min(slower, faster, unchanged)
    if stop == NEVER:
        return None, stop
    if stop == unchanged:
        return model.Verdict.UNCHANGED, stop
    return (model.Verdict.REGRESSED if stop == slower else model.Verdict.IMPROVED), stop


def _decision(verdict: model.Verdict | None, seen: Experiment, found: Held, rule: model.Rule) -> model.Decision:
    error = 2 * rule.beta if verdict is model.Verdict.UNCHANGED else rule.alpha
    low, high = _bounds(seen, found, rule, error)
    blocks, middle = len(seen.ratios), centre(seen.units)
    if verdict is model.Verdict.INCONCLUSIVE and blocks >= 2 * MIXED > 2 * _rarer_order(seen)[-1]:
        return model.Decision(verdict, blocks, change(middle), reason=model.ONE_ORDER)
    if low > high:
        return model.Decision(verdict and model.Verdict.INCONCLUSIVE, blocks, change(middle), reason=model.TORN)
    low, high = _said(verdict, low, high, math.log1p(rule.min_effect))
    inside = float(np.fmin(np.fmax(middle, low), high))
    return model.Decision(verdict, blocks, change(inside), change(low), change(high))


def _said(verdict: model.Verdict | None, low: float, high: float, margin: float) -> tuple[float, float]:
    """An interval without what the verdict has rejected, where bounds are looser: they know alternatives nearby too."""
    least = {model.Verdict.REGRESSED: 0.0, model.Verdict.UNCHANGED: -margin}.get(verdict, math.nan) if verdict else math.nan
    most = {model.Verdict.IMPROVED: 0.0, model.Verdict.UNCHANGED: margin}.get(verdict, math.nan) if verdict else math.nan
    return float(np.fmax(low, least)), float(np.fmin(high, most))


def _bounds(seen: Experiment, found: Held, rule: model.Rule, error: float) -> tuple[float, float]:
    """What is not rejected, by whichever the last block of ``seen`` is judged by; NaN for a side that has no bound yet."""
    last = len(seen.ratios) - 1
    if last < 0:
        return math.nan, math.nan
    return _model_bounds(seen, float(found.scale[last]), rule, error) if found.by_model[last] else _coin_bounds(seen, rule, error)


def _model_bounds(seen: Experiment, scale: float, rule: model.Rule, error: float) -> tuple[float, float]:
    margin = math.log1p(rule.min_effect)
    allowance = math.log(credit(np.array(scale), margin))
    threshold = math.log(2 / error) - (max(allowance, 0.0) if error > rule.alpha else allowance)
    return likelihood.bounds(seen.ratios, seen.signs, margin, threshold)


def _coin_bounds(seen: Experiment, rule: model.Rule, error: float) -> tuple[float, float]:
    slots, scale = sequential.foreseen(seen.units, seen.unit_signs, math.log1p(rule.min_effect) / 2)
    units, threshold = seen.units - seen.unit_signs * slots, math.log(2 / error)
    return sequential.bound(units, scale, threshold, -1), sequential.bound(units, scale, threshold, +1)


def change(theta: float) -> float:
    """A log ratio as a ratio minus 1; infinite where no float holds it."""
    try:
        return math.expm1(theta)
    except OverflowError:
        return math.inf


def centre(units: sequential.Floats) -> float:
    """The Hodges-Lehmann estimate: the median of all means of two."""
    if not units.size:
        return math.nan
    rows, columns = np.triu_indices(len(units))
    return float(np.median((units[rows] + units[columns]) / 2))
