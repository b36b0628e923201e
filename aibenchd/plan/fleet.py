"""Several devices that search one line of commits together: what one of them measures tells all of them where to look.

Each device has levels, sizes and noise of its own, as :mod:`aibenchd.plan.bisect` has them. What they have in common is *where*
the changes are, mostly: of what changes the time on a device, :data:`COMMON` comes from commits that change it everywhere, but
for one device in ten (:data:`SHOWS`), and the rest is a device's own. So two devices that regressed between the same two commits
have the same culprit with a prior probability of about 96 %, and a device whose culprit is another one says so by its blocks.

**The posterior** is over the sets of gaps with a common change. Given such a set, the devices are independent, and each is a
chain whose forward-backward recursion gives the likelihood of the set, and that of each larger by one gap. The sets are looked
at best first, from the empty one on, until those that were not are of no weight: exact but for these. The culprits of a device
are where its own levels jump, so that the search of each ends by itself; a device alone has the posterior that it always had.

**The choice** of each device is that of :func:`aibenchd.plan.bisect.chosen`, once the blocks that others are running have told:
of its own levels, a block of another device tells as much as one of its own whose noise is so much larger as its sizes are. A
build serves all, and is paid for by the first.

Pure; imports numpy, and only what searches should import it.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd.plan import bisect

COMMON = 0.8  # of the changes on a device
SHOWS = 0.9  # of the devices, a common change
LOOKED_AT = 24  # sets of common changes, at most
UNSEEN = 1e-3  # weight of the sets that need not be looked at
SLIGHT = 0.02  # weight of a set that the choice does without


@dataclass(frozen=True, slots=True)
class Other:
    """Another device's part: what it has measured, and what it is ``running``."""

    search: bisect.Search
    running: tuple[bisect.Measurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """A device's own search, and those that go on beside it on the same line, of builds for the same platform."""

    own: bisect.Search
    others: tuple[Other, ...] = ()

    @property
    def searches(self) -> tuple[bisect.Search, ...]:
        """Of all, the own first."""
        return (self.own, *(one.search for one in self.others))

    @property
    def builds(self) -> int:
        """That all of them have asked for."""
        return len(frozenset[int]().union(*(search.made for search in self.searches)))

    @property
    def ready(self) -> frozenset[int]:
        """Commits whose programs are there, or are made for what is running."""
        running = {place for one in self.others for block in one.running for place in (block.newer, block.older)}
        return frozenset(running).union(*(search.ready for search in self.searches))

    def of_what_is_built(self) -> Fleet:
        """One that may build no more: what is not built counts as what does not build."""
        missing = set(range(self.own.commits + 1)) - self.ready
        return dataclasses.replace(self, own=self.own.with_unbuildable(*missing))

    def posterior(self) -> bisect.Posterior:
        """What all evidence says of the own device."""
        if not self.others:
            return bisect.posterior(self.own)
        together = _together(self.searches)
        return bisect.named(self.own, together.chains[0], together.told[0], together.certainty)

    def next_measurements(self, count: int) -> tuple[bisect.Measurement, ...]:
        """The next blocks of the own device; none once its search has ended."""
        if not self.others:
            return bisect.next_measurements(self.own, count)
        if self.posterior().outcome is not None:
            return ()
        together = _together(self.searches)
        chain, told = together.chains[0], together.told[0]
        ready = self.ready
        spent = self.builds + len(ready - frozenset[int]().union(*(search.ready for search in self.searches)))
        prices = bisect.Prices(ready, self.own.max_builds - spent, self.own.build_price)
        pending = [(block, together.noises[number]) for number, one in enumerate(self.others, 1) for block in one.running]
        return bisect.chosen(chain, chain.spread(told, together.likely), told.typical, count, prices, pending)


@dataclass(frozen=True, eq=False)
class _Mixed(bisect.Told):
    """A device's levels over sets of common changes: ``told`` of each, and its ``weights``, which sum to 1."""

    levels: bisect.Floats
    told: Sequence[bisect.Recursion]
    weights: Sequence[float]

    @functools.cached_property
    def by_jump(self) -> bisect.Floats:
        found: bisect.Floats = sum(weight * one.by_jump for one, weight in zip(self.told, self.weights, strict=True))  # type: ignore[assignment]
        return found

    @functools.cached_property
    def moments(self) -> tuple[bisect.Floats, bisect.Floats]:
        least = min(SLIGHT, max(self.weights))
        kept = [(one.moments, weight) for one, weight in zip(self.told, self.weights, strict=True) if weight >= least]
        whole = sum(weight for _, weight in kept)
        means, second = (sum(weight / whole * one[order] for one, weight in kept) for order in (0, 1))
        return means, second  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class _Set:
    """A set of gaps with a common change, as a mask of shape (gaps,), and what each device's chain says given it."""

    common: bisect.Bools
    log_weight: float
    told: Sequence[bisect.Recursion]


@dataclass(frozen=True, eq=False)
class _Together:
    """The chains of all devices over the same sites.

    Attributes:
        common, own: prior probability of a common change in each gap, and of one that is a device's own; shape (gaps,).
        sets: those that were looked at.
        weights: theirs among all that are known, looked at or not.
    """

    chains: Sequence[bisect.Chain]
    common: bisect.Floats
    own: bisect.Floats
    sets: Sequence[_Set]
    weights: Sequence[float]

    @functools.cached_property
    def told(self) -> Sequence[_Mixed]:
        """Of each device."""
        seen = math.fsum(self.weights)
        weights = [weight / seen for weight in self.weights]
        return [_Mixed(chain.levels, [one.told[at] for one in self.sets], weights) for at, chain in enumerate(self.chains)]

    @functools.cached_property
    def suspects(self) -> bisect.Bools:
        """The gaps where the own device's levels jump, more likely than not."""
        found: bisect.Bools = self.told[0].jumped > 0.5
        return found

    @functools.cached_property
    def likely(self) -> bisect.Recursion:
        """The own device's chain with jumps in these gaps and in no other; how it came to them makes no difference then."""
        return self.chains[0].recursion(self.suspects)

    @property
    def certainty(self) -> float:
        """Probability that the own device's levels jump in these gaps, and in no other."""
        by_itself = self.likely.log_mass - _log_prior(self.suspects, self.chains[0].changes)
        return math.fsum(
            weight * math.exp(by_itself + _log_prior(self.suspects, self._rates(one.common)) - one.told[0].log_mass)
            for one, weight in zip(self.sets, self.weights, strict=True)
        )

    def _rates(self, common: bisect.Bools) -> bisect.Floats:
        return np.where(common, SHOWS, self.own)

    @functools.cached_property
    def noises(self) -> Sequence[float]:
        """Of each device, the variance of a block of the own one that would tell as much of its levels as one of that one."""
        sizes = [max(one.typical, 1e-300) for one in self.told]
        return [chain.noise.variance * sizes[0] / size for chain, size in zip(self.chains, sizes, strict=True)]


@functools.lru_cache(maxsize=4)
def _together(searches: tuple[bisect.Search, ...]) -> _Together:
    """All that the devices say together; the own one is the first."""
    sites = {place for search in searches for pair in search.pairs() for place in pair}
    chains = [bisect.Chain.of(search, also=sites) for search in searches]
    seen = [float(chain.recursion(None).jumped.sum()) for chain in chains]
    changes = bisect.changes(chains[0].sites, sum(seen) / len(seen))
    chains = [dataclasses.replace(chain, changes=changes) for chain in chains]
    common, own = COMMON * changes, (1 - COMMON * SHOWS) * changes
    looked_at, left = _best_first(chains, common, own)
    logs = np.array([*(one.log_weight for one in looked_at), *left])
    weights = np.exp(logs - logs.max())
    return _Together(chains, common, own, looked_at, (weights / weights.sum())[: len(looked_at)].tolist())


def _best_first(chains: Sequence[bisect.Chain], common: bisect.Floats, own: bisect.Floats) -> tuple[list[_Set], list[float]]:
    """The sets of common changes that were looked at, and the logarithms of the weights of those that were not."""
    by_itself = [_weights(chain, own) for chain in chains]
    shown = [_weights(chain, np.full_like(own, SHOWS)) for chain in chains]
    nothing = np.zeros(len(common), dtype=bool)
    found: list[_Set] = []
    known = {nothing.tobytes()}
    queue: list[tuple[float, bytes]] = [(-math.inf, nothing.tobytes())]
    while queue and len(found) < LOOKED_AT:
        at = np.frombuffer(heapq.heappop(queue)[1], dtype=bool)
        weights = [np.where(at[:, None], both, alone) for both, alone in zip(shown, by_itself, strict=True)]
        told = [chain.weighed(one) for chain, one in zip(chains, weights, strict=True)]
        log_weight = _log_prior(at, common) + math.fsum(one.log_mass for one in told)
        found.append(_Set(at, log_weight, told))
        factors = np.log(common) - np.log1p(-common) + sum(map(_log_factors, chains, told, shown))
        for gap in np.flatnonzero(~at):
            larger = at.copy()
            larger[gap] = True
            if (key := larger.tobytes()) not in known:
                known.add(key)
                heapq.heappush(queue, (-(log_weight + float(factors[gap])), key))
        if _is_little([-one for one, _ in queue], [one.log_weight for one in found]):
            break
    return found, [-one for one, _ in queue]


def _weights(chain: bisect.Chain, rates: bisect.Floats) -> bisect.Floats:
    """Prior weights of each size of the jump in each gap, where there is one with these probabilities."""
    found: bisect.Floats = np.where(chain.still, 1 - rates[:, None], rates[:, None] * chain.prior)
    return found


def _log_factors(chain: bisect.Chain, told: bisect.Recursion, shown: bisect.Floats) -> bisect.Floats:
    """By how much likelier a device's blocks are with a common change in each gap, in logarithms; shape (gaps,)."""
    with_it = (shown * chain.likelihoods * told.around).sum(axis=1)
    without = (told.weights * told.around).sum(axis=1)
    found: bisect.Floats = np.log(np.maximum(with_it, bisect.TINY)) - np.log(np.maximum(without, bisect.TINY))
    return found


def _log_prior(jumps: bisect.Bools, rates: bisect.Floats) -> float:
    return float(np.log(np.where(jumps, rates, 1 - rates)).sum())


def _is_little(left: Sequence[float], looked_at: Sequence[float]) -> bool:
    """Whether the sets that were not looked at have no weight beside the others; both are logarithms."""
    if not left:
        return True
    most = max(*left, *looked_at)
    unseen = math.fsum(math.exp(one - most) for one in left)
    return unseen < UNSEEN * (unseen + math.fsum(math.exp(one - most) for one in looked_at))
