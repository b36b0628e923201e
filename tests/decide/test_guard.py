"""A verdict on fast iterations, with a guard for the slow ones."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibenchd import model
from aibenchd.decide import guard, summary, verdict
from aibenchd.plan import order

RULE = model.Rule()
NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
REPLAYS = 1_000
SLOW, ITERATIONS = 1 / 10, 20


def decide(
    treatment: np.ndarray, control: np.ndarray, orders: list[str], rule: model.Rule = RULE, *, spent: bool = False
) -> model.Decision:
    """Of iterations, shape (blocks, iterations), as the daemon decides."""
    body = [[summary.of_process(row) for row in arm.tolist()] for arm in (treatment, control)]
    tails = [[summary.of_process(row, summary.DEFAULT.tail) for row in arm.tolist()] for arm in (treatment, control)]
    found = verdict.decide(*body, guard.body(rule), orders=orders)
    spent = spent or len(orders) >= rule.max_blocks
    return guard.decide(found, (tails[0], tails[1]), rule, orders=orders, kind="coin", numbers=range(len(orders)), spent=spent)


def orders_of(seed: int, blocks: int = RULE.max_blocks) -> list[str]:
    first = model.ArmName.TREATMENT
    return ["TC" if order.arms("coin", seed, block)[0] is first else "CT" for block in range(blocks)]


def processes(rng: np.random.Generator, blocks: int, *, slow: float = 1.0, factor: float = 1.0) -> np.ndarray:
    """Iterations of one arm: 0.5 % of noise a process, 1 % an iteration; a tenth of them takes ``slow`` times as long."""
    times = 1000 * factor * np.exp(0.005 * rng.standard_normal((blocks, 1)) + 0.01 * rng.standard_normal((blocks, ITERATIONS)))
    return times * np.where(rng.random(times.shape) < SLOW, slow, 1.0)


def live(treatment: np.ndarray, control: np.ndarray, orders: list[str], rule: model.Rule = RULE) -> list[model.Decision]:
    """The decision after each block, up to the last."""
    found: list[model.Decision] = []
    for blocks in range(1, len(orders) + 1):
        found.append(decide(treatment[:blocks], control[:blocks], orders[:blocks], rule))
        if found[-1].verdict is not None:
            break
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_change_of_the_tail_alone_is_named_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = decide(processes(rng, 60, slow=2.0), processes(rng, 60), orders_of(seed))
    assert (found.verdict, found.in_tail) == (model.Verdict.REGRESSED, True)
    assert found.reason.startswith("in the tail: the slowest quarter of the iterations; apart from it unchanged (")
    assert RULE.min_effect <= found.low < found.estimate
    assert 0.2 < found.estimate < 0.7  # 8 of 5 iterations would be 0.4: two of 20, of which five are the tail
    assert found.blocks >= 13  # as many as coins need


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_what_changes_as_a_whole_is_not_of_the_tail(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    treatment, control, orders = processes(rng, 60, factor=factor), processes(rng, 60), orders_of(seed)
    found = decide(treatment, control, orders)
    assert not found.in_tail
    assert found.verdict is (model.Verdict.REGRESSED if factor > 1 else model.Verdict.IMPROVED)


def test_what_is_faster_but_for_its_tail_is_not_called_improved() -> None:
    rng = np.random.default_rng(1)
    treatment, control = processes(rng, 60, slow=2.5, factor=0.95), processes(rng, 60)
    found = decide(treatment, control, orders_of(1))
    assert (found.verdict, found.in_tail) == (model.Verdict.REGRESSED, True)
    assert "apart from it improved (-" in found.reason


def test_a_faster_tail_says_nothing() -> None:
    rng = np.random.default_rng(2)
    found = decide(processes(rng, 60), processes(rng, 60, slow=2.0), orders_of(2))
    assert (found.verdict, found.in_tail) == (model.Verdict.UNCHANGED, False)


def test_it_goes_on_while_the_tail_is_suspected_and_says_the_same_whenever_it_is_asked() -> None:
    rng = np.random.default_rng(3)
    treatment, control, orders = processes(rng, 60, slow=2.0), processes(rng, 60), orders_of(3)
    body = verdict.decide(
        *([summary.of_process(row) for row in arm.tolist()] for arm in (treatment, control)), guard.body(RULE), orders=orders
    )
    *before, last = live(treatment, control, orders)
    assert body.verdict is model.Verdict.UNCHANGED
    assert len(before) + 1 == last.blocks > body.blocks
    assert last == decide(treatment, control, orders)
    assert {one.verdict for one in before} == {None}


def test_where_the_budget_ends_first_the_body_s_verdict_stands_with_a_word() -> None:
    rng = np.random.default_rng(4)
    treatment, control, orders = processes(rng, 10, slow=2.0), processes(rng, 10), orders_of(4, 10)
    assert decide(treatment, control, orders).verdict is None
    found = decide(treatment, control, orders, spent=True)
    assert (found.verdict, found.reason, found.in_tail) == (model.Verdict.UNCHANGED, model.TAIL_UNSURE, False)


def test_a_body_that_stays_unclear_is_regressed_where_its_tail_is_beyond_doubt() -> None:
    rng = np.random.default_rng(5)
    loud = [times * np.exp(0.05 * rng.standard_normal((60, 1))) for times in (processes(rng, 60, slow=3.0), processes(rng, 60))]
    found = decide(*loud, orders_of(5))
    assert (found.verdict, found.in_tail) == (model.Verdict.REGRESSED, True)
    assert "apart from it inconclusive" in found.reason


def test_a_tail_that_is_slower_by_less_than_what_matters_is_let_be() -> None:
    """With next to no noise both would be sure of 1 %."""
    rng = np.random.default_rng(6)
    times = 1000 * np.exp(1e-5 * rng.standard_normal((2, 60, ITERATIONS)))
    found = decide(times[0] * 1.01, times[1], orders_of(6), dataclasses.replace(RULE, min_effect=0.02))
    assert (found.verdict, found.in_tail) == (model.Verdict.UNCHANGED, False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.sampled_from([1.0, 1.3, 2.0]))
def test_the_unit_does_not_matter_and_no_tail_is_slower_than_both(seed: int, factor: float, slow: float) -> None:
    rng = np.random.default_rng(seed)
    treatment, control, orders = processes(rng, 30, slow=slow), processes(rng, 30), orders_of(seed, 30)
    found, scaled = decide(treatment, control, orders), decide(treatment * factor, control * factor, orders)
    assert (scaled.verdict, scaled.blocks, scaled.in_tail) == (found.verdict, found.blocks, found.in_tail)
    swapped = decide(control, treatment, ["CT" if one == "TC" else "TC" for one in orders])
    assert not (found.in_tail and swapped.in_tail)


@pytest.fixture(scope="module", params=TAPES)
def tape(request: pytest.FixtureRequest) -> np.ndarray:
    lines = (NOISE / f"{request.param}.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["us"] for line in lines], dtype=float)


def laid_over(tape: np.ndarray, part: model.Summary, slow: float, seed: int) -> verdict.Experiment:
    """Replays of a tape, by the daemon's own coins; a tenth of the treatment's iterations takes ``slow`` times as long."""
    rng, blocks = np.random.default_rng(seed), RULE.max_blocks
    signs = np.array([[1.0 if one == "TC" else -1.0 for one in orders_of(replay)] for replay in range(REPLAYS)])
    first = rng.integers(0, len(tape), (REPLAYS, 1)) + np.arange(0, 2 * blocks, 2)
    treatment, control = (tape[(first + second) % len(tape)] for second in (signs < 0, signs > 0))
    treatment = treatment * np.where(rng.random(treatment.shape) < SLOW, slow, 1.0)
    return verdict.by_coin(np.log(summary.of_each(treatment, part)) - np.log(summary.of_each(control, part)), signs)


def test_the_guard_alone_errs_no_more_often_than_it_may_whatever_the_tail_is_like(tape: np.ndarray) -> None:
    """Within 60 blocks, whenever one looks: at most a 50th of alpha, and three standard errors of 1,000 replays."""
    alarms = guard.watch(laid_over(tape, summary.DEFAULT.tail, 1.0, 1), RULE).slower[:, -1].mean()
    rate = RULE.alpha * guard.SHARE
    assert alarms <= rate + 3 * math.sqrt(rate / REPLAYS)


def test_where_a_tenth_takes_twice_as_long_the_guard_is_sure_within_the_budget(tape: np.ndarray) -> None:
    """In 99 % of replays, less three standard errors of 1,000."""
    found = guard.watch(laid_over(tape, summary.DEFAULT.tail, 2.0, 2), RULE).slower[:, -1].mean()
    assert found >= 0.99 - 3 * math.sqrt(0.99 * 0.01 / REPLAYS)


@pytest.mark.parametrize("law", ["cauchy", "two modes", "bursts", "drift"])
def test_the_guard_s_rate_holds_for_tails_of_any_kind(law: str) -> None:
    """At alpha 50 times as large, so that what it may err can be seen: 1 % of 2,000, and three standard errors."""
    rng, replays, blocks = np.random.default_rng(7), 2_000, RULE.max_blocks
    walk = np.cumsum(rng.standard_normal((replays, 2 * blocks)), axis=1) * 0.05
    logs = {
        "cauchy": 0.02 * rng.standard_cauchy((replays, 2 * blocks)),
        "two modes": 0.5 * rng.integers(0, 2, (replays, 2 * blocks)),
        "bursts": (rng.random((replays, 2 * blocks)) < 0.2) * rng.lognormal(-1, 1, (replays, 2 * blocks)),
        "drift": walk,
    }[law]
    ahead = rng.random((replays, blocks)) < 1 / 2
    one, other = logs[:, ::2], logs[:, 1::2]
    ratios = np.where(ahead, one - other, other - one)
    seen = verdict.by_coin(ratios, np.where(ahead, 1.0, -1.0))
    rule = dataclasses.replace(RULE, alpha=50 * RULE.alpha)
    alarms = guard.watch(seen, rule).slower[:, -1].mean()
    assert alarms <= 0.01 + 3 * math.sqrt(0.01 / replays)
