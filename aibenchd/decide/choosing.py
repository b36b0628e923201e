"""Which number of a process a benchmark is decided on, from its own history on its device: the steadiest, once that is plain.

**Steady state.** An iteration is compared with its own process's level, the median of the later half, and position by position
over many processes: Welch's averaging over replications ("The statistical analysis of simulation results", 1983), with medians.
Leading positions are left out up to the first that is like the rest: within :data:`OFF` of the level, or within its error.
Only a run from the start on counts, for what is slow at one place in each process, such as a collection of garbage, is part
of the program. Half of the iterations stay at the least (:func:`aibenchd.decide.summary.dropped`).

**Which part.** What a verdict costs grows with the square of the noise of a block's log ratio. Its size is taken by differences
between neighbouring blocks of one order within an experiment, so that neither an effect nor a slot is in it, nor a drift but
for what it does from one block to the next; and as the square of the mean of square roots, that bursts do not
rule. Each candidate is laid beside what the cell has now, on the same blocks. It takes its place where its noise is smaller by
more than :data:`GAIN`, :data:`ERRORS` standard errors away from chance, by the jackknife over :data:`GROUPS` stretches of time
(Miller, "The jackknife: a review", Biometrika 61, 1974); of several the least. As the way back must be as plain, rules do not
flap; and no rule looks at how the arms compare, so that none is chosen for its verdict.

Measured, on processes of 20 iterations with normal noise of 5 % each and 0.3 % of their own, trials to a verdict within 60 blocks
by the fastest eighth and by the mean of all, which 33 of 40 histories of 150 blocks choose and 28 of 40 of 100 blocks: where
nothing changed 47 and 18, at 2 % 59 and 25, and 2 % is found in 88 and 95 % (4 tapes of 200 replays, ± 2.3 trials and ± 1.4
points). With 3 % an iteration 19 and 10, and 25 and 17. Of 250 histories in which no part is steadier by a tenth, none
chose another; nor do the four recorded tapes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd import model
from aibenchd.decide import sequential, summary

PARTS = ((0.0, 1 / 8), (0.0, 1 / 2), (7 / 16, 9 / 16), (1 / 4, 3 / 4), (0.0, 1.0))  # candidates: from which share to which
OFF = 0.01  # from a process's level, as a log ratio: the least that an unsteady iteration is off
STAYS = OFF / 2  # what is left out already comes back once it is no further off than this
PROCESSES = 40  # that a steady state is told by, at the least
DIFFERENCES = 60  # that a part is chosen by, at the least
GROUPS = 10
GAIN = 0.1  # of the noise: a fifth of the blocks
ERRORS = 2.5
WITHIN = 3.0  # standard errors of a position's median that are chance
OF_MEDIAN = 1.2533  # its standard error over that of a mean, of normal values


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """The iterations of one experiment's blocks: positive, finite times.

    Attributes:
        orders: ``TC`` or ``CT`` of each block, in the order in which they ran.
        treatment, control: shape (blocks, iterations).
    """

    orders: Sequence[str]
    treatment: sequential.Floats
    control: sequential.Floats


def chosen(history: Sequence[Timed], now: model.Summary) -> model.Summary:
    """The rule of a cell's next experiments; that of ``now`` where its history does not plainly say otherwise.

    Args:
        history: the cell's experiments, oldest first.
    """
    arms = [arm for one in history for arm in (one.treatment, one.control)]
    now = dataclasses.replace(now, skip=steady_from(arms, now.skip))
    least, wanted = math.inf, now
    of_now = _differences(history, now)
    if len(of_now) < DIFFERENCES:
        return now
    for low, high in PARTS:
        other = dataclasses.replace(now, low=low, high=high)
        found = _differences(history, other)
        if _plainly_less(found, of_now) and size(found) < least:
            least, wanted = size(found), other
    return wanted


def steady_from(processes: Sequence[sequential.Floats], now: int = 0) -> int:
    """How many leading iterations of a process are not like the rest of it.

    Args:
        processes: times, each of shape (processes, iterations); where iterations are not equally many, the first ones of all
            are looked at.
        now: how many are left out; it stays so where that is about right.
    """
    length = min((some.shape[1] for some in processes), default=0)
    early = summary.dropped(length, length)
    if early == 0 or sum(map(len, processes)) < PROCESSES:
        return now
    logs = np.log(np.concatenate([some[:, :length] for some in processes]))
    ahead = logs[:, :early] - np.median(logs[:, length // 2 :], axis=1)[:, None]
    middle = np.median(ahead, axis=0)
    spread = sequential.GAUSSIAN * np.median(np.abs(ahead - middle), axis=0)
    chance = WITHIN * OF_MEDIAN * spread / math.sqrt(len(logs))
    least, most = (_run(np.abs(middle) > np.maximum(bound, chance)) for bound in (OFF, STAYS))
    return min(max(now, least), most)


def size(differences: sequential.Floats) -> float:
    """The size of the noise; twice as large differences are twice as much."""
    return float(np.sqrt(np.abs(differences)).mean() ** 2)


def _run(off: sequential.Bools) -> int:
    """How many are so from the first on."""
    return int(np.logical_and.accumulate(off).sum())


def _plainly_less(found: sequential.Floats, of_now: sequential.Floats) -> bool:
    """Whether the noise of one is smaller than that of the other, on the same blocks, beyond chance and by what is worth it."""
    if not size(of_now) > 0:
        return False  # there is none to make smaller
    places = np.array_split(np.arange(len(of_now)), GROUPS)
    without = [_log_ratio(np.delete(found, place), np.delete(of_now, place)) for place in places]
    error = math.sqrt((GROUPS - 1) * float(np.var(without)))
    return _log_ratio(found, of_now) + ERRORS * error < math.log1p(-GAIN)


def _log_ratio(one: sequential.Floats, other: sequential.Floats) -> float:
    smallest = np.finfo(float).tiny
    return math.log(max(size(one), smallest)) - math.log(max(size(other), smallest))


def _differences(history: Iterable[Timed], rule: model.Summary) -> sequential.Floats:
    """Between the log ratios of neighbouring blocks of one order within an experiment, in the order of time."""
    found: list[float] = []
    for one in history:
        treatment, control = (summary.of_each(arm, rule) for arm in (one.treatment, one.control))
        found += _of_neighbours((np.log(treatment) - np.log(control)).tolist(), one.orders)
    return np.array(found)


def _of_neighbours(ratios: Sequence[float], orders: Sequence[str]) -> Iterable[float]:
    last: dict[str, float] = {}
    for ratio, order in zip(ratios, orders, strict=True):
        if order in last:
            yield ratio - last[order]
        last[order] = ratio
