"""Which blocks a search runs next: those that tell most of where its culprits are, for their price.

What is measured is the pair of commits whose expected ratio differs most from one hypothesis to another, in information per
price, where the first block of a commit that is not built yet has its build to pay, and so is worth it only with the blocks
that will follow. With one culprit and equal prices this is the median of the posterior (Horstein, "Sequential transmission
using noiseless feedback", 1963; Waeber, Frazier and Henderson, "Bisection search with noisy responses", 2013; Ben-Or and
Hassidim, "The Bayesian learner is optimal for noisy binary search", 2008, who also ask several questions at once). A suspect
is also laid against the commit before it, which tells it from its neighbours on both sides at once.

Commits are places on the line, as :mod:`aibenchd.plan.bisect` has them. Imports numpy, and only what searches should import it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd.plan import bisect, posterior

Floats = NDArray[np.float64]

RUNS = np.array([1, 2, 4, 8, 16, 32])  # blocks that a build may be meant for


def next_measurements(
    search: bisect.Search, count: int = 1, pending: Sequence[bisect.Measurement] = ()
) -> tuple[bisect.Measurement, ...]:
    """The next blocks to run at once, most useful first; none once the search has ended.

    Args:
        pending: blocks that are being run already, whose results are not in the evidence yet.

    The same pair may be named more than once, where nothing else tells as much for its price.
    """
    if posterior.of(search).outcome is not None:
        return ()
    chain, told, likely = posterior.drifts_in(search).within or posterior.read(search)
    ready = search.ready | {place for one in pending for place in (one.newer, one.older)}
    room = search.max_builds - search.builds - len(ready - search.ready)
    noises = [(one, chain.noise.variance) for one in pending]
    return chosen(chain, covariance(chain, told, likely), told.typical, count, Prices(ready, room, search.build_price), noises)


@dataclass(frozen=True, slots=True)
class Prices:
    """What blocks cost beside themselves.

    Attributes:
        ready: commits whose programs are there, or are made already.
        room: builds that may be asked for; below 0 where the budget was lowered meanwhile.
        build: price of one, in blocks.
    """

    ready: frozenset[int]
    room: int
    build: float


def chosen(
    chain: posterior.Chain,
    spread: Floats,
    typical: float,
    count: int,
    prices: Prices,
    pending: Iterable[tuple[bisect.Measurement, float]] = (),
) -> tuple[bisect.Measurement, ...]:
    """So many blocks, each that which tells most for its price once those before it have told.

    Args:
        spread: of the levels that may be measured, as of :func:`covariance`.
        typical: squared size of a culprit.
        pending: what is measured already, each with the variance of its noise.
    """
    pairs, rows = _choices(chain)
    for one, noise in pending:
        if (one.newer, one.older) in pairs:
            spread = _measured(spread, rows[pairs.index((one.newer, one.older))], noise)
    ready, room = set(prices.ready), max(0, prices.room)
    found: list[bisect.Measurement] = []
    for _ in range(count):
        missing = np.array([len(set(pair) - ready) for pair in pairs])
        variances = (rows @ spread * rows).sum(axis=1)
        gains, runs = _gains(variances, typical, chain.noise.variance, missing * prices.build)
        best = int(np.argmax(np.where(missing <= room, gains, -1.0)))
        found.append(bisect.Measurement(*pairs[best]))
        room -= int(missing[best])
        ready |= set(pairs[best])
        spread = _measured(spread, rows[best], chain.noise.variance / runs[best])
    return tuple(found)


def _choices(chain: posterior.Chain) -> tuple[list[tuple[int, int]], Floats]:
    """Pairs (newer, older) that may be measured, and each as a row over the levels of ``places``."""
    count = len(chain.places)
    rows = np.eye(count)
    against_good = [(place, 0) for place in chain.places[1:]]
    neighbours = list(zip(chain.places[2:], chain.places[1:-1], strict=True))
    elsewhere = set(chain.sites) - set(chain.places)
    kept = [not any(older < site < newer for site in elsewhere) for newer, older in neighbours]
    pairs = against_good + list(itertools.compress(neighbours, kept))
    return pairs, np.concatenate([rows[1:], (rows[2:] - rows[1:-1])[kept]])


def covariance(chain: posterior.Chain, told: posterior.Told, likely: posterior.Told) -> Floats:
    """Covariance of the levels of ``places`` between the hypotheses of where culprits are: what measuring can tell.

    Shape (places, places), in squared log ratio. That within a hypothesis, where sizes are not known exactly, is left out.
    Within a gap the place of the culprit is uniform, which adds a Brownian bridge's covariance between its ends' levels.
    """
    means, second = told.moments
    within, inner = _within(chain, told, likely)
    between = second - np.outer(means, means) - within
    places = np.array(chain.places)
    gap = np.clip(np.searchsorted(chain.sites, places, side="right") - 1, 0, len(chain.sites) - 2)
    starts = np.array(chain.sites)
    share = (places - starts[gap]) / np.diff(starts)[gap]
    weights = np.zeros((len(places), len(chain.sites)))
    weights[np.arange(len(places)), gap] = 1 - share
    weights[np.arange(len(places)), gap + 1] += share
    squares = told.by_jump @ told.jumps**2
    bridge = np.minimum.outer(share, share) * (1 - np.maximum.outer(share, share)) * (gap[:, None] == gap)
    found: Floats = weights @ between @ weights.T + bridge * (squares - inner)[gap]
    return found


def _within(chain: posterior.Chain, told: posterior.Told, likely: posterior.Told) -> tuple[Floats, Floats]:
    """Covariance of the levels of sites within a hypothesis, and the variance of the jump in each gap, on average.

    Most hypotheses have a culprit for each of the ``likely`` ones, in the same gap or in another. Where the most doubtful of
    them may be none at all there is nothing to be unsure of within that one: else what tells a small culprit from none
    would seem to tell nothing but its size.
    """
    suspects = told.jumped > 0.5
    doubtful = int(np.argmin(np.where(suspects, told.jumped, np.inf)))
    none = float(1 - told.jumped[doubtful] - told.jumped[~suspects].sum()) if suspects.any() else 0.0
    hypotheses = [(1.0, likely)]
    if none > posterior.SLIGHT:
        fewer = suspects & (np.arange(len(suspects)) != doubtful)
        hypotheses = [(1 - none, likely), (none, chain.recursion(fewer))]
    within, inner = np.zeros((len(chain.sites), len(chain.sites))), np.zeros(len(suspects))
    for weight, one in hypotheses:
        means, second = one.moments
        within += weight * (second - np.outer(means, means))
        inner += weight * (one.by_jump @ one.jumps**2 - (one.by_jump @ one.jumps) ** 2)
    return within, inner


def _gains(variances: Floats, typical: float, noise: float, extra: Floats) -> tuple[Floats, Floats]:
    """Nats per price of each choice, and the run of blocks for which that is most; both of shape (choices,).

    Args:
        variances: of the expected ratio between hypotheses.
        typical: squared size of a culprit.
        noise: variance of a block.
        extra: price of what must be built first, in blocks.

    Two hypotheses ``typical`` apart, with probabilities that make the variance, hold their entropy to be gained and no
    more; one block gains half of variance / noise, where that is little.
    """
    share = np.clip(variances / max(typical, 1e-300), 1e-12, 0.25)
    odd = (1 - np.sqrt(1 - 4 * share)) / 2
    entropy = -(odd * np.log(odd) + (1 - odd) * np.log1p(-odd))
    nats = entropy[:, None] * -np.expm1(-np.maximum(variances, 0)[:, None] * RUNS / (2 * noise * entropy[:, None]))
    rates = nats / (RUNS + extra[:, None])
    best = rates.argmax(axis=1)
    return rates.max(axis=1), RUNS[best].astype(float)


def _measured(spread: Floats, row: Floats, noise: float) -> Floats:
    """The spread that is left once ``row`` of the levels has been measured with that variance, as if all were normal."""
    gone = spread @ row
    left: Floats = spread - np.outer(gone, gone) / (float(row @ gone) + noise)
    return left
