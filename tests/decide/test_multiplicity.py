"""Alarms among many comparisons: e-values whose mean is known exactly, and rates under dependence of any kind."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import multiplicity, summary, verdict
from aibenchd.plan import order

NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
RULE = model.Rule(alpha=0.01, beta=0.05, min_effect=0.02, max_blocks=30, max_seconds=math.inf)
RATE = 0.05
TOSSES = np.array(list(itertools.product((-1.0, 1.0), repeat=8)))  # all of eight blocks, shape (256, 8)

amounts = st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8)  # of what the first slot takes more than the second
evidence = st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=30)
rates = st.floats(0.001, 1.0)


def allowed(rate: float, trials: int) -> float:
    """The rate, and three standard errors of its estimate."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / trials)


def stopped(seen: verdict.Experiment) -> np.ndarray:
    """Log e-values at the verdict, or at the budget's end; shape of the repetitions."""
    stop = np.minimum.reduce([*verdict.stops(seen, RULE), np.full(seen.ratios.shape[:-1], seen.ratios.shape[-1] - 1)])
    values: np.ndarray = np.take_along_axis(multiplicity.log_e_values(seen, RULE), stop[..., None] + 1, axis=-1)[..., 0]
    return values


def going_on(seen: verdict.Experiment, comparisons: int) -> np.ndarray:
    """Log e-values where each is certain of its alarm, or at the budget's end."""
    values = multiplicity.log_e_values(seen, RULE)
    enough = values >= multiplicity.certain(comparisons, RATE)
    stop = np.where(enough.any(axis=-1), enough.argmax(axis=-1), values.shape[-1] - 1)
    last: np.ndarray = np.take_along_axis(values, stop[..., None], axis=-1)[..., 0]
    return last


def coins(trials: int, blocks: int, seed: int) -> np.ndarray:
    """Signs of blocks, shape (trials, blocks), as the daemon draws them."""
    firsts = [[order.arms("coin", seed + trial, block)[0] for block in range(blocks)] for trial in range(trials)]
    return np.where(np.array(firsts) == model.ArmName.TREATMENT, 1.0, -1.0)


@given(amounts)
def test_over_all_tosses_the_mean_is_one(ahead: list[float]) -> None:
    """Whatever the noise is, after each block: exactly, of all 256 rows of tosses."""
    values = multiplicity.log_e_values(verdict.by_coin(TOSSES * np.array(ahead), TOSSES), RULE)
    assert values.shape == (256, 9)
    assert np.exp(values).mean(axis=0) == pytest.approx(np.ones(9), rel=1e-9)


@settings(max_examples=10)
@given(amounts)
def test_at_the_verdict_the_mean_is_one(ahead: list[float]) -> None:
    seen = verdict.by_coin(TOSSES * np.array(ahead), TOSSES)
    assert np.exp(stopped(seen)).mean() == pytest.approx(1.0, rel=1e-9)


def test_noise_that_answers_to_the_tosses_earns_nothing() -> None:
    """It grows after blocks that looked slower, and jumps between two amounts; the toss of a block is still to come."""
    ahead = np.full(TOSSES.shape, 0.02)
    for block in range(1, 8):
        last = TOSSES[:, block - 1] * ahead[:, block - 1]
        ahead[:, block] = np.where(last > 0, 3 * ahead[:, block - 1], 0.02)
    seen = verdict.by_coin(TOSSES * ahead, TOSSES)
    assert np.exp(multiplicity.log_e_values(seen, RULE)).mean(axis=0) == pytest.approx(np.ones(9), rel=1e-9)


@given(amounts)
def test_over_all_tosses_of_pairs_the_mean_is_one(ahead: list[float]) -> None:
    tosses = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
    signs = np.repeat(tosses, 2, axis=1) * np.tile([1.0, -1.0], 4)
    seen = verdict.in_pairs(signs * np.array(ahead), signs, range(8))
    values = multiplicity.log_e_values(seen, RULE)
    assert np.exp(values).mean(axis=0) == pytest.approx(np.ones(9), rel=1e-9)
    assert values[:, 0::2][:, :-1] == pytest.approx(values[:, 1::2])  # the second of a pair alone adds to it


@given(amounts, st.floats(0.0, 0.5))
def test_a_faster_treatment_has_less_than_one(ahead: list[float], faster: float) -> None:
    seen = verdict.by_coin(TOSSES * np.array(ahead) - faster, TOSSES)
    assert np.exp(multiplicity.log_e_values(seen, RULE)).mean(axis=0).max() <= 1 + 1e-9


def test_values_of_a_slower_treatment_are_large_enough_within_a_few_blocks() -> None:
    """4 % slower with noise of 1.4 % a block: one comparison is certain of its alarm by the twelfth block, nearly always."""
    signs = coins(400, 12, 7)
    ratios = np.random.default_rng(31).standard_normal(signs.shape) * 0.014 + math.log(1.04)
    values = multiplicity.log_e_values(verdict.by_coin(ratios, signs), RULE)
    found = (values >= multiplicity.certain(1, RATE)).any(axis=-1).mean()
    assert found >= 0.98 - 3 * math.sqrt(0.98 * 0.02 / 400)


def test_without_a_block_there_is_no_evidence() -> None:
    nothing = np.zeros(0)
    assert multiplicity.log_e_values(verdict.by_coin(nothing, nothing), RULE).tolist() == [0.0]


@pytest.mark.parametrize("tape", TAPES)
def test_recorded_noise_seldom_has_a_large_value(tape: str) -> None:
    """At the verdict, 1 / a with probability a at most; 1,500 replays, three standard errors."""
    lines = (NOISE / f"{tape}.jsonl").read_text().splitlines()
    times = np.log([summary.of_process(json.loads(line)["us"]) for line in lines])
    signs = coins(1_500, RULE.max_blocks, 0)
    starts = np.random.default_rng(32).integers(0, len(times), len(signs))
    slots = times[(starts[:, None] + np.arange(2 * RULE.max_blocks)) % len(times)]
    values = stopped(verdict.by_coin(signs * (slots[:, 0::2] - slots[:, 1::2]), signs))
    for rate in (0.2, 0.05, 0.01):
        assert (values >= -math.log(rate)).mean() <= allowed(rate, 1_500)


def test_the_largest_are_chosen_by_value() -> None:
    """Of four at 10 %: 40 for the largest, 20 for two, 13.3 for three, 10 for four."""
    logs = np.log
    assert multiplicity.chosen(logs([39.0, 1.0, 1.0, 1.0]), 0.1).tolist() == [False] * 4
    assert multiplicity.chosen(logs([1.0, 41.0, 19.0, 1.0]), 0.1).tolist() == [False, True, False, False]
    assert multiplicity.chosen(logs([21.0, 1.0, 21.0, 13.0]), 0.1).tolist() == [True, False, True, False]
    assert multiplicity.chosen(logs([11.0, 11.0, 39.0, 11.0]), 0.1).tolist() == [True] * 4  # none is enough but for the others
    assert multiplicity.chosen([], 0.1).tolist() == []


@given(st.floats(-10.0, 10.0), rates)
def test_one_comparison_needs_the_inverse_of_the_rate(value: float, rate: float) -> None:
    assert multiplicity.chosen([value], rate).tolist() == [value >= multiplicity.certain(1, rate)]
    assert multiplicity.certain(1, rate) == pytest.approx(-math.log(rate))


@given(evidence, rates, rates)
def test_a_higher_rate_chooses_no_fewer(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert not (multiplicity.chosen(values, low) & ~multiplicity.chosen(values, high)).any()


@given(evidence, rates, st.data())
def test_more_evidence_for_one_takes_none_away(values: list[float], rate: float, data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(values) - 1))
    more = [value + 3.0 * (index == which) for index, value in enumerate(values)]
    assert not (multiplicity.chosen(values, rate) & ~multiplicity.chosen(more, rate)).any()


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0]), min_size=1, max_size=30), rates, st.randoms())
def test_neither_order_nor_ties_matter(values: list[float], rate: float, random: object) -> None:
    found = dict(zip(values, multiplicity.chosen(values, rate), strict=True))
    assert multiplicity.chosen(values, rate).tolist() == [found[value] for value in values]
    shuffled = sorted(values, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert multiplicity.chosen(shuffled, rate).tolist() == [found[value] for value in shuffled]


@given(evidence, rates)
def test_the_chosen_support_each_other(values: list[float], rate: float) -> None:
    """Each is as large as their number needs, and no larger number of them would be."""
    found = multiplicity.chosen(values, rate)
    for number in range(1, len(values) + 1):
        supported = np.array(values) >= math.log(len(values) / (number * rate)) + 1e-9
        assert supported.sum() < number or found.sum() >= number
    if found.any():
        assert min(np.array(values)[found]) >= math.log(len(values) / (found.sum() * rate)) - 1e-9


def test_the_rate_holds_at_its_worst_dependence() -> None:
    """Nothing is true; with probability ``rate``, k of 10 have just what k need. All alarms are false, in exactly that rate."""
    trials, comparisons = 4_000, 10
    rng = np.random.default_rng(33)
    ours = 0
    for _ in range(trials):
        many = int(rng.integers(1, comparisons + 1))
        values = np.full(comparisons, -math.inf)
        if rng.random() < RATE:
            values[rng.permutation(comparisons)[:many]] = math.log(comparisons / (many * RATE)) + 1e-9
        ours += bool(multiplicity.chosen(values, RATE).any())
    assert abs(ours / trials - RATE) <= 3 * math.sqrt(RATE * (1 - RATE) / trials)


@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
def test_the_rate_holds_for_verified_comparisons(shared: float) -> None:
    """Of 12, three are 4 % slower; the others' noise is their own, or the commit's; 400 commits, three standard errors."""
    commits, comparisons, true = 400, 12, 3
    rng = np.random.default_rng(34)
    own = rng.standard_t(2.5, (commits, comparisons, 20)) * 0.01
    common = rng.standard_t(2.5, (commits, 1, 20)) * 0.01
    signs = np.broadcast_to(coins(commits, 20, 50)[:, None, :], own.shape)
    ratios = signs * (math.sqrt(1 - shared**2) * own + shared * common)  # one toss for all: as dependent as can be
    ratios[:, :true] += math.log(1.04)
    seen = verdict.by_coin(ratios, signs)
    for values, least in ((stopped(seen), 0.25), (going_on(seen, comparisons), 0.95)):
        found = np.array([multiplicity.chosen(row, RATE) for row in values])
        false = found[:, true:].sum(axis=1) / np.maximum(found.sum(axis=1), 1)
        assert false.mean() <= RATE + 3 * false.std() / math.sqrt(commits)
        assert found[:, :true].mean() >= least


@given(st.floats(0.01, 20.0), st.integers(1, 500), st.integers(1, 2_000))
def test_a_month_spends_its_budget_and_no_more(pages: float, usual: int, comparisons: int) -> None:
    chances = [math.exp(-multiplicity.needed(pages, usual, number)) for number in range(1, comparisons + 1)]
    spent = pages * comparisons / (usual + comparisons)
    assert sum(chances) <= spent * (1 + 1e-9)
    if chances[0] < 1:
        assert sum(chances) == pytest.approx(spent)


def test_the_budget_holds_at_its_worst() -> None:
    """E-values that are just enough, or nothing; 2,000 months of 0 to 90 comparisons, of which 20 are usual."""
    rng = np.random.default_rng(35)
    pages = []
    for _ in range(2_000):
        needed = np.array([multiplicity.needed(1.5, 20, number) for number in range(1, int(rng.integers(0, 91)) + 1)])
        toss = rng.random() if rng.random() < 0.5 else rng.random(needed.size)  # all at once, or each alone
        pages.append(float((toss < np.exp(-needed)).sum()))
    assert np.mean(pages) <= 1.5 + 3 * np.std(pages) / math.sqrt(len(pages))
    assert np.mean(pages) > 0.5


def test_the_budget_holds_at_the_largest_value_of_real_blocks() -> None:
    """300 months of 10 comparisons of which nothing is true, each at the best of its 20 blocks."""
    months, comparisons, budget = 300, 10, 0.5
    signs = coins(months * comparisons, 20, 90)
    ratios = signs * np.random.default_rng(36).standard_t(2.0, signs.shape) * 0.01
    best = multiplicity.log_e_values(verdict.by_coin(ratios, signs), RULE).max(axis=-1).reshape(months, comparisons)
    needed = [multiplicity.needed(budget, comparisons, number) for number in range(1, comparisons + 1)]
    pages = (best >= needed).sum(axis=1)
    assert pages.mean() <= budget + 3 * pages.std() / math.sqrt(months)


def test_no_page_is_raised_without_evidence() -> None:
    assert multiplicity.needed(1_000.0, 1, 1) == 0.0


def test_what_makes_no_sense_is_refused() -> None:
    for rate in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected a rate of false alarms above 0 and at most 1"):
            multiplicity.chosen([1.0], rate)
    with pytest.raises(ValueError, match="expected 1 comparison or more, not 0"):
        multiplicity.certain(0, RATE)
    with pytest.raises(ValueError, match="expected one row of numbers"):
        multiplicity.chosen([1.0, math.nan], RATE)
    for pages, usual, number in ((0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 0), (math.nan, 1, 1)):
        with pytest.raises(ValueError, match="expected a budget above 0"):
            multiplicity.needed(pages, usual, number)
