"""What blocks amount to."""

import dataclasses
import math
import random
from datetime import UTC, datetime

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


def block(number: int, treatment: float | None, control: float | None, order: str = "") -> experiments.Journalled:
    valid = treatment is not None and control is not None
    return experiments.Journalled(number, order or _order(number), valid, treatment, control, 1.0)


def _order(number: int) -> str:
    return ("TC", "TC", "CT", "CT")[number % 4]


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


def test_blocks_that_were_to_decide_nothing_have_spent_no_budget() -> None:
    design = dataclasses.replace(TWO, rule=model.Rule.of_blocks(12, TWO.rule.min_effect))
    found = judge(design, blocks(1.1, 12))
    assert (found.verdict, found.reason) == (model.Verdict.MEASURED, judging.ALL_RUN)  # it compares nothing


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


# ---------------------------------------------------------------- outputs

WRONG, RIGHT, DIFFERS = model.Agreement.WRONG, model.Agreement.RIGHT, model.Agreement.DIFFERS
ERROR = model.Design(model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "error"}), "generic", RULE)
WRONG_OPENING, TOSSES = 6, 10  # blocks: 4 ** -6 and 2 / 2 ** 10 are below shares of alpha
SAID = {model.ArmName.TREATMENT: "wrong output: softmax: max_relative 0.5", model.ArmName.CONTROL: "wrong output: of the control"}


def agreeing(number: int, treatment: model.Agreement, control: model.Agreement) -> experiments.Journalled:
    agreements = {model.ArmName.TREATMENT: treatment, model.ArmName.CONTROL: control}
    return experiments.Journalled(number, _order(number), True, 100 + number % 2, 100 + number % 3, 1.0, agreements)


@pytest.mark.parametrize("design", [TWO, ERROR])
def test_a_treatment_whose_outputs_are_wrong_has_regressed(design: model.Design) -> None:
    found = [agreeing(number, WRONG, RIGHT) for number in range(WRONG_OPENING)]
    assert judge(design, found[:-1], SAID).verdict is None
    decided = judge(design, found, SAID)
    assert (decided.verdict, decided.reason) == (model.Verdict.REGRESSED, SAID[model.ArmName.TREATMENT])


def test_a_treatment_whose_outputs_are_right_again_has_improved() -> None:
    found = [agreeing(number, RIGHT, WRONG) for number in range(WRONG_OPENING)]
    assert judge(ERROR, found, SAID).verdict is model.Verdict.IMPROVED


def test_arms_that_are_both_wrong_are_unchanged_and_said_to_be_wrong() -> None:
    found = [agreeing(number, WRONG, WRONG) for number in range(10)]
    decided = judge(ERROR, found, SAID)
    assert (decided.verdict, decided.reason) == (model.Verdict.UNCHANGED, SAID[model.ArmName.TREATMENT])


def test_outputs_that_differ_between_the_arms_alone_are_a_regression() -> None:
    found = [agreeing(number, DIFFERS, model.Agreement.UNKNOWN) for number in range(TOSSES)]
    assert judge(ERROR, found[:-1], SAID).verdict is None
    assert judge(ERROR, found, SAID).verdict is model.Verdict.REGRESSED


def test_outputs_that_differ_in_the_last_block_by_chance_are_still_said_to_differ_from_block_to_block() -> None:
    found = [agreeing(number, model.Agreement.UNSTEADY if number % 3 else DIFFERS, RIGHT) for number in range(10)]
    decided = judge(ERROR, found, SAID)
    assert decided.verdict is model.Verdict.UNCHANGED
    assert decided.reason.startswith("the program's outputs differ from block to block; in the last: ")


def test_a_time_that_is_decided_first_waits_for_outputs_that_differ() -> None:
    """Its verdict comes once they turn out not to."""
    faster = [
        dataclasses.replace(agreeing(number, DIFFERS, model.Agreement.UNKNOWN), treatment=50 + number % 3)
        for number in range(TOSSES)
    ]
    plain = [dataclasses.replace(one, agreements={}) for one in faster]
    assert judge(TWO, plain[:-1]).verdict is model.Verdict.IMPROVED
    assert judge(TWO, faster[:-1], SAID).verdict is None
    assert judge(TWO, faster, SAID).verdict is model.Verdict.REGRESSED
    right = dataclasses.replace(faster[-1], agreements={model.ArmName.TREATMENT: RIGHT})
    assert judge(TWO, [*faster[:-1], right], SAID).verdict is model.Verdict.IMPROVED


def test_outputs_of_a_block_in_which_an_arm_failed_accuse_nobody() -> None:
    found = [
        dataclasses.replace(agreeing(number, WRONG, model.Agreement.UNKNOWN), valid=False, control=None) for number in range(9)
    ]
    assert judge(TWO, found, REASONS).verdict is model.Verdict.INCONCLUSIVE


def test_a_test_of_outputs_keeps_to_its_budget_of_time() -> None:
    slow = [dataclasses.replace(agreeing(number, RIGHT, RIGHT), seconds=2_000.0) for number in range(2)]
    assert judge(ERROR, slow, SAID).verdict is model.Verdict.INCONCLUSIVE


def test_outputs_that_differ_from_block_to_block_accuse_nobody() -> None:
    found = [agreeing(0, DIFFERS, RIGHT)] + [agreeing(number, model.Agreement.UNSTEADY, RIGHT) for number in range(1, 10)]
    assert judge(ERROR, found, SAID).verdict is model.Verdict.UNCHANGED


def test_two_programs_of_two_outputs_by_chance_are_seldom_told_apart() -> None:
    """At most alpha, and three standard errors of 20,000 replays: each process draws one of two outputs."""
    rng, replays, alarms = random.Random(7), 20_000, 0
    blocks_enough = 8
    for _ in range(replays):
        draws = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(blocks_enough)]
        firsts = draws[0]
        found = [
            agreeing(number, model.Agreement.UNSTEADY if pair != firsts else DIFFERS if pair[0] != pair[1] else RIGHT, RIGHT)
            for number, pair in enumerate(draws)
        ]
        alarms += judging._differ(found, RULE.alpha)
    assert alarms / replays <= RULE.alpha + 3 * math.sqrt(RULE.alpha / replays)


def test_one_arm_that_is_wrong_says_so() -> None:
    wrong = [experiments.Journalled(number, "T", True, 5.0, None, 1.0, {model.ArmName.TREATMENT: WRONG}) for number in range(2)]
    decided = judge(ONE, wrong, SAID)
    assert (decided.verdict, decided.reason) == (model.Verdict.MEASURED, SAID[model.ArmName.TREATMENT])


def test_one_that_was_wrong_once_says_so_too() -> None:
    found = [
        experiments.Journalled(number, "T", True, 5.0, None, 1.0, {model.ArmName.TREATMENT: said})
        for number, said in enumerate((WRONG, RIGHT))
    ]
    assert judge(ONE, found).reason == "wrong output in 1 of 2 blocks; their trials say what"


# ---------------------------------------------------------------- the number of a process


@pytest.mark.parametrize(
    ("metric", "series", "number"),
    [
        ("delay", model.Series("NET", "latency", "us", (8.0, 4.0)), 4.0),
        ("accuracy", model.Series("NET", "accuracy", "", (0.5, 0.25, 1.0)), 2.0),
        ("accuracy", model.Series("top1 accuracy", "value", "", (0.0,)), 1e6),
        ("power", model.Series("NET", "power", "W", (3.0, 1.0, 2.0)), 2.0),
        ("error", model.Series("ERROR softmax", "max_absolute", "", (0.0,)), 0.0),
        ("generic", model.Series("BUILD", "size", "B", (7.0,)), 7.0),
    ],
)
def test_larger_is_worse_in_each_number(metric: str, series: model.Series, number: float) -> None:
    latency = model.Series("NET", "latency", "us", (999.0,)) if metric not in ("delay", "generic") else series
    trial = model.Trial(model.ArmName.TREATMENT, model.Outcome.OK, datetime(2026, 3, 2, tzinfo=UTC), series=(latency, series))
    assert judging.numbers(model.Block(0, (trial,)), metric) == {model.ArmName.TREATMENT: number}


@pytest.mark.parametrize(
    ("losses", "verdict", "said"),
    [
        ({model.ArmName.TREATMENT: 3}, model.Verdict.BROKEN, "3 times in a row while the treatment's program ran"),
        ({model.ArmName.CONTROL: 3}, model.Verdict.INCONCLUSIVE, "3 times in a row while the control's program ran"),
        (
            {model.ArmName.CONTROL: 1, model.ArmName.TREATMENT: 2},
            model.Verdict.INCONCLUSIVE,
            "3 times in a row while the treatment's or the control's program ran",
        ),
    ],
)
def test_only_a_treatment_that_loses_the_device_by_itself_is_broken_by_it(
    losses: dict[model.ArmName, int], verdict: model.Verdict, said: str
) -> None:
    for earlier in ([], blocks(1.1, 2)):
        found = judging.lost(TWO, earlier, losses, "pixel: is gone")
        assert (found.verdict, found.blocks) == (verdict, len(earlier))
        assert found.reason == f"the device was lost {said}; at last: pixel: is gone"
    assert judging.lost(ONE, [], losses, "").blocks == 0


def test_a_bisection_ends_its_experiments_itself() -> None:
    laid = blocks(1.1, 30)
    found = judging.estimate(TWO, laid[:-1], laid[-1], NO_REASONS)
    assert found.verdict is None
    assert found.low <= 0.1 <= found.high


def test_a_bisection_is_told_what_does_not_work() -> None:
    broken = [block(number, None, 1.0) for number in range(8)]
    found = judging.estimate(TWO, broken[:-1], broken[-1], REASONS)
    assert (found.verdict, found.reason) == (model.Verdict.BROKEN, "treatment: exit code 1: no such operator")


def test_a_bisection_is_told_which_arm_does_not_work() -> None:
    for treatment, control, verdict in ((1.0, None, model.Verdict.INCONCLUSIVE), (None, None, model.Verdict.INCONCLUSIVE)):
        failing = [block(number, treatment, control) for number in range(8)]
        assert judging.estimate(TWO, failing[:-1], failing[-1], REASONS).verdict is verdict


def test_what_fails_goes_on_failing_until_it_has_the_e_value_that_is_wanted() -> None:
    among_many = dataclasses.replace(TWO, rule=dataclasses.replace(RULE, e_value=4000.0))
    failing = [block(number, None, 1.0) for number in range(9)]
    stop = next(count for count in range(1, 10) if judge(among_many, failing[:count], REASONS).verdict is model.Verdict.BROKEN)
    assert stop > next(count for count in range(1, 10) if judge(TWO, failing[:count], REASONS).verdict is model.Verdict.BROKEN)
    assert judging.evidence(among_many, failing[:stop], slower=False) >= math.log(4000.0)
    assert judging.evidence(TWO, failing[:stop], slower=False) == pytest.approx(math.log(4 / RULE.alpha))


def test_outputs_that_are_wrong_are_evidence_enough_though_it_seems_slower_too() -> None:
    wrong = [agreeing(number, WRONG, RIGHT) for number in range(WRONG_OPENING)]
    assert judging.evidence(TWO, wrong, slower=True) == judging.evidence(TWO, wrong, slower=False)
    assert judging.evidence(TWO, blocks(1.1, 30), slower=True) > math.log(100)


# ---------------------------------------------------------------- the slow iterations


def trial(arm: model.ArmName, values: tuple[float, ...], outcome: model.Outcome = model.Outcome.OK) -> model.Trial:
    series = (model.Series("NET", "latency", "us", values),)
    return model.Trial(arm, outcome, datetime(2026, 3, 2, tzinfo=UTC), series=series)


def test_slow_iterations_have_a_number_where_they_are_judged() -> None:
    eight = tuple(float(time) for time in range(1, 9))
    both = model.Block(0, (trial(model.ArmName.TREATMENT, eight), trial(model.ArmName.CONTROL, eight[:7])))
    assert judging.tails(both, TWO) == {model.ArmName.TREATMENT: 7.5}
    assert judging.tails(both, ONE) == {}
    assert judging.tails(both, dataclasses.replace(TWO, summary=model.Summary(high=1.0))) == {}
    power = model.Benchmark({"name": "net"}, {"identifier": "net", "metric": "power"})
    assert judging.tails(both, dataclasses.replace(TWO, benchmark=power)) == {}
    failed = model.Block(0, (trial(model.ArmName.TREATMENT, eight, model.Outcome.FAILED),))
    assert judging.tails(failed, TWO) == {}


def test_the_number_is_that_of_the_design() -> None:
    block = model.Block(0, (trial(model.ArmName.TREATMENT, (9.0, 1.0, 2.0, 3.0)),))
    assert judging.numbers(block, "delay", model.Summary(high=1.0)) == {model.ArmName.TREATMENT: pytest.approx(3.75)}


def tailed(count: int, tail: float | None) -> list[experiments.Journalled]:
    """As quick as ever, but for tails of that ratio."""
    return [
        dataclasses.replace(one, treatment_tail=tail and 130.0 * tail * (1 + number % 3 / 500), control_tail=130.0)
        for number, one in enumerate(blocks(1.0, count))
    ]


def test_a_tail_that_is_slower_makes_a_regression() -> None:
    found = judge(TWO, tailed(30, 1.5))
    assert (found.verdict, found.in_tail) == (model.Verdict.REGRESSED, True)
    assert found.low <= 0.5 <= found.high or found.high != found.high
    assert judge(TWO, tailed(8, 1.5)).verdict is None  # it goes on while the tail looks so
    assert judge(TWO, tailed(8, 1.0)).verdict is model.Verdict.UNCHANGED


def test_without_tails_in_all_blocks_there_is_no_guard() -> None:
    partly = [*tailed(10, 1.5)[:9], tailed(10, None)[9]]
    assert judge(TWO, partly).verdict is model.Verdict.UNCHANGED
    alone = dataclasses.replace(TWO, summary=model.Summary(guard=False))
    assert judge(alone, tailed(30, 1.5)).verdict is model.Verdict.UNCHANGED


def test_a_budget_that_is_spent_by_blocks_that_are_not_valid_ends_the_waiting() -> None:
    failed = [block(number, None, None) for number in (0, 2)]
    so_far = [dataclasses.replace(one, number=one.number + 3) for one in tailed(8, 1.5)]
    design = dataclasses.replace(TWO, rule=dataclasses.replace(RULE, max_blocks=10))
    found = judge(design, [*failed, *so_far])
    assert (found.verdict, found.in_tail) == (model.Verdict.UNCHANGED, False)
    assert "slowest iterations looked slower" in found.reason


def test_what_measures_a_tail_says_so() -> None:
    design = dataclasses.replace(TWO, summary=TWO.summary.tail)
    found = judge(design, blocks(1.4, 30))
    assert (found.verdict, found.reason) == (model.Verdict.REGRESSED, "in the tail: the slowest quarter of the iterations")
    assert found.in_tail
    assert not judge(design, blocks(1.4, 2)).in_tail  # there is no verdict yet
    *earlier, latest = blocks(1.4, 30)
    assert not judging.estimate(design, earlier, latest, {}).in_tail
