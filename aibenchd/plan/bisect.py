"""Which commits between a good and a bad one changed a time: bisection on the ratios themselves, not on yes or no.

**The model.** The log time along a line of commits is piecewise constant. Between two commits that were measured there is a
jump or there is none. How many there are on the line is Poisson, of a rate that is the higher the more show; their sizes have
the inverse moment density of Johnson and Rossell ("On the use of non-local prior densities in Bayesian hypothesis tests", 2010;
that with k = 2), which is heavy in its tails and all but 0 below half of ``min_effect``: so evidence that there is no other
culprit grows as fast as evidence that there is one. Levels lie on a grid, so that the posterior over all sets of culprits is the
forward-backward recursion of a hidden Markov chain over the measured commits: exact for any likelihood and any number of
culprits (after Fearnhead, "Exact and efficient Bayesian inference for multiple changepoint problems", 2006, whose segments have
independent levels; here they are bound by the jumps).

Or there is a drift beside the jumps, or in place of them: see :mod:`aibenchd.plan.drift`.

**The noise** of a block is Student's t, the most likely one given the blocks about the median of their own pair of commits,
and given what the noise of earlier experiments was: that of another day is within a factor of two nine times of ten, and where
the blocks say otherwise its heavy tails give way. On four recorded tapes t with 2 to 4 degrees is 0.01 to 0.6 nats a block
better than the logistic law, and no single burst can name a culprit.

**The choice** is the pair of commits whose expected ratio differs most from one hypothesis to another, in information per
price, where the first block of a commit that is not built yet has its build to pay, and so is worth it only with the blocks
that will follow. With one culprit and equal prices this is the median of the posterior (Horstein, "Sequential transmission
using noiseless feedback", 1963; Waeber, Frazier and Henderson, "Bisection search with noisy responses", 2013; Ben-Or and
Hassidim, "The Bayesian learner is optimal for noisy binary search", 2008, who also ask several questions at once). A suspect
is also laid against the commit before it, which tells it from its neighbours on both sides at once.

**Measured** (``make bench-search``: 128 commits, ``min_effect`` 1 %, recorded noise of 1.3 to 1.8 % a block, a build at the price
of 20 blocks, four blocks at a time, 40 searches a row): how often exactly the right commits were named; the blocks, builds and
cost that it took, in blocks; and that cost over the same bisector's that was told the density of the noise and the planted
sizes. An error of a share of 97.5 or 100 % is 2.5 %.

==============================  ===========  ===========  ======  ======  ====  ============
culprits                        right        told, right  blocks  builds  cost  ratio
==============================  ===========  ===========  ======  ======  ====  ============
one of 1 %                      100 %        100 %        184     7.9     343   1.21 ± 0.06
one of 2 %                      100 %        100 %        78      7.4     226   1.11 ± 0.04
one of 5 %                      100 %        100 %        54      7.0     195   1.15 ± 0.03
one of 1 to 5 %                 100 %        97.5 %       72      7.0     213   1.11 ± 0.02
one, 14 % do not build          100 %        100 %        79      8.3     245   1.12 ± 0.03
two of 1 to 5 %                 97.5 %       100 %        146     11.8    382   1.13 ± 0.03
two, 14 % do not build          100 %        97.5 %       149     14.9    448   1.18 ± 0.03
three of 1 to 5 %               95 ± 3.4 %   92.5 ± 4 %   213     16.6    546   1.19 ± 0.04
three, 14 % do not build        97.5 %       85 ± 6 %     221     19.8    616   1.32 ± 0.07
all of these                    98.9 ± 0.6   96.9 ± 0.9   133     11.2    357   1.19 ± 0.02
two, noise told twice as large  95 ± 3.4 %   100 %        148     11.9    386   1.16 ± 0.04
two, noise told half as large   100 %        100 %        144     12.3    391   1.13 ± 0.05
two, noise not told             97.5 %       100 %        147     12.0    387   1.12 ± 0.04
==============================  ===========  ===========  ======  ======  ====  ============

The one that is told takes three culprits for a drift (:mod:`aibenchd.plan.drift`) sooner, and then ends early, and wrongly:
before there were drifts it was right in 98.3 % and the ratio of all was 1.16 ± 0.01, at the same cost of ours.

With one culprit it is most of all the doubt whether there is another, smaller one that costs blocks, which the one that is told
all sizes never has: with sizes of k = 1 and 0.5 culprits expected, a search for one of 5 % that was told the density of the noise
alone took 50 blocks, and the one that was told the size as well 16 (40 searches, one block at a time). Where it stops it says
98 % in the mean, and is right as often over all sizes. A culprit of just ``min_effect`` is the hardest: it was named rightly in
97.5 ± 1.7 % of 80 searches, and in 92.5 ± 2.9 % with sizes of that scale (:data:`LEAST_SIZE` 1).

Since drifts may have culprits beside them, and since the choice asks whether there is a culprit at all, the first 12 searches
of one of 1 to 5 % took as many blocks and builds as before, and those of three 241 blocks instead of 226, and as many builds.

Commits are places on the line: 0 is the good end, ``commits`` the bad one. Sizes are log ratios, newer over older, where
they are not said to be ratios minus 1. This module imports numpy: only what bisects should import it.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aibenchd.plan import drift

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEVELS = 128  # steps of the grid
DEGREES = np.array([2.0, 3.0, 5.0, 10.0])  # of freedom
WIDTHS = np.array([1.338, 1.206, 1.115, 1.055])  # of the middle 70 % of Student's laws with so many, over that of the normal one
SCALES = np.geomspace(0.02, 50.0, 60)  # of the guess
DAYS_APART = 0.35  # noise of two days: the scale of the difference of its logarithms
DEGREES_APART = 0.15  # and of the inverses of its degrees
LEAST_BLOCKS = 3  # of a pair, before its median may widen the grid
LEAST_SIZE = 0.8  # of min_effect, the scale of sizes: 7 % are below it; at 1, what is just so large is named too soon
CULPRITS, LINES = 2, 9  # so many on so many lines, before this one: the gamma law of their rate
EXPECTED = (CULPRITS + 1) / (LINES + 1)  # culprits on the line, where one shows: what is bisected was confirmed
RUNS = np.array([1, 2, 4, 8, 16, 32])  # blocks that a build may be meant for
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
class Evidence:
    """Blocks of two commits: log(time of ``newer`` / time of ``older``) of each, in any order.

    ``older`` is the good end, or the last commit before ``newer`` that may be measured: other pairs tell no more, and are
    refused.
    """

    newer: int
    older: int
    ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One block to run."""

    newer: int
    older: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """The noise of earlier experiments on the same device and benchmark.

    Attributes:
        scale: of a block's log ratio: the standard deviation of a normal law whose middle 70 % is as wide.
        degrees: of freedom, of a Student law with such tails.
        blocks: on how many it rests.
    """

    scale: float
    degrees: float
    blocks: int

    def log_prior(self, widths: Floats) -> Floats:
        """Of the noise of today; shape (degrees, widths). Its tails are Student's: noise of another kind is learnt."""
        away = np.log(widths / self.scale) ** 2 / (DAYS_APART**2 + 1 / self.blocks)
        heavier = (1 / DEGREES - 1 / self.degrees) ** 2 / (DEGREES_APART**2 + 1 / self.blocks)
        found: Floats = -2.5 * np.log1p(away / 4) - heavier[:, None] / 2
        return found


class Noise(Protocol):
    """The density of a block's log ratio about the true one."""

    @property
    def variance(self) -> float:
        """Of a normal law that tells as much about the true ratio: the inverse of Fisher's information."""

    def log(self, errors: Floats) -> Floats:
        """Log density, up to a constant; any shape."""


@dataclass(frozen=True, slots=True)
class StudentNoise:
    """Student's t. ``scale`` is in log ratio."""

    scale: float
    degrees: float

    @property
    def variance(self) -> float:
        return self.scale**2 * (self.degrees + 3) / (self.degrees + 1)

    def log(self, errors: Floats) -> Floats:
        found: Floats = -(self.degrees + 1) / 2 * np.log1p((errors / self.scale) ** 2 / self.degrees)
        return found


@dataclass(frozen=True)
class Search:
    """What is known of a line of commits; give it what is measured and ask it what to measure next.

    Attributes:
        commits: how many may be culprits, 1 to ``commits``; 0 is the good end.
        evidence: the blocks so far, those included that showed the change between the ends.
        earlier: what the noise was before the evidence; None where it is not known.
        unbuildable: commits that do not build; neither end is one.
        built: commits whose programs were there before the search; those in the evidence need not be named.
        build_price: of one build, in blocks.
        min_effect: a culprit's least size, as a ratio minus 1: half as much is seldom named, and hardly looked for.
        confidence: probability at which the search ends, that all culprits are named and no other commit.
        max_blocks: the budget in blocks, those of the evidence included.
        max_builds: the budget in builds.

    Raises:
        ValueError: a commit that is not on the line, an end that does not build, a pair that cannot be used, a ratio
            that is not finite, no commit at all.
    """

    commits: int
    evidence: tuple[Evidence, ...] = ()
    earlier: Earlier | None = None
    unbuildable: frozenset[int] = frozenset()
    built: frozenset[int] = frozenset()
    build_price: float = 20.0
    min_effect: float = 0.02
    confidence: float = 0.97
    max_blocks: int = 500
    max_builds: int = 40

    def __post_init__(self) -> None:
        if self.commits < 1:
            raise ValueError(f"expected at least one commit after the good end, not {self.commits}")
        named = {place for one in self.evidence for place in (one.newer, one.older)}
        for place in named | self.unbuildable | self.built:
            if not 0 <= place <= self.commits:
                raise ValueError(f"commit {place} is not on the line: expected 0 to {self.commits}")
        for place in sorted(self.unbuildable & (named | {0, self.commits})):
            raise ValueError(f"commit {place} does not build: expected one between the ends that was never measured")
        for one in self.evidence:
            if one.older >= one.newer or one.older not in (0, self.before(one.newer)):
                raise ValueError(f"commits {one.newer} and {one.older}: expected a newer one and the good end or the one before")
            if not all(map(math.isfinite, one.ratios)):
                raise ValueError(f"commits {one.newer} and {one.older}: a log ratio is not finite")

    def with_evidence(self, newer: int, older: int, ratios: Iterable[float]) -> Search:
        """With these blocks as well."""
        return dataclasses.replace(self, evidence=(*self.evidence, Evidence(newer, older, tuple(ratios))))

    def with_unbuildable(self, *commits: int) -> Search:
        """With these commits known not to build."""
        return dataclasses.replace(self, unbuildable=self.unbuildable | set(commits))

    def before(self, commit: int) -> int:
        """The last commit before it that is not known not to build."""
        return next(place for place in range(commit - 1, -1, -1) if place not in self.unbuildable)

    @property
    def ready(self) -> frozenset[int]:
        """Commits whose programs are there."""
        measured = {place for one in self.evidence for place in (one.newer, one.older)}
        return self.built | measured | {0, self.commits}

    @property
    def blocks(self) -> int:
        """In the evidence."""
        return sum(len(one.ratios) for one in self.evidence)

    @property
    def made(self) -> frozenset[int]:
        """Commits that were built for the search, those that failed included."""
        return (self.ready | self.unbuildable) - self.built - {0, self.commits}

    @property
    def builds(self) -> int:
        """That the search has asked for, those that failed included."""
        return len(self.made)

    def pairs(self) -> dict[tuple[int, int], Floats]:
        """All ratios of each pair (newer, older), shape (blocks,)."""
        found: dict[tuple[int, int], list[float]] = {}
        for one in self.evidence:
            found.setdefault((one.newer, one.older), []).extend(one.ratios)
        return {pair: np.array(ratios) for pair, ratios in found.items() if ratios}

    def noise(self, least: float) -> Noise:
        """As the blocks themselves show it, at least ``least``: the most likely law of their distances from their medians.

        A pair of n blocks says as much as n - 1 would about a known centre; half of ``min_effect`` counts as one more.
        """
        guess = math.log1p(self.min_effect) / 2
        widths = np.maximum(SCALES * guess, least)
        errors, weights = [np.zeros(0)], [np.zeros(0)]
        for ratios in self.pairs().values():
            if (size := len(ratios)) > 1:
                errors.append((ratios - np.median(ratios)) * math.sqrt(size / (size - 1)))
                weights.append(np.full(size, (size - 1) / size))
        if self.earlier is not None:
            return _likeliest(np.concatenate(errors), np.concatenate(weights), widths, self.earlier.log_prior(widths))
        return _likeliest(np.concatenate([[guess], *errors]), np.concatenate([[1.0], *weights]), widths)

    def sizes(self, jumps: Floats) -> Floats:
        """Density of a culprit's size; shape as ``jumps``, which are log ratios other than 0."""
        least = LEAST_SIZE * math.log1p(self.min_effect)
        density: Floats = 2 * least / math.gamma(1 / 4) / jumps**2 * np.exp(-((least / jumps) ** 4))
        return density


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
        spread: of a search that ended so, how they are spread over the line, without the culprits.
    """

    outcome: Outcome | None
    culprits: tuple[Culprit, ...]
    probability: float
    by_commit: tuple[float, ...]
    drifts: float = 0.0
    spread: tuple[drift.Share, ...] = ()


def posterior(search: Search) -> Posterior:
    """What the evidence says of each commit, and whether that is enough."""
    chain, told, likely = _read(search)
    return named(search, chain, told, math.exp(likely.log_mass - told.log_mass), _drifts(search))


def named(search: Search, chain: Chain, told: Told, probability: float, drifts: Drifts) -> Posterior:
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


def _beside_drift(search: Search, chain: Chain, drifts: Drifts) -> Posterior:
    """What is told of the gaps where there is a drift more likely than not: the culprits beside it."""
    suspects = drifts.told.jumped > 0.5
    alone = drifts.certainty(suspects)
    culprits, probability = _culprits(chain, drifts.told, drifts.share * alone)
    outcome = None if search.blocks < search.max_blocks else Outcome.INCONCLUSIVE
    spread = drift.spread(
        chain.sites, chain.levels, drift.without(chain.at_site, np.cumsum([0, *in_steps(drifts.told, suspects)]))
    )
    if drifts.share >= DRIFTING and not culprits and alone >= PLAIN:
        return Posterior(Outcome.MANY_SMALL, (), drifts.share, (), drifts.share, spread)
    if drifts.share >= DRIFTING and culprits and probability >= search.confidence:
        return Posterior(Outcome.FOUND, culprits, min(probability, 1.0), _by_commit(chain, drifts.told), drifts.share, spread)
    return Posterior(outcome, culprits, min(probability, 1.0), _by_commit(chain, drifts.told), drifts.share)


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


def next_measurements(search: Search, count: int = 1, pending: Sequence[Measurement] = ()) -> tuple[Measurement, ...]:
    """The next blocks to run at once, most useful first; none once the search has ended.

    Args:
        pending: blocks that are being run already, whose results are not in the evidence yet.

    The same pair may be named more than once, where nothing else tells as much for its price.
    """
    if posterior(search).outcome is not None:
        return ()
    chain, told, likely = _drifts(search).within or _read(search)
    ready = search.ready | {place for one in pending for place in (one.newer, one.older)}
    room = search.max_builds - search.builds - len(ready - search.ready)
    noises = [(one, chain.noise.variance) for one in pending]
    return chosen(chain, chain.spread(told, likely), told.typical, count, Prices(ready, room, search.build_price), noises)


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
    chain: Chain, spread: Floats, typical: float, count: int, prices: Prices, pending: Iterable[tuple[Measurement, float]] = ()
) -> tuple[Measurement, ...]:
    """So many blocks, each that which tells most for its price once those before it have told.

    Args:
        spread: as of :meth:`Chain.spread`.
        typical: squared size of a culprit.
        pending: what is measured already, each with the variance of its noise.
    """
    pairs, rows = chain.choices()
    for one, noise in pending:
        if (one.newer, one.older) in pairs:
            spread = _measured(spread, rows[pairs.index((one.newer, one.older))], noise)
    ready, room = set(prices.ready), max(0, prices.room)
    found: list[Measurement] = []
    for _ in range(count):
        missing = np.array([len(set(pair) - ready) for pair in pairs])
        variances = (rows @ spread * rows).sum(axis=1)
        gains, runs = _gains(variances, typical, chain.noise.variance, missing * prices.build)
        best = int(np.argmax(np.where(missing <= room, gains, -1.0)))
        found.append(Measurement(*pairs[best]))
        room -= int(missing[best])
        ready |= set(pairs[best])
        spread = _measured(spread, rows[best], chain.noise.variance / runs[best])
    return tuple(found)


@functools.lru_cache(maxsize=4)
def _read(search: Search) -> tuple[Chain, Recursion, Recursion]:
    """The chain, its recursion, and that over the likeliest set of gaps with culprits alone.

    Where several show, others are likelier: the rate is the mean of its gamma law, given as many as there seem to be.
    """
    chain = Chain.of(search)
    chain = dataclasses.replace(chain, changes=changes(chain.sites, float(chain.recursion(None).jumped.sum())))
    told = chain.recursion(None)
    return chain, told, chain.recursion(told.jumped > 0.5)


@functools.lru_cache(maxsize=4)
def _drifts(search: Search) -> Drifts:
    chain, told, _ = _read(search)
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
        """What is measured next goes by, once there is a drift: what is left beside the likeliest ramp; as :func:`_read`."""
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
    """Prior probability of a culprit in each gap, where so many show."""
    expected = EXPECTED + max(seen - 1.0, 0.0) / (LINES + 1)
    found: Floats = -np.expm1(-expected * np.diff(sites) / (sites[-1] - sites[0]))
    return found


def _outcome(search: Search, probability: float, *, found: bool) -> Outcome | None:
    if probability >= search.confidence:
        return Outcome.FOUND if found else Outcome.NO_CULPRIT
    return Outcome.INCONCLUSIVE if search.blocks >= search.max_blocks else None


def _likeliest(errors: Floats, weights: Floats, widths: Floats, log_prior: Floats | float = 0.0) -> StudentNoise:
    """Of the laws with a middle 70 % as wide as a normal one's of each of ``widths``; the prior has shape (degrees, widths)."""
    degrees = DEGREES[:, None, None]
    scales = widths / WIDTHS[:, None]
    norm = np.array([math.lgamma((one + 1) / 2) - math.lgamma(one / 2) - math.log(one) / 2 for one in DEGREES])
    logs = -(degrees + 1) / 2 * np.log1p((errors / scales[:, :, None]) ** 2 / degrees)
    totals = (logs * weights).sum(axis=-1) + weights.sum() * (norm[:, None] - np.log(scales)) + log_prior
    row, column = np.unravel_index(int(totals.argmax()), totals.shape)
    return StudentNoise(float(scales[row, column]), float(DEGREES[row]))


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
        """Sizes that :attr:`by_jump` is of."""
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
    noise: Noise
    levels: Floats
    at_site: Floats
    in_gap: Floats
    prior: Floats
    changes: Floats

    @classmethod
    def of(cls, search: Search, also: Iterable[int] = ()) -> Chain:
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

    def choices(self) -> tuple[list[tuple[int, int]], Floats]:
        """Pairs (newer, older) that may be measured, and each as a row over the levels of ``places``."""
        count = len(self.places)
        rows = np.eye(count)
        against_good = [(place, 0) for place in self.places[1:]]
        neighbours = list(zip(self.places[2:], self.places[1:-1], strict=True))
        elsewhere = set(self.sites) - set(self.places)
        kept = [not any(older < site < newer for site in elsewhere) for newer, older in neighbours]
        pairs = against_good + list(itertools.compress(neighbours, kept))
        return pairs, np.concatenate([rows[1:], (rows[2:] - rows[1:-1])[kept]])

    def spread(self, told: Told, likely: Told) -> Floats:
        """Covariance of the levels of ``places`` between the hypotheses of where culprits are: what measuring can tell.

        That within a hypothesis, where sizes are not known exactly, is left out. Within a gap the place of the culprit is
        uniform, which adds a Brownian bridge's covariance between its ends' levels.
        """
        means, second = told.moments
        within, inner = self._within(told, likely)
        between = second - np.outer(means, means) - within
        places = np.array(self.places)
        gap = np.clip(np.searchsorted(self.sites, places, side="right") - 1, 0, len(self.sites) - 2)
        starts = np.array(self.sites)
        share = (places - starts[gap]) / np.diff(starts)[gap]
        weights = np.zeros((len(places), len(self.sites)))
        weights[np.arange(len(places)), gap] = 1 - share
        weights[np.arange(len(places)), gap + 1] += share
        squares = told.by_jump @ told.jumps**2
        bridge = np.minimum.outer(share, share) * (1 - np.maximum.outer(share, share)) * (gap[:, None] == gap)
        spread: Floats = weights @ between @ weights.T + bridge * (squares - inner)[gap]
        return spread

    def _within(self, told: Told, likely: Told) -> tuple[Floats, Floats]:
        """Covariance of the levels of sites within a hypothesis, and the variance of the jump in each gap, on average.

        Most hypotheses have a culprit for each of the ``likely`` ones, in the same gap or in another. Where the most doubtful of
        them may be none at all there is nothing to be unsure of within that one: else what tells a small culprit from none
        would seem to tell nothing but its size.
        """
        suspects = told.jumped > 0.5
        doubtful = int(np.argmin(np.where(suspects, told.jumped, np.inf)))
        none = float(1 - told.jumped[doubtful] - told.jumped[~suspects].sum()) if suspects.any() else 0.0
        hypotheses = [(1.0, likely)]
        if none > SLIGHT:
            fewer = suspects & (np.arange(len(suspects)) != doubtful)
            hypotheses = [(1 - none, likely), (none, self.recursion(fewer))]
        within, inner = np.zeros((len(self.sites), len(self.sites))), np.zeros(len(suspects))
        for weight, one in hypotheses:
            means, second = one.moments
            within += weight * (second - np.outer(means, means))
            inner += weight * (one.by_jump @ one.jumps**2 - (one.by_jump @ one.jumps) ** 2)
        return within, inner


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
