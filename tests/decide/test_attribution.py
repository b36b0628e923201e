"""Where a change comes from: by value, what always holds, and how often intervals are wrong."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd.decide import attribution, summary
from aibenchd.decide.attribution import Arm, Attribution, Contribution, Status

NOISE = Path(__file__).parents[1] / "data" / "noise"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
KINDS = ("normal", "heavy tails", "bursts", "two modes", "drift", "slower second slot")
RUNS = 300
OPERATORS = 50
BASE = 1000 * np.geomspace(1, 100, OPERATORS) / np.geomspace(1, 100, OPERATORS).sum()  # µs


def arm(network: list[float], **operators: list[float]) -> Arm:
    return Arm(np.array(network), {name: np.array(times) for name, times in operators.items()})


def names(found: Attribution) -> list[str]:
    return [one.name for one in found.operators]


def processes(kind: str, blocks: int, rng: np.random.Generator) -> np.ndarray:
    """How much slower than usual each process of an undisturbed schedule is, shape (2 * blocks,)."""
    if kind in TAPES:
        lines = (NOISE / f"{kind}.jsonl").read_text().splitlines()
        tape = np.array([summary.of_process(json.loads(line)["us"]) for line in lines])
        found: np.ndarray = tape[(rng.integers(len(tape)) + np.arange(2 * blocks)) % len(tape)] / np.median(tape)
        return found
    noise = rng.standard_normal(2 * blocks) * 0.01
    if kind == "heavy tails":
        noise = rng.standard_t(1.5, 2 * blocks) * 0.01
    elif kind == "bursts":
        noise += (rng.random(2 * blocks) < 0.1) * rng.exponential(0.2, 2 * blocks)
    elif kind == "two modes":
        noise = 0.04 * rng.integers(0, 2, 2 * blocks) + noise / 20
    elif kind == "drift":
        noise = np.cumsum(noise)
    elif kind == "slower second slot":
        noise[1::2] += 0.02
    slowed: np.ndarray = np.exp(noise)
    return slowed


def experiment(kind: str, blocks: int, added: np.ndarray, rng: np.random.Generator) -> tuple[Arm, Arm]:
    """Arms of a network of 1,000 µs in operators of unequal size, of which ``added`` is what the treatment takes more.

    Each process slows all operators alike, and each operator has noise of its own, of 1 %, with heavy tails; 20 µs are in none.
    """
    slots = processes(kind, blocks, rng).reshape(blocks, 2)
    slots = np.where((rng.random(blocks) < 0.5)[:, None], slots, slots[:, ::-1])
    arms = []
    for slot, more in zip(slots.T, (added, np.zeros(OPERATORS)), strict=True):
        times = (BASE * slot[:, None] + more) * np.exp(rng.standard_t(3, (blocks, OPERATORS)) * 0.01)
        operators = {f"ID_{index}": times[:, index] for index in range(OPERATORS)}
        arms.append(Arm(times.sum(axis=1) + 20 * slot, operators))
    return arms[0], arms[1]


def test_parts_by_value() -> None:
    """Student's t of 2 degrees of freedom at 0.05 / 5 is 9.92484; the Conv's differences have a deviation of 1."""
    found = attribution.explain(
        arm([115.0, 116.0, 117.0], Conv=[60.0, 61.0, 62.0], Relu=[40.0, 40.0, 40.0]),
        arm([100.0, 100.0, 100.0], Conv=[50.0, 50.0, 50.0], Relu=[40.0, 40.0, 40.0]),
    )
    assert names(found) == ["Conv", "Relu"]
    conv, relu = found.operators
    assert (conv.change, conv.share) == pytest.approx((11.0, 11 / 16))
    assert (conv.low, conv.high) == pytest.approx((11 - 9.92484 / math.sqrt(3), 11 + 9.92484 / math.sqrt(3)), rel=1e-5)
    assert (relu.change, relu.low, relu.high, relu.share, relu.status) == (0.0, 0.0, 0.0, 0.0, Status.UNSHOWN)
    assert conv.status is Status.CHANGED
    assert (found.network.change, found.network.share, found.network.share_low) == pytest.approx((16.0, 1.0, 1.0))
    assert (found.rest.change, found.rest.low, found.rest.high) == (5.0, 5.0, 5.0)
    assert found.left_out == ()


def test_shares_are_fiellers() -> None:
    """The ratios at which Student's test of ``part - ratio * whole`` is just at its threshold."""
    rng = np.random.default_rng(41)
    part, whole = 10 + rng.standard_normal(9), 30 + 2 * rng.standard_normal(9)
    zero = np.zeros(9)
    found = attribution.explain(Arm(whole, {"Conv": part}), Arm(zero, {"Conv": zero}))
    for ratio in (found.operators[0].share_low, found.operators[0].share_high):
        left = part - ratio * whole
        assert abs(left.mean()) / (left.std(ddof=1) / 3) == pytest.approx(attribution.student(8, 0.05 / 4))


@pytest.mark.parametrize(
    ("freedom", "outside", "quantile"),
    [(1, 0.05, 12.7062), (2, 0.01, 9.92484), (5, 0.001, 6.86883), (11, 0.05, 2.20099), (30, 0.05, 2.04227), (60, 0.001, 3.46020)],
)
def test_students_law_is_the_printed_one(freedom: int, outside: float, quantile: float) -> None:
    assert attribution.student(freedom, outside) == pytest.approx(quantile, rel=1e-5)


@pytest.mark.parametrize("kind", ["normal", "bursts", *TAPES])
def test_one_operator_that_is_three_times_slower_is_first(kind: str) -> None:
    """One of 50 that takes 1 % of the network, in six blocks; 100 runs."""
    shown = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        added = np.zeros(OPERATORS)
        added[25] = 2 * BASE[25]
        found = attribution.explain(*experiment(kind, 6, added, rng))
        shown += found.operators[0].name == "ID_25" and found.operators[0].status is Status.CHANGED
    assert shown >= 95


def test_a_uniform_slowdown_is_shared_out() -> None:
    found = attribution.explain(*experiment("normal", 40, 0.3 * BASE, np.random.default_rng(42)))
    shares = {one.name: one.share for one in found.operators}
    for index, part in enumerate(BASE):
        assert shares[f"ID_{index}"] == pytest.approx(part / 1000, rel=0.1, abs=0.002)
    assert found.operators[0].name == "ID_49"
    assert all(one.status is Status.CHANGED for one in found.operators)
    assert abs(found.rest.share) < 0.02


def test_a_new_name_does_not_hide_what_changed() -> None:
    """The old one's time is the new one's; another operator made the difference."""
    rng = np.random.default_rng(43)
    old, new, slow, fast = (level + 0.1 * rng.standard_normal(12) for level in (100.0, 100.5, 20.0, 10.0))
    found = attribution.explain(Arm(new + slow, {"Conv_new": new, "Relu": slow}), Arm(old + fast, {"Conv": old, "Relu": fast}))
    assert names(found)[0] == "Relu"
    status = {one.name: one.status for one in found.operators}
    assert status == {"Relu": Status.CHANGED, "Conv": Status.VANISHED, "Conv_new": Status.APPEARED}
    assert found.replaced.change == pytest.approx(0.5, abs=0.2)
    assert found.replaced.high < 1.0


def test_fused_operators_are_first_where_the_fusion_is_slow() -> None:
    found = attribution.explain(
        arm([170.0, 171.0, 170.0], ConvRelu=[160.0, 161.0, 160.0], Pool=[10.0, 10.0, 10.0]),
        arm([120.0, 120.0, 121.0], Conv=[80.0, 80.0, 81.0], Relu=[31.0, 31.0, 31.0], Pool=[9.0, 9.0, 9.0]),
    )
    assert names(found) == ["Conv", "ConvRelu", "Relu", "Pool"]
    assert [one.status for one in found.operators[:3]] == [Status.VANISHED, Status.APPEARED, Status.VANISHED]
    assert found.replaced.share == pytest.approx(49 / 50)


def test_an_operator_that_ran_in_some_blocks_took_nothing_in_the_others() -> None:
    nan = math.nan
    found = attribution.explain(
        arm([20.0, 10.0, 20.0, 10.0], Copy=[10.0, nan, 10.0, nan], Never=[nan] * 4), arm([10.0] * 4, Copy=[nan] * 4)
    )
    assert [(one.name, one.status, one.change, one.share) for one in found.operators] == [("Copy", Status.APPEARED, 5.0, 1.0)]
    assert math.isnan(found.operators[0].share_low)  # the network's own change is not sure yet
    assert found.rest.change == 0.0


def test_what_is_in_no_operator_is_the_rest() -> None:
    found = attribution.explain(arm([15.0, 15.5], Conv=[5.0, 5.0]), arm([10.0, 10.0], Conv=[5.0, 5.0]))
    assert found.rest.change == found.network.change == 5.25
    assert found.rest.share == 1.0
    without = attribution.explain(arm([15.0, 15.5]), arm([10.0, 10.0]))
    assert (without.operators, without.rest.change) == ((), 5.25)


def test_a_disturbed_block_is_left_out_for_all() -> None:
    calm = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.1]
    found = attribution.explain(arm([*calm, 100.0], Conv=[*calm, 55.0]), arm([8.0] * 8, Conv=[8.0] * 8))
    assert found.left_out == (7,)
    assert found.operators[0].change == found.network.change == pytest.approx(np.mean(calm) - 8)


def test_counts_that_never_vary_are_exact() -> None:
    found = attribution.explain(arm([1_200.0] * 6, Conv=[700.0] * 6), arm([1_000.0] * 6, Conv=[600.0] * 6))
    conv = found.operators[0]
    assert (conv.low, conv.high, conv.share_low, conv.share_high) == (100.0, 100.0, 0.5, 0.5)
    assert conv.status is Status.CHANGED


def test_one_block_has_changes_without_intervals() -> None:
    conv = attribution.explain(arm([12.0], Conv=[6.0]), arm([10.0], Conv=[5.0])).operators[0]
    assert (conv.change, conv.share, conv.status) == (1.0, 0.5, Status.UNSHOWN)
    assert all(math.isnan(value) for value in (conv.low, conv.high, conv.share_low, conv.share_high))


@pytest.mark.parametrize("blocks", [6, 20])
@pytest.mark.parametrize("kind", [*KINDS, *TAPES])
def test_intervals_hold_all_changes(kind: str, blocks: int) -> None:
    """All of 53 at once, in all but 5 % of runs, and three standard errors."""
    rng = np.random.default_rng(44)
    added = np.zeros(OPERATORS)
    added[[10, 40]] = 15.0, -10.0
    wrong = 0
    for _ in range(RUNS):
        found = attribution.explain(*experiment(kind, blocks, added, rng))
        true = {f"ID_{index}": more for index, more in enumerate(added)}
        missed = [not one.low <= true[one.name] <= one.high for one in found.operators]
        wrong += any(missed) or not found.network.low <= added.sum() <= found.network.high
    assert wrong / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "bursty-1t"])
def test_intervals_of_shares_hold_all_shares(kind: str) -> None:
    rng = np.random.default_rng(45)
    added = np.zeros(OPERATORS)
    added[[10, 40]] = 60.0, 20.0
    wrong = 0
    for _ in range(RUNS):
        found = attribution.explain(*experiment(kind, 12, added, rng))
        true = {f"ID_{index}": more / 80 for index, more in enumerate(added)}
        wrong += any(one.share_low > true[one.name] or one.share_high < true[one.name] for one in found.operators)
    assert wrong / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


times = st.one_of(st.just(math.nan), st.just(0.0), st.floats(1e-9, 1e4))  # nothing so small that a scaled one is rounded


@st.composite
def experiments(draw: st.DrawFn) -> tuple[Arm, Arm]:
    blocks = draw(st.integers(1, 12))

    def drawn() -> Arm:
        operators = draw(st.dictionaries(st.sampled_from("abcde"), st.lists(times, min_size=blocks, max_size=blocks)))
        network = draw(st.lists(st.floats(1.0, 1e5), min_size=blocks, max_size=blocks))
        return Arm(np.array(network), {name: np.array(row) for name, row in operators.items()})

    return drawn(), drawn()


def scaled(one: Arm, factor: float) -> Arm:
    return Arm(one.network * factor, {name: row * factor for name, row in one.operators.items()})


def numbers(one: Contribution) -> list[float]:
    return [one.change, one.low, one.high, one.share, one.share_low, one.share_high]


@given(experiments())
def test_parts_add_up(arms: tuple[Arm, Arm]) -> None:
    found = attribution.explain(*arms)
    moved = [one.change for one in found.operators if one.status in (Status.APPEARED, Status.VANISHED)]
    assert sum(one.change for one in found.operators) + found.rest.change == pytest.approx(found.network.change, abs=1e-6)
    assert sum(moved) == pytest.approx(found.replaced.change, abs=1e-6)


@given(experiments(), st.sampled_from([2.0**-20, 2.0**10, 2.0**30]))
def test_the_unit_does_not_matter(arms: tuple[Arm, Arm], factor: float) -> None:
    """Powers of two, so that nothing is rounded."""
    before, after = attribution.explain(*arms), attribution.explain(*(scaled(one, factor) for one in arms))
    assert (names(after), after.left_out) == (names(before), before.left_out)
    for one, other in zip((*before.operators, before.rest), (*after.operators, after.rest), strict=True):
        assert other.status is one.status
        assert numbers(other)[:3] == pytest.approx([factor * value for value in numbers(one)[:3]], nan_ok=True)
        assert numbers(other)[3:] == pytest.approx(numbers(one)[3:], nan_ok=True)


@given(experiments())
def test_swapped_arms_mirror_all_parts(arms: tuple[Arm, Arm]) -> None:
    before, after = attribution.explain(*arms), attribution.explain(*arms[::-1])
    mirror = {Status.APPEARED: Status.VANISHED, Status.VANISHED: Status.APPEARED}
    of = {one.name: one for one in after.operators}
    for one in (*before.operators, dataclasses.replace(before.rest, name="rest")):
        other = after.rest if one.name == "rest" else of[one.name]
        assert other.status is mirror.get(one.status, one.status)
        assert [other.change, other.low, other.high] == pytest.approx([-one.change, -one.high, -one.low], nan_ok=True)
        assert [other.share, other.share_low] == pytest.approx([one.share, one.share_low], nan_ok=True)


@given(experiments(), st.randoms())
def test_the_order_of_blocks_does_not_matter(arms: tuple[Arm, Arm], random: object) -> None:
    order = np.arange(len(arms[0].network))
    random.shuffle(order)  # type: ignore[attr-defined]
    turned = [Arm(one.network[order], {name: row[order] for name, row in one.operators.items()}) for one in arms]
    before, after = attribution.explain(*arms), attribution.explain(*turned)
    of = {one.name: one for one in after.operators}
    for one in before.operators:
        assert numbers(of[one.name])[:3] == pytest.approx(numbers(one)[:3], abs=1e-6, nan_ok=True)


def test_what_makes_no_sense_is_refused() -> None:
    good = arm([1.0, 2.0], Conv=[1.0, 1.0])
    for bad, message in (
        (arm([]), "the treatment's network: expected a number of each block, of one block at least"),
        (arm([1.0, 2.0], Conv=[1.0]), r"the treatment's 'Conv': expected 2 blocks, as the network has, not shape \(1,\)"),
        (arm([1.0, math.nan]), "block 1: the treatment's 'network' is nan: expected a finite number"),
        (arm([1.0, 2.0], Conv=[math.inf, 1.0]), "block 0: the treatment's 'Conv' is inf: expected a finite number"),
        (arm([1.0, 2.0, 3.0]), "the treatment has 3 blocks, the control 2"),
    ):
        with pytest.raises(ValueError, match=message):
            attribution.explain(bad, good)
    for error in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="expected an error between 0 and 1"):
            attribution.explain(good, good, error=error)
