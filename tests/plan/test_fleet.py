"""Several devices name the commits at fault together: each its own, and sooner than one alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from aibenchd.plan import bisect, choice, fleet, posterior

LINE = 32
VERIFIED = 12  # blocks of the bad end against the good one, before the search
BATCH = 4
EARLIER = bisect.Earlier(0.024, 3.0, 100)


class Device:
    """Commits of which some made it slower, and blocks with Student's noise of 3 degrees."""

    def __init__(self, culprits: dict[int, float], seed: int, scale: float = 0.02, commits: int = LINE) -> None:
        self._rng = np.random.default_rng(seed)
        self._scale, self.culprits = scale, culprits
        self._levels = [sum(math.log1p(size) for at, size in culprits.items() if at <= place) for place in range(commits + 1)]
        search = bisect.Search(commits, earlier=EARLIER, min_effect=0.01)
        self.search = search.with_evidence(commits, 0, [self.block(commits, 0) for _ in range(VERIFIED)])

    def block(self, newer: int, older: int) -> float:
        return self._levels[newer] - self._levels[older] + float(self._rng.standard_t(3)) * self._scale

    def run(self, block: bisect.Measurement) -> None:
        self.search = self.search.with_evidence(block.newer, block.older, [self.block(block.newer, block.older)])

    def is_right(self, found: posterior.Posterior) -> bool:
        return found.outcome is posterior.Outcome.FOUND and sorted(one.commits for one in found.culprits) == [
            (place,) for place in sorted(self.culprits)
        ]

    def is_drift(self, found: posterior.Posterior) -> bool:
        return found.outcome is posterior.Outcome.MANY_SMALL


def searched(devices: Sequence[Device]) -> tuple[list[posterior.Posterior], int]:
    """A whole search, in rounds; what each device ends with, and how many rounds it took."""
    ended: dict[int, posterior.Posterior] = {}
    for rounds in itertools.count():
        given: dict[int, tuple[bisect.Measurement, ...]] = {}
        for number, device in enumerate(devices):
            if number not in ended:
                others = [fleet.Other(other.search, given.get(at, ())) for at, other in enumerate(devices) if at != number]
                own = fleet.Fleet(device.search, tuple(others))
                given[number] = own.next_measurements(BATCH)
                if not given[number]:
                    ended[number] = own.told()
        if len(ended) == len(devices):
            return [ended[number] for number in range(len(devices))], rounds
        for number, blocks in given.items():
            for block in blocks:
                devices[number].run(block)
    raise AssertionError("it never ends")


def builds(devices: Sequence[Device]) -> int:
    own, *others = (device.search for device in devices)
    return fleet.Fleet(own, tuple(map(fleet.Other, others))).builds


def test_a_device_alone_searches_as_it_always_did() -> None:
    device = Device({20: 0.03}, seed=1)
    own = fleet.Fleet(device.search)
    assert own.told() == posterior.of(device.search)
    assert own.next_measurements(BATCH) == choice.next_measurements(device.search, BATCH)
    assert (own.builds, own.ready) == (device.search.builds, device.search.ready)


def some_evidence() -> list[bisect.Search]:
    """Two devices that have begun to look, at different commits."""
    first, second = Device({3: 0.02}, seed=2, commits=5), Device({3: 0.03}, seed=3, commits=5)
    for block in ((3, 0), (2, 0), (3, 2)):
        first.run(bisect.Measurement(*block))
    for block in ((4, 0), (1, 0)):
        second.run(bisect.Measurement(*block))
    return [first.search, second.search]


def by_enumeration(searches: Sequence[bisect.Search]) -> dict[tuple[bool, ...], float]:
    """Probability of each set of gaps where the first device's levels jump: by all sets of common changes and of jumps."""
    sites = sorted({place for search in searches for pair in search.pairs() for place in pair})
    chains = [posterior.Chain.of(search, also=sites) for search in searches]
    seen = [float(chain.recursion(None).jumped.sum()) for chain in chains]
    changes = posterior.changes(chains[0].sites, sum(seen) / len(seen))
    sets = list(itertools.product((False, True), repeat=len(changes)))

    def likelihoods(chain: posterior.Chain) -> list[float]:
        """Of the blocks, given where the levels jump: the sizes' own prior weighs nothing but sizes."""
        masks = [np.where(chain.still == np.array(jumps)[:, None], 0.0, 1.0) for jumps in sets]
        sizes = np.where(chain.still, 1.0, chain.prior)
        return [chain.weighed(mask * sizes).log_mass for mask in masks]

    def prior(jumps: Sequence[bool], rates: Sequence[float]) -> float:
        return math.prod(rate if jump else 1 - rate for jump, rate in zip(jumps, rates, strict=True))

    logs = [likelihoods(chain) for chain in chains]
    masses = [[math.exp(one - max(own)) for one in own] for own in logs]
    found = dict.fromkeys(sets, 0.0)
    for common in sets:
        weight = prior(common, changes.tolist())
        rates = [1 - fleet.APART if shows else fleet.APART * change for shows, change in zip(common, changes, strict=True)]
        shares = [(1 - fleet.ALONE) * prior(jumps, rates) + fleet.ALONE * prior(jumps, changes.tolist()) for jumps in sets]
        second = sum(mass * share for share, mass in zip(shares, masses[1], strict=True))
        for jumps, share, mass in zip(sets, shares, masses[0], strict=True):
            found[jumps] += weight * second * mass * share
    whole = sum(found.values())
    return {jumps: mass / whole for jumps, mass in found.items()}


def test_the_posterior_is_that_of_all_sets_of_common_changes_and_jumps() -> None:
    searches = some_evidence()
    expected = by_enumeration(searches)
    found = fleet.Fleet(searches[0], (fleet.Other(searches[1]),)).told()
    by_commit = [sum(mass for jumps, mass in expected.items() if jumps[gap]) for gap in range(5)]
    assert found.by_commit == pytest.approx(by_commit, abs=2e-3)  # the sets that need not be looked at
    named = tuple(place in {one.commits[-1] for one in found.culprits} for place in range(1, 6))
    assert found.probability == pytest.approx(expected[named], abs=2e-3)
    alone = posterior.of(searches[0])
    assert max(abs(one - other) for one, other in zip(found.by_commit, alone.by_commit, strict=True)) > 0.02  # it was told


def test_what_another_device_found_is_nearly_what_this_one_believes() -> None:
    """It shows that it has the same culprit with the prior weight that is said, and not more than that."""
    told, fresh = Device({12: 0.04}, seed=4), Device({12: 0.04}, seed=5)
    for place, before in ((12, 11), (12, 0), (11, 0)):
        for _ in range(20):
            told.run(bisect.Measurement(place, before))
    found = fleet.Fleet(fresh.search, (fleet.Other(told.search),)).told()
    assert [one.commits for one in found.culprits] == [(12,)]
    assert 0.85 < found.culprits[0].probability < 0.99
    assert found.outcome is None
    blocks = fleet.Fleet(fresh.search, (fleet.Other(told.search),)).next_measurements(BATCH)
    assert {(block.newer, block.older) for block in blocks} <= {(12, 11), (12, 0), (11, 0)}


@pytest.mark.parametrize(("price", "elsewhere"), [(0.0, True), (20.0, False)])
def test_where_builds_are_dear_what_another_one_has_built_is_measured_and_else_what_it_does_not(
    price: float, elsewhere: bool
) -> None:
    devices = [Device({12: 0.05}, seed=seed) for seed in (6, 7)]
    own, other = (dataclasses.replace(device.search, build_price=price) for device in devices)
    first = fleet.Fleet(other, (fleet.Other(own),)).next_measurements(BATCH)
    beside = fleet.Fleet(own, (fleet.Other(other, first),))
    assert beside.ready >= {block.newer for block in first}
    second = beside.next_measurements(BATCH)
    assert ({block.newer for block in second} != {block.newer for block in first}) is elsewhere


def test_what_another_one_is_having_built_is_of_the_budget() -> None:
    devices = [Device({12: 0.05}, seed=seed) for seed in (6, 7)]
    first = fleet.Fleet(devices[0].search, (fleet.Other(devices[1].search),)).next_measurements(BATCH)
    beside = fleet.Fleet(devices[1].search, (fleet.Other(devices[0].search, first),))
    spent = bisect.Search(
        LINE, devices[1].search.evidence, EARLIER, min_effect=0.01, max_builds=len({one.newer for one in first})
    )
    assert {one.newer for one in fleet.Fleet(spent, beside.others).next_measurements(BATCH)} <= beside.ready


def test_where_no_more_may_be_built_what_others_have_built_is_measured() -> None:
    devices = [Device({12: 0.05}, seed=seed) for seed in (6, 7)]
    devices[1].run(bisect.Measurement(16, 0))
    whole = fleet.Fleet(devices[0].search, (fleet.Other(devices[1].search),)).of_what_is_built()
    assert whole.own.unbuildable == set(range(1, LINE)) - {16}
    assert {(one.newer, one.older) for one in whole.next_measurements(BATCH)} <= {(16, 0), (LINE, 0), (LINE, 16)}


def test_what_one_device_cannot_measure_another_one_names() -> None:
    """The commits after the culprit fail on the first device, which has not the commit's neighbours to tell them apart by."""
    poor, rich = Device({12: 0.05}, seed=8), Device({12: 0.05}, seed=9)
    poor.search = poor.search.with_unbuildable(12, 13)
    for newer, older in ((12, 11), (12, 0), (11, 0), (13, 12)):
        for _ in range(12):
            rich.run(bisect.Measurement(newer, older))
    own = fleet.Fleet(poor.search, (fleet.Other(rich.search),))
    while blocks := own.next_measurements(BATCH):
        for block in blocks:
            assert not {12, 13} & {block.newer, block.older}
            assert (block.newer, block.older) != (14, 11)  # it spans what lies between for the other one
            poor.run(block)
        own = fleet.Fleet(poor.search, (fleet.Other(rich.search),))
    assert [one.commits for one in own.told().culprits] == [(12,)]


@pytest.mark.parametrize("seed", range(1, 6))
def test_what_another_one_has_and_this_one_has_not_is_asked_of_that_commit(seed: int) -> None:
    """That it is none at all is what tells, and nothing else needs to be built for that."""
    told, own = Device({8: 0.04, 20: 0.04}, 100 + seed, 0.01), Device({8: 0.04}, 200 + seed, 0.01)
    for newer, older in ((8, 7), (8, 0), (7, 0), (20, 19), (20, 0), (19, 0)):
        for _ in range(8):
            told.run(bisect.Measurement(newer, older))
    beside = fleet.Fleet(own.search, (fleet.Other(told.search),))
    while blocks := beside.next_measurements(BATCH):
        for block in blocks:
            own.run(block)
        beside = fleet.Fleet(own.search, (fleet.Other(told.search),))
    assert own.is_right(beside.told())
    assert beside.builds == 4
    assert own.search.blocks <= 100


def rate(culprits: Callable[[int], Sequence[dict[int, float]]], searches: int, scale: float = 0.02) -> tuple[float, float, float]:
    """The share of devices that are right, rounds, and builds, of seeded searches."""
    right, rounds, built = 0.0, 0, 0
    for seed in range(searches):
        devices = [Device(own, 100 * seed + number, scale) for number, own in enumerate(culprits(seed))]
        found, took = searched(devices)
        right += sum(map(Device.is_right, devices, found)) / len(devices)
        rounds += took
        built += builds(devices)
    return right / searches, rounds / searches, built / searches


def sizes(seed: int, devices: int, at: int = 0) -> list[float]:
    return np.random.default_rng([seed, at]).uniform(0.02, 0.05, devices).tolist()


def test_more_devices_find_the_same_commit_sooner_for_as_many_builds() -> None:
    """Of 8 searches on one device and on three: 97 % right, within three errors, if those of one search erred together."""
    alone, three = (
        rate(lambda seed, count=count: [{1 + 7 * seed % LINE: size} for size in sizes(seed, count)], 8)  # type: ignore[misc]
        for count in (1, 3)
    )
    least = 0.97 - 3 * math.sqrt(0.97 * 0.03 / 8)
    assert min(alone[0], three[0]) >= least
    assert three[1] < 0.7 * alone[1]  # rounds
    assert three[2] < alone[2] + 1  # builds


def test_devices_whose_culprits_are_two_commits_name_each_its_own() -> None:
    def apart(seed: int) -> list[dict[int, float]]:
        places = np.random.default_rng(seed).choice(np.arange(1, LINE + 1), 2, replace=False)
        return [{int(place): size} for place, size in zip(places, sizes(seed, 2), strict=True)]

    right, _, _ = rate(apart, 8, scale=0.01)
    assert right >= 0.97 - 3 * math.sqrt(0.97 * 0.03 / 8)


def test_a_device_that_drifts_costs_no_other_one_blocks() -> None:
    """Its many changes are none of the others': they need not be disproved there."""
    beside, alone = 0, 0
    for seed in range(3, 8):
        rng = np.random.default_rng([5, seed])
        place, begins, size = int(rng.integers(1, 65)), int(rng.integers(1, 20)), float(rng.uniform(0.02, 0.05))
        drifts = Device(dict.fromkeys(range(begins, begins + 40), 0.0025), 10 * seed + 1, 0.008, 64)
        jumps, lone = (Device({place: size}, 10 * seed + 2, 0.008, 64) for _ in range(2))
        found, _ = searched([drifts, jumps])
        assert [drifts.is_drift(found[0]), jumps.is_right(found[1])] == [True, True]
        assert lone.is_right(searched([lone])[0][0])
        beside, alone = beside + jumps.search.blocks, alone + lone.search.blocks
    assert beside < 1.2 * alone  # 372 and 232 where a drift was taken for changes in common


def test_a_device_that_drifts_keeps_no_other_from_its_culprit() -> None:
    """No few sets of common changes have the weight of what drifts."""
    devices = [
        Device(dict.fromkeys(range(12, 52), 0.0025), 1, scale=0.008, commits=64),
        Device({33: 0.04}, 2, scale=0.008, commits=64),
    ]
    drifts, jumps = searched(devices)[0]
    assert devices[0].is_drift(drifts)
    assert devices[1].is_right(jumps)
