"""Findable effects: what noise is made of, what always holds, and how far the formulas are from the verdict itself."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import prospects, summary, verdict

NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
REPLAYS = 300
SOON = 20  # blocks, with which most replays are decided
RULE = model.Rule(alpha=0.01, beta=0.05, min_effect=0.02, max_blocks=60, max_seconds=math.inf)
MARGIN = math.log1p(RULE.min_effect)


def known(scale: float, degrees: float = 8.0, slot: float = 0.0) -> prospects.Noise:
    """Noise of which all is known."""
    return prospects.Noise(scale, degrees, slot, slot, slot, blocks=1000, lag=0.0, clumped=False)


def tossed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    signs: np.ndarray = np.where(rng.random(shape) < 0.5, 1.0, -1.0)
    return signs


@functools.cache
def middle(degrees: float) -> float:
    """How far out the middle 70 % of Student's law go."""
    return float(np.quantile(np.abs(np.random.default_rng(0).standard_t(degrees, 1_000_000)), 0.7))


def student(rng: np.random.Generator, degrees: float, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of scale 1."""
    if math.isinf(degrees):
        return rng.standard_normal(shape)
    return rng.standard_t(degrees, shape) * prospects.OUTER / middle(degrees)


def pooled(rng: np.random.Generator, noise: np.ndarray, slot: float = 0.0) -> list[verdict.Experiment]:
    """Experiments, one a row of noise, about effects of their own."""
    signs = tossed(rng, noise.shape)
    ratios = noise + rng.standard_normal((len(noise), 1)) * 5 - signs * slot
    return [verdict.by_coin(*row) for row in zip(ratios, signs, strict=True)]


def replayed(ratios: np.ndarray, signs: np.ndarray, rule: model.Rule) -> tuple[float, float]:
    """How often a change is found, and the mean number of blocks; of the verdict itself."""
    stops = np.stack(verdict.stops(verdict.by_coin(ratios[:, :SOON], signs[:, :SOON]), rule))
    late = stops.min(axis=0) == verdict.NEVER
    if late.any():
        stops[:, late] = verdict.stops(verdict.by_coin(ratios[late], signs[late]), rule)
    changed, unchanged = stops[:2].min(axis=0), stops[2]
    stop = np.minimum(np.minimum(changed, unchanged) + 1, rule.max_blocks)
    return float(((changed < unchanged) & (changed < rule.max_blocks)).mean()), float(stop.mean())


def tape(name: str) -> np.ndarray:
    lines = (NOISE / f"{name}.jsonl").read_text().splitlines()
    return np.log([summary.of_process(json.loads(line)["us"]) for line in lines])


def laid_over(times: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Log ratios of arms laid over consecutive processes of a tape, each replay from a start of its own, wrapping."""
    starts = np.random.default_rng(31).integers(0, len(times), len(signs))
    slots = times[(starts[:, None] + np.arange(2 * signs.shape[1])) % len(times)]
    ratios: np.ndarray = signs * (slots[:, 0::2] - slots[:, 1::2])
    return ratios


# What noise is made of


@pytest.mark.parametrize("degrees", [2.5, 8.0, math.inf])
@pytest.mark.parametrize(("experiments", "size"), [(1, 60), (10, 8), (20, 21)])
def test_noise_is_told_whatever_the_effects_were(degrees: float, experiments: int, size: int) -> None:
    """The median of 100 estimates is within 10 %."""
    rng = np.random.default_rng(41)
    found = [prospects.noise(pooled(rng, student(rng, degrees, (experiments, size)), slot=0.5)) for _ in range(100)]
    assert np.median([one.scale for one in found]) == pytest.approx(1.0, rel=0.1)
    assert np.median([one.slot for one in found]) == pytest.approx(0.5, abs=0.1)
    assert {one.blocks for one in found} == {experiments * size}


def test_tails_are_told_apart() -> None:
    rng = np.random.default_rng(42)
    heavy, light, normal = (
        prospects.noise(pooled(rng, student(rng, degrees, (20, 40)))).degrees for degrees in (2.0, 8.0, math.inf)
    )
    assert 1.6 <= heavy < 3
    assert 4 < light < 20
    assert 20 < normal <= 50


def test_the_interval_of_the_slot_holds_it() -> None:
    """In 95 % of 400 pools, less three standard errors, with the heaviest tails."""
    rng = np.random.default_rng(43)
    held = []
    for _ in range(REPLAYS):
        found = prospects.noise(pooled(rng, rng.standard_t(2.0, (4, 10)), slot=0.7))
        held.append(found.slot_low <= 0.7 <= found.slot_high)
    assert np.mean(held) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLAYS)


def test_a_slower_second_place_is_positive() -> None:
    """The treatment ran first, and the control was slower for it: the ratio is below 1."""
    found = prospects.noise([verdict.by_coin(np.array([-0.02, 0.02, -0.02, 0.02] * 5), np.array([1.0, -1.0, 1.0, -1.0] * 5))])
    assert found.slot == pytest.approx(0.02)
    assert found.scale == pytest.approx(0.0, abs=1e-12)


def test_blocks_that_hang_together_have_a_lag() -> None:
    rng = np.random.default_rng(44)
    walk = rng.standard_normal((5, 200))
    for block in range(1, 200):
        walk[:, block] += 0.6 * walk[:, block - 1]
    assert prospects.noise(pooled(rng, walk)).lag == pytest.approx(0.55, abs=0.1)
    assert prospects.noise(pooled(rng, rng.standard_normal((5, 200)))).lag == pytest.approx(0.0, abs=0.1)


def test_noise_of_a_few_amounts_is_clumped_and_as_wide_as_they_lie_apart() -> None:
    rng = np.random.default_rng(45)
    modes = rng.integers(0, 2, (8, 40)) - rng.integers(0, 2, (8, 40)) + 0.02 * rng.standard_normal((8, 40))
    found = prospects.noise(pooled(rng, modes))
    assert found.clumped
    assert 0.8 < found.scale < 1.2
    assert not prospects.noise(pooled(rng, rng.standard_normal((8, 40)))).clumped


def test_ratios_that_are_no_numbers_are_left_out() -> None:
    rng = np.random.default_rng(46)
    ratios, signs = rng.standard_normal(30), tossed(rng, (30,))
    spoilt = np.insert(ratios, [3, 17, 30], [math.nan, math.inf, -math.inf])
    found = prospects.noise([verdict.by_coin(spoilt, np.insert(signs, [3, 17, 30], 1.0))])
    assert found == prospects.noise([verdict.by_coin(ratios, signs)])


@pytest.mark.parametrize("lengths", [(), (0,), (1, 1, 1), (3,), (2, 2, 0, 1)])
def test_of_too_few_blocks_nothing_is_known(lengths: tuple[int, ...]) -> None:
    found = prospects.noise([verdict.by_coin(np.arange(length) * 1.0, np.ones(length)) for length in lengths])
    assert found.blocks == sum(lengths)
    assert math.isnan(found.scale)
    assert math.isnan(found.slot)
    assert math.isnan(prospects.smallest(found, RULE))
    assert math.isnan(prospects.blocks(found, RULE))


def test_blocks_that_are_all_alike_have_no_noise() -> None:
    found = prospects.noise([verdict.by_coin(np.full(12, 0.3), np.array([1.0, -1.0] * 6))])
    assert (found.scale, found.slot) == (0.0, 0.0)
    assert prospects.smallest(found, RULE) == pytest.approx(RULE.min_effect)
    assert prospects.blocks(found, RULE) < 4


@given(st.lists(st.lists(st.floats(-50, 50), max_size=12), max_size=5))
def test_any_blocks_have_some_noise_or_none(ratios: list[list[float]]) -> None:
    found = prospects.noise([verdict.by_coin(np.array(row), np.resize([1.0, -1.0, -1.0], len(row))) for row in ratios])
    assert not found.scale < 0
    assert not found.slot_low > found.slot
    assert not found.slot_high < found.slot
    assert not prospects.smallest(found, RULE) < RULE.min_effect * 0.999


# What always holds of the smallest effect

scales = st.floats(0, 0.3)
degrees = st.floats(1.6, 50)
budgets = st.integers(1, 400) | st.just(5000)
alphas = st.floats(1e-4, 0.2)


@given(scales, scales, degrees, budgets, alphas)
def test_more_noise_hides_more(one: float, other: float, tails: float, budget: int, alpha: float) -> None:
    rule = dataclasses.replace(RULE, max_blocks=budget, alpha=alpha)
    less, more = (prospects.smallest(known(scale, tails), rule) for scale in sorted((one, other)))
    assert less <= more
    less, more = (prospects.blocks(known(scale, tails), rule) for scale in sorted((one, other)))
    assert less <= more + 1e-9


@given(scales, degrees, budgets, budgets, alphas)
def test_a_larger_budget_finds_more(scale: float, tails: float, one: int, other: int, alpha: float) -> None:
    small, large = (dataclasses.replace(RULE, max_blocks=budget, alpha=alpha) for budget in sorted((one, other)))
    noise = known(scale, tails)
    assert prospects.smallest(noise, large) <= prospects.smallest(noise, small)
    assert prospects.blocks(noise, small) <= prospects.blocks(noise, large) + 1e-9


@given(scales, degrees, budgets, alphas, alphas)
def test_more_false_alarms_find_more(scale: float, tails: float, budget: int, one: float, other: float) -> None:
    strict, lax = (dataclasses.replace(RULE, max_blocks=budget, alpha=alpha) for alpha in sorted((one, other)))
    noise = known(scale, tails)
    assert prospects.smallest(noise, lax) <= prospects.smallest(noise, strict)


@given(scales, degrees, budgets, st.floats(-0.9, 5))
def test_a_mean_number_of_blocks_is_within_the_budget_and_the_same_for_either_direction(
    scale: float, tails: float, budget: int, effect: float
) -> None:
    rule = dataclasses.replace(RULE, max_blocks=budget)
    found = prospects.blocks(known(scale, tails), rule, effect)
    assert 0 < found <= budget + 1e-9
    assert found == pytest.approx(prospects.blocks(known(scale, tails), rule, 1 / (1 + effect) - 1))


@given(st.floats(0.01, 3), degrees, budgets, st.floats(0.002, 0.1))
def test_only_noise_in_margins_matters(scale: float, tails: float, budget: int, min_effect: float) -> None:
    rules = [dataclasses.replace(RULE, max_blocks=budget, min_effect=one) for one in (0.001, min_effect)]
    one, other = (
        math.log1p(prospects.smallest(known(scale * math.log1p(rule.min_effect), tails), rule)) / math.log1p(rule.min_effect)
        for rule in rules
    )
    assert math.isinf(other) or one == pytest.approx(other)


def test_a_factor_of_two_is_the_most_that_is_looked_for() -> None:
    few = dataclasses.replace(RULE, max_blocks=12)
    assert math.isinf(prospects.smallest(known(0.3), few))
    assert math.isfinite(prospects.smallest(known(0.05), few))


def test_too_few_blocks_find_nothing_however_quiet_it_is() -> None:
    """Eleven coins agree one way with a chance of a 2,048th: more than two fifths of a thousandth, which twelve are below."""
    assert math.isinf(prospects.smallest(known(0.0), dataclasses.replace(RULE, max_blocks=7)))
    assert math.isinf(prospects.smallest(known(0.0), dataclasses.replace(RULE, max_blocks=11, alpha=0.001, beta=0.2)))
    assert math.isfinite(prospects.smallest(known(0.0), dataclasses.replace(RULE, max_blocks=12, alpha=0.001, beta=0.2)))
    assert prospects.smallest(known(0.0), dataclasses.replace(RULE, max_blocks=10)) == pytest.approx(RULE.min_effect)


def test_a_slot_that_is_new_to_the_model_hides_effects_until_it_is_learnt() -> None:
    rule = dataclasses.replace(RULE, max_blocks=20)
    slots = [0.0, 2.0, -5.0, 3.2, 50.0]
    none, known_one, other, new, huge = (prospects.smallest(known(0.01, slot=slot * MARGIN), rule) for slot in slots)
    assert none == pytest.approx(known_one) == pytest.approx(other)
    assert new > 1.5 * none
    assert huge == pytest.approx(new)
    none, known_one, new, huge = (prospects.blocks(known(0.01, slot=slot * MARGIN), RULE) for slot in (0.0, 2.0, 3.2, 50.0))
    assert none == pytest.approx(known_one)
    assert [new, huge] == pytest.approx([none + prospects.LEARNING] * 2, rel=0.01)


@pytest.mark.parametrize("effect", [-1.0, -2.0, math.inf, math.nan])
def test_an_effect_that_is_none_is_refused(effect: float) -> None:
    with pytest.raises(ValueError, match="expected an effect as a ratio minus 1"):
        prospects.blocks(known(0.01), RULE, effect)


# How far it is from the verdict


@pytest.mark.parametrize(
    ("margins", "tails", "budget", "alpha"),
    [
        (0.3, 4.0, 20, 0.01),
        (0.7, 2.5, 20, 0.01),
        (0.7, math.inf, 14, 0.05),
        (1.1, 4.0, 30, 0.001),
        (1.1, 8.0, 60, 0.01),
        (1.8, 2.5, 60, 0.05),
        (1.8, math.inf, 40, 0.01),
    ],
)
def test_the_smallest_effect_is_found_as_often_as_is_said(margins: float, tails: float, budget: int, alpha: float) -> None:
    """What is 15 % smaller is found less often than 95 %, unless it is below the margin; what is 15 % larger, more often."""
    rng = np.random.default_rng(51)
    rule = dataclasses.replace(RULE, max_blocks=budget, alpha=alpha)
    ratios, signs = student(rng, tails, (REPLAYS, budget)) * margins * MARGIN, tossed(rng, (REPLAYS, budget))
    effect = math.log1p(prospects.smallest(known(margins * MARGIN, min(tails, 50.0)), rule))
    error = 3 * math.sqrt(rule.beta * (1 - rule.beta) / REPLAYS)
    assert replayed(ratios + effect * 1.15, signs, rule)[0] >= 1 - rule.beta - error
    if effect > MARGIN * 1.15:
        assert replayed(ratios + effect / 1.15, signs, rule)[0] <= 1 - rule.beta + error


@pytest.mark.parametrize("margins", [0.2, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("tails", [2.5, math.inf])
@pytest.mark.parametrize(("effect", "off"), [(0.0, 0.2), (0.5, 0.4), (1.0, 0.2), (2.0, 0.2)])
def test_blocks_to_a_verdict_are_as_many_as_is_said(margins: float, tails: float, effect: float, off: float) -> None:
    """Within 20 %, and within 40 % for half the margin."""
    rng = np.random.default_rng(52)
    ratios, signs = student(rng, tails, (200, 60)) * margins * MARGIN, tossed(rng, (200, 60))
    _, mean = replayed(ratios + effect * MARGIN, signs, RULE)
    found = prospects.blocks(known(margins * MARGIN, min(tails, 50.0)), RULE, math.expm1(effect * MARGIN))
    assert found == pytest.approx(mean, rel=off)


@pytest.mark.parametrize(("margins", "slot", "budget"), [(0.6, 1.3, 20), (0.6, 0.35, 20), (1.3, 3.0, 30), (0.3, 3.0, 20)])
def test_a_slot_hides_as_much_as_is_said(margins: float, slot: float, budget: int) -> None:
    """Within 25 %, of blocks as of effects."""
    rng = np.random.default_rng(55)
    rule = dataclasses.replace(RULE, max_blocks=budget)
    signs = tossed(rng, (REPLAYS, budget))
    ratios = student(rng, 8.0, (REPLAYS, budget)) * margins * MARGIN - signs * slot * MARGIN
    noise = known(margins * MARGIN, 8.0, slot * MARGIN)
    effect = math.log1p(prospects.smallest(noise, rule))
    assert replayed(ratios + effect * 1.25, signs, rule)[0] >= 1 - rule.beta
    if effect > MARGIN * 1.25:
        assert replayed(ratios + effect / 1.25, signs, rule)[0] <= 1 - rule.beta
    assert prospects.blocks(noise, rule) == pytest.approx(replayed(ratios, signs, rule)[1], rel=0.25)


@pytest.mark.parametrize("name", TAPES)
def test_recorded_noise_hides_as_much_as_is_said(name: str) -> None:
    """Within 40 %, at half the usual margin and half the usual budget: noise of 1.2 to 2 margins that is no Student's."""
    rule = dataclasses.replace(RULE, min_effect=0.01, max_blocks=30)
    signs = tossed(np.random.default_rng(53), (REPLAYS, 30))
    ratios = laid_over(tape(name), signs)
    alone = tossed(np.random.default_rng(54), (1, 150))
    noise = prospects.noise([verdict.by_coin(laid_over(tape(name), alone)[0], alone[0])])
    effect = math.log1p(prospects.smallest(noise, rule))
    assert replayed(ratios + effect * 1.4, signs, rule)[0] >= 1 - rule.beta
    assert replayed(ratios + effect / 1.4, signs, rule)[0] <= 1 - rule.beta
    assert prospects.blocks(noise, rule) == pytest.approx(replayed(ratios, signs, rule)[1], rel=0.4)


def test_an_experiment_under_way_weighs_its_own_noise_and_that_of_before() -> None:
    rng = np.random.default_rng(8)

    def own(blocks: int) -> verdict.Experiment:
        return verdict.by_coin(rng.standard_normal(blocks) * 0.04, np.resize([1.0, -1.0], blocks))

    before = known(0.01)
    assert prospects.under_way(before, own(2)) == before
    few, many = (prospects.under_way(before, own(blocks)).scale for blocks in (10, 400))
    assert 0.012 < few < 0.03  # as much of either
    assert many == pytest.approx(0.04, rel=0.15)
    unknown = prospects.noise([])
    assert math.isnan(prospects.under_way(unknown, own(2)).scale)
    assert prospects.under_way(unknown, own(400)).scale == pytest.approx(0.04, rel=0.15)


@pytest.mark.parametrize(("margins", "effect"), [(0.5, 0.0), (1.0, 0.0), (1.0, 0.02), (1.5, 0.0), (2.0, 0.02)])
def test_what_is_left_is_about_right(margins: float, effect: float) -> None:
    """Within a factor of 1.6, of 300 replays each: by an experiment that is known to have this noise, after 10 blocks."""
    rng = np.random.default_rng(9)
    ratios = rng.standard_normal((REPLAYS, RULE.max_blocks)) * margins * MARGIN + math.log1p(effect)
    signs = tossed(rng, ratios.shape)
    done = 10
    stop = np.min(verdict.stops(verdict.by_coin(ratios, signs), RULE), axis=0)
    stop = np.minimum(stop + 1, RULE.max_blocks)
    going = stop > done
    noise = known(margins * MARGIN, 50.0)
    told = [prospects.left(noise, RULE, done, math.expm1(np.median(row[:done]))) for row in ratios[going]]
    assert 1 / 1.6 < np.mean(told) / (stop[going] - done).mean() < 1.6


def test_what_no_budget_decides_is_out_of_reach_and_what_it_does_decide_is_not() -> None:
    ratios = np.random.default_rng(10).standard_normal((100, 30))

    def reached(margins: float, effect: float, done: int) -> float:
        noise = known(margins * MARGIN, 50.0)
        seen = [math.expm1(np.median(row[:done]) * margins * MARGIN + math.log1p(effect)) for row in ratios]
        return float(np.mean([prospects.in_reach(noise, RULE, done, one) for one in seen]))

    assert reached(1.0, 0.0, 30) == 1
    assert reached(2.0, 0.0, 20) == 1
    assert reached(10.0, 0.0, 3) == 1  # an effect that is large enough to be found is plausible still
    assert reached(10.0, 0.0, 30) < 0.2
    assert reached(10.0, 1.0, 30) == 1


def test_a_first_look_waits_where_noise_is_large_and_no_longer_than_for_coins() -> None:
    looks = [prospects.first_look(known(margins * MARGIN), RULE) for margins in (0.1, 1.0, 1.6, 2.0, 20.0)]
    assert looks == sorted(looks)
    assert (looks[0], looks[-1]) == (verdict.LEAST, 8)
    assert prospects.first_look(prospects.noise([]), RULE) == verdict.LEAST
