"""The order of arms: a fair coin, or balanced pairs, drawn again from the seed alone."""

import itertools
import math

import pytest

from aibenchd import model
from aibenchd.plan import order

FIRST = model.ArmName.TREATMENT
DRAWS = 20_000
PADDINGS_OF_42 = [2120, 3571, 1017]


def test_the_coin_is_fair_and_remembers_nothing() -> None:
    """Within four standard errors: how often the treatment is first, and how often the next block's order is the same."""
    heads = [order.arms("coin", seed, block)[0] is FIRST for seed in range(DRAWS // 100) for block in range(100)]
    error = 4 * math.sqrt(0.25 / DRAWS)
    assert sum(heads) / DRAWS == pytest.approx(0.5, abs=error)
    same = sum(one == two for one, two in itertools.pairwise(heads))
    assert same / (DRAWS - 1) == pytest.approx(0.5, abs=error)


def test_pairs_are_balanced() -> None:
    for seed in range(200):
        for pair in range(5):
            one, two = order.arms("pairs", seed, 2 * pair), order.arms("pairs", seed, 2 * pair + 1)
            assert one == two[::-1]


def test_a_journalled_seed_gives_the_same_order_for_ever() -> None:
    drawn = "".join("T" if order.arms("coin", 42, block)[0] is FIRST else "C" for block in range(16))
    assert drawn == "TTCCCCCTCCCTTTTT"
    assert order.turn(42, 3) == order.turn(42, 3)


def test_turns_spread_over_the_round() -> None:
    turns = [order.turn(seed, 1) for seed in range(DRAWS)]
    assert all(0 <= turn < 1 for turn in turns)
    assert sum(turns) / DRAWS == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / DRAWS))


def test_padding_spreads_over_a_page_and_is_drawn_by_itself() -> None:
    """Within four standard errors of its mean, and of no correlation with the coin that is tossed by the same seed."""
    drawn = [order.padding(seed, block) for seed in range(DRAWS // 100) for block in range(100)]
    heads = [order.arms("coin", seed, block)[0] is FIRST for seed in range(DRAWS // 100) for block in range(100)]
    error = 4 * order.PAGE / math.sqrt(12 * DRAWS)
    assert min(drawn) >= 0
    assert order.PAGE * 0.99 < max(drawn) < order.PAGE
    assert sum(drawn) / DRAWS == pytest.approx(order.PAGE / 2, abs=error)
    of_heads = [padding for padding, head in zip(drawn, heads, strict=True) if head]
    assert sum(of_heads) / len(of_heads) == pytest.approx(order.PAGE / 2, abs=error * math.sqrt(2))
    assert [order.padding(42, block) for block in range(3)] == PADDINGS_OF_42


def test_another_order_is_refused() -> None:
    with pytest.raises(ValueError, match="coin"):
        order.arms("strict", 1, 1)


@pytest.mark.parametrize(("seconds", "wave"), [(None, 0), (0, 0), (60, 0), (61, 1), (240, 1), (241, 2), (86_400, 6)])
def test_a_wave_is_four_times_as_long_as_the_one_before(seconds: float | None, wave: int) -> None:
    assert order.wave(seconds) == wave


@pytest.mark.parametrize(("submitted", "other"), [(1.0, 1.0), (1.0, 60.0), (60.0, 1.0), (7.0, 3.0)])
def test_submissions_and_all_else_have_a_device_for_half_of_the_time_each(submitted: float, other: float) -> None:
    turns, spent = order.Turns(), {True: 0.0, False: 0.0}
    for _ in range(1_000):
        submission = turns.of_submissions(submission=True, other=True)
        seconds = submitted if submission else other
        turns.took(seconds, submission)
        spent[submission] += seconds
        assert abs(spent[True] - spent[False]) <= max(submitted, other)


def test_who_waits_alone_runs_and_owes_nothing_for_it() -> None:
    turns = order.Turns()
    for _ in range(100):
        assert turns.of_submissions(submission=True, other=False)
        turns.took(10.0, submitted=True)
    assert turns.of_submissions(submission=True, other=True)
    turns.took(1.0, submitted=True)
    assert not turns.of_submissions(submission=True, other=True)
    assert not turns.of_submissions(submission=False, other=True)
    turns.took(100.0, submitted=False)
    assert turns.of_submissions(submission=True, other=True)
    turns.took(1.0, submitted=True)
    assert not turns.of_submissions(submission=True, other=True)
