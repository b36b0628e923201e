"""How small an effect a budget can find, and after how many blocks, from the noise of blocks that have been measured.

What is known before an experiment is its rule, and the noise of earlier blocks on the same device and benchmark. To replay
the verdict on such noise takes seconds; here it is a formula and three small tables, which take some tens of microseconds.

**What found means.** An effect is found where the experiment says *regressed* or *improved* within ``max_blocks``. The
smallest that is found with probability 1 - β, as every larger one is, is never below ``min_effect`` here: what lies below
may be called *unchanged*, and no power is promised of it. (Where noise is a third of the margin, 0.7 margins are found as
surely; where it is smaller still, all below the margin is *unchanged* after three blocks.) Past the margin's own noise,
*unchanged* is wrong nearly as often as β allows: then no budget at all finds 1.0 to 1.15 margins as often as is wanted.

**The formulas.** Effects and noise are in margins, log(1 + ``min_effect``), as they are to the verdict. A change needs, in nats::

    needed = log(2 / (alpha * credit * left)),   left = beta - 2 (blocks + 1) / 2**blocks

with the verdict's credit for noise of that size, and that part of β which coins leave that give one order to all blocks but one.
What the budget is in units of ``needed`` says, by a table, how many times the noise an effect has to be: as many as the root of
its inverse where there are many blocks, more where there are few. Where coins cannot be certain enough, nothing is found.

Blocks to a verdict are a table's number of nats, by the information that a block has: log((s² + x²) / (s² + (1 - x)²)) / 2 of
an effect x below the margin, with noise s (normal laws, each of unknown scale), and log(1 + x² / s²) / 2 above. Half the
margin has none, and blocks go on there until chance has added up.

**How far off it is.** The tables were fitted to 300 replays of :func:`aibenchd.decide.verdict.stops` at each of 252 places:
noise of 0.05, 0.12, 0.25, 0.4, 0.6, 0.9, 1.3 and 2 margins, by Student's law with 2.5, 8 and infinite degrees of freedom,
effects from 0 to 16 margins; α of 0.1, 0.3, 1 and 5 % with β of 5 %, and α of 1 % with β of 1 and 20 %. A replayed smallest
effect has itself an error of some 3 %. Root mean square error of the smallest effect, by the budget in blocks, where noise
is 0.4 margins or more (below it is 1 margin but for ten blocks), and the 95th percentile of its size:

=========  =====  ====
blocks     error  95 %
=========  =====  ====
10         18 %   30 %
14         12 %   23 %
20          6 %   12 %
30, 40      4 %   11 %
60 to 200   3 %    8 %
=========  =====  ====

With noise of 0.33, 0.75 and 1.6 margins and 4 degrees, to which nothing was fitted, it is 13 % at 10 blocks, 7 % at 14, and
5 % from 20 on. At 10 blocks there is no such effect at all in one case of eight where one is named. Up to noise of 5 margins
it stays within 35 % at 14 blocks, and 30 % from 20 on. Mean blocks to a verdict are off by 6 % without a change, by 8 % with
one of a margin or more (95th percentile 24 %), and by 15 % with a smaller one.

Recorded noise is no Student's. On the four tapes, whose noise was told from 150 blocks, with margins of 1 and 2 %, α of 0.1
and 1 %, and 250 replays: from 20 blocks on, the smallest effect is 10 to 35 % larger than is said on one (``idle-1t``), and
between 15 % smaller and 20 % larger on the others; at 14 blocks 20 % smaller to 30 % larger; at 10 up to twice as large, or
none. Mean blocks are 10 % more to 27 % fewer than is said.

Noise that the verdict leaves to the coins (clumped) hides up to a third more from 20 blocks on, if Student's, and up to twice
as much if it is two sharp modes that lie further apart than the margin. A slot's effect counts where it is
none that the verdict's model knows (0, 0.7, 2 and 5 margins): 3 margins of it hide as much as noise of 1.8 would. That is
within 25 %; but with noise of a quarter of the margin, and 30 blocks or more, they hide up to twice as much.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd import model
from aibenchd.decide import likelihood, sequential, verdict

CONFIDENCE = 1.96  # standard errors to either side: 95 %
ENOUGH = 4  # residuals, from which a scale is told
LOOKED_AT = 60  # blocks of the longest experiment, where clumps are looked for
TAILS = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])  # 1 / degrees of freedom; the first is as good as normal
MIDDLE = 0.7  # of all blocks, whose spread is the scale
OUTER = 1.03643  # as far out is a normal law's middle
LARGEST = math.log(2)  # effects past a factor of two are not looked for
LITTLE = 0.01  # margins, or nats: less makes no difference
MOST = 50.0  # nats of one block: more makes no difference

# Tables: logarithms at normal tails, and what they rise by at those of 2.5 degrees of freedom.
HEAVINESS = (0.0, 0.125, 0.4, 0.6), (0.0, 0.2, 1.0, 1.6)  # 1 / degrees, and how much of that rise is theirs
BUDGETS = np.log([0.5, 1.0, 1.25, 1.6, 2.2, 3.5, 8.0, 200.0])  # blocks / needed, and the smallest effect then, in scales
SMALLEST = np.log([14.9, 4.17, 2.77, 1.88, 1.44, 1.05, 0.70, 0.14]), (0.34, 0.53, 0.58, 0.39, 0.21, 0.08, -0.08, -0.08)
EFFECTS = np.log([0.01, 0.4, 0.7, 1.2, 2.0, 4.0, 10.0])  # in scales
CHANGED = np.log([18_400, 11.5, 5.15, 2.46, 1.70, 1.45, 1.44]), (0.03, 0.03, 0.04, 0.13, 0.13, 0.06, 0.0)  # blocks / needed
UNCHANGED = np.log([32_800, 20.5, 7.28, 2.48, 1.38, 0.63, 0.46]), (-0.03, -0.03, 0.10, 0.16, 0.18, 0.04, 0.0)  # past FIRST
CORNER = 12.0  # how sharply the smallest effect bends into the margin
FIRST = 2.0  # blocks
WANDERING = 0.72  # of what a block's evidence varies by, against its mean
SPENT = 4.18  # how sharply a mean number of blocks bends into the budget
NEAR_GRID, OFF_GRID = 0.35, 2.8  # margins that a slot may be off those of the verdict's model; what more is worth as noise

Table = tuple[sequential.Floats, tuple[float, ...]]
Row = tuple[sequential.Floats, sequential.Floats]  # log ratios and signs of an experiment's blocks


@dataclass(frozen=True, slots=True)
class Noise:
    """What blocks say of a device and a benchmark, whatever the effects were.

    Attributes:
        scale: of a block's log ratio: the standard deviation of a normal law whose middle 70 % is as wide; NaN where fewer than
            :data:`ENOUGH` blocks say anything of it.
        degrees: of freedom, of a Student law with such tails: 50 is as good as normal, less than 2.5 is heavier than the
            verdict's model knows, and 1.7 the least; NaN where the scale is.
        slot, slot_low, slot_high: what the second place in a block adds, as a log ratio, and its interval at 95 %; positive
            where the second process is slower. NaN without blocks of both orders; bounds are infinite where those are few.
        blocks: on how many it rests.
        lag: correlation of a block with the next one, in which no single block counts for much; NaN where there is none.
        clumped: whether the verdict would leave the longest experiment to the coins (:func:`aibenchd.decide.verdict.clumped`).
    """

    scale: float
    degrees: float
    slot: float
    slot_low: float
    slot_high: float
    blocks: int
    lag: float
    clumped: bool


def noise(experiments: Iterable[verdict.Experiment]) -> Noise:
    """The noise of blocks of experiments on one device and benchmark, each about an effect of its own.

    Each experiment is centred by its own median, which costs one block: that which is nearest to it. What is left is
    pooled, so that the scale is right within 7 % on average for ten experiments of 4 to 9 blocks, and for one of 20 or more.
    That experiments stop at their verdicts makes it 5 % larger on recorded tapes: where it was louder, there are more blocks.

    Args:
        experiments: of one repetition each, shape (blocks,), in the order in which they ran. One without a change (A/A) will
            do. Blocks whose ratio is not finite are left out.
    """
    rows = [_finite(one) for one in experiments]
    slot, low, high = _second_slot(rows)
    centred = [ratios + signs * _known(slot) for ratios, signs in rows if len(ratios) > 1]
    centred = [ratios - np.median(ratios) for ratios in centred]
    residuals = np.concatenate([np.delete(one, np.abs(one).argmin()) for one in centred] or [np.zeros(0)])
    count = sum(len(ratios) for ratios, _ in rows)
    if len(residuals) < ENOUGH:
        return Noise(math.nan, math.nan, slot, low, high, count, math.nan, False)
    clumped = bool(verdict.clumped(max(centred, key=len)[:LOOKED_AT]).any())
    scale = float(np.quantile(np.abs(residuals), MIDDLE)) / OUTER * count / (count - 1)  # the slot takes one too
    return Noise(scale, _degrees(residuals, scale), slot, low, high, count, _lag(centred, scale), clumped)


def smallest(noise: Noise, rule: model.Rule) -> float:
    """The smallest effect that is found with probability 1 - β within the budget in blocks, as a ratio minus 1.

    It is ``min_effect`` at least (see above), and infinite where a factor of two would not be found; NaN where the noise is not
    known. It rises with the noise, and falls as the budget or α rises. ``max_seconds`` and ``e_value`` are not counted in: one
    who knows how long a block takes asks with the ``max_blocks`` that the time allows.
    """
    if math.isnan(noise.scale):
        return math.nan
    left = rule.beta - 2 * (rule.max_blocks + 1) * 2.0**-rule.max_blocks
    if left <= 0 or not _coins_can(rule):
        return math.inf
    margin = math.log1p(rule.min_effect)
    scale = _scale(noise, margin)
    needed = math.log(2 / (rule.alpha * left)) - _log_credit(scale)
    log_effect = math.log(scale) + _read(SMALLEST, BUDGETS, math.log(rule.max_blocks / needed), noise)
    effect = margin * math.exp(float(np.logaddexp(0.0, CORNER * log_effect)) / CORNER)
    return math.expm1(effect) if effect <= LARGEST else math.inf


def blocks(noise: Noise, rule: model.Rule, effect: float = 0.0) -> float:
    """Mean number of blocks to a verdict, or to the end of the budget, for an effect as a ratio minus 1; NaN as :func:`smallest`.

    Raises:
        ValueError: an effect of -1 or less, or that is not finite.
    """
    if not -1 < effect < math.inf:
        raise ValueError(f"expected an effect as a ratio minus 1, above -1 and finite, not {effect}")
    if math.isnan(noise.scale):
        return math.nan
    margin = math.log1p(rule.min_effect)
    scale, size = _scale(noise, margin), abs(math.log1p(effect)) / margin
    credit = _log_credit(scale)
    certain, enough = math.log(2 / rule.alpha) - credit, max(math.log(1 / rule.beta) - max(credit, 0.0), LITTLE)
    mean, spread = _information(size, scale)
    drawn = math.hypot(mean, WANDERING * spread / (certain if mean > 0 else enough))
    towards = (1 + mean / drawn) / 2  # a change, from 0 to 1
    times = math.log(math.sqrt(math.expm1(min(2 * drawn, MOST))))
    changed = math.log(certain) + _read(CHANGED, EFFECTS, times, noise)
    unchanged = float(np.logaddexp(math.log(FIRST), math.log(enough) + _read(UNCHANGED, EFFECTS, times, noise)))
    log_blocks = towards * changed + (1 - towards) * unchanged
    return math.exp(-float(np.logaddexp(-SPENT * log_blocks, -SPENT * math.log(rule.max_blocks))) / SPENT)


def _finite(seen: verdict.Experiment) -> Row:
    known = np.isfinite(seen.ratios)
    return seen.ratios[known], seen.signs[known]


def _second_slot(rows: Sequence[Row]) -> tuple[float, float, float]:
    """What the second place adds, and its interval: Hodges and Lehmann's shift between the two orders, over all experiments.

    Half the difference of each two blocks of one experiment that ran in opposite orders is the slot's effect, and noise; the
    weights are van Elteren's (1960, "On the combination of independent two-sample tests of Wilcoxon"), the bounds are those
    that his test does not reject.
    """
    halves, weights, variance = [np.zeros(0)], [np.zeros(0)], 0.0
    for ratios, signs in rows:
        first, second = ratios[signs < 0], ratios[signs > 0]
        weight = 1 / (len(ratios) + 1)
        halves.append(((first[:, None] - second) / 2).ravel())
        weights.append(np.full(halves[-1].size, weight))
        variance += halves[-1].size * weight / 12
    order = np.argsort(np.concatenate(halves))
    if not order.size:
        return math.nan, math.nan, math.nan
    ranked, below = np.concatenate(halves)[order], np.cumsum(np.concatenate(weights)[order])
    middle, away = below[-1] / 2, CONFIDENCE * math.sqrt(variance)
    if away >= middle:
        return float(ranked[np.searchsorted(below, middle)]), -math.inf, math.inf
    low, slot, high = ranked[np.searchsorted(below, [middle - away, middle, middle + away])].tolist()
    return slot, low, high


def _known(slot: float) -> float:
    return 0.0 if math.isnan(slot) else slot


def _degrees(residuals: sequential.Floats, scale: float) -> float:
    """Degrees of freedom: the inverse of the mean of :data:`TAILS`, weighed by their likelihoods at that scale."""
    if scale <= 0:
        return 1 / float(TAILS[0])
    widths = OUTER / _outer(TAILS)  # of Student's law, in scales
    constants = [math.lgamma((1 / tail + 1) / 2) - math.lgamma(1 / tail / 2) + math.log(tail / math.pi) / 2 for tail in TAILS]
    squares = np.log1p(np.multiply.outer((residuals / scale) ** 2, TAILS / widths**2)).sum(axis=0)
    logs = len(residuals) * (np.array(constants) - np.log(widths)) - (1 / TAILS + 1) / 2 * squares
    weights = np.exp(logs - logs.max())
    return float(weights.sum() / (weights @ TAILS))


def _outer(tails: sequential.Floats) -> sequential.Floats:
    """The 85 % quantile of Student's law, by 1 / degrees (Cornish and Fisher's expansion; Abramowitz, Stegun 26.7.5)."""
    z = OUTER
    found: sequential.Floats = z + (z**3 + z) / 4 * tails + (5 * z**5 + 16 * z**3 + 3 * z) / 96 * tails**2
    return found


def _lag(centred: Sequence[sequential.Floats], scale: float) -> float:
    """Correlation of neighbours, each within a scale of the middle, less what centring makes of independent ones."""
    scores = [np.tanh(row / scale) if scale > 0 else np.sign(row) for row in centred]
    products = sum(float(row[1:] @ row[:-1]) for row in scores)
    squares = sum(float(row @ row) for row in scores)
    return products / squares + len(scores) / sum(map(len, scores)) if squares else math.nan


def _coins_can(rule: model.Rule) -> bool:
    """Whether coins can be as certain as the verdict wants, where all blocks point one way."""
    seldom = verdict.BY_COINS * rule.alpha * min(1.0, verdict.SIX / max(rule.max_blocks, 1))
    return 2.0**-rule.max_blocks <= seldom


def _scale(noise: Noise, margin: float) -> float:
    """The noise in margins; a slot's effect that is none of those of the verdict's model leaves some in each block."""
    off = float(np.abs(likelihood.SLOTS - _known(noise.slot) / margin).min())
    return max(math.hypot(noise.scale / margin, OFF_GRID * max(off - NEAR_GRID, 0.0)), LITTLE)


def _log_credit(scale: float) -> float:
    return math.log(float(verdict.credit(np.array(scale), 1.0)))


def _information(size: float, scale: float) -> tuple[float, float]:
    """Nats that a block has for a change against none, in the mean, and how much they vary; below 0 where it is for none."""
    rest = max(1 - size, 0.0)  # to the margin
    one, other = scale**2 + size**2, scale**2 + rest**2
    return math.log(one / other) / 2, (scale * (size / one + rest / other)) ** 2


def _read(table: Table, knots: sequential.Floats, place: float, noise: Noise) -> float:
    """The value of a table at a place, for such tails."""
    logs, rises = table
    heaviness = float(np.interp(1 / noise.degrees, *HEAVINESS))
    return float(np.interp(place, knots, logs + heaviness * np.array(rises)))
