"""What is computed for all blocks at once, beside its definition; and decisions of tapes, beside what they were."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aibenchd import model
from aibenchd.decide import chance, likelihood, sequential, summary, verdict
from aibenchd.plan import order

DATA = Path(__file__).parents[1] / "data"
TAPES = ("idle-1t", "idle-2t", "bursty-1t", "ramp-1t")
BLOCKS = (1, 2, 5, 10, 23, 60)
MARGIN = math.log1p(0.02)
CLOSE = {"rel": 1e-9, "abs": 1e-9}


def tape(name: str) -> np.ndarray:
    lines = (DATA / "noise" / f"{name}.jsonl").read_text().splitlines()
    return np.array([summary.of_process(json.loads(line)["us"]) for line in lines])


def ran(name: str, blocks: int, kind: str = "coin", effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The treatment's times, the control's, and whether the treatment ran first: the first processes of a tape."""
    ahead = np.array([order.arms(kind, 1, block)[0] is model.ArmName.TREATMENT for block in range(blocks)])
    one, two = tape(name)[0 : 2 * blocks : 2], tape(name)[1 : 2 * blocks : 2]
    return np.where(ahead, one, two) * (1 + effect), np.where(ahead, two, one), ahead


@pytest.fixture(params=list(itertools.product(TAPES, BLOCKS)), ids=str)
def blocks(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios, and signs."""
    treatment, control, ahead = ran(*request.param)
    return np.log(treatment / control), np.where(ahead, 1.0, -1.0)


def half_difference(ratios: np.ndarray, signs: np.ndarray) -> float:
    if len(set(signs.tolist())) < 2:
        return 0.0
    return float(np.median(ratios[signs > 0]) - np.median(ratios[signs < 0])) / 2


def spread(values: np.ndarray) -> float:
    return sequential.GAUSSIAN * float(np.median(np.abs(values - np.median(values))))


def test_the_slot_and_the_noise_of_a_block_are_told_from_those_before_it(blocks: tuple[np.ndarray, np.ndarray]) -> None:
    ratios, signs = blocks
    guess, slots, scales = MARGIN / 2, [], []
    for block in range(len(ratios)):
        before, sides = ratios[:block], signs[:block]
        if block < sequential.LEAST_BLOCKS:
            slots.append(0.0)
            scales.append(guess)
            continue
        half, rarer = half_difference(before, sides), min((sides > 0).sum(), (sides < 0).sum())
        noise = max(spread(before - sides * half), sequential.FLOOR * guess)
        doubt = (noise / max(abs(half), noise)) ** 2 if rarer > 1 else 1.0
        slots.append(half * rarer / (rarer + sequential.SHRINKAGE * doubt))
        scales.append(max(spread(before - sides * slots[-1]), sequential.FLOOR * guess))
    found = sequential.foreseen(ratios, signs, guess)
    assert found[0] == pytest.approx(np.array(slots), **CLOSE)
    assert found[1] == pytest.approx(np.array(scales), **CLOSE)


@pytest.mark.parametrize("digits", [1, 2, 6])
def test_clumps_are_looked_for_among_the_blocks_so_far(blocks: tuple[np.ndarray, np.ndarray], digits: int) -> None:
    """Rounded, so that some distances are the threshold itself."""
    units = np.round(blocks[0] / MARGIN, digits)
    expected = []
    for count in range(1, len(units) + 1):
        low, high = np.quantile(units[:count], (verdict.TAIL, 1 - verdict.TAIL))
        near = np.abs(units[:count, None] - units[None, :count]) <= verdict.CLOSE * (high - low)
        share = (near.sum() - count) / max(count * (count - 1), 1)
        expected.append(bool(count >= verdict.FEW and share > verdict.CLUMPED and high > low))
    assert verdict.clumped(units).tolist() == expected


def test_the_chance_of_coins_counts_all_their_tosses() -> None:
    treatment, control, _ = ran("idle-2t", 10)
    units, scale = np.log(treatment / control), np.full(10, 0.03)
    scores = np.rint(chance.GRAIN * np.tanh(units / scale))
    largest, least = chance.of_coins(units, scale)
    for count in range(1, 11):
        sums = np.array(list(itertools.product((-1, 1), repeat=count))) @ np.abs(scores[:count])
        assert largest[count - 1] == pytest.approx((sums >= scores[:count].sum()).mean())
        assert least[count - 1] == pytest.approx((sums <= scores[:count].sum()).mean())


def marginal(units: np.ndarray, signs: np.ndarray, effects: np.ndarray) -> tuple[float, float]:
    """The log marginal likelihood of blocks, each for its own effect; and the mean of the scale's logarithm, weighed by it."""
    logs, scales = [], []
    weights = likelihood.SCALE_WEIGHTS / likelihood.SCALE_WEIGHTS.sum()
    slots_before = [half_difference(units[:block], signs[:block]) for block in range(len(units))]
    prior = itertools.product(
        zip(likelihood.SCALES, weights, strict=True),
        zip(likelihood.SLOTS, likelihood.SLOT_WEIGHTS, strict=True),
        zip(likelihood.TAILS, likelihood.TAIL_WEIGHTS, strict=True),
    )
    for (scale, of_scale), (slot, of_slot), (tail, of_tail) in prior:
        slots = np.array(slots_before) if math.isnan(slot) else slot
        away = (units - effects - signs * slots) / scale
        constant = math.lgamma((tail + 1) / 2) - math.lgamma(tail / 2) - math.log(tail * math.pi) / 2 - math.log(scale)
        density = constant - (tail + 1) / 2 * np.log1p(away**2 / tail)
        logs.append(math.log(of_scale * of_slot * of_tail) + density.sum())
        scales.append(math.log(scale))
    most = max(logs)
    shares = np.exp(np.array(logs) - most)
    return most + math.log(shares.sum()), float(shares @ scales / shares.sum())


def test_likelihoods_are_sums_over_the_prior(blocks: tuple[np.ndarray, np.ndarray]) -> None:
    ratios, signs = blocks
    units = ratios / MARGIN
    effects = np.array([-1.5, 0.0, 0.5, 3.0])
    spread_out = np.broadcast_to(effects[:, None], (len(effects), len(units)))
    of_each = [marginal(units, signs, effect) for effect in spread_out]
    assert likelihood._last_marginals(units, signs, effects) == pytest.approx(np.array([log for log, _ in of_each]), **CLOSE)
    after_each, _ = likelihood._marginals(units, signs, spread_out)
    assert after_each[:, -1] == pytest.approx(np.array([log for log, _ in of_each]), **CLOSE)
    alone, scale = likelihood._marginals(units, signs, spread_out[1:2])
    assert (alone[0, -1], math.log(scale[-1])) == pytest.approx(of_each[1], **CLOSE)


@pytest.mark.parametrize("cells", [1, 5_000])
def test_how_many_numbers_are_worked_on_together_does_not_matter(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    ratios, signs = rng.standard_normal((3, 2, 31)) * MARGIN, rng.choice([-1.0, 1.0], (3, 2, 31))
    together = likelihood.weigh(ratios, signs, MARGIN)
    monkeypatch.setattr(likelihood, "CELLS", cells)
    apart = likelihood.weigh(ratios, signs, MARGIN)
    for name in ("slower", "faster", "below", "above", "scale"):
        assert getattr(apart, name) == pytest.approx(getattr(together, name), **CLOSE)
    one = likelihood.weigh(ratios[1, 1], signs[1, 1], MARGIN)
    assert one.slower == pytest.approx(together.slower[1, 1], **CLOSE)


DECISIONS = [json.loads(line) for line in (DATA / "decisions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "was", DECISIONS, ids=lambda was: "-".join(str(was[key]) for key in ("tape", "kind", "effect", "blocks"))
)
def test_a_tape_is_decided_as_ever(was: dict[str, Any]) -> None:
    """``decisions.jsonl`` keeps what the rule said when its tables were made: whoever makes it quicker changes no figure."""
    treatment, control, ahead = ran(was["tape"], was["blocks"], was["kind"], was["effect"])
    rule = model.Rule(min_effect=0.02 if was["blocks"] < 60 else 0.001)
    orders = ["TC" if first else "CT" for first in ahead]
    found = verdict.decide(treatment, control, rule, orders=orders, kind=was["kind"])
    assert (found.verdict, found.blocks) == (was["verdict"], was["decided"])
    figures = [math.nan if was[name] is None else was[name] for name in ("estimate", "low", "high")]
    assert [found.estimate, found.low, found.high] == pytest.approx(figures, nan_ok=True, **CLOSE)
