"""Which number of a process a cell is decided on, from its history."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from aibenchd import model
from aibenchd.decide import choosing, summary

NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
NOW = model.Summary()


def history(times: np.ndarray, rng: np.random.Generator, blocks: int = 10) -> list[choosing.Timed]:
    """Experiments of so many blocks each, of neighbouring processes in an order that a coin draws."""
    found = []
    for start in range(0, len(times) - 2 * blocks + 1, 2 * blocks):
        first, second = times[start : start + 2 * blocks : 2], times[start + 1 : start + 2 * blocks : 2]
        ahead = rng.random(blocks) < 1 / 2
        treatment, control = np.where(ahead[:, None], first, second), np.where(ahead[:, None], second, first)
        found.append(choosing.Timed(["TC" if one else "CT" for one in ahead], treatment, control))
    return found


def drawn(rng: np.random.Generator, process: float, iteration: float, processes: int = 300, iterations: int = 20) -> np.ndarray:
    """Normal noise of a whole process, and of each iteration."""
    level = process * rng.standard_normal((processes, 1))
    return 1000 * np.exp(level + iteration * rng.standard_normal((processes, iterations)))


@pytest.mark.parametrize("tape", TAPES)
def test_recorded_noise_stays_with_the_fastest_eighth_and_leaves_nothing_out(tape: str) -> None:
    times = np.array([json.loads(line)["us"] for line in (NOISE / f"{tape}.jsonl").read_text().splitlines()], dtype=float)
    assert choosing.chosen(history(times, np.random.default_rng(1)), NOW) == NOW


def test_noise_of_single_iterations_is_averaged_over_all_of_them() -> None:
    """The mean of 20 has a noise of 1.1 %, that of the fastest three about twice as much."""
    rng = np.random.default_rng(2)
    found = choosing.chosen(history(drawn(rng, 0.003, 0.05), rng), NOW)
    assert (found.low, found.high, found.guarded) == (0.0, 1.0, False)


def test_the_effect_and_a_slower_slot_are_no_noise() -> None:
    rng = np.random.default_rng(2)
    plain = history(drawn(rng, 0.003, 0.05), rng)
    slots = [1.1 if one == "TC" else 0.9 for timed in plain for one in timed.orders]
    sides = iter(slots)
    moved = [
        dataclasses.replace(timed, treatment=1.3 * timed.treatment * np.array([next(sides) for _ in timed.orders])[:, None])
        for timed in plain
    ]
    assert choosing.chosen(moved, NOW) == choosing.chosen(plain, NOW)


def test_a_short_history_chooses_nothing() -> None:
    rng = np.random.default_rng(2)
    assert choosing.chosen(history(drawn(rng, 0.003, 0.05, processes=60), rng), NOW) == NOW
    assert choosing.chosen([], NOW) == NOW


def test_what_is_no_better_is_seldom_chosen() -> None:
    """Parts whose noise is that of the whole process, so that none is steadier by a tenth: in at most 2 of 200 histories."""
    rng = np.random.default_rng(3)
    switched = sum(choosing.chosen(history(drawn(rng, 0.01, 0.008, 160), rng), NOW) != NOW for _ in range(200))
    assert switched <= 2


def test_a_choice_stays_while_nothing_else_is_plainly_better() -> None:
    """Of 40 histories of one cell, in which two parts are alike, once the first has chosen."""
    rng = np.random.default_rng(4)
    now, rules = NOW, []
    for _ in range(40):
        now = choosing.chosen(history(drawn(rng, 0.005, 0.04), rng), now)
        rules.append(now)
    assert sum(one != other for one, other in itertools.pairwise(rules)) <= 2
    assert rules[-1] != NOW


def test_a_cell_that_quietens_down_comes_back() -> None:
    rng = np.random.default_rng(5)
    bursts = drawn(rng, 0.001, 0.001) * np.where(rng.random((300, 20)) < 0.1, 1 + rng.random((300, 20)), 1.0)
    assert choosing.chosen(history(bursts, rng), model.Summary(high=1.0)).high < 1


def test_a_history_of_equal_times_chooses_nothing() -> None:
    assert choosing.chosen(history(np.full((300, 20), 5.0), np.random.default_rng(1)), NOW) == NOW


def warming(rng: np.random.Generator, leading: int, by: float, iterations: int = 30) -> np.ndarray:
    times = drawn(rng, 0.02, 0.01, 100, iterations)
    times[:, :leading] *= by
    return times


@pytest.mark.parametrize("leading", [0, 1, 5, 12])
@pytest.mark.parametrize("by", [1.5, 1.05, 0.9])
def test_leading_iterations_that_are_not_like_the_rest_are_found(leading: int, by: float) -> None:
    rng = np.random.default_rng(leading)
    assert choosing.steady_from([warming(rng, leading, by)]) == leading


def test_what_wears_off_is_left_out_until_a_hundredth_of_it_is_left() -> None:
    rng = np.random.default_rng(6)
    times = drawn(rng, 0.02, 0.001, 100, 60) * np.exp(0.5 * np.exp(-np.arange(60) / 4))
    assert choosing.steady_from([times]) == 16  # 0.5 exp(-n / 4) falls below 0.01 there


def test_no_more_than_half_is_left_out_and_a_tail_stays() -> None:
    rng = np.random.default_rng(7)
    assert choosing.steady_from([warming(rng, 25, 1.5)]) <= 15
    assert choosing.steady_from([warming(rng, 8, 1.5, iterations=10)]) <= 2
    assert choosing.steady_from([warming(rng, 3, 1.5, iterations=8)]) == 0


def test_what_is_slow_now_and_then_is_part_of_the_program() -> None:
    times = warming(np.random.default_rng(8), 0, 1.0)
    times[:, 9::10] *= 1.4  # a collection of garbage, at the same places in each process
    assert choosing.steady_from([times]) == 0


def test_how_many_are_left_out_stays_where_it_is_about_right() -> None:
    rng = np.random.default_rng(9)
    times = drawn(rng, 0.02, 0.001, 400, 30)
    times[:, :2] *= 1.2
    times[:, 2] *= 1.0075  # less than what is left out, more than what comes back
    assert [choosing.steady_from([times], now) for now in (0, 1, 2, 3, 4)] == [2, 2, 2, 3, 3]


def test_few_processes_say_nothing_of_a_warm_up() -> None:
    times = warming(np.random.default_rng(10), 5, 1.5)
    assert choosing.steady_from([times[: choosing.PROCESSES - 1]], 2) == 2


def test_arms_and_experiments_of_other_lengths_are_looked_at_together() -> None:
    rng = np.random.default_rng(11)
    assert choosing.steady_from([warming(rng, 4, 1.3, iterations=20), warming(rng, 4, 1.3, iterations=30)]) == 4


def test_the_noise_that_is_saved_is_blocks_that_are_saved() -> None:
    """A rule that is chosen makes the ratio's noise smaller by a tenth at the least on blocks that did not choose it."""
    rng = np.random.default_rng(12)
    past, future = history(drawn(rng, 0.004, 0.04), rng), history(drawn(rng, 0.004, 0.04), rng)
    rule = choosing.chosen(past, NOW)
    after, before = (choosing.size(choosing._differences(future, one)) for one in (rule, NOW))
    assert rule != NOW
    assert after < 0.9 * before
    assert summary.of_each(future[0].treatment, rule).shape == (10,)
