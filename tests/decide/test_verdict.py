"""Verdicts: rates on recorded noise under the daemon's own schedule, and what always holds."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import multiplicity, sequential, summary, verdict
from aibenchd.plan import order

NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
BLOCKS = 60
STAGES = (12, 24, BLOCKS)
REPLAYS = 1_500
RULE = model.Rule(alpha=0.01, beta=0.05, min_effect=0.02, max_blocks=BLOCKS, max_seconds=math.inf)


def schedule(kind: str) -> np.ndarray:
    """Whether the treatment ran first, shape (replays, blocks), as the daemon draws it."""
    return np.array(
        [[order.arms(kind, seed, block)[0] is model.ArmName.TREATMENT for block in range(BLOCKS)] for seed in range(REPLAYS)]
    )


def laid_over(tape: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Log ratios of arms laid over consecutive processes of a tape, each replay from a start of its own, wrapping."""
    starts = np.random.default_rng(20).integers(0, len(tape), len(first))
    slots = np.log(tape)[(starts[:, None] + np.arange(2 * BLOCKS)) % len(tape)]
    ratios: np.ndarray = np.where(first, 1, -1) * (slots[:, 0::2] - slots[:, 1::2])
    return ratios


def rates(ratios: np.ndarray, first: np.ndarray, kind: str = "coin") -> tuple[float, float, float]:
    """How often something regressed or improved; how often *unchanged*; mean number of blocks."""
    slower, faster, unchanged = stops(ratios, np.where(first, 1.0, -1.0), kind)
    rejected = np.minimum(slower, faster)
    alarms = (rejected < unchanged) & (rejected < verdict.NEVER)
    same = (unchanged <= rejected) & (unchanged < verdict.NEVER)
    stop = np.minimum(np.minimum(rejected, unchanged) + 1, ratios.shape[-1])
    return float(alarms.mean()), float(same.mean()), float(stop.mean())


def stops(ratios: np.ndarray, signs: np.ndarray, kind: str) -> list[np.ndarray]:
    """As :func:`verdict.stops`. Verdicts are final, so that what is decided need not be looked at with more blocks."""
    found = [np.full(len(ratios), verdict.NEVER) for _ in range(3)]
    going = np.arange(len(ratios))
    for blocks in STAGES:
        some, order_of = ratios[going, :blocks], signs[going, :blocks]
        seen = verdict.by_coin(some, order_of) if kind == "coin" else verdict.in_pairs(some, order_of, range(blocks))
        stages = verdict.stops(seen, RULE)
        for whole, stage in zip(found, stages, strict=True):
            whole[going] = stage
        going = going[np.min(stages, axis=0) == verdict.NEVER]
    return found


def allowed(rate: float) -> float:
    """The rate, and three standard errors of its estimate."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / REPLAYS)


@pytest.fixture(scope="module")
def coin() -> np.ndarray:
    return schedule("coin")


@pytest.fixture(scope="module", params=TAPES)
def tape(request: pytest.FixtureRequest) -> np.ndarray:
    lines = (NOISE / f"{request.param}.jsonl").read_text().splitlines()
    return np.array([summary.of_process(json.loads(line)["us"]) for line in lines])


def test_nothing_changed_is_seldom_called_a_change(tape: np.ndarray, coin: np.ndarray) -> None:
    alarms, _, _ = rates(laid_over(tape, coin), coin)
    assert alarms <= allowed(RULE.alpha)


def test_balanced_pairs_hold_the_rate_too(tape: np.ndarray) -> None:
    first = schedule("pairs")
    alarms, _, _ = rates(laid_over(tape, first), first, "pairs")
    assert alarms <= allowed(RULE.alpha)


def test_a_change_as_small_as_the_margin_is_seldom_called_unchanged(tape: np.ndarray, coin: np.ndarray) -> None:
    _, same, _ = rates(laid_over(tape, coin) + math.log1p(RULE.min_effect), coin)
    assert same <= allowed(RULE.beta)


def test_a_change_of_twice_the_margin_is_found_within_the_budget(tape: np.ndarray, coin: np.ndarray) -> None:
    """At least 99 % of replays."""
    found, _, _ = rates(laid_over(tape, coin) + math.log1p(2 * RULE.min_effect), coin)
    assert found >= 0.99 - 3 * math.sqrt(0.99 * 0.01 / REPLAYS)


def test_a_change_of_the_margin_is_found_as_often_as_is_promised(tape: np.ndarray, coin: np.ndarray) -> None:
    """95 % of replays within 60 blocks, in either direction."""
    for effect in (1 + RULE.min_effect, 1 / (1 + RULE.min_effect)):
        found, _, _ = rates(laid_over(tape, coin) + math.log(effect), coin)
        assert found >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLAYS)


def test_an_interval_holds_the_effect(tape: np.ndarray, coin: np.ndarray) -> None:
    """At the stop, whichever it is: all of 300 replays but as many as 2 beta allows, and three standard errors."""
    ratios = laid_over(tape, coin[:300]) + math.log1p(0.01)
    found = [
        decide([(math.exp(ratio), 1.0, "TC" if treatment else "CT") for ratio, treatment in zip(row, firsts, strict=True)])
        for row, firsts in zip(ratios, coin, strict=False)
    ]
    missed = sum(one.low > 0.01 or one.high < 0.01 for one in found)
    rate = 2 * RULE.beta
    assert missed / len(found) <= rate + 3 * math.sqrt(rate * (1 - rate) / len(found))


@pytest.mark.parametrize("noise", ["slower second slot", "heavy tails", "bursts", "drift", "loud", "two modes"])
def test_noise_of_any_kind_holds_the_rate(noise: str, coin: np.ndarray) -> None:
    rng = np.random.default_rng(21)
    slots = rng.standard_normal((REPLAYS, 2 * BLOCKS)) * 0.01
    if noise == "slower second slot":
        slots[:, 1::2] += 0.02
    elif noise == "heavy tails":
        slots = rng.standard_t(1.5, slots.shape) * 0.01
    elif noise == "bursts":
        slots += (rng.random(slots.shape) < 0.1) * rng.exponential(0.2, slots.shape)
    elif noise == "loud":
        slots *= 2
    elif noise == "two modes":  # of a clock, say: the noise is one of a few amounts
        slots = 0.04 * rng.integers(0, 2, slots.shape) + slots / 20
    else:
        slots = np.cumsum(slots, axis=1)
    differences = slots[:, 0::2] - slots[:, 1::2]
    alarms, _, _ = rates(np.where(coin, 1, -1) * differences, coin)
    assert alarms <= allowed(RULE.alpha)
    first = schedule("pairs")
    alarms, _, _ = rates(np.where(first, 1, -1) * differences, first, "pairs")
    assert alarms <= allowed(RULE.alpha)


def test_a_slower_second_slot_is_learnt(coin: np.ndarray) -> None:
    """2 % slower, with noise of 1 %: it costs a clean commit less than half as much again."""
    rng = np.random.default_rng(23)
    noise = rng.standard_normal(coin.shape) * 0.014
    signs = np.where(coin, 1, -1)
    _, _, without = rates(signs * noise, coin)
    _, _, learnt = rates(signs * (noise - 0.02), coin)
    assert learnt < 1.5 * without


def test_a_slower_second_slot_is_no_change_however_steady_it_is(coin: np.ndarray) -> None:
    """3 % slower and all but no noise: every block is as far off as the others, and only its order says in which direction."""
    steady = np.where(coin, 1, -1) * (np.random.default_rng(25).standard_normal(coin.shape) * 0.0005 - 0.03)
    alarms, _, _ = rates(steady, coin)
    assert alarms <= allowed(RULE.alpha)


def test_a_verdict_on_all_blocks_knows_only_those_before_it(coin: np.ndarray) -> None:
    """What is expected of a block does not hang on that block or a later one."""
    ratios = np.random.default_rng(24).standard_normal(coin[:20].shape)
    signs = np.where(coin[:20], 1.0, -1.0)
    whole = sequential.foreseen(ratios, signs, 0.01)
    for blocks in (1, 4, 17):
        other = np.concatenate([ratios[:, :blocks], 5 - 3 * ratios[:, blocks:]], axis=1)
        for one, two in zip(whole, sequential.foreseen(other, signs, 0.01), strict=True):
            assert np.array_equal(one[:, : blocks + 1], two[:, : blocks + 1])


positive = st.floats(1e-3, 1e6)
times = st.lists(st.tuples(positive, positive, st.sampled_from(["TC", "CT"])), min_size=1, max_size=25)


def paired_orders(blocks: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """The same times, in balanced pairs."""
    return [(one, two, "TC" if index % 2 else "CT") for index, (one, two, _) in enumerate(blocks)]


def decide(blocks: list[tuple[float, float, str]], rule: model.Rule = RULE, kind: str = "coin") -> model.Decision:
    treatment, control, orders = zip(*blocks, strict=True)
    return verdict.decide(treatment, control, rule, orders=orders, kind=kind)


@given(times, st.sampled_from([1e-3, 8.0, 1e6]))
def test_the_unit_of_time_does_not_matter(blocks: list[tuple[float, float, str]], factor: float) -> None:
    before = decide(blocks)
    after = decide([(treatment * factor, control * factor, order) for treatment, control, order in blocks])
    assert (after.verdict, after.blocks) == (before.verdict, before.blocks)
    assert after.estimate == pytest.approx(before.estimate, rel=1e-6, abs=1e-9)


@given(times)
def test_swapped_arms_mirror_the_verdict(blocks: list[tuple[float, float, str]]) -> None:
    mirror = {model.Verdict.REGRESSED: model.Verdict.IMPROVED, model.Verdict.IMPROVED: model.Verdict.REGRESSED}
    before, after = decide(blocks), decide([(control, treatment, order[::-1]) for treatment, control, order in blocks])
    assert after.verdict == mirror.get(before.verdict, before.verdict)  # type: ignore[arg-type]
    assert after.low == pytest.approx(1 / (1 + before.high) - 1, rel=1e-6, abs=1e-9, nan_ok=True)


def in_pairs(blocks: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """The same times, each block 2k + 1 in the order opposite to its partner's."""
    return [
        (treatment, control, blocks[index - 1][2][::-1] if index % 2 else order)
        for index, (treatment, control, order) in enumerate(blocks)
    ]


@given(times, times, st.sampled_from(["coin", "pairs"]))
def test_a_verdict_is_final(blocks: list[tuple[float, float, str]], more: list[tuple[float, float, str]], kind: str) -> None:
    everything = in_pairs(blocks + more) if kind == "pairs" else blocks + more
    before, after = decide(everything[: len(blocks)], kind=kind), decide(everything, kind=kind)
    if before.verdict is not None:
        assert after.verdict is before.verdict
        assert (after.low, after.high) == pytest.approx((before.low, before.high), nan_ok=True)


@given(times)
def test_the_interval_agrees_with_the_verdict(blocks: list[tuple[float, float, str]]) -> None:
    found = decide(blocks)
    match found.verdict:
        case model.Verdict.REGRESSED:
            assert found.low >= -1e-9
        case model.Verdict.IMPROVED:
            assert found.high <= 1e-9
        case model.Verdict.UNCHANGED:
            assert found.low >= 1 / (1 + RULE.min_effect) - 1 - 1e-9
            assert found.high <= RULE.min_effect + 1e-9
    assert not found.low > found.estimate + 1e-9
    assert not found.high < found.estimate - 1e-9


def test_without_blocks_nothing_is_known() -> None:
    found = verdict.decide([], [], RULE, orders=[])
    assert (found.verdict, found.blocks) == (None, 0)
    assert math.isnan(found.estimate)


def test_time_and_blocks_that_are_spent_end_it() -> None:
    blocks = [(1.0, 1.0, "TC"), (1.5, 1.0, "CT"), (0.7, 1.0, "TC")]
    treatment, control, orders = zip(*blocks, strict=True)
    rule = model.Rule(max_seconds=60.0, max_blocks=50)
    assert verdict.decide(treatment, control, rule, orders=orders, seconds=59).verdict is None
    assert verdict.decide(treatment, control, rule, orders=orders, seconds=60).verdict is model.Verdict.INCONCLUSIVE
    few = model.Rule(max_blocks=3)
    assert verdict.decide(treatment, control, few, orders=orders).verdict is model.Verdict.INCONCLUSIVE


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match="block 1: the control took"):
        decide([(1.0, 1.0, "TC"), (1.0, bad, "CT")])


def test_a_block_without_its_partner_is_passed_over() -> None:
    ratios = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    seen = verdict.in_pairs(ratios, np.array([1.0, -1.0, -1.0, -1.0, 1.0]), [0, 1, 3, 4, 5])
    assert seen.units == pytest.approx([0.2, 0.8])
    assert seen.complete.tolist() == [0, 1, 1, 1, 2]


def test_what_is_no_schedule_is_refused() -> None:
    blocks = [(1.0, 1.0, "TC"), (1.0, 1.0, "CT")]
    with pytest.raises(ValueError, match="expected an order of 'coin' or 'pairs', not 'strict'"):
        decide(blocks, kind="strict")
    with pytest.raises(ValueError, match="2 blocks, but 2 orders and 1 numbers"):
        verdict.decide([1.0, 1.0], [1.0, 1.0], RULE, orders=["TC", "CT"], numbers=[0])


def test_times_near_the_ends_of_what_a_float_holds_are_decided() -> None:
    assert decide([(1e308, 1e-308, "TC"), (1e308, 1e-308, "CT")] * 10).verdict is model.Verdict.REGRESSED
    assert summary.of_process([1.7e308] * 16) == pytest.approx(1.7e308)


def test_an_effect_that_changes_is_no_small_effect(coin: np.ndarray) -> None:
    """4 % slower for 5 blocks, then 5 % faster: each margin is rejected in turn, and no one effect lies within both."""
    jitter = np.random.default_rng(22).standard_normal(BLOCKS) * 0.002
    ratios = np.where(np.arange(BLOCKS) < 5, 0.04, -0.05) + jitter
    found = verdict.decide(np.exp(ratios), np.ones(BLOCKS), RULE, orders=["CT" if one else "TC" for one in coin[0]])
    assert found.verdict is model.Verdict.INCONCLUSIVE
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.reason == model.TORN


def test_one_order_alone_tells_no_change_from_a_slower_slot() -> None:
    found = decide([(1.1, 1.0, "TC"), (1.11, 1.0, "TC")] * 30)
    assert (found.verdict, found.reason) == (model.Verdict.INCONCLUSIVE, model.ONE_ORDER)


def test_pairs_of_one_order_are_refused() -> None:
    with pytest.raises(ValueError, match="expected opposite orders"):
        decide([(1.0, 1.0, "TC"), (1.0, 1.0, "TC")], kind="pairs")


def test_an_effect_that_changes_while_it_is_measured_has_no_interval() -> None:
    slower, faster = [(1.5, 1.0, "TC")] * 20, [(0.5, 1.0, "TC")] * 40
    found = decide(slower[:7] + faster, model.Rule(max_blocks=47, alpha=0.01, beta=1e-12))
    assert not found.low > found.high


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_a_later_first_look_gives_the_same_verdict_a_little_later(tape: np.ndarray, effect: float) -> None:
    first = schedule("coin")[:10]
    late = 0
    for row, signs in zip(laid_over(tape, first) + math.log1p(effect), first, strict=True):
        blocks = [(math.exp(ratio), 1.0, "TC" if ahead else "CT") for ratio, ahead in zip(row, signs, strict=True)]
        treatment, control, orders = zip(*blocks, strict=True)

        def seen(count: int, look: int, of: tuple[tuple[float, ...], ...] = (treatment, control, orders)) -> model.Decision:
            (ours, theirs, orders) = (part[:count] for part in of)
            return verdict.decide(ours, theirs, RULE, orders=orders, first_look=look)

        usual = seen(BLOCKS, 0)
        assert seen(BLOCKS, 12) == usual
        before = seen(11, 12)
        assert (before.verdict, before.blocks) == (None, 11)
        assert math.isfinite(before.estimate)
        late += usual.blocks < 12
    assert late


def test_a_budget_that_is_spent_is_looked_at_though_the_first_look_is_not_due() -> None:
    few = [1.0, 1.01, 0.99]
    spent = verdict.decide(few, [1.0] * 3, RULE, orders=["TC", "CT", "TC"], seconds=10.0, first_look=7)
    assert spent.verdict is None
    rule = dataclasses.replace(RULE, max_seconds=5.0)
    spent = verdict.decide(few, [1.0] * 3, rule, orders=["TC", "CT", "TC"], seconds=10.0, first_look=7)
    assert spent.verdict is not None


@pytest.mark.parametrize(
    ("known", "said"), [(0.0, "regressed"), (0.03, "regressed"), (0.05, "inconclusive"), (0.1, "inconclusive")]
)
def test_what_is_known_is_no_regression(known: float, said: str) -> None:
    rng = np.random.default_rng(31)
    ratios = math.log1p(0.05) + 0.002 * rng.standard_normal(BLOCKS)
    rule = dataclasses.replace(RULE, known=known)
    decision = verdict.decide(np.exp(ratios), np.ones(BLOCKS), rule, orders=["TC", "CT"] * (BLOCKS // 2))
    assert decision.verdict is not None
    assert decision.verdict.value == said
    assert (decision.reason == model.NO_MORE) is (said == "inconclusive")
    assert decision.estimate == pytest.approx(0.05, abs=0.004)
    assert known <= decision.low <= decision.estimate if said == "regressed" else decision.high <= known + 0.021


def test_garbage_has_bounds_beside_what_is_known_too() -> None:
    """Bounds of log ratios of hundreds are -1 as a ratio minus 1, and that has no logarithm."""
    rng = np.random.default_rng(5)
    orders = ["TC", "CT"] * 30
    treatment = np.exp(rng.normal(0.0, 100.0, 60))
    for known in (0.0, 0.03):
        decision = verdict.decide(treatment, np.ones(60), dataclasses.replace(RULE, known=known), orders=orders, kind="coin")
        assert decision.low == pytest.approx(-1.0)
        assert decision.high > 1.0


@pytest.mark.parametrize("known", [0.0, 0.03])
def test_evidence_is_against_what_is_known(known: float) -> None:
    rng = np.random.default_rng(32)
    ratios, orders = math.log1p(0.03) + 0.004 * rng.standard_normal(20), ["TC", "CT"] * 10
    seen = verdict.seen(np.exp(ratios), np.ones(20), orders, "coin", range(20))
    evidence = float(multiplicity.log_e_values(seen, dataclasses.replace(RULE, known=known))[-1])
    assert (evidence > math.log(1000)) is (known == 0.0)
