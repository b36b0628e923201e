"""What blocks amount to."""

import math
import random

import pytest

from aibenchd import model
from aibenchd.measure import judging
from aibenchd.store import experiments

BENCHMARK = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "delay"})
RULE = model.Rule(alpha=0.01, beta=0.05, min_effect=0.02, max_blocks=40)
TWO = model.Design(BENCHMARK, "generic", RULE)
ONE = model.Design(BENCHMARK, "generic", RULE, arms=1, blocks=2)
NO_REASONS = {model.ArmName.TREATMENT: "", model.ArmName.CONTROL: ""}
REASONS = {model.ArmName.TREATMENT: "exit code 1: no such operator", model.ArmName.CONTROL: "killed by signal 9"}


def block(number: int, treatment: float | None, control: float | None, order: str = "TC") -> experiments.Journalled:
    return experiments.Journalled(number, order, treatment is not None and control is not None, treatment, control, 1.0)


def judge(
    design: model.Design, blocks: list[experiments.Journalled], reasons: dict[model.ArmName, str] | None = None
) -> model.Decision:
    return judging.decision(design, blocks[:-1], blocks[-1], reasons or NO_REASONS)


def blocks(ratio: float, count: int) -> list[experiments.Journalled]:
    def wobble(number: float) -> float:
        return 100 * (1 + 0.001 * math.sin(number))

    return [
        block(number, ratio * wobble(7 * number), wobble(5 * number), "TC" if number * 7 % 3 else "CT") for number in range(count)
    ]


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.1, model.Verdict.REGRESSED), (0.9, model.Verdict.IMPROVED), (1.0, model.Verdict.UNCHANGED)]
)
def test_two_arms_are_decided_by_the_sequential_test(ratio: float, verdict: model.Verdict) -> None:
    found = judge(TWO, blocks(ratio, 30))
    assert found.verdict is verdict
    assert found.low <= ratio - 1 <= found.high


def test_one_arm_ends_after_its_valid_blocks() -> None:
    series = [block(0, 5.0, None, "T"), block(1, None, None, "T"), block(2, 5.1, None, "T")]
    series = [experiments.Journalled(one.number, "T", one.treatment is not None, one.treatment, None, 1.0) for one in series]
    assert judge(ONE, series[:2]).verdict is None
    assert judge(ONE, series).verdict is model.Verdict.MEASURED


OPENING = 5  # blocks: 4 ** -5 is below alpha / 4


def test_a_treatment_that_fails_from_the_start_beside_a_control_that_does_not_is_broken() -> None:
    failed = [block(number, None, 100.0) for number in range(OPENING)]
    assert judge(TWO, failed[:-1], REASONS).verdict is None
    found = judge(TWO, failed, REASONS)
    assert (found.verdict, found.reason) == (model.Verdict.BROKEN, "treatment: exit code 1: no such operator")


def test_one_that_begins_to_fail_later_is_broken_too() -> None:
    worked = [block(0, 100.0, 100.0)]
    failed = [block(number, None, 100.0) for number in range(1, 15)]
    assert judge(TWO, worked + failed, REASONS).verdict is model.Verdict.BROKEN


def test_a_hanging_treatment_is_broken_though_the_time_is_spent() -> None:
    slow = [experiments.Journalled(number, "TC", False, None, 100.0, 1_000.0) for number in range(OPENING)]
    assert judge(TWO, slow, REASONS).verdict is model.Verdict.BROKEN


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.8])
def test_two_programs_that_fail_equally_often_are_seldom_called_broken(rate: float) -> None:
    """At most alpha, and three standard errors of 1,000 replays of 60 blocks; a verdict that stands is not taken back."""
    rng, replays, broken = random.Random(5), 1_000, 0
    for _ in range(replays):
        arms = [[rng.random() < rate for _ in range(60)] for _ in range(2)]
        broken += any(judging._fails_alone(arms[0][:n], arms[1][:n], RULE.alpha) for n in (OPENING, 60))
    assert broken / replays <= RULE.alpha + 3 * math.sqrt(RULE.alpha / replays)


def test_one_arm_that_fails_three_times_in_a_row_is_broken() -> None:
    failed = [experiments.Journalled(number, "T", False, None, None, 1.0) for number in range(judging.BROKEN_AFTER)]
    assert judge(ONE, failed, REASONS).verdict is model.Verdict.BROKEN


def test_a_success_between_failures_is_no_breakage() -> None:
    mixed = [block(0, None, 100.0), block(1, 100.0, 100.0), block(2, None, 100.0), block(3, None, 100.0)]
    assert judge(TWO, mixed, REASONS).verdict is None


@pytest.mark.parametrize("treatment", [None, 100.0])
def test_a_control_that_fails_makes_no_verdict_on_the_treatment(treatment: float | None) -> None:
    found = judge(TWO, [block(number, treatment, None) for number in range(OPENING)], REASONS)
    assert found.verdict is model.Verdict.INCONCLUSIVE
    assert "control: killed by signal 9" in found.reason


def test_a_budget_that_is_spent_on_failures_is_spent() -> None:
    alternating = [block(number, 100.0 if number % 2 else None, 100.0) for number in range(RULE.max_blocks)]
    assert judge(TWO, alternating, REASONS).verdict in (model.Verdict.INCONCLUSIVE, model.Verdict.UNCHANGED)
