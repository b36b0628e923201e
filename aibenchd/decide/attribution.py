"""Which operators a change of the network comes from, and how much of it each is.

The change of an operator is the mean over blocks of treatment less control, and so is the network's, over the same blocks: means
add up, which medians do not. An operator that did not run in a process took nothing there, so that one that came, went, was
renamed or was fused with others is counted like any other; what is in no operator is the *rest*: the framework's own time.
Blocks whose difference of the network lies further from the median than :data:`FAR` times the width of the :data:`MIDDLE` of
all are left out for all operators alike: a burst lies on one arm as often as on the other, so that this favours neither. At
most three in ten can be.

Intervals are Student's ("The probable error of a mean", 1908), simultaneous by Bonferroni's inequality: with a chance of at most
``error`` any of all those that are given is wrong, so that one may pick the operators after looking. The interval of a share is
Fieller's ("Some problems in interval estimation", J. R. Stat. Soc. B 16, 1954): a ratio of two means that vary together. It has
no ends while the network's own interval holds 0. The coin that orders the arms makes differences symmetric about the change, and
what the first slot adds a part of their noise; under heavy tails Student's interval is wider than it need be, and not narrower.
A bootstrap of six blocks is too narrow, and tosses of six coins cannot tell 50 operators apart at all.

Measured, wrong in any of 53 intervals at 95 %, 1,000 runs each of 6 and of 20 blocks, on the four recorded tapes and on noise
that is normal, heavy-tailed, in bursts, of two modes, drifting or with a slower slot: in 1.2 to 5.2 % of runs. To leave out
blocks makes the network's interval 4.6 times narrower in 15 blocks with bursts, 5.7 and 1.6 times in 40 of the tapes ``idle-2t``
and ``bursty-1t``, and less elsewhere. To estimate the slot as well makes that of six blocks a fifth wider, where there is none.

Any quantity that adds up over operators may be asked about: time, instructions, bytes allocated; where it does not, as with a
peak, what is missing is in the rest. To see which of them explains a change, each is asked about by itself.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aibenchd.decide.sequential import Bools, Floats

FAR = 3.0  # widths of the middle
MIDDLE = 0.7  # of the blocks
HALVINGS = 60  # of the search for a quantile: more than a float has digits


class Status(enum.StrEnum):
    """What became of an operator; ``UNSHOWN`` where it ran in both arms and its interval holds 0."""

    CHANGED = "changed"
    APPEARED = "appeared"
    VANISHED = "vanished"
    UNSHOWN = "no change shown"


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm took, in the order of the blocks; all in one unit.

    Attributes:
        network: shape (blocks,).
        operators: each of shape (blocks,), NaN in a block in which it did not run; one that never did may be left out. All
            calls that bear one name are one operator.
    """

    network: Floats
    operators: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What something adds to the network's change.

    Attributes:
        change: treatment less control, in the unit of the arms.
        low, high: its interval; NaN with a single block.
        share: of the network's change; below 0 where it makes up for others, NaN where the network did not change at all.
        share_low, share_high: its interval; NaN where it has no ends.
    """

    name: str
    status: Status
    change: float
    low: float
    high: float
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """The network's change and its parts: ``operators`` and ``rest`` sum to ``network``, but for rounding.

    Attributes:
        operators: largest change first. Those that appeared or vanished count as no more than ``replaced`` there, so that a new
            name for an old operator does not hide what made the difference.
        replaced: all of them that appeared or vanished, together. It is in ``operators`` already.
        rest: of the network, what is in no operator.
        left_out: places of the blocks that were too far off.
    """

    network: Contribution
    operators: tuple[Contribution, ...]
    replaced: Contribution
    rest: Contribution
    left_out: tuple[int, ...]


def explain(treatment: Arm, control: Arm, *, error: float = 0.05) -> Attribution:
    """Where the change of the network comes from.

    Args:
        treatment, control: the same blocks of either arm, valid ones alone.
        error: chance that any of the intervals of changes is wrong; and that any of those of shares is.

    Raises:
        ValueError: no block, lengths that differ, a network without a number, an infinite one, or no chance.
    """
    if not 0 < error < 1:
        raise ValueError(f"expected an error between 0 and 1, not {error}")
    names = sorted({*treatment.operators, *control.operators})
    ours, theirs = _table(treatment, names, "treatment"), _table(control, names, "control")
    if ours.shape != theirs.shape:
        raise ValueError(f"the treatment has {ours.shape[1]} blocks, the control {theirs.shape[1]}")
    ran = np.stack([~np.isnan(ours).all(axis=1), ~np.isnan(theirs).all(axis=1)], axis=1)
    differences = np.nan_to_num(ours) - np.nan_to_num(theirs)
    network, operators = differences[-1], differences[:-1]
    replaced = operators[ran[:-1].sum(axis=1) == 1].sum(axis=0)
    rows = np.concatenate([operators, [replaced, network - operators.sum(axis=0), network]])
    kept = _undisturbed(network)
    found = _contributions([*names, "appeared and vanished", "in no operator", "network"], rows[:, kept], error)
    parts = [_named(one, *sides) for one, sides in zip(found, ran[:-1].tolist(), strict=False) if any(sides)]
    return Attribution(
        network=found[-1],
        operators=_ranked(parts, found[-3].change),
        replaced=found[-3],
        rest=found[-2],
        left_out=tuple(np.flatnonzero(~kept).tolist()),
    )


def student(freedom: int, outside: float) -> float:
    """How far from 0 Student's t lies with a probability of ``outside`` only.

    The law of whole degrees of freedom is a finite sum in powers of the cosine of atan(t / sqrt(freedom)): Abramowitz and
    Stegun 1964, "Handbook of mathematical functions", 26.7.3 and 26.7.4.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 1 - outside else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The probability that Student's |t| is at most sqrt(freedom) * tan(angle)."""
    odd, cosine = freedom % 2, math.cos(angle)
    total, term = 0.0, cosine if odd else 1.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def _table(arm: Arm, names: list[str], side: str) -> Floats:
    """One row per operator, and the network's last; shape (names + 1, blocks)."""
    network = np.asarray(arm.network, dtype=float)
    if network.ndim != 1 or not network.size:
        raise ValueError(f"the {side}'s network: expected a number of each block, of one block at least")
    never = np.full(network.shape, math.nan)
    rows = {name: np.asarray(arm.operators.get(name, never), dtype=float) for name in names}
    for name, row in rows.items():
        if row.shape != network.shape:
            raise ValueError(f"the {side}'s {name!r}: expected {network.size} blocks, as the network has, not shape {row.shape}")
    table = np.stack([*rows.values(), network])
    bad = np.argwhere(np.isinf(table) | (np.isnan(table) & (np.arange(len(table)) == len(names))[:, None]))
    if bad.size:
        row, block = bad[0]
        raise ValueError(
            f"block {block}: the {side}'s {[*names, 'network'][row]!r} is {table[row, block]}: expected a finite number"
        )
    return table


def _undisturbed(network: Floats) -> Bools:
    """Which blocks are not too far off; all where most are equal, as instructions are."""
    low, middle, high = np.quantile(network, ((1 - MIDDLE) / 2, 0.5, (1 + MIDDLE) / 2))
    found: Bools = (np.abs(network - middle) <= FAR * (high - low)) | (high == low)
    return found


def _contributions(names: list[str], rows: Floats, error: float) -> list[Contribution]:
    """Of differences of shape (names, blocks), the network's last."""
    blocks = rows.shape[1]
    changes = rows.mean(axis=1)
    spread = np.full((len(rows), len(rows[0])), math.nan) if blocks < 2 else rows - changes[:, None]
    together = spread @ spread[-1] / (blocks * max(blocks - 1, 1))  # covariances of means with the network's
    alone = (spread**2).sum(axis=1) / (blocks * max(blocks - 1, 1))
    quantile = student(max(blocks - 1, 1), error / len(rows))
    reach = quantile * np.sqrt(alone)
    return [
        Contribution(
            name,
            Status.CHANGED if abs(change) > far else Status.UNSHOWN,
            float(change),
            float(change - far),
            float(change + far),
            float(change / changes[-1]) if changes[-1] else math.nan,
            *_share(float(change), float(changes[-1]), quantile**2 * np.array([variance, covariance, alone[-1]])),
        )
        for name, change, far, variance, covariance in zip(names, changes, reach, alone, together, strict=True)
    ]


def _share(part: float, whole: float, spread: Floats) -> tuple[float, float]:
    """The ratios ``r`` for which ``part - r * whole`` is within its noise: between the roots of a square in ``r``.

    Args:
        spread: variance of the part, covariance, variance of the whole; times the square of the quantile.
    """
    square, half, constant = whole**2 - spread[2], part * whole - spread[1], part**2 - spread[0]
    if not square > 0:
        return math.nan, math.nan
    root = math.sqrt(max(half**2 - square * constant, 0.0))
    return float((half - root) / square), float((half + root) / square)


def _named(found: Contribution, ours: bool, theirs: bool) -> Contribution:
    """With what became of it, given whether it ran in the treatment and in the control."""
    if ours and theirs:
        return found
    return dataclasses.replace(found, status=Status.APPEARED if ours else Status.VANISHED)


def _ranked(parts: list[Contribution], replaced: float) -> tuple[Contribution, ...]:
    def weight(one: Contribution) -> float:
        moved = one.status in (Status.APPEARED, Status.VANISHED)
        return min(abs(one.change), abs(replaced)) if moved else abs(one.change)

    return tuple(sorted(parts, key=lambda one: (-weight(one), one.name)))
