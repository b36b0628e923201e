"""Whether what changed along a line is many small changes, which no search can name one by one; and how they are spread.

**The alternative.** Beside the jumps of :mod:`aibenchd.plan.bisect` the log time may rise, or fall, as a ramp: straight from one
commit to a later one, flat before and after it. It is so wide that no commit does more than :data:`STEEPEST` of
``min_effect``, a third of it, of which a budget of blocks finds none, and over :data:`NARROWEST` commits that can be measured.
Its height has the density of a culprit's size, its ends are as likely anywhere on a grid, and as changes need not be equal
the levels may lie beside the ramp by :data:`BESIDE` of it. A culprit makes neighbours differ; a ramp makes every commit between
its ends an intermediate one. So a few commits that were measured tell them apart, and the likelihoods are compared as
Bayes has it: :data:`DRIFTS` is how often a change that shows is a drift, before anything was measured.

**Culprits beside it.** What is left beside a ramp is a line with jumps as any other, for which the recursion of bisection is
exact. It is gone through for the few ramps that are likeliest, with the largest jumps that show without a drift taken off or with
none; all other ramps are taken to have as much beside them. So a drift is told from culprits whether or not there is one within
it, which is named, with the drift beside it.

**The spread** asks no ramp. Where the level is sure to be below a share of the whole, that share lies after; where it is sure to
be above, before. So its place lies between the last commit of the first kind and the first of the second, each at 95 %.

**Measured** (as ``make bench-search``): of 80 drifts of 30 to 60 commits by 0.1 to 0.3 % each, even or uneven, 78 ended as
such, after 103 blocks and 6.2 builds on average; in 120 before, the intervals held the true places in 94 to 97 %. Of drifts of
0.5 % a commit, with a ``min_effect`` of 2 %, 28 of 30 over 7 commits and 20 of 20 over 10; in the other two one commit was
named. Where one commit beside such a drift (of 30 to 40 commits by 0.15 to 0.3 %, of 64) did 5 %, it was named in 38 of 40,
after 91 blocks on average (noise of 0.8 % a block, t with 4 degrees, ``min_effect`` 1 %); in the other two the search had ended
as a drift after 24 blocks. Drifts and culprits by themselves took as many blocks as without these (10 of each).

Arrays are as :mod:`aibenchd.plan.posterior` has them: ``sites`` are the measured commits, rising, with both ends of the line;
``levels`` is the grid of log times over that of the good end; ``at_site`` has shape (sites, levels), ``in_gap`` and
``sizes`` are of jumps, on 2 * levels - 1 steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRIFTS = 0.05
STEEPEST = 1 / 3
NARROWEST = 7
BESIDE = 1 / 8
ENDS = 16  # gaps of the grid on which a ramp begins and ends
SHARES = (0.25, 0.5, 0.75)  # of the whole, whose places are told
SURE = 1.645  # standard errors: 95 % on one side


@dataclass(frozen=True, slots=True)
class Share:
    """Up to which commit a share of the change has come: most likely ``place``, and not before ``first`` or after ``last``."""

    share: float
    place: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Ramps:
    """The ramps that a line may have: none where it is too short for one.

    Attributes:
        log_priors: of each, shape (ramps,).
        rises: by how many steps of the grid each site lies above the good end; shape (sites, ramps).
    """

    log_priors: Floats
    rises: Ints

    @classmethod
    def of(cls, places: Sequence[int], sites: Sequence[int], levels: Floats, sizes: Floats, margin: float) -> Ramps:
        """Those of a line.

        Args:
            places: commits that may be measured, rising: of a ramp between neighbours among them nothing can be told.
            margin: the log ratio of ``min_effect``.
        """
        ends = _ends(places)
        heights = np.arange(len(levels)) - int(np.argmin(np.abs(levels)))  # in steps
        wide = np.abs(heights) * float(levels[1] - levels[0]) <= STEEPEST * margin * np.diff(ends, axis=1)
        ramp, height = np.nonzero(wide & (heights != 0))
        shares = np.clip((np.array(sites)[:, None] - ends[:, 0]) / np.maximum(ends[:, 1] - ends[:, 0], 1), 0.0, 1.0)
        priors = np.log(sizes[heights[height] + len(levels) - 1] / max(len(ends), 1))
        return cls(priors, np.rint(heights[height] * shares[:, ramp]).astype(np.int64))

    def logs(self, levels: Floats, at_site: Floats, in_gap: Floats, jumps: Ints) -> Floats:
        """Log evidence of each, up to the constant that bisection's has; shape (ramps,).

        Args:
            at_site: as :func:`loosened`.
            jumps: that there are beside the ramp, in steps; shape (gaps,).
        """
        logs, zero = self.log_priors.copy(), int(np.argmin(np.abs(levels)))
        for site, above in enumerate(np.cumsum(jumps), start=1):
            at = np.clip(zero + above + self.rises[site], 0, len(levels) - 1)
            over = jumps[site - 1] + self.rises[site] - self.rises[site - 1]
            logs += at_site[site, at] + in_gap[site - 1, np.clip(len(levels) - 1 + over, 0, in_gap.shape[1] - 1)]
        return logs


def loosened(at_site: Floats, levels: Floats, margin: float) -> Floats:
    """Log likelihoods of levels that may lie beside a ramp, as changes need not be equal; shape as ``at_site``.

    ``margin`` is ``min_effect`` as a log ratio.
    """
    return _beside(at_site, BESIDE * margin / float(levels[1] - levels[0]))


def without(rows: Floats, steps: Ints) -> Floats:
    """Rows over levels, or over sizes, each moved by so many steps: of what is left beside those; shape as ``rows``, (rows,)."""
    places = np.clip(np.arange(rows.shape[1]) + steps[:, None], 0, rows.shape[1] - 1)
    found: Floats = np.take_along_axis(rows, places, axis=1)
    return found


def share(ramp: float, jumps: float) -> float:
    """Probability of a drift, by the log evidence of either."""
    odds = math.log(DRIFTS / (1 - DRIFTS)) + ramp - jumps
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def spread(sites: Sequence[int], levels: Floats, at_site: Floats) -> tuple[Share, ...]:
    """Where on the line the change has come so far; blocks against the commit before do not count."""
    seen = [number for number in range(1, len(sites)) if np.ptp(at_site[number]) > 0]
    if not seen or seen[-1] != len(sites) - 1:
        return ()
    weights = np.exp(at_site[seen] - at_site[seen].max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    means = weights @ levels
    errors = np.sqrt(np.maximum(weights @ levels**2 - means**2, float(levels[1] - levels[0]) ** 2 / 12))
    places = [sites[number] for number in seen]
    return tuple(_share(one, places, means, errors) for one in SHARES)


def _share(of: float, places: Sequence[int], means: Floats, errors: Floats) -> Share:
    sign = math.copysign(1.0, float(means[-1]))
    above = sign * (means[:-1] - of * means[-1])
    doubt = SURE * np.hypot(errors[:-1], of * errors[-1])
    first = max((place for place, one in zip(places, above < -doubt, strict=False) if one), default=0)
    last = min((place for place, one in zip(places, above > doubt, strict=False) if one and place > first), default=places[-1])
    rising = np.maximum.accumulate(np.concatenate([[0.0], sign * means]))
    place = float(np.interp(of * rising[-1], rising, [0, *places])) if rising[-1] > 0 else float(places[-1])
    return Share(of, min(max(round(place), first + 1), last), first + 1, last)


def _ends(places: Sequence[int]) -> Ints:
    """Commits between which a ramp may lie: the last before it and its last; shape (ramps, 2)."""
    grid = np.unique(np.rint(np.linspace(0, len(places) - 1, ENDS + 1)).astype(np.int64))
    pairs = [pair for pair in itertools.combinations(grid.tolist(), 2) if pair[1] - pair[0] >= NARROWEST]
    return np.array(places, dtype=np.int64)[np.array(pairs, dtype=np.int64).reshape(-1, 2)]


def _beside(logs: Floats, width: float) -> Floats:
    """Log likelihoods of levels that may lie beside by so many steps, as a standard deviation."""
    reach = max(1, math.ceil(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(width, 1e-9)) ** 2)
    most = logs.max(axis=1, keepdims=True)
    padded = np.pad(np.exp(logs - most), ((0, 0), (reach, reach)), mode="edge")
    smooth = np.array([np.convolve(row, kernel / kernel.sum(), "valid") for row in padded])
    found: Floats = np.log(np.maximum(smooth, 1e-300)) + most
    return found
