"""What the blocks of a search say of its commits: the posterior over all sets of culprits, and whether that is enough to end it.

The log time along a line of commits is piecewise constant. Between two commits that were measured there is a jump or there is
none. How many there are on the line is Poisson, of a rate that is the higher the more show; their sizes and the noise are as
:mod:`aibenchd.plan.bisect` has them. Levels lie on a grid, so that the posterior over all sets of culprits is the
forward-backward recursion of a hidden Markov chain over the measured commits: exact for any likelihood and any number of
culprits (after Fearnhead, "Exact and efficient Bayesian inference for multiple changepoint problems", 2006, whose segments have
independent levels; here they are bound by the jumps).

Or there is a drift beside the jumps, or in place of them: see :mod:`aibenchd.plan.drift`.

Commits are places on the line, and sizes log ratios, as there. Imports numpy, and only what searches should import it.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aibenchd.plan import bisect, drift

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVELS = 128  # steps of the grid
LEAST_BLOCKS = 3  # of a pair, before its median may widen the grid
CULPRITS, LINES = 2, 9  # so many on so many lines, before this one: the gamma law of their rate
EXPECTED = (CULPRITS + 1) / (LINES + 1)  # culprits on the line, where one shows: what is bisected was confirmed
TINY = 1e-200  # keeps the chain from breaking where nothing explains the blocks
TAIL = 0.05  # of an effect's interval, on either side
SLIGHT = 0.02  # weight of a reading that the choice does without
DRIFTING = 0.998  # probability of a drift at which there is one
PLAIN = 0.8  # probability that there is no culprit beside it, at which a search ends
RAMPS = 8  # beside which jumps are looked for
KNOWN = 2  # jumps that are taken off when these are chosen, at most


class Outcome(enum.StrEnum):
    """How a search ended."""

    FOUND = "found"
    NO_CULPRIT = "no culprit"
    MANY_SMALL = "many small ones"  # a drift, none of whose commits can be named
    INCONCLUSIVE = "inconclusive"  # at budget


@dataclass(frozen=True, slots=True)
class Culprit:
    """A commit, or a group of neighbours, all but the last of which do not build, that changed the time.

    Attributes:
        commits: their places, rising; one of them is the culprit.
        probability: that it is among them.
        effect, low, high: time after / time before minus 1, with its interval of 90 %, given that it is the culprit.
    """

    commits: tuple[int, ...]
    probability: float
    effect: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the evidence says.

    Attributes:
        outcome: None while the search goes on.
        culprits: where each change most likely is, by place; none where most likely nothing changed.
        probability: that these are the culprits, all of them, and no other commit.
        by_commit: of each commit 1 to ``commits``, that it is a culprit; shape (commits,). Sums to their expected number.
        drifts: probability that there are many small changes, beside culprits or alone; see :mod:`aibenchd.plan.drift`.
        spread: where it is sure that there are, how they are spread over the line, without the culprits.
    """

    outcome: Outcome | None
    culprits: tuple[Culprit, ...]
    probability: float
    by_commit: tuple[float, ...]
    drifts: float = 0.0
    spread: tuple[drift.Share, ...] = ()


def of(search: bisect.Search) -> Posterior:
    """What the evidence says of each commit, and whether that is enough."""
    chain, told, likely = read(search)
    return named(search, chain, told, math.exp(likely.log_mass - told.log_mass), drifts_in(search))


def named(search: bisect.Search, chain: Chain, told: Told, probability: float, drifts: Drifts) -> Posterior:
    """What is ``told`` of the gaps of a chain, in commits.

    Args:
        probability: that there are culprits in those gaps where one is more likely than none, and in no other, if none drifts.
        drifts: what is told if one does.
    """
    suspects = told.jumped > 0.5
    if drifts.share > 0.5:
        return _beside_drift(search, chain, drifts)
    probability = (1 - drifts.share) * probability + drifts.share * drifts.certainty(suspects)
    culprits, probability = _culprits(chain, told, probability)
    outcome = _outcome(search, probability, found=bool(culprits))
    return Posterior(outcome, culprits, min(probability, 1.0), _by_commit(chain, told), drifts.share)


def _beside_drift(search: bisect.Search, chain: Chain, drifts: Drifts) -> Posterior:
    """What is told of the gaps where there is a drift more likely than not: the culprits beside it."""
    suspects = drifts.told.jumped > 0.5
    alone = drifts.certainty(suspects)
    culprits, probability = _culprits(chain, drifts.told, drifts.share * alone)
    probability = min(probability, 1.0)
    outcome = None if search.blocks < search.max_blocks else Outcome.INCONCLUSIVE
    if drifts.share < DRIFTING:
        return Posterior(outcome, culprits, probability, _by_commit(chain, drifts.told), drifts.share)
    jumps = np.cumsum([0, *in_steps(drifts.told, suspects)])
    spread = drift.spread(chain.sites, chain.levels, drift.without(chain.at_site, jumps))
    if not culprits and alone >= PLAIN:
        return Posterior(Outcome.MANY_SMALL, (), drifts.share, (), drifts.share, spread)
    if culprits and probability >= search.confidence:
        outcome = Outcome.FOUND
    return Posterior(outcome, culprits, probability, _by_commit(chain, drifts.told), drifts.share, spread)


def _by_commit(chain: Chain, told: Told) -> tuple[float, ...]:
    """Probability of each commit that it is a culprit: within a gap they are equal."""
    sizes = np.diff(chain.sites)
    return tuple(np.repeat(told.jumped / sizes, sizes).tolist())


def _culprits(chain: Chain, told: Told, probability: float) -> tuple[tuple[Culprit, ...], float]:
    """One in each gap where there is one more likely than none; and the probability of all, by that of the gaps."""
    culprits: list[Culprit] = []
    for gap in np.flatnonzero(told.jumped > 0.5):
        first, last = chain.sites[gap] + 1, chain.sites[gap + 1]
        group = chain.suspected(first, last)
        share = len(group) / (last + 1 - first)
        probability *= share
        culprits.append(Culprit(group, float(told.jumped[gap]) * share, *told.effect(int(gap))))
    return tuple(culprits), probability


def _outcome(search: bisect.Search, probability: float, *, found: bool) -> Outcome | None:
    if probability >= search.confidence:
        return Outcome.FOUND if found else Outcome.NO_CULPRIT
    return Outcome.INCONCLUSIVE if search.blocks >= search.max_blocks else None


@functools.lru_cache(maxsize=4)
def read(search: bisect.Search) -> tuple[Chain, Recursion, Recursion]:
    """The chain, its recursion, and that over the likeliest set of gaps with culprits alone.

    Where several show, others are likelier: the rate is the mean of its gamma law, given as many as there seem to be.
    """
    chain = Chain.of(search)
    chain = dataclasses.replace(chain, changes=changes(chain.sites, float(chain.recursion(None).jumped.sum())))
    told = chain.recursion(None)
    return chain, told, chain.recursion(told.jumped > 0.5)


@functools.lru_cache(maxsize=4)
def drifts_in(search: bisect.Search) -> Drifts:
    """What is told of a search's jumps if there is a drift, and how likely there is one."""
    chain, told, _ = read(search)
    return drifting(chain, told, search.min_effect).beside(told.log_mass)


@dataclass(frozen=True, eq=False)
class Drifts:
    """What is told of the jumps beside a drift, by a few ramps that it is most likely.

    Attributes:
        log_mass: log evidence of a drift, up to the constant of the chain; -infinite where the line is too short for one.
        chains: what is left beside each of these ramps, as a chain.
        each: what those say.
        weights: of these ramps; they sum to 1.
        share: probability of a drift.
    """

    log_mass: float
    chains: Sequence[Chain]
    each: Sequence[Recursion]
    weights: Sequence[float]
    share: float = 0.0

    def beside(self, jumps: float) -> Drifts:
        """Where ``jumps`` is the log evidence of culprits alone."""
        return dataclasses.replace(self, share=drift.share(self.log_mass, jumps))

    @functools.cached_property
    def told(self) -> Mixed:
        """Of the jumps, by all these ramps."""
        return Mixed(self.chains[0].levels, self.each, self.weights)

    def certainty(self, suspects: Bools) -> float:
        """Probability that there are jumps in these gaps, and in no other."""
        logs = [chain.recursion(suspects).log_mass - told.log_mass for chain, told in zip(self.chains, self.each, strict=True)]
        return math.fsum(weight * math.exp(log) for weight, log in zip(self.weights, logs, strict=True))

    @property
    def within(self) -> tuple[Chain, Recursion, Recursion] | None:
        """What is measured next goes by, once there is a drift: what is left beside the likeliest ramp; as :func:`read`."""
        if self.share < DRIFTING:
            return None
        best = int(np.argmax(self.weights))
        return self.chains[best], self.each[best], self.chains[best].recursion(self.each[best].jumped > 0.5)


def drifting(chain: Chain, told: Told, min_effect: float) -> Drifts:
    """What the blocks say if there is a drift, with jumps beside it or none.

    Which ramps are looked at is chosen with the largest jumps that are ``told`` without a drift taken off, none of them to
    :data:`KNOWN`, and of these with which the blocks are likeliest.
    """
    margin = math.log1p(min_effect)
    ramps = drift.Ramps.of(chain.places, chain.sites, chain.levels, chain.prior, margin)
    if not len(ramps.log_priors):
        return Drifts(-math.inf, (), (), ())
    loose = drift.loosened(chain.at_site, chain.levels, margin)
    chain = dataclasses.replace(chain, at_site=loose, changes=changes(chain.sites, 1.0))
    largest = np.argsort(-np.abs(sizes := in_steps(told, told.jumped > 0.5)))[: min(KNOWN, np.count_nonzero(sizes))]
    known = [np.where(np.isin(np.arange(len(sizes)), largest[:count]), sizes, 0) for count in range(len(largest) + 1)]
    return max((_beside_ramps(chain, ramps, jumps) for jumps in known), key=lambda one: one.log_mass)


def _beside_ramps(chain: Chain, ramps: drift.Ramps, jumps: drift.Ints) -> Drifts:
    """By the ramps that are likeliest with these jumps: all others are taken to have jumps beside them as these do."""
    logs = ramps.logs(chain.levels, chain.at_site, chain.in_gap, jumps)
    best = np.argsort(-logs)[:RAMPS]
    left = [
        dataclasses.replace(
            chain, at_site=drift.without(chain.at_site, rises), in_gap=drift.without(chain.in_gap, np.diff(rises))
        )
        for rises in ramps.rises[:, best].T
    ]
    told = [one.recursion(None) for one in left]
    masses = ramps.log_priors[best] + [one.log_mass for one in told]
    whole = float(np.logaddexp.reduce(masses))
    others = float(np.logaddexp.reduce(logs) - np.logaddexp.reduce(logs[best]))
    return Drifts(whole + others, left, told, np.exp(masses - whole).tolist())


def in_steps(told: Told, suspects: Bools) -> drift.Ints:
    """How large the jumps in these gaps are if there are any, in steps of the grid, 0 in all others; shape (gaps,)."""
    there = np.where(told.jumps == 0, 0.0, told.by_jump)
    means = there @ np.arange(-(len(told.levels) - 1), len(told.levels)) / np.maximum(there.sum(axis=1), 1e-300)
    return np.where(suspects, np.rint(means), 0).astype(np.int64)


def changes(sites: Sequence[int], seen: float) -> Floats:
    """Prior probability of a culprit in each gap between ``sites``, where so many show; shape (gaps,)."""
    expected = EXPECTED + max(seen - 1.0, 0.0) / (LINES + 1)
    found: Floats = -np.expm1(-expected * np.diff(sites) / (sites[-1] - sites[0]))
    return found


class Told(abc.ABC):
    """What is believed of the levels and of the jumps between them.

    Attributes:
        levels: the grid, shape (levels,).
    """

    levels: Floats

    @property
    @abc.abstractmethod
    def by_jump(self) -> Floats:
        """Probability of each size in steps, from the most negative, shape (gaps, 2 * levels - 1)."""

    @property
    @abc.abstractmethod
    def moments(self) -> tuple[Floats, Floats]:
        """Means and second moments of the levels at the measured commits, shapes (sites,) and (sites, sites)."""

    @functools.cached_property
    def jumped(self) -> Floats:
        """Probability that there is a culprit in each gap, shape (gaps,)."""
        found: Floats = 1 - self.by_jump[:, len(self.levels) - 1]
        return found

    @functools.cached_property
    def jumps(self) -> Floats:
        """Sizes that :attr:`by_jump` is of, in log ratio; shape (2 * levels - 1,)."""
        size = len(self.levels)
        found: Floats = np.arange(1 - size, size) * (self.levels[1] - self.levels[0])
        return found

    @property
    def typical(self) -> float:
        """Squared size of a culprit, over all gaps."""
        return float((self.by_jump @ self.jumps**2).sum() / max(self.jumped.sum(), 1e-300))

    def effect(self, gap: int) -> tuple[float, float, float]:
        """Mean and interval of the jump in a gap, if there is one, as ratios minus 1.

        A size of the grid stands for all within half a step of it, and so do the ends of the interval.
        """
        weights = self.by_jump[gap].copy()
        weights[len(self.levels) - 1] = 0.0
        shares = np.cumsum(weights) / weights.sum()
        low, high = (float(self.jumps[int(np.searchsorted(shares, tail))]) for tail in (TAIL, 1 - TAIL))
        half = float(self.levels[1] - self.levels[0]) / 2
        return math.expm1(float(self.jumps @ weights / weights.sum())), math.expm1(low - half), math.expm1(high + half)


@dataclass(frozen=True, eq=False)
class Recursion(Told):
    """Forward and backward over the measured commits.

    Attributes:
        levels: the grid, shape (levels,).
        log_mass: log of the evidence, up to a constant of the chain.
        forwards: probability of each level of each measured commit, given all before it and itself; shape (sites, levels).
        weights: of each size of the jump in each gap, shape (gaps, 2 * levels - 1).
        onwards: likelihood of each level of the commit after each gap, given itself and all after it; shape (gaps, levels).
    """

    levels: Floats
    log_mass: float
    forwards: Floats
    weights: Floats
    onwards: Floats

    @functools.cached_property
    def around(self) -> Floats:
        """Of each size of the jump in each gap, what is before it and after it, up to a factor of the gap; as ``weights``."""
        pairs = zip(self.onwards, self.forwards, strict=False)
        return np.array([np.correlate(onward, forward, "full") for onward, forward in pairs])

    @functools.cached_property
    def by_jump(self) -> Floats:
        found = self.weights * self.around
        shares: Floats = found / np.maximum(found.sum(axis=1, keepdims=True), TINY)
        return shares

    @functools.cached_property
    def moments(self) -> tuple[Floats, Floats]:
        gaps = len(self.weights)
        means, second = np.zeros(gaps + 1), np.zeros((gaps + 1, gaps + 1))
        expected, backward = self.levels[:, None], np.ones(len(self.levels))  # of the commits from here on, given the level here
        for site in range(gaps, -1, -1):
            if site < gaps:
                step = _steps(self.weights[site]) * self.onwards[site]
                backward = step.sum(axis=1)
                onward = step @ expected / np.maximum(backward, TINY)[:, None]
                expected = np.concatenate([self.levels[:, None], onward], axis=1)
            marginal = self.forwards[site] * backward
            marginal /= max(float(marginal.sum()), TINY)
            means[site] = marginal @ self.levels
            second[site, site:] = second[site:, site] = (marginal * self.levels) @ expected
        return means, second


@dataclass(frozen=True, eq=False)
class Mixed(Told):
    """A device's levels by several readings: ``told`` by each, and their ``weights``, which sum to 1."""

    levels: Floats
    told: Sequence[Recursion]
    weights: Sequence[float]

    @functools.cached_property
    def by_jump(self) -> Floats:
        found: Floats = np.tensordot(self.weights, [one.by_jump for one in self.told], 1)
        return found

    @functools.cached_property
    def moments(self) -> tuple[Floats, Floats]:
        least = min(SLIGHT, max(self.weights))
        kept = [(weight, one.moments) for weight, one in zip(self.weights, self.told, strict=True) if weight >= least]
        weights = np.array([weight for weight, _ in kept])
        weights /= weights.sum()
        means, second = (np.tensordot(weights, [one[order] for _, one in kept], 1) for order in (0, 1))
        return means, second


@dataclass(frozen=True, eq=False)
class Chain:
    """A search as a hidden Markov chain over the commits that were measured.

    Attributes:
        places: commits that may be measured, rising, the ends included.
        sites: those that were, here or elsewhere, and the ends.
        levels: the grid of log times over that of the good end, shape (levels,); holds 0.
        at_site: log likelihood of each level of each site, shape (sites, levels).
        in_gap: log likelihood of each size of the jump after each site but the last, shape (gaps, 2 * levels - 1).
        prior: of each such size in a gap where there is a culprit; shape (2 * levels - 1,).
        changes: prior probability of a culprit in each gap, shape (gaps,).
    """

    places: tuple[int, ...]
    sites: tuple[int, ...]
    noise: bisect.Noise
    levels: Floats
    at_site: Floats
    in_gap: Floats
    prior: Floats
    changes: Floats

    @classmethod
    def of(cls, search: bisect.Search, also: Iterable[int] = ()) -> Chain:
        """``also``: commits that others have measured, and are sites too."""
        pairs = search.pairs()
        places = tuple(place for place in range(search.commits + 1) if place not in search.unbuildable)
        sites = tuple(sorted({0, search.commits, *(place for pair in pairs for place in pair), *also}))
        levels = _grid(pairs, math.log1p(search.min_effect), math.sqrt(search.noise(0.0).variance))
        step, size = float(levels[1] - levels[0]), len(levels)
        noise = search.noise(step)
        jumps = np.arange(1 - size, size) * step
        prior = np.zeros(2 * size - 1)
        prior[jumps != 0] = np.maximum(search.sizes(jumps[jumps != 0]) * step, TINY)
        at_site, in_gap = np.zeros((len(sites), size)), np.zeros((len(sites) - 1, 2 * size - 1))
        for (newer, older), ratios in pairs.items():
            site = sites.index(newer)
            if older == 0:
                at_site[site] += noise.log(ratios[:, None] - levels).sum(axis=0)
            elif sites[site - 1] == older:  # else others have measured what cannot be measured here
                in_gap[site - 1] += noise.log(ratios[:, None] - jumps).sum(axis=0)
        return cls(places, sites, noise, levels, at_site, in_gap, prior, changes(sites, 1.0))

    def suspected(self, first: int, last: int) -> tuple[int, ...]:
        """The largest group of commits from ``first`` to ``last`` that cannot be told apart."""
        ends = [*(place for place in self.places if first <= place < last), last]
        starts = [first, *(end + 1 for end in ends[:-1])]
        start, end = max(zip(starts, ends, strict=True), key=lambda group: group[1] - group[0])
        return tuple(range(start, end + 1))

    @functools.cached_property
    def still(self) -> Bools:
        """Which size of a jump is none, shape (2 * levels - 1,)."""
        found: Bools = np.arange(2 * len(self.levels) - 1) == len(self.levels) - 1
        return found

    @functools.cached_property
    def likelihoods(self) -> Floats:
        """Of each size of the jump in each gap, by itself; the greatest of each gap is 1. As ``in_gap``."""
        return _scaled(self.in_gap)[0]

    def recursion(self, suspects: Bools | None) -> Recursion:
        """Over all sets of gaps with culprits; or, where ``suspects`` of shape (gaps,) says which they are, of that alone."""
        weights = np.where(self.still, 1 - self.changes[:, None], self.changes[:, None] * self.prior)
        if suspects is not None:
            weights = np.where(self.still == suspects[:, None], 0.0, weights)
        return self.weighed(weights)

    def weighed(self, weights: Floats) -> Recursion:
        """By prior weights of each size of the jump in each gap, shape (gaps, 2 * levels - 1)."""
        size, gaps = len(self.levels), len(self.sites) - 1
        at_jump = self.in_gap.max(axis=1)
        emissions, at_level = _scaled(self.at_site)
        weights = weights * self.likelihoods
        forwards, log_mass = [(self.levels == 0).astype(float)], float(at_jump.sum() + at_level[1:].sum())
        for gap in range(gaps):
            forward = np.convolve(weights[gap], forwards[-1], "valid") * emissions[gap + 1]
            mass = max(float(forward.sum()), TINY)
            log_mass += math.log(mass)
            forwards.append(forward / mass)
        backward, onwards = np.ones(size), np.zeros((gaps, size))
        for gap in range(gaps - 1, -1, -1):
            onwards[gap] = emissions[gap + 1] * backward
            backward = np.correlate(weights[gap], onwards[gap], "valid")[::-1]
            backward = backward / max(float(backward.max()), TINY)
        return Recursion(self.levels, log_mass, np.array(forwards), weights, onwards)


def _steps(weights: Floats) -> Floats:
    """Weights of jumps, shape (2 * levels - 1,), by the levels before and after, shape (levels, levels)."""
    found: Floats = np.lib.stride_tricks.sliding_window_view(weights, len(weights) // 2 + 1)[::-1]
    return found


def _scaled(logs: Floats) -> tuple[Floats, Floats]:
    """Likelihoods, of which the greatest of each row is 1 and none 0; and the log that was taken off each."""
    most = logs.max(axis=1)
    return np.maximum(np.exp(logs - most[:, None]), TINY), most


def _grid(pairs: dict[tuple[int, int], Floats], least: float, noise: float) -> Floats:
    """Levels from below the least median ratio to above the greatest, 0 among them."""
    medians = [0.0, *(float(np.median(ratios)) for ratios in pairs.values() if len(ratios) >= LEAST_BLOCKS)]
    low, high = min(medians) - least - 2 * noise, max(medians) + least + 2 * noise
    step = (high - low) / LEVELS
    return np.arange(math.floor(low / step), math.ceil(high / step) + 1, dtype=np.float64) * step
