"""Evidence by a declared model of the noise: likelihood ratios of effects, each a mean over what is not known of the noise.

The log ratio ``x`` of a block is taken for ``theta + sign * slot + scale * t``: the effect, what the second slot adds (see
:mod:`aibenchd.decide.sequential`), and noise by Student's law, which is symmetric, has one peak, and tails from nearly normal
to nearly without a mean. ``scale``, ``slot`` and the degrees of freedom have a prior on a grid (below), on which one ``slot`` is
half the difference between the medians of either order so far, which comes to be right whatever the slot is; the marginal
likelihood m(theta) of all blocks so far is a sum over the grid. Against an effect ``theta`` the evidence is the mean of
m(theta + d) / m(theta) over the distances ``d`` of :data:`DISTANCES`, in units of the margin that matters: a likelihood
ratio of two proper mixtures, whose mean under the hypothesis, averaged over the prior, is 1 however long one looks; so it
reaches ``1 / a`` with probability ``a`` at most (Ville 1939; with nuisance parameters: Robbins 1970, "Statistical methods
related to the law of the iterated logarithm"; Lai 1976). Against no change there is one more alternative, that follows the
blocks: the median of those before, where it is further off than the margin. It finds changes of any size, and bounds them.

Against a change by the margin there is an alternative of half of it: an effect in the middle, of which neither can be told
from the other, would go on to the budget else.

One block that is 2 % slower says more of 2 % than the coin of :mod:`aibenchd.decide.sequential` can: by coins alone no verdict at
1 % comes before the eighth block. What is paid for it is the model; :mod:`aibenchd.decide.verdict` says how it is checked.

Arrays hold blocks on their last axis; axes before it are independent repetitions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd.decide import sequential
from aibenchd.decide.sequential import Bools, Floats

# The prior, in units of the margin: (values, weights).
SCALES = np.exp2(np.arange(-4.0, 3.0, 0.75))
SCALE_WEIGHTS = np.minimum(SCALES, 2.0) ** 0.4  # a little noise is seldom as little as it looks in a few blocks
SLOTS = np.array([0.0, -0.7, 0.7, -2.0, 2.0, -5.0, 5.0, math.nan])  # NaN: follows the blocks
SLOT_WEIGHTS = np.array([0.58, 0.08, 0.08, 0.06, 0.06, 0.04, 0.04, 0.06])
TAILS = np.array([2.5, 8.0])  # degrees of freedom
TAIL_WEIGHTS = np.array([0.5, 0.5])
DISTANCES = {1.0: 0.80, 2.0: 0.10, 4.0: 0.04}  # of alternatives to no change, in margins; what is left over follows the blocks
INSIDE = {0.5: 0.12, 1.0: 0.70, 2.0: 0.08, 4.0: 0.04}  # of those to a change by the margin
FOLLOWING = 1 - sum(DISTANCES.values())
NEARER = {0.25: 0.2, 0.5: 0.3, 1.0: 0.3, 2.0: 0.15, 4.0: 0.05}  # as DISTANCES, where bounds are sought
STEPS = 8  # of the grid on which they are, to a margin
REACH = 160  # steps to either side of the estimate
AT_ONCE = 8  # blocks whose factors a float holds the product of
CELLS = 1 << 17  # numbers that are worked on together: a megabyte, which a cache holds


@dataclass(frozen=True, slots=True)
class Evidence:
    """Log evidence after each block; all of the shape of the ratios.

    Attributes:
        slower, faster: against no change, for a treatment that is slower or faster.
        below: against a treatment that is slower by the margin or more.
        above: against one that is faster by the margin or more.
        scale: the noise of a block, as a log ratio.
    """

    slower: Floats
    faster: Floats
    below: Floats
    above: Floats
    scale: Floats


def weigh(ratios: Floats, signs: Floats, margin: float) -> Evidence:
    """The evidence of blocks.

    Args:
        ratios, signs: shape (…, blocks); see :func:`aibenchd.decide.sequential.foreseen`.
        margin: the smallest log ratio that matters.
    """
    units = ratios / margin
    fixed = sorted({0.0, *DISTANCES, *(-far for far in DISTANCES), *(1 - far for far in INSIDE), *(far - 1 for far in INSIDE)})
    middle = _median_before(units)
    following = (np.maximum(middle, 1.0), np.minimum(middle, -1.0))
    effects = np.stack([*(np.full(units.shape, effect) for effect in fixed), *following])
    marginal, scale = _marginals(units, signs, effects)
    of = dict(zip(fixed, marginal, strict=False))

    def beside(effect: float, side: int, distances: Mapping[float, float]) -> Floats:
        """The mean over the alternatives to an effect."""
        return _sum([math.log(weight) + of[effect + side * far] for far, weight in distances.items()])

    faster_than = np.max([of[0.0], *(of[-far] for far in DISTANCES), marginal[-1]], axis=0)
    slower_than = np.max([of[0.0], *(of[far] for far in DISTANCES), marginal[-2]], axis=0)
    return Evidence(
        slower=np.logaddexp(beside(0.0, +1, DISTANCES), math.log(FOLLOWING) + marginal[-2]) - faster_than,
        faster=np.logaddexp(beside(0.0, -1, DISTANCES), math.log(FOLLOWING) + marginal[-1]) - slower_than,
        below=beside(+1.0, -1, INSIDE) - np.max([*(of[far] for far in DISTANCES), marginal[-2]], axis=0),
        above=beside(-1.0, +1, INSIDE) - np.max([*(of[-far] for far in DISTANCES), marginal[-1]], axis=0),
        scale=scale * margin,
    )


def bounds(ratios: Floats, signs: Floats, margin: float, threshold: float) -> tuple[float, float]:
    """The least and the largest effect that the blocks do not reject; NaN for a side that has no bound yet.

    They lie on a grid, and are rounded outward.

    Args:
        ratios, signs: of one repetition, shape (blocks,).
        threshold: of the log evidence.
    """
    units = ratios / margin
    spread = float(np.median(np.abs(units - np.median(units)))) * 8 + 4
    step = math.ceil(max(1.0, spread * STEPS / REACH)) / STEPS  # wider where the noise is
    far = {round(distance / step): weight for distance, weight in NEARER.items() if distance >= step} or {1: 1.0}
    reach = REACH + max(far)
    grid = np.round(np.median(units) / step) * step + step * np.arange(-reach, reach + 1)
    marginal = _last_marginals(units, signs, grid)
    following = math.log(FOLLOWING) + _marginals(units, signs, _median_before(units)[None])[0][0, -1]
    inner = np.arange(max(far), len(grid) - max(far))
    near = marginal + math.log(1 - FOLLOWING)
    rises, falls = (
        _sum([following, *(math.log(weight) + near[inner + side * away] for away, weight in far.items())]) - marginal[inner]
        for side in (+1, -1)
    )
    return _edge(grid[inner], rises >= threshold) * margin, _edge(grid[inner][::-1], falls[::-1] >= threshold) * margin


def _edge(effects: Floats, rejected: Bools) -> float:
    """The last effect before the first that is not rejected; NaN where that is the first of all."""
    beyond = int(np.logical_and.accumulate(rejected).sum())
    return float(effects[beyond - 1]) if beyond else math.nan


def _median_before(units: Floats) -> Floats:
    """The median of the blocks before each; 0 before the first."""
    found = sequential.medians_of(units[..., None, :], sequential.before(units.shape[-1]))
    found[..., :1] = 0.0
    return found


def _widths() -> tuple[Floats, Floats, Floats]:
    """Scale, degrees of freedom and log weight of each width and tail of the prior, whatever the slot."""
    scale, tail = (axis.ravel() for axis in np.meshgrid(SCALES, TAILS, indexing="ij"))
    return scale, tail, np.log(np.multiply.outer(SCALE_WEIGHTS / SCALE_WEIGHTS.sum(), TAIL_WEIGHTS).ravel())


def _constants(scale: Floats, tail: Floats) -> Floats:
    """The logarithm of what makes each density one."""
    beta = [math.lgamma((one + 1) / 2) - math.lgamma(one / 2) - math.log(one * math.pi) / 2 for one in tail]
    return np.array(beta) - np.log(scale)


def _slots(units: Floats, signs: Floats) -> Floats:
    """What the second slot adds to each block by each value of the prior, those of one order as they are; shape (slots, …)."""
    fixed = SLOTS.reshape(-1, *(1,) * units.ndim)
    return signs * np.where(np.isnan(fixed), sequential.half_differences(units, signs), fixed)


def _marginals(units: Floats, signs: Floats, effects: Floats) -> tuple[Floats, Floats]:
    """Log marginal likelihoods after each block, shaped as ``effects``, and the geometric mean of the scale, as ``units``."""
    scale, tail, weights = _widths()
    beside = (-1, *(1,) * (effects.ndim + 1))
    square, half, constant = (one.reshape(beside) for one in (scale**2 * tail, (tail + 1) / 2, _constants(scale, tail)))
    total = weights.reshape(beside) + np.log(SLOT_WEIGHTS).reshape(-1, *(1,) * effects.ndim)
    cleared = units - _slots(units, signs)
    marginal, scales = np.empty(effects.shape), np.empty(units.shape)
    step = max(1, CELLS // (len(scale) * len(SLOTS) * max(math.prod(effects.shape[:-1]), 1)))
    for start in range(0, units.shape[-1], step):
        part = slice(start, start + step)
        squares = (cleared[:, None, ..., part] - effects[..., part]) ** 2
        sums = np.cumsum(constant - half * np.log1p(squares / square), axis=-1) + total
        total = sums[..., -1:]
        most = sums.max(axis=(0, 1))
        shares = np.exp(sums - most).sum(axis=1)
        marginal[..., part] = most + np.log(shares.sum(axis=0))
        own = (shares * np.exp(most - most.max(axis=0))).sum(axis=1)  # over all slots and effects
        scales[..., part] = np.exp(np.tensordot(np.log(scale), own / own.sum(axis=0), axes=1))
    return marginal, scales


def _last_marginals(units: Floats, signs: Floats, grid: Floats) -> Floats:
    """Log marginal likelihoods of all blocks, for each effect of ``grid``; of one repetition.

    The product of 1 + square / width over some blocks is a polynomial in 1 / width, whose coefficients are the elementary
    symmetric ones of the squares: so what there is for each slot and effect is made once for all widths. None is negative, so
    that nothing cancels.
    """
    scale, tail, weights = _widths()
    powers = (1 / (scale**2 * tail))[:, None] ** np.arange(AT_ONCE + 1)
    half = ((tail + 1) / 2)[:, None, None]
    total = (weights + len(units) * _constants(scale, tail))[:, None, None] + np.log(SLOT_WEIGHTS)[:, None]
    squares = ((units - _slots(units, signs)).T[..., None] - grid) ** 2  # blocks, slots, effects
    for start in range(0, len(units), AT_ONCE):
        some = squares[start : start + AT_ONCE]
        coefficients = np.zeros((len(some) + 1, *some.shape[1:]))
        coefficients[0] = 1.0
        for count, square in enumerate(some, 1):
            coefficients[1 : count + 1] += coefficients[:count] * square
        product = powers[:, : len(some) + 1] @ coefficients.reshape(len(coefficients), -1)
        total = total - half * np.log(product.reshape(-1, *some.shape[1:]))
    most = total.max(axis=(0, 1))
    found: Floats = most + np.log(np.exp(total - most).sum(axis=(0, 1)))
    return found


def _sum(terms: Sequence[Floats]) -> Floats:
    found: Floats = functools.reduce(np.logaddexp, terms)
    return found
