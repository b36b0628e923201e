"""Drifts of many small changes are told from culprits, and how they are spread is told honestly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aibenchd import settings
from aibenchd.plan import bisect, choice, drift, posterior, searching

VERIFIED = 12


def noisy(seed: int) -> Callable[[], float]:
    rng = np.random.default_rng(seed)
    return lambda: 0.01 * float(rng.standard_t(4))


def searched(levels: list[float], noise: Callable[[], float], max_blocks: int = 400) -> bisect.Search:
    """A search between the ends, carried out."""
    commits = len(levels) - 1
    search = bisect.Search(commits, min_effect=0.01, max_blocks=max_blocks)
    search = search.with_evidence(commits, 0, [levels[-1] + noise() for _ in range(VERIFIED)])
    while wanted := choice.next_measurements(search, 4):
        for one in wanted:
            search = search.with_evidence(one.newer, one.older, [levels[one.newer] - levels[one.older] + noise()])
    return search


def rising(rates: list[float]) -> list[float]:
    return [0.0, *np.cumsum(np.log1p(rates)).tolist()]


@pytest.mark.parametrize("seed", range(6))
def test_a_drift_ends_early_and_says_how_it_is_spread(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = rising((0.002 * rng.uniform(0, 2, 40)).tolist())
    search = searched(levels, noisy(seed))
    found = posterior.of(search)
    assert found.outcome is posterior.Outcome.MANY_SMALL
    assert (found.culprits, found.by_commit) == ((), ())
    assert search.blocks < 200
    assert [one.share for one in found.spread] == list(drift.SHARES)
    for one in found.spread:
        true = int(np.searchsorted(levels, one.share * levels[-1]))
        assert one.first <= one.place <= one.last
        assert one.first - 4 <= true <= one.last + 4  # its interval is one of 95 % on either side


@pytest.mark.parametrize(("culprit", "effect"), [(3, 0.03), (20, 0.012), (39, 0.05)])
def test_a_culprit_is_no_drift(culprit: int, effect: float) -> None:
    levels = rising([effect if place == culprit else 0.0 for place in range(1, 41)])
    found = posterior.of(searched(levels, noisy(culprit)))
    assert found.outcome is posterior.Outcome.FOUND
    assert [one.commits for one in found.culprits] == [(culprit,)]
    assert found.drifts < 0.02


@pytest.mark.parametrize(("culprit", "even"), [(2, True), (25, False), (33, True), (50, False), (63, True)])
def test_a_culprit_within_a_drift_is_named_and_the_drift_is_told_beside_it(culprit: int, even: bool) -> None:
    """Each of 36 commits makes it slower by 0.2 % or so, and one by 5 %."""
    rng = np.random.default_rng(culprit)
    rates = [0.002 * (1.0 if even else float(rng.uniform(0, 2))) if 10 < place <= 46 else 0.0 for place in range(1, 65)]
    drifted = rising(rates)
    levels = [one + (math.log1p(0.05) if place >= culprit else 0.0) for place, one in enumerate(drifted)]
    search = searched(levels, noisy(culprit))
    found = posterior.of(search)
    assert found.outcome is posterior.Outcome.FOUND
    assert [one.commits for one in found.culprits] == [(culprit,)]
    assert found.culprits[0].effect == pytest.approx(0.05, abs=0.01)  # a drift that is no straight ramp leaves some of it
    assert found.drifts > 0.99
    assert search.blocks < 250
    for one in found.spread:  # of the drift alone
        assert one.first - 6 <= int(np.searchsorted(drifted, one.share * drifted[-1])) <= one.last + 6


def test_on_a_short_line_each_change_can_be_found() -> None:
    """Six commits of 1 % are six culprits, where 1 % is what matters."""
    found = posterior.of(searched(rising([0.01] * 6), noisy(1), max_blocks=40))
    assert found.drifts == 0


def asked(levels: list[float], noise: Callable[[], float], **given: Any) -> tuple[searching.Step, searching.Known]:
    """A search by the names of commits, carried out: how it ended, and on what."""
    line = [f"commit-{place:02}" for place in range(len(levels))]
    pairs: list[searching.Pair] = []
    shown = [levels[-1] + noise() for _ in range(VERIFIED)]
    known = searching.Known(line, frozenset(line), frozenset(), pairs, shown, 0.01, **given)
    for _ in range(60):
        step = searching.step(known, settings.BisectSettings())
        if not step.wanted:
            return step, known
        for (newer, older), count in step.wanted.items():
            change = levels[line.index(newer)] - levels[line.index(older)]
            pairs.append(searching.Pair(newer, older, [change + noise() for _ in range(count or 0)]))
    raise AssertionError("it never ends")


def test_a_search_over_a_drift_says_where_half_of_it_lies() -> None:
    step, _ = asked(rising([0.002] * 40), noisy(3))
    assert step.search == "many small ones"
    assert step.found["culprits"] == []
    reason = str(step.found["reason"])
    assert reason.startswith(f"{searching.NONE_ALONE}; 25% of it by commit-")
    assert "50% of it by commit-" in reason


def with_a_culprit() -> list[float]:
    return [one + (0.05 if place >= 20 else 0.0) for place, one in enumerate(rising([0.002] * 40))]


def test_a_search_that_names_a_commit_says_that_it_drifts_beside_it() -> None:
    step, _ = asked(with_a_culprit(), noisy(5))
    assert step.search == "found"
    culprits: Any = step.found["culprits"]
    assert [one["commits"] for one in culprits] == [["commit-20"]]
    assert str(step.found["reason"]).startswith(f"{searching.BESIDE_IT}; 25% of it by commit-")


def test_so_does_one_that_names_it_because_another_search_has() -> None:
    _, known = asked(with_a_culprit(), noisy(5))
    earlier = dataclasses.replace(known, pairs=known.pairs[:-1])
    assert searching.step(earlier, settings.BisectSettings()).wanted  # by itself it would go on
    step = searching.step(dataclasses.replace(earlier, asked_first=["commit-20"]), settings.BisectSettings())
    assert step.search == "found"
    culprits: Any = step.found["culprits"]
    assert [one["commits"] for one in culprits] == [["commit-20"]]
    assert str(step.found["reason"]).startswith(f"{searching.BESIDE_IT}; 25% of it by commit-")
    assert step.found["spread"]


def test_the_spread_is_bounded_by_what_is_sure() -> None:
    levels = np.linspace(-0.02, 0.1, 121)
    sites, means = (0, 10, 20, 30, 40), (0.0, 0.001, 0.04, 0.079, 0.08)
    at_site = np.array([-0.5 * ((levels - mean) / 0.002) ** 2 for mean in means])
    at_site[0] = 0.0
    quarter, half, most = drift.spread(sites, levels, at_site)
    assert (quarter.first, quarter.last) == (11, 20)
    assert (half.first, half.last, half.place) == (11, 30, 20)
    assert (most.first, most.last) == (21, 30)


def test_a_ramp_has_no_evidence_where_none_fits() -> None:
    levels = np.linspace(-0.1, 0.1, 101)
    for places, margin in ((range(9), 1e-4), ((0, 3, 8), 0.1)):
        assert not len(drift.Ramps.of(places, (0, 8), levels, np.full(201, 1e-3), margin).log_priors)
    assert drift.share(-math.inf, 0.0) == 0
    assert drift.share(0.0, 0.0) == pytest.approx(drift.DRIFTS)
