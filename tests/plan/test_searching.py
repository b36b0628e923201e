"""Commits become places for the search, and its answer commits again."""

from __future__ import annotations

import dataclasses
import random

import pytest

from aibenchd import settings
from aibenchd.plan import bisect, searching

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
    broken = searching.Pair(LINE[4], LINE[0], [0.1, 0.2], useless=LINE[4])
    step = searching.step(known([broken]), RULE)
    assert step.wanted
    assert all(LINE[4] not in pair for pair in step.wanted)


def test_what_does_not_build_is_laid_to_no_other_commit() -> None:
    skipped = searching.Pair(LINE[4], LINE[3], [], useless=LINE[4])
    _, pairs = searched(4, unbuildable=frozenset({LINE[3]}))
    assert (LINE[4], LINE[2]) in {(pair.newer, pair.older) for pair in pairs}
    again = searching.step(known([skipped, *pairs], frozenset({LINE[3]})), RULE)
    (named,) = again.found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == [LINE[3], LINE[4]]  # type: ignore[index, call-overload]


def test_where_the_bad_end_cannot_be_measured_with_a_commit_that_one_is_passed_over() -> None:
    failed = searching.Pair(LINE[8], LINE[4], [0.1], useless=LINE[8])
    step = searching.step(known([failed]), RULE)
    assert step.wanted
    assert all(LINE[4] not in pair for pair in step.wanted)


@pytest.mark.parametrize("unbuildable", [NOTHING, frozenset({LINE[0]}), frozenset({LINE[8]})])
def test_a_search_ends_where_its_ends_cannot_be_measured(unbuildable: frozenset[str]) -> None:
    pairs = [] if unbuildable else [searching.Pair(LINE[8], LINE[0], [], useless=LINE[0])]
    step = searching.step(known(pairs, unbuildable), RULE)
    assert (step.search, step.wanted) == ("inconclusive", {})


def test_what_was_measured_of_another_line_says_nothing() -> None:
    """Of commits that are not on it any more, and past one that did not build and was built after all."""
    step = searching.step(known([]), RULE)
    gone = [searching.Pair("f" * 40, LINE[0], [0.05]), searching.Pair(LINE[5], LINE[3], [0.05])]
    assert searching.step(known(gone), RULE) == step


def test_commits_that_were_known_not_to_build_take_none_of_the_builds() -> None:
    rule = settings.BisectSettings(max_builds=1)
    failed = frozenset(LINE[1:4])
    step = searching.step(known([], failed, built=failed), rule)
    assert step.found["builds"] == 0
    assert len({commit for pair in step.wanted for commit in pair} - {LINE[0], LINE[8]}) == 1


@pytest.mark.parametrize("culprit", [1, 5, 8])
@pytest.mark.parametrize("useless", [NOTHING, frozenset(LINE[3:5]), frozenset(LINE[1:8])])
def test_what_is_no_matter_of_time_is_found_by_halving(culprit: int, useless: frozenset[str]) -> None:
    bad: dict[str, bool] = {}
    for _ in range(10):
        step = searching.by_verdicts(LINE, bad, useless, 0.01, shown=LINE[-1:])
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


def test_a_search_that_may_build_no_more_ends_once_what_is_built_tells_no_more() -> None:
    """Its suspects are what lies between two that are built; it asks for no block once that is sure."""
    built, rng = frozenset({LINE[0], LINE[4], LINE[8]}), random.Random(7)
    rule, pairs = settings.BisectSettings(max_builds=0), list[searching.Pair]()
    for _ in range(30):
        step = searching.step(known(pairs, built=built), rule)
        if not step.wanted:
            break
        for (newer, older), blocks in step.wanted.items():
            assert {newer, older} <= built
            change = 0.06 * (LINE.index(older) < 6 <= LINE.index(newer))
            pairs.append(searching.Pair(newer, older, [change + rng.gauss(0, 0.005) for _ in range(blocks or 0)]))
    assert (step.search, step.found["reason"]) == ("inconclusive", searching.NO_MORE_BUILDS)
    (named,) = step.found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == LINE[5:9]  # type: ignore[index, call-overload]
    assert named["probability"] > 0.97  # type: ignore[index, call-overload, operator]
    assert step.found["builds"] == 0
    assert sum(len(pair.ratios) for pair in pairs) < 40


def test_a_search_says_which_budget_ended_it() -> None:
    step = searching.step(known([searching.Pair(LINE[4], LINE[0], [0.03])]), settings.BisectSettings(max_blocks=1))
    assert (step.search, step.found["reason"]) == ("inconclusive", searching.NO_MORE_BLOCKS)


def test_what_began_no_search_is_measured_at_its_end_before_it_is_halved() -> None:
    """A line inside of a merge: its last commit is not known to be bad."""
    wanted = searching.by_verdicts(LINE, {}, NOTHING, 0.01, shown=()).wanted
    assert wanted == {(LINE[8], LINE[0]): None}
    assert searching.by_verdicts(LINE, {LINE[8]: False}, NOTHING, 0.01, shown=()).search == "no culprit"
    shown = searching.by_verdicts(LINE, {LINE[8]: True}, NOTHING, 0.01, shown=())
    assert shown.wanted == {(LINE[4], LINE[0]): None}
    shorter = searching.by_verdicts(LINE, {}, frozenset(LINE[6:]), 0.01, shown=())
    assert (shorter.wanted, shorter.beyond) == ({(LINE[5], LINE[0]): None}, LINE[6:])
    nothing = searching.by_verdicts(LINE, {}, frozenset(LINE), 0.01, shown=())
    assert (nothing.search, nothing.beyond) == ("inconclusive", LINE[1:])


def test_a_verdict_that_another_search_has_named_is_asked_for_first() -> None:
    first = searching.by_verdicts(LINE, {}, NOTHING, 0.01, shown=LINE[-1:], asked_first=[LINE[2]])
    assert first.wanted == {(LINE[2], LINE[0]): None}
    second = searching.by_verdicts(LINE, {LINE[2]: True}, NOTHING, 0.01, shown=LINE[-1:], asked_first=[LINE[2]])
    assert second.wanted == {(LINE[1], LINE[0]): None}
    both = {LINE[2]: True, LINE[1]: False}
    (named,) = searching.by_verdicts(LINE, both, NOTHING, 0.01, shown=LINE[-1:], asked_first=[LINE[2]]).found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == [LINE[2]]  # type: ignore[index, call-overload]


def checked(seed: int, culprit: int, asked_first: int) -> tuple[bool, int]:
    """Whether a search that begins with another's answer names the commit, and how many blocks it took; blocks vary by 2 %."""
    rng, pairs = random.Random(seed), list[searching.Pair]()
    shown = [0.06 + rng.gauss(0, 0.02) for _ in range(12)]
    for _ in range(200):
        what = searching.Known(LINE, frozenset(LINE), NOTHING, pairs, shown, 0.02, asked_first=[LINE[asked_first]])
        step = searching.step(what, RULE)
        if not step.wanted:
            break
        for (newer, older), blocks in step.wanted.items():
            change = 0.06 * (LINE.index(older) < culprit <= LINE.index(newer))
            pairs.append(searching.Pair(newer, older, [change + rng.gauss(0, 0.02) for _ in range(blocks or 0)]))
    named = [one["commits"] for one in step.found["culprits"]]  # type: ignore[index, union-attr, call-overload]
    return named == [[LINE[culprit]]], sum(len(pair.ratios) for pair in pairs)


def test_what_another_search_has_named_is_checked_in_a_few_blocks() -> None:
    right = [checked(seed, 1 + seed % 8, 1 + seed % 8) for seed in range(16)]
    assert all(named for named, _ in right)
    assert sum(blocks for _, blocks in right) / len(right) < 12


def test_what_another_search_has_named_wrongly_is_seldom_believed() -> None:
    """Of 24 searches that begin with the commit before theirs, 3 % err, or 0.7; more than 4 have a chance of 0.04 %."""
    named = [checked(seed, 2 + seed % 7, 1 + seed % 7)[0] for seed in range(24)]
    assert sum(not right for right in named) <= 4


def test_blocks_name_a_commit_the_sooner_the_quieter_it_was_before() -> None:
    pairs = [searching.Pair(LINE[newer], LINE[0], [0.06 * (newer > 3)]) for newer in (3, 4)]
    few = dataclasses.replace(known(pairs), shown=[0.05, 0.06, 0.07])
    earlier = [bisect.Earlier(scale, 5.0, 100) for scale in (0.005, 0.05)]
    quiet, noisy = (searching.step(dataclasses.replace(few, earlier=one), RULE) for one in earlier)
    assert quiet.search == "found"
    assert noisy.search == "running"


@pytest.mark.parametrize("shown", [True, False])
def test_what_another_device_measured_of_a_line_counts_inside_of_merges_too(shown: bool) -> None:
    rng = random.Random(11)

    def measured(newer: int, older: int, blocks: int) -> searching.Pair:
        change = 0.06 * (older < 4 <= newer)
        return searching.Pair(LINE[newer], LINE[older], [change + rng.gauss(0, 0.005) for _ in range(blocks)])

    own = dataclasses.replace(known([measured(8, 0, 6)]), shown=known([]).shown if shown else ())
    told = dataclasses.replace(own, pairs=[measured(4, 3, 12), measured(4, 0, 12), measured(3, 0, 12), measured(8, 0, 6)])
    running = {(LINE[4], LINE[3]): 2, ("another line", "of its merge"): 4}
    step = searching.step(dataclasses.replace(own, beside=[searching.Beside(told, running)]), RULE)
    (named,) = step.found["culprits"]  # type: ignore[misc, union-attr]
    assert named["commits"] == [LINE[4]]  # type: ignore[index, call-overload]
    assert 0.8 < named["probability"] < 1  # type: ignore[index, call-overload, operator]
    assert {commit for pair in step.wanted for commit in pair} <= {LINE[0], LINE[3], LINE[4]}
    assert step.found["builds"] == 2  # whoever asked for them
    assert step.found["blocks"] == 6
    alone = searching.step(own, RULE)
    assert alone.found["probability"] < 0.5  # type: ignore[operator]
    shorter = dataclasses.replace(told, unbuildable=frozenset({LINE[8]}))
    if not shown:  # it searches another line then
        assert searching.step(dataclasses.replace(own, beside=[searching.Beside(shorter, {})]), RULE) == alone
