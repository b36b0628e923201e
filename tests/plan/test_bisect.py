"""Culprits are found from ratios: exactly where there is no noise, nearly always where there is, and at no endless cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibenchd.plan import bisect

LINE = 32
VERIFIED = 12  # blocks of the bad end against the good one, before the search


def steps(commits: int, culprits: dict[int, float]) -> list[float]:
    """Log times of commits 0 to ``commits``; culprits multiply them by 1 + their effect."""
    return [sum(math.log1p(effect) for place, effect in culprits.items() if place <= commit) for commit in range(commits + 1)]


def searched(
    search: bisect.Search, levels: list[float], noise: Callable[[], float], broken: Iterable[int] = (), devices: int = 1
) -> bisect.Search:
    """The search carried out to its end, on as many devices; a commit that turns out not to build is told."""
    while wanted := bisect.next_measurements(search, devices):
        for one in wanted:
            failing = {one.newer, one.older} & (set(broken) | search.unbuildable)
            if failing:
                search = search.with_unbuildable(*failing)
            elif one.older in (0, search.before(one.newer)):
                search = search.with_evidence(one.newer, one.older, [levels[one.newer] - levels[one.older] + noise()])
    return search


def begun(levels: list[float], noise: Callable[[], float] = lambda: 0.0, **given: float) -> bisect.Search:
    commits = len(levels) - 1
    ratios = [levels[-1] - levels[0] + noise() for _ in range(VERIFIED)]
    return bisect.Search(commits, **given).with_evidence(commits, 0, ratios)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(commits=st.integers(1, 150), data=st.data(), effect=st.sampled_from([-0.3, 0.02, 0.05, 1.5]))
def test_without_noise_one_culprit_is_found_exactly(commits: int, data: st.DataObject, effect: float) -> None:
    culprit = data.draw(st.integers(1, commits))
    levels = steps(commits, {culprit: effect})
    search = searched(begun(levels), levels, lambda: 0.0)
    found = bisect.posterior(search)
    assert found.outcome is bisect.Outcome.FOUND
    assert [one.commits for one in found.culprits] == [(culprit,)]
    assert found.culprits[0].effect == pytest.approx(effect, abs=0.1 * abs(effect) + 0.005)
    assert search.builds <= math.log2(commits) + 2


def test_a_line_on_which_nothing_changed_has_no_culprit() -> None:
    levels = [0.0] * (LINE + 1)
    found = bisect.posterior(searched(begun(levels), levels, lambda: 0.0))
    assert found.outcome is bisect.Outcome.NO_CULPRIT
    assert not found.culprits


def test_where_nothing_between_the_ends_builds_all_are_one_group() -> None:
    levels = steps(LINE, {5: 0.05})
    search = begun(levels).with_unbuildable(*range(1, LINE))
    found = bisect.posterior(search)
    assert found.outcome is bisect.Outcome.FOUND
    assert [one.commits for one in found.culprits] == [tuple(range(1, LINE + 1))]
    assert not bisect.next_measurements(search)
    assert not search.with_unbuildable().builds - (LINE - 1)
