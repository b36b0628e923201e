"""What is expected of an experiment."""

import dataclasses
import itertools
import math
import random

import pytest

from aibenchd import model
from aibenchd.measure import judging, outlook
from aibenchd.store import experiments, noises

BENCHMARK = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"})
RULE = model.Rule(alpha=0.01, beta=0.05, min_effect=0.02, max_blocks=60, max_seconds=1e6)
TWO = model.Design(BENCHMARK, "generic", RULE)
QUIET, LOUD = (noises.Known(100, scale, 50.0, 0.0, -0.001, 0.001) for scale in (0.005, 0.5))
UNDECIDED = model.Decision(None, 0, 0.0)


def blocks(count: int, noise: float, seconds: float = 5.0) -> list[experiments.Journalled]:
    rng = random.Random(4)
    return [
        experiments.Journalled(number, rng.choice(("TC", "CT")), True, 100 * math.exp(rng.gauss(0, noise)), 100.0, seconds)
        for number in range(count)
    ]


def ahead(
    design: model.Design,
    count: int,
    noise: float = 0.01,
    cell: noises.Known | None = None,
    quota: int | None = None,
    seconds: float = 5.0,
) -> model.Outlook:
    return outlook.ahead(design, blocks(count, noise, seconds), UNDECIDED, cell, quota)


def test_a_cell_that_is_known_says_what_is_left_from_the_first_block_on() -> None:
    quiet, loud = ahead(TWO, 1, cell=QUIET), ahead(TWO, 1, cell=LOUD)
    assert quiet.blocks is not None
    assert loud.blocks is not None
    assert quiet.blocks <= 5 < 50 < loud.blocks <= 59
    assert (quiet.seconds, quiet.out_of_reach) == (5 * quiet.blocks, False)
    assert not loud.out_of_reach  # a change may be as loud


def test_of_a_cell_that_is_new_its_own_blocks_tell() -> None:
    assert ahead(TWO, 2) == model.Outlook()
    assert ahead(TWO, 8).blocks is not None


def test_what_is_loud_and_shows_nothing_gets_out_of_reach() -> None:
    assert ahead(TWO, 40, noise=0.5, cell=LOUD).out_of_reach
    assert not ahead(TWO, 40, noise=0.01, cell=QUIET).out_of_reach


@pytest.mark.parametrize(("time", "usual"), [(6.9e-310, 100.0), (1e308, 1e-5)])
@pytest.mark.parametrize("count", [1, 6])
def test_a_program_that_prints_garbage_for_a_time_is_reckoned_with(time: float, usual: float, count: int) -> None:
    """An uninitialised number, of which the estimate as a ratio minus 1 has no place left but -1 or infinity."""
    orders = itertools.cycle(("TC", "CT"))
    seen = [experiments.Journalled(number, next(orders), True, time, usual, 5.0) for number in range(count)]
    decision = judging.decision(TWO, seen[:-1], seen[-1], {}, outlook.first_look(TWO, QUIET))
    assert decision.verdict is None
    assert outlook.ahead(TWO, seen, decision, QUIET, None).blocks


def test_time_is_a_budget_too() -> None:
    short = dataclasses.replace(TWO, rule=dataclasses.replace(RULE, max_seconds=100.0))
    found = ahead(short, 10, noise=0.1, cell=LOUD)
    assert found.blocks is not None
    assert found.blocks <= 10
    assert ahead(short, 18, noise=0.1, cell=LOUD).out_of_reach
    assert ahead(short, 30, noise=0.1, cell=LOUD).blocks == 1


@pytest.mark.parametrize(
    ("design", "quota", "left"),
    [
        (dataclasses.replace(TWO, arms=1, blocks=5), None, 2),
        (TWO, 10, 7),
        (dataclasses.replace(TWO, rule=model.Rule.of_blocks(20, 0.02)), None, 17),
        (dataclasses.replace(TWO, benchmark=model.Benchmark({}, {"metric": "error"})), None, 7),
    ],
)
def test_where_the_end_is_known_it_is_counted_down_to(design: model.Design, quota: int | None, left: int) -> None:
    assert ahead(design, 3, quota=quota) == model.Outlook(left, 5 * left)


def test_a_search_takes_nothing_until_it_is_given_more() -> None:
    assert ahead(TWO, 4, cell=QUIET, quota=4) == model.Outlook(0, 0)


def test_what_is_decided_takes_nothing() -> None:
    decided = model.Decision(model.Verdict.UNCHANGED, 8, 0.0)
    assert outlook.ahead(TWO, blocks(8, 0.01), decided, QUIET, None) == model.Outlook()


def test_what_is_known_brings_no_verdict_nearer() -> None:
    cell, measured = dataclasses.replace(QUIET, scale=0.02), blocks(3, 0.02)
    within = dataclasses.replace(TWO, rule=dataclasses.replace(RULE, known=0.2))
    nothing = outlook.ahead(TWO, measured, UNDECIDED, cell, None)
    assert outlook.ahead(TWO, measured, dataclasses.replace(UNDECIDED, estimate=0.2), cell, None) != nothing
    assert outlook.ahead(within, measured, dataclasses.replace(UNDECIDED, estimate=0.2), cell, None) == nothing


def test_a_first_look_goes_by_the_history_of_the_cell() -> None:
    assert outlook.first_look(TWO, None) == outlook.first_look(TWO, QUIET) == 2
    assert outlook.first_look(TWO, LOUD) == 8
    assert outlook.first_look(TWO, dataclasses.replace(LOUD, scale=None)) == 2


def test_facts_of_a_cell_say_how_long_a_block_and_a_verdict_take() -> None:
    found = outlook.facts([noises.Blocks(TWO, blocks(20, 0.01)), noises.Blocks(TWO, blocks(10, 0.01, 9.0))], TWO.summary)
    assert (found["blocks"], found["seconds"]) == (30, 5.0)
    assert found["scale"] == pytest.approx(0.01, rel=0.4)
    assert isinstance(found["expected"], float)
    assert 3 < found["expected"] < 20
    assert outlook.facts([noises.Blocks(TWO, [])], TWO.summary) == {}


def iterations(count: int, scale: float, seed: int = 1) -> list[noises.Iterations]:
    rng = random.Random(seed)

    def process() -> list[float]:
        return [100 * math.exp(rng.gauss(0, scale)) for _ in range(20)]

    return [noises.Iterations("TC" if rng.random() < 1 / 2 else "CT", process(), process()) for _ in range(count)]


def test_a_cell_s_history_chooses_its_number_and_says_how_noisy_that_is() -> None:
    """Of iterations with 5 % of noise each, the mean of all 20 has 1.1 %, and a block of it 1.6 %."""
    history = [iterations(20, 0.05, seed) for seed in range(7)]
    chosen = outlook.chosen(history, model.Summary())
    assert chosen == model.Summary(high=1.0)
    newest = [noises.Blocks(TWO, blocks(20, 0.03))]
    found = outlook.facts(newest, chosen, history)
    assert found["blocks"] == 140
    assert found["scale"] == pytest.approx(0.05 * math.sqrt(2 / 20), rel=0.2)
    assert outlook.facts(newest, chosen) == {}  # nothing is left of their iterations
    assert outlook.facts(newest, TWO.summary, history)["blocks"] == 20  # they were decided on that


def test_what_is_no_time_or_of_another_length_chooses_nothing() -> None:
    bad = iterations(3, 0.05)
    bad[1] = noises.Iterations("TC", [0.0] * 20, bad[1].control)
    bad[2] = noises.Iterations("TC", bad[2].treatment[:5], bad[2].control)
    (timed,) = outlook._iterations([[], bad, [noises.Iterations("TC", [], [])]])
    assert timed.treatment.shape == timed.control.shape == (1, 20)
    assert outlook.chosen([[], bad], model.Summary(skip=2)) == model.Summary(skip=2)
