"""The recursion is exact: what it says of a line is the sum over all sets of culprits, each weighed by itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aibenchd.plan import bisect, posterior


def some_chain() -> posterior.Chain:
    """Four gaps, of which one shows a change."""
    rng = np.random.default_rng(5)
    levels = [0.0, 0.0, 0.03, 0.03, 0.03]
    search = bisect.Search(16)
    for newer, older in ((16, 0), (8, 0), (4, 0), (12, 0), (8, 7)):
        ratios = levels[newer // 4] - levels[older // 4] + 0.01 * rng.standard_t(3, 5)
        search = search.with_evidence(newer, older, ratios.tolist())
    return posterior.Chain.of(search)


def test_the_recursion_sums_over_all_sets_of_culprits() -> None:
    chain = some_chain()
    gaps = len(chain.sites) - 1
    sets = [np.array(mask) for mask in itertools.product([False, True], repeat=gaps)]
    logs = np.array([chain.recursion(mask).log_mass for mask in sets])
    whole = chain.recursion(None)
    assert whole.log_mass == pytest.approx(np.logaddexp.reduce(logs), abs=1e-6)
    assert whole.jumped == pytest.approx(np.exp(logs - whole.log_mass) @ np.array(sets, dtype=float), abs=1e-6)


def test_what_is_kept_of_the_levels_is_their_mean_and_spread_over_all_sets() -> None:
    chain = some_chain()
    sets = [np.array(mask) for mask in itertools.product([False, True], repeat=len(chain.sites) - 1)]
    each = [chain.recursion(mask) for mask in sets]
    means, second = chain.recursion(None).moments
    weights = np.exp([one.log_mass - chain.recursion(None).log_mass for one in each])
    assert means == pytest.approx(np.tensordot(weights, [one.moments[0] for one in each], 1), abs=1e-9)
    assert second == pytest.approx(np.tensordot(weights, [one.moments[1] for one in each], 1), abs=1e-9)


def test_the_probability_of_a_gap_is_shared_by_its_commits() -> None:
    search = bisect.Search(8, min_effect=0.01).with_evidence(8, 0, [0.05] * 12).with_evidence(4, 0, [0.05] * 12)
    found = posterior.of(search)
    assert found.by_commit[:4] == pytest.approx([found.by_commit[0]] * 4)
    assert found.by_commit[0] == pytest.approx(0.25, abs=0.02)
    assert found.by_commit[7] < 0.01
