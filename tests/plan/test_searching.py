"""Commits become places for the search, and its answer commits again."""

from __future__ import annotations

import random

import pytest

from aibenchd import settings
from aibenchd.plan import searching

LINE = [f"{number:040x}" for number in range(9)]
RULE = settings.BisectSettings()
NOTHING: frozenset[str] = frozenset()


def known(pairs: list[searching.Pair], unbuildable: frozenset[str] = NOTHING, built: frozenset[str] = NOTHING) -> searching.Known:
    rng = random.Random(3)
    shown = [0.06 + rng.gauss(0, 0.005) for _ in range(12)]
    return searching.Known(LINE, built, unbuildable, pairs, shown, 0.02, build_seconds=30.0, block_seconds=10.0)


def searched(culprit: int, unbuildable: frozenset[str] = NOTHING) -> tuple[searching.Step, list[searching.Pair]]:
    """A whole search, of a line on which one commit is 6 % slower."""
    rng, pairs = random.Random(5), list[searching.Pair]()
    for _ in range(200):
        step = searching.step(known(pairs, unbuildable), RULE)
        if not step.wanted:
            return step, pairs
        for (newer, older), blocks in step.wanted.items():
            change = 0.06 * (LINE.index(older) < culprit <= LINE.index(newer))
            pairs.append(searching.Pair(newer, older, [change + rng.gauss(0, 0.005) for _ in range(blocks or 0)]))
    raise AssertionError("it never ends")


@pytest.mark.parametrize("culprit", [1, 4, 8])
def test_a_search_names_the_commit(culprit: int) -> None:
    step, pairs = searched(culprit)
    assert step.search == "found"
    (named,) = step.found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == [LINE[culprit]]  # type: ignore[index, call-overload]
    assert step.found["blocks"] == sum(len(pair.ratios) for pair in pairs)


def test_what_does_not_build_is_named_with_the_one_after_it() -> None:
    step, pairs = searched(4, unbuildable=frozenset({LINE[4]}))
    (named,) = step.found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == [LINE[4], LINE[5]]  # type: ignore[index, call-overload]
    assert all(LINE[4] not in (pair.newer, pair.older) for pair in pairs)


def test_what_cannot_be_measured_is_passed_over_whatever_it_was_measured_with() -> None:
    broken = searching.Pair(LINE[4], LINE[0], [0.1, 0.2], works=False)
    step = searching.step(known([broken]), RULE)
    assert step.wanted
    assert all(LINE[4] not in pair for pair in step.wanted)


@pytest.mark.parametrize("culprit", [1, 5, 8])
@pytest.mark.parametrize("useless", [NOTHING, frozenset(LINE[3:5]), frozenset(LINE[1:8])])
def test_what_is_no_matter_of_time_is_found_by_halving(culprit: int, useless: frozenset[str]) -> None:
    bad: dict[str, bool] = {}
    for _ in range(10):
        step = searching.by_verdicts(LINE, bad, useless, 0.01)
        if not step.wanted:
            break
        ((newer, older),) = step.wanted
        assert older == LINE[0]
        assert newer not in useless
        bad[newer] = LINE.index(newer) >= culprit
    assert step.search == "found"
    assert len(bad) <= 3
    (named,) = step.found["culprits"]  # type: ignore[misc, union-attr]
    assert LINE[culprit] in named["commits"]  # type: ignore[index, operator, call-overload]
    others = set(named["commits"]) - {LINE[culprit]}  # type: ignore[index, arg-type, call-overload]
    assert others <= useless | {LINE[8]}
