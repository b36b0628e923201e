"""Which commits between a good and a bad one changed a time: bisection on the ratios themselves, not on yes or no.

A :class:`Search` is what is known of a line of commits. What it says of them is :mod:`aibenchd.plan.posterior`, and which blocks
to run next :mod:`aibenchd.plan.choice`.

**The noise** of a block is Student's t, the most likely one given the blocks about the median of their own pair of commits,
and given what the noise of earlier experiments was: that of another day is within a factor of two nine times of ten, and where
the blocks say otherwise its heavy tails give way. On four recorded tapes t with 2 to 4 degrees is 0.01 to 0.6 nats a block
better than the logistic law, and no single burst can name a culprit.

**The sizes** of culprits have the inverse moment density of Johnson and Rossell ("On the use of non-local prior densities in
Bayesian hypothesis tests", 2010; that with k = 2), which is heavy in its tails and all but 0 below half of ``min_effect``: so
evidence that there is no other culprit grows as fast as evidence that there is one.

**Measured** (``make bench-search``: 128 commits, ``min_effect`` 1 %, recorded noise of 1.3 to 1.8 % a block, a build at the price
of 20 blocks, four blocks at a time, 40 searches a row): how often exactly the right commits were named; the blocks, builds and
cost that it took, in blocks; and that cost over the same bisector's that was told the density of the noise and the planted
sizes. An error of a share of 97.5 or 100 % is 2.5 %.

==============================  ===========  ===========  ======  ======  ====  ============
culprits                        right        told, right  blocks  builds  cost  ratio
==============================  ===========  ===========  ======  ======  ====  ============
one of 1 %                      100 %        100 %        180     7.8     336   1.19 ± 0.06
one of 2 %                      100 %        100 %        83      7.4     230   1.12 ± 0.04
one of 5 %                      100 %        100 %        56      7.0     197   1.16 ± 0.03
one of 1 to 5 %                 100 %        100 %        70      7.0     210   1.10 ± 0.02
one, 14 % do not build          100 %        100 %        77      8.3     243   1.11 ± 0.03
two of 1 to 5 %                 97.5 %       100 %        137     11.8    373   1.11 ± 0.03
two, 14 % do not build          100 %        97.5 %       147     14.8    443   1.16 ± 0.03
three of 1 to 5 %               97.5 %       95 ± 3.4 %   238     16.8    574   1.23 ± 0.03
three, 14 % do not build        97.5 %       95 ± 3.4 %   210     19.6    601   1.15 ± 0.03
all of these                    99.2 ± 0.5   98.6 ± 0.6   133     11.2    357   1.16 ± 0.01
two, noise told twice as large  92.5 ± 4.2   100 %        144     11.8    379   1.13 ± 0.04
two, noise told half as large   100 %        100 %        123     12.2    367   1.08 ± 0.03
two, noise not told             97.5 %       100 %        137     12.0    377   1.09 ± 0.04
==============================  ===========  ===========  ======  ======  ====  ============

With one culprit it is most of all the doubt whether there is another, smaller one that costs blocks, which the one that is told
all sizes never has: with sizes of k = 1 and 0.5 culprits expected, a search for one of 5 % that was told the density of the noise
alone took 50 blocks, and the one that was told the size as well 16 (40 searches, one block at a time). Where it stops it says
98 % in the mean, and is right as often over all sizes. A culprit of just ``min_effect`` is the hardest: it was named rightly in
97.5 ± 1.7 % of 80 searches, and in 92.5 ± 2.9 % with sizes of that scale (:data:`LEAST_SIZE` 1).

Commits are places on the line: 0 is the good end, ``commits`` the bad one. Sizes are log ratios, newer over older, where
they are not said to be ratios minus 1. This module imports numpy: only what bisects should import it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEGREES = np.array([2.0, 3.0, 5.0, 10.0])  # of freedom
WIDTHS = np.array([1.338, 1.206, 1.115, 1.055])  # of the middle 70 % of Student's laws with so many, over that of the normal one
SCALES = np.geomspace(0.02, 50.0, 60)  # of the guess
DAYS_APART = 0.35  # noise of two days: the scale of the difference of its logarithms
DEGREES_APART = 0.15  # and of the inverses of its degrees
LEAST_SIZE = 0.8  # of min_effect, the scale of sizes: 7 % are below it; at 1, what is just so large is named too soon


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


def _likeliest(errors: Floats, weights: Floats, widths: Floats, log_prior: Floats | float = 0.0) -> StudentNoise:
    """Of the laws with a middle 70 % as wide as a normal one's of each of ``widths``; the prior has shape (degrees, widths)."""
    degrees = DEGREES[:, None, None]
    scales = widths / WIDTHS[:, None]
    norm = np.array([math.lgamma((one + 1) / 2) - math.lgamma(one / 2) - math.log(one) / 2 for one in DEGREES])
    logs = -(degrees + 1) / 2 * np.log1p((errors / scales[:, :, None]) ** 2 / degrees)
    totals = (logs * weights).sum(axis=-1) + weights.sum() * (norm[:, None] - np.log(scales)) + log_prior
    row, column = np.unravel_index(int(totals.argmax()), totals.shape)
    return StudentNoise(float(scales[row, column]), float(DEGREES[row]))
