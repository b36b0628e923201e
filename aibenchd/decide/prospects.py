"""Prospects: how small an effect a budget can find, and after how many blocks, from the noise of blocks that have been measured.

What is known before an experiment is its rule, and the noise of earlier blocks on the same device and benchmark. To replay
the verdict on such noise takes seconds; here it is a formula and three small tables, which take a tenth of a millisecond.

**What found means.** An effect is found where the experiment says *regressed* or *improved* within ``max_blocks``. The
smallest that is found with probability 1 - β, as every larger one is, is never below ``min_effect`` here: what lies below
may be called *unchanged*, and no power is promised of it. (Where noise is half the margin or less, 0.7 to 0.9 margins are found
as surely in 20 blocks, and no budget finds less; past 0.9 margins of noise it may be 1.0 to 1.07 that no budget undercuts,
since *unchanged* is wrong nearly as often as β allows.)

**The formulas.** Effects and noise are in margins, log(1 + ``min_effect``), as they are to the verdict. A change needs, in nats::

    needed = log(2 / (alpha * credit * left)),   left = beta - 2 (blocks + 1) / 2**blocks

with the verdict's credit for noise of that size, and that part of β which coins leave that give one order to all blocks but one.
What the budget is in units of ``needed`` says, by a table, how many times the noise an effect has to be: as many as the root of
its inverse where there are many blocks, more where there are few. Where coins cannot be certain enough, nothing is found.

Blocks to a verdict are those of two clocks, of which the first to ring ends the experiment: their rates add. Each needs a number
of nats, and goes by the information of a block, log((s² + far²) / (s² + near²)) / 2 for an effect ``far`` from what is to be
rejected and ``near`` to the alternative, with noise s (normal laws, each of unknown scale); a table says how many blocks one nat
takes. A change rejects 0 for the margin or what lies beyond, and takes as many blocks as coins need at the least; *unchanged*
rejects the margin for 0, or for half of it.

A slot's effect that is none of those of the verdict's model (0, 0.7, 2 and 5 margins) is learnt from the blocks. Until then it
hides as much as noise of 1.3 margins would, and costs 13 blocks; what is less than a margin off them, in proportion.

**How far off it is.** The tables were fitted to 500 replays of :func:`aibenchd.decide.verdict.stops` at each of 252 places,
orders by coin: noise of 0.05, 0.12, 0.25, 0.4, 0.6, 0.9, 1.3 and 2 margins, by Student's law with 2.5, 8 and infinite degrees of
freedom, effects from 0 to 16 margins; α of 0.1, 0.3, 1 and 5 % with β of 5 %, and α of 1 % with β of 1 and 20 %. A replayed
smallest effect has itself an error of some 3 %. Root mean square error of the smallest effect, by the budget in blocks, where
noise is 0.4 margins or more (below it is 1 margin but for ten blocks), and the 95th percentile of its size:

=========  =====  ====
blocks     error  95 %
=========  =====  ====
10         16 %   27 %
14         10 %   20 %
20          6 %   12 %
30, 40      4 %    9 %
60 to 200   3 %    6 %
=========  =====  ====

With noise of 0.33, 0.75 and 1.6 margins and 4 degrees, 400 replays each, to which nothing was fitted, it is 11 % at 10 blocks,
7 % at 14, and 4 % from 20 on. At 10 blocks there is no such effect at all in one case of twenty where one is named. With noise of
3 and 5 margins, 150 replays each, it is within 40 % at 14 blocks, and 25 % from 20 on.

Mean blocks to a verdict are off by 5 % without a change and with one of a margin or more (95th percentile 13 %), and by 12 % with
a smaller one, most with half the margin: 15 % (95th percentile 40 %).

Recorded noise is no Student's. On the four tapes, whose noise was told from 150 blocks, with margins of 1 and 2 %, α of 0.1
and 1 %, and 250 replays: from 20 blocks on, the smallest effect is 10 to 35 % larger than is said on one (``idle-1t``), and
between 15 % smaller and 20 % larger on the others; at 14 blocks 15 % smaller to a third larger, or none; at 10 up to twice as
large, or none. Mean blocks are 10 % more to 25 % fewer than is said.

Slots were replayed with noise of 0.12 to 1.3 margins and 8 degrees, 300 times at each place. Up to one of 3 margins, the smallest
effect is within 25 % at 14 and 20 blocks, up to 30 % smaller than is said from 30 on, and none at 10; mean blocks are up to 28 %
more, and for a change of two margins up to 36 % fewer. One of 10 margins hides all at 20 blocks, and at 30 two to five times as
much as is said.

Noise that the verdict leaves to the coins (clumped) hides up to 30 % more than is said from 20 blocks on, if Student's; two sharp
modes that lie two margins apart hide up to 1.7 times as much. Orders by pairs need twice the blocks that those by coin do before
a change is called, which is not counted in.

**On the way** an experiment's own blocks say more of today than those before: :func:`under_way` weighs both, and the effect is as
estimated so far. One that is undecided longer than was expected will be so for a while: :data:`LONGER` of the whole. On the four
tapes, on normal noise of 0.5 to 20 % a block and on Student's with 2 degrees, with changes of 0 to 5 % (48 cases, 400 replays
each), what is said to be left after 5, 10 and 20 blocks is right on average, and off by a factor of 1.4 from case to case;
after 40 by one of 1.2. Of 741 replays that were undecided after 20 blocks and stayed so to their end, 417 were out of reach by
then, and 6 of 1,457 that were decided later; after 40 blocks it was 556 of 824, and 12 of 430.
"""

from __future__ import annotations

import dataclasses
import itertools
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
NOTHING = 1e-100  # of the largest residual: a scale that is no more is none
LARGEST = math.log(2)  # effects past a factor of two are not looked for
LITTLE = 0.01  # margins, or nats: less makes no difference
LEAST, MOST = 1e-6, 50.0  # nats of one block: less or more makes no difference

# Tables: logarithms at normal tails, and what they rise by at those of 2.5 degrees of freedom.
HEAVINESS = (0.0, 0.125, 0.4, 0.6), (0.0, 0.15, 1.0, 1.6)  # 1 / degrees, and how much of that rise is theirs
BUDGETS = np.log([0.5, 1.0, 1.25, 1.6, 2.2, 3.5, 8.0, 200.0])  # blocks / needed, and the smallest effect then, in scales
SMALLEST = np.log([16.6, 4.31, 2.80, 1.93, 1.46, 1.06, 0.69, 0.14]), (0.51, 0.51, 0.64, 0.43, 0.20, 0.09, -0.04, -0.04)
EFFECTS = np.log([0.01, 0.4, 0.7, 1.2, 2.0, 4.0, 10.0])  # in scales
CHANGED = np.log([21_900, 13.7, 5.40, 2.49, 1.63, 1.23, 0.84]), (0.07, 0.07, 0.03, 0.13, 0.17, 0.14, 0.11)  # blocks / needed
UNCHANGED = np.log([51_800, 32.4, 9.86, 3.03, 1.28, 0.44, 0.19]), (0.01, 0.01, 0.09, 0.27, 0.25, 0.18, 0.06)  # past FIRST
CORNER = 12.0  # how sharply the smallest effect bends into the margin
FIRST = 2.65  # blocks
WANDERING = 3.3  # of what a block's evidence of a change varies by, against its mean
SPENT = 5.8  # how sharply a mean number of blocks bends into the least that coins need, and into the budget
OFF_GRID = 0.3, 1.0  # margins between a slot's effect and those of the verdict's model: no matter, and all new to it
HIDING, LEARNING = 1.3, 13.0  # margins of noise that a slot which is new is worth, and blocks until it is learnt

USUAL = 10  # blocks: more from before do not outweigh those of today
LONGER = 1 / 4  # of the blocks that were expected, that are left at the least
HOPE = 1.5  # times its budget that one may be expected to take which is still called in reach
SURE = 2.0  # standard errors to either side, within which an effect may be
EARLY = 1 / 4  # of the blocks that are expected, before which few verdicts come
UNBOUNDED = 1_000_000  # blocks, of a budget that is none

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
    centred = _centred(rows, slot)
    residuals = _residuals(centred)
    count = sum(len(ratios) for ratios, _ in rows)
    if len(residuals) < ENOUGH:
        return Noise(math.nan, math.nan, slot, low, high, count, math.nan, False)
    clumped = bool(verdict.clumped(max(centred, key=len)[:LOOKED_AT]).any())
    scale = _scale(residuals, count)
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
    if left <= 0 or rule.max_blocks < _coins_need(rule.alpha):
        return math.inf
    margin = math.log1p(rule.min_effect)
    scale = max(math.hypot(noise.scale / margin, HIDING * _new(noise.slot, margin)), LITTLE)
    needed = max(math.log(2 / (rule.alpha * left)) - _log_credit(scale), LITTLE)
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
    scale, size = max(noise.scale / margin, LITTLE), abs(math.log1p(effect)) / margin
    often = 1 / _to_changed(size, scale, noise, rule.alpha) + 1 / _to_unchanged(size, scale, noise, rule.beta)
    return _within(1 / often + LEARNING * _new(noise.slot, margin), rule.max_blocks)


def under_way(before: Noise, own: verdict.Experiment) -> Noise:
    """The noise of an experiment that is under way, from that of blocks before it and of its own.

    Scales are averaged by their logarithms, weighed by blocks; those before count for :data:`USUAL` at most. All else is from
    before, or as good as normal without a slot where nothing is known: a few blocks say little of it.
    """
    rows = [_finite(own)]
    residuals, count = _residuals(_centred(rows, _second_slot(rows)[0])), len(rows[0][0])
    if len(residuals) < ENOUGH:
        return before
    scale = _scale(residuals, count)
    if math.isnan(before.scale):
        return Noise(scale, 1 / float(TAILS[0]), 0.0, math.nan, math.nan, count, math.nan, False)
    weights = np.array([min(before.blocks, USUAL), count])
    logs = np.log(np.maximum([before.scale, scale], NOTHING))
    return dataclasses.replace(before, scale=float(np.exp(weights @ logs / weights.sum())))


def left(noise: Noise, rule: model.Rule, done: int, effect: float) -> float:
    """Mean number of blocks that an experiment takes still which is undecided after ``done``; NaN as :func:`smallest`.

    Args:
        rule: whose budget in blocks is what its time allows too.
        effect: as it is estimated so far, or 0; as a ratio minus 1.
    """
    room = max(rule.max_blocks - done, 1)
    return _within(_further(noise, rule, done, effect), room)


def in_reach(noise: Noise, rule: model.Rule, done: int, effect: float) -> bool:
    """Whether the budget may still decide an experiment which is undecided after ``done`` blocks; True while that is not known.

    It may while *unchanged* is not far beyond it, or while an effect is plausible that the budget finds. Arguments: as of
    :func:`left`.
    """
    if math.isnan(noise.scale) or not done:
        return True
    plausible = abs(math.log1p(effect)) + SURE * noise.scale / math.sqrt(done)
    found = plausible >= math.log1p(smallest(noise, rule))
    return found or _further(noise, rule, done, 0.0) <= HOPE * max(rule.max_blocks - done, 1)


def first_look(noise: Noise, rule: model.Rule) -> int:
    """Blocks after which to look for a verdict for the first time: before, few come.

    A verdict needs two blocks. Where *unchanged* takes long, it seldom comes in the first quarter of that; no change is called
    before coins can be certain, and from there on each block is looked at. On noise as in "On the way", it saves 18 % of the
    looks, and costs 0.02 blocks an experiment, 0.2 at most (14 % were decided before the look there). For what it does to
    verdicts see :func:`aibenchd.decide.verdict.decide`.
    """
    early = blocks(noise, rule) * EARLY
    return verdict.LEAST if math.isnan(early) else int(min(max(early, verdict.LEAST), _coins_need(rule.alpha)))


def _further(noise: Noise, rule: model.Rule, done: int, effect: float) -> float:
    """As :func:`left`, by a budget without end."""
    whole = blocks(noise, dataclasses.replace(rule, max_blocks=UNBOUNDED), effect)
    return max(whole - done, whole * LONGER, 1.0)


def _within(mean: float, most: float) -> float:
    """A mean number of blocks, bent into a budget."""
    return float((mean**-SPENT + float(most) ** -SPENT) ** (-1 / SPENT))


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


def _centred(rows: Sequence[Row], slot: float) -> list[sequential.Floats]:
    """What is left of each experiment's blocks without what its slot adds and without its median."""
    cleared = [ratios + signs * _known(slot) for ratios, signs in rows if len(ratios) > 1]
    return [ratios - np.median(ratios) for ratios in cleared]


def _residuals(centred: Sequence[sequential.Floats]) -> sequential.Floats:
    """All of them but the one of each that its median took."""
    return np.concatenate([np.delete(one, np.abs(one).argmin()) for one in centred] or [np.zeros(0)])


def _scale(residuals: sequential.Floats, count: int) -> float:
    scale = float(np.quantile(np.abs(residuals), MIDDLE)) / OUTER * count / (count - 1)  # the slot takes one too
    return scale if scale > NOTHING * np.abs(residuals).max() else 0.0


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


def _to_changed(size: float, scale: float, noise: Noise, alpha: float) -> float:
    """Blocks until an effect is called a change, if nothing else ends them; sizes in margins."""
    certain, rest = max(math.log(2 / alpha) - _log_credit(scale), LITTLE), max(1 - size, 0.0)
    nats = _nats(rest, size, scale)
    varies = (scale * (size / (scale**2 + size**2) + rest / (scale**2 + rest**2))) ** 2
    drawn = (nats + math.hypot(nats, WANDERING * varies / certain)) / 2
    alone = certain * math.exp(_read(CHANGED, EFFECTS, _in_scales(drawn), noise))
    least = _coins_need(alpha)
    return float(((least + _one_sided(least)) ** SPENT + alone**SPENT) ** (1 / SPENT))


def _to_unchanged(size: float, scale: float, noise: Noise, beta: float) -> float:
    """Blocks until an effect is called none, if nothing else ends them: by whichever alternative inside the margin."""
    enough = max(math.log(1 / beta) - max(_log_credit(scale), 0.0), LITTLE)
    inside = {1 - far: math.log(likelihood.INSIDE[1.0] / weight) for far, weight in likelihood.INSIDE.items() if far <= 1}
    often = 0.0
    for alternative, handicap in inside.items():
        nats = _nats(abs(size - alternative), abs(size - 1), scale)
        often += math.exp(-_read(UNCHANGED, EFFECTS, _in_scales(nats), noise)) / (enough + handicap)
    return FIRST + 1 / often


def _nats(near: float, far: float, scale: float) -> float:
    """What a block says for an effect that is so near against one that is so far, in the mean."""
    return math.log((scale**2 + far**2) / (scale**2 + near**2)) / 2


def _in_scales(nats: float) -> float:
    """The logarithm of the effect, in scales, of which a block says as much against none."""
    return math.log(math.expm1(2 * min(max(nats, LEAST), MOST))) / 2


def _coins_need(alpha: float) -> int:
    """Blocks after which coins can be as certain as the verdict wants, where all point one way."""
    return next(
        blocks for blocks in itertools.count(1) if 2.0**-blocks <= verdict.BY_COINS * alpha * min(1.0, verdict.EIGHT / blocks)
    )


def _one_sided(blocks: int) -> float:
    """How many more blocks it takes, in the mean, until two of them ran in either order."""
    return (blocks + 2) * 2.0 ** (2 - blocks)


def _new(slot: float, margin: float) -> float:
    """How new a slot's effect is to the verdict's model, from 0 to 1."""
    off = np.nanmin(np.abs(likelihood.SLOTS - _known(slot) / margin))
    return float(np.interp(off, OFF_GRID, (0.0, 1.0)))


def _log_credit(scale: float) -> float:
    return math.log(float(verdict.credit(np.array(scale), 1.0)))


def _read(table: Table, knots: sequential.Floats, place: float, noise: Noise) -> float:
    """The value of a table at a place, for such tails."""
    logs, rises = table
    heaviness = float(np.interp(1 / noise.degrees, *HEAVINESS))
    return float(np.interp(place, knots, logs + heaviness * np.array(rises)))
