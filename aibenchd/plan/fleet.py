"""Several devices that search one line of commits together: what one of them measures tells all of them where to look.

Each device has levels, sizes and noise of its own, as :mod:`aibenchd.plan.bisect` has them. What they have in common is *where*
the changes are: all but :data:`APART` of a device's changes are common ones, and as few of the common ones does it not show. One
device in ten (:data:`ALONE`) has nothing in common with the others, so that the commit which others have named is not believed of
any device before a few blocks of its own have shown it. Nor has one that drifts (:mod:`aibenchd.plan.drift`): its many changes
are not looked for on the others, whose searches take as many blocks beside it as alone (50 ± 6 and 46 ± 5; 68 ± 10 before; 8
searches of 64 commits).

**The posterior** is over the sets of gaps with a common change. Given such a set, the devices are independent, and each is a
chain whose forward-backward recursion gives the likelihood of the set, and that of each larger by one gap. The sets are looked
at best first, from the empty one on, until those that were not are of no weight: exact but for these. The culprits of a device
are where its own levels jump, so that the search of each ends by itself; with no other it has the posterior that it always had.

**The choice** of each device is that of :func:`aibenchd.plan.choice.chosen`, once the blocks that others are running have told:
of its own levels, a block of another device tells as much as one of its own whose noise is so much larger as its sizes are. A
build serves all, and is paid for by the first.

**Measured** (``make bench-search``: 128 commits, ``min_effect`` 1 %, recorded noise of 1.3 to 1.8 % a block, a build at the price
of 20 blocks, four blocks at a time, sizes of 1 to 5 % of each device's own, 24 searches a row): the share of devices whose
commits were named exactly; the blocks of all devices together, and the builds; and how many blocks' time it took until the first
device was through, and until the last one was.

===========================  =======  =========  ========  ==========  ========  =========
culprits                     devices  right, %   blocks    builds      first     last
===========================  =======  =========  ========  ==========  ========  =========
one                          1        100 ± 4.2  66 ± 9    7.1 ± 0.1   66 ± 9    66 ± 9
one                          2        100 ± 4.2  73 ± 5    7.5 ± 0.4   33 ± 1    40 ± 4
one                          4        100 ± 4.2  118 ± 6   7.9 ± 0.3   28 ± 1    34 ± 3
two                          1        100 ± 4.2  132 ± 11  12.2 ± 0.2  132 ± 11  132 ± 11
two                          2        100 ± 4.2  164 ± 15  12.3 ± 0.3  74 ± 5    90 ± 10
two                          4        100 ± 4.2  192 ± 13  13.2 ± 0.3  43 ± 2    58 ± 6
one each, and not the same   2        94 ± 4.2   194 ± 20  12.5 ± 0.2  62 ± 4    132 ± 17
one, and another on one      4        96 ± 4.2   192 ± 12  13.0 ± 0.3  33 ± 1    83 ± 9
===========================  =======  =========  ========  ==========  ========  =========

Of four devices that have one culprit the first was through after 28 blocks' time, four blocks for each of seven builds: what is
left is what halving takes. The slowest were those where it is a change of 1 or 2 % that one device has to show by itself.

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

from aibenchd.plan import bisect, choice, drift, posterior

ALONE = 0.1  # of the devices: their changes are all their own
APART = 0.05  # of another device's changes: its own; and of the common ones, not shown
LOOKED_AT = 24  # sets of common changes, at most
UNSEEN = 1e-3  # weight of the sets that need not be looked at


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

    def told(self) -> posterior.Posterior:
        """What all evidence says of the own device."""
        if not self.others:
            return posterior.of(self.own)
        together = _together(self.searches)
        return posterior.named(self.own, together.chain, together.told, together.certainty, together.drifts)

    def next_measurements(self, count: int) -> tuple[bisect.Measurement, ...]:
        """The next blocks of the own device; none once its search has ended."""
        if not self.others:
            return choice.next_measurements(self.own, count)
        if self.told().outcome is not None:
            return ()
        together = _together(self.searches)
        chain, told, likely = together.drifts.within or (together.chain, together.told, together.likely)
        ready = self.ready
        spent = self.builds + len(ready - frozenset[int]().union(*(search.ready for search in self.searches)))
        prices = choice.Prices(ready, self.own.max_builds - spent, self.own.build_price)
        pending = [(block, together.noises[number]) for number, one in enumerate(self.others, 1) for block in one.running]
        return choice.chosen(chain, choice.covariance(chain, told, likely), told.typical, count, prices, pending)


@dataclass(frozen=True, eq=False)
class _Set:
    """A set of gaps with a common change, as a mask of shape (gaps,).

    Attributes:
        log_weight: of its posterior, up to a constant.
        told: by the own device, if it is not alone.
        shares: probability of each device that it is not.
        sizes: of the changes on each device, if it is not; as of :func:`_size`.
        log_own: of the evidence of the own device.
    """

    common: posterior.Bools
    log_weight: float
    told: posterior.Recursion
    shares: Sequence[float]
    sizes: Sequence[posterior.Floats]
    log_own: float


@dataclass(frozen=True, eq=False)
class _Devices:
    """The chains of all devices over the same sites, and what each says if it is ``alone``, or drifts."""

    chains: Sequence[posterior.Chain]
    alone: Sequence[posterior.Recursion]
    drifts: Sequence[posterior.Drifts]

    @classmethod
    def of(cls, searches: Sequence[bisect.Search]) -> _Devices:
        sites = {place for search in searches for pair in search.pairs() for place in pair}
        chains = [posterior.Chain.of(search, also=sites) for search in searches]
        seen = [float(chain.recursion(None).jumped.sum()) for chain in chains]
        changes = posterior.changes(chains[0].sites, math.fsum(seen) / len(seen))
        chains = [dataclasses.replace(chain, changes=changes) for chain in chains]
        alone = [chain.recursion(None) for chain in chains]
        said = zip(chains, alone, searches, strict=True)
        return cls(chains, alone, [posterior.drifting(chain, told, search.min_effect) for chain, told, search in said])

    def in_order(self, places: Sequence[int]) -> _Devices:
        """The same, in another order."""
        return _Devices(
            [self.chains[place] for place in places],
            [self.alone[place] for place in places],
            [self.drifts[place] for place in places],
        )

    @functools.cached_property
    def apart(self) -> Sequence[float]:
        """Log evidence of each device if what it shows tells nothing of the others: by jumps of its own; or, but for the own
        device, by a drift.

        The own device's drift is weighed once it is known what the others say of its jumps.
        """
        alone = [one.log_mass + math.log(ALONE) for one in self.alone]
        drifts = [one.log_mass + math.log(drift.DRIFTS / (1 - drift.DRIFTS)) for one in self.drifts]
        return [alone[0], *map(float, np.logaddexp(alone[1:], drifts[1:]))]

    @property
    def changes(self) -> posterior.Floats:
        """Prior probability of a common change in each gap, and of one on a device that is alone; shape (gaps,)."""
        return self.chains[0].changes

    def rates(self, common: posterior.Bools) -> posterior.Floats:
        """Probability that the levels of a device jump in each gap that is not alone, where these changes are common: (gaps,)."""
        found: posterior.Floats = np.where(common, 1 - APART, APART * self.changes)
        return found

    def looked_at(self, common: posterior.Bools) -> tuple[_Set, posterior.Floats]:
        """A set of common changes, and the logarithms of the weights of those with one more; shape (gaps,)."""
        rates, everywhere = self.rates(common), self.rates(np.ones_like(common))
        told = [chain.weighed(_weights(chain, rates)) for chain in self.chains]
        log_prior = _log_prior(common, self.changes)
        logs = [one.log_mass + math.log(1 - ALONE) for one in told]
        sums = [np.logaddexp(*both) for both in zip(logs, self.apart, strict=True)]
        larger = log_prior + np.log(self.changes) - np.log1p(-self.changes)
        for chain, one, log, by_itself in zip(self.chains, told, logs, self.apart, strict=True):
            larger = larger + np.logaddexp(log + _log_factors(one, _weights(chain, everywhere) * chain.likelihoods), by_itself)
        shares = [math.exp(log - whole) for log, whole in zip(logs, sums, strict=True)]
        return _Set(common, log_prior + math.fsum(sums), told[0], shares, list(map(_size, told)), float(sums[0])), larger

    def best_first(self) -> tuple[list[_Set], list[float]]:
        """The sets of common changes that were looked at, and the logarithms of the weights of those that were not."""
        nothing = np.zeros(len(self.changes), dtype=bool)
        found: list[_Set] = []
        known = {nothing.tobytes()}
        queue: list[tuple[float, bytes]] = [(-math.inf, nothing.tobytes())]
        while queue and len(found) < LOOKED_AT and not _is_little([-one for one, _ in queue], found):
            one, larger = self.looked_at(np.frombuffer(heapq.heappop(queue)[1], dtype=bool))
            found.append(one)
            for gap in np.flatnonzero(~one.common):
                more = one.common.copy()
                more[gap] = True
                if (key := more.tobytes()) not in known:
                    known.add(key)
                    heapq.heappush(queue, (-float(larger[gap]), key))
        return found, [-one for one, _ in queue]


@dataclass(frozen=True, eq=False)
class _Together:
    """All that the devices say together.

    Attributes:
        sets: those that were looked at.
        weights: theirs among all that are known, looked at or not.
    """

    devices: _Devices
    sets: Sequence[_Set]
    weights: Sequence[float]

    @property
    def chain(self) -> posterior.Chain:
        """Of the own device."""
        return self.devices.chains[0]

    @functools.cached_property
    def told(self) -> posterior.Mixed:
        """Of the own device."""
        told = [*(one.told for one in self.sets), self.devices.alone[0]]
        return posterior.Mixed(self.chain.levels, told, self._mixture(0))

    def _mixture(self, device: int) -> list[float]:
        """Probability of each set, if the device is not alone, and at last that it is."""
        seen = math.fsum(self.weights)
        common = [weight / seen * one.shares[device] for weight, one in zip(self.weights, self.sets, strict=True)]
        return [*common, max(0.0, 1 - math.fsum(common))]

    @functools.cached_property
    def suspects(self) -> posterior.Bools:
        """The gaps where the own device's levels jump, more likely than not."""
        found: posterior.Bools = self.told.jumped > 0.5
        return found

    @functools.cached_property
    def likely(self) -> posterior.Recursion:
        """The own device's chain with jumps in these gaps and in no other; how it came to them makes no difference then."""
        return self.chain.recursion(self.suspects)

    @property
    def certainty(self) -> float:
        """Probability that the own device's levels jump in these gaps, and in no other.

        By the sets that were looked at, as all else is: where another device drifts, no few sets have the weight of its changes,
        and what is not known of it is no doubt about the own ones.
        """
        evidence = self.likely.log_mass - _log_prior(self.suspects, self.devices.changes)
        alone = math.exp(self.likely.log_mass - self.devices.alone[0].log_mass)
        found = 0.0
        for one, weight in zip(self.sets, self.weights, strict=True):
            common = math.exp(evidence + _log_prior(self.suspects, self.devices.rates(one.common)) - one.told.log_mass)
            found += weight * (one.shares[0] * common + (1 - one.shares[0]) * alone)
        return found / math.fsum(self.weights)

    @property
    def log_jumps(self) -> float:
        """Log evidence of the own device's blocks if culprits made them, given what the others' blocks say of where they are.

        A set's weight without the own device is its weight over the evidence of that device.
        """
        logs = np.array([one.log_own for one in self.sets])
        least = float(logs.min())
        without = np.array(self.weights) * np.exp(least - logs)
        return least + math.log(math.fsum(self.weights)) - math.log(math.fsum(without))

    @functools.cached_property
    def drifts(self) -> posterior.Drifts:
        """Of the own device."""
        return self.devices.drifts[0].beside(self.log_jumps)

    @functools.cached_property
    def noises(self) -> Sequence[float]:
        """Of each device, the variance of a block of the own one that would tell as much of its levels as one of that one."""
        sizes = [self._typical(device) for device in range(len(self.devices.chains))]
        return [chain.noise.variance * sizes[0] / size for chain, size in zip(self.devices.chains, sizes, strict=True)]

    def _typical(self, device: int) -> float:
        """Squared size of a device's changes."""
        sizes = [*(one.sizes[device] for one in self.sets), _size(self.devices.alone[device])]
        squares, changes = np.tensordot(self._mixture(device), sizes, 1)
        return max(float(squares / max(changes, 1e-300)), 1e-300)


@functools.lru_cache(maxsize=1)  # it holds some megabytes
def _together(searches: tuple[bisect.Search, ...]) -> _Together:
    """The own device is the first."""
    ordered = tuple(sorted(searches, key=lambda one: [(part.newer, part.older, part.ratios) for part in one.evidence]))
    devices = _alike(ordered).in_order([ordered.index(one) for one in searches])
    looked_at, left = devices.best_first()
    logs = np.array([*(one.log_weight for one in looked_at), *left])
    weights = np.exp(logs - logs.max())
    return _Together(devices, looked_at, (weights / weights.sum())[: len(looked_at)].tolist())


@functools.lru_cache(maxsize=1)
def _alike(searches: tuple[bisect.Search, ...]) -> _Devices:
    """What is alike whichever device is the own one: three quarters of the time that a look takes, once for all that look."""
    return _Devices.of(searches)


def _weights(chain: posterior.Chain, rates: posterior.Floats) -> posterior.Floats:
    """Prior weights of each size of the jump in each gap, where there is one with these probabilities."""
    found: posterior.Floats = np.where(chain.still, 1 - rates[:, None], rates[:, None] * chain.prior)
    return found


def _log_factors(told: posterior.Recursion, weights: posterior.Floats) -> posterior.Floats:
    """By how much likelier a device's blocks are with other weights in one gap each, in logarithms; shape (gaps,)."""
    other = (weights * told.around).sum(axis=1)
    own = (told.weights * told.around).sum(axis=1)
    found: posterior.Floats = np.log(np.maximum(other, posterior.TINY)) - np.log(np.maximum(own, posterior.TINY))
    return found


def _size(told: posterior.Recursion) -> posterior.Floats:
    """Expected sum of the squared changes of a device, and their expected number; shape (2,)."""
    return np.array([(told.by_jump @ told.jumps**2).sum(), told.jumped.sum()])


def _log_prior(jumps: posterior.Bools, rates: posterior.Floats) -> float:
    return float(np.log(np.where(jumps, rates, 1 - rates)).sum())


def _is_little(left: Sequence[float], looked_at: Sequence[_Set]) -> bool:
    """Whether the sets that were not looked at, of which the logarithms are known, have no weight beside the others."""
    if not looked_at:
        return False
    most = max(*left, *(one.log_weight for one in looked_at))
    unseen = math.fsum(math.exp(one - most) for one in left)
    return unseen < UNSEEN * (unseen + math.fsum(math.exp(one.log_weight - most) for one in looked_at))
