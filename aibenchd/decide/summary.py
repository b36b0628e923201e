"""One number of a process from its iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aibenchd import model
from aibenchd.decide.sequential import Floats

DEFAULT = model.Summary()


def of_process(values: Sequence[float], rule: model.Summary = DEFAULT) -> float:
    """The mean of a part of a process's iterations, at least one of them: by default of the fastest eighth.

    What disturbs an iteration mostly makes it slower; so the fastest ones say most about the program, and vary least from
    process to process: on four recorded tapes the noise between neighbours was 1.2 to 1.6 %, against 1.5 to 2.2 % of the
    median and 1.8 to 3.1 % of the mean. The least alone does as well (1.2 to 1.6 %); several guard against one freak. Where a
    benchmark's own history says otherwise, :mod:`aibenchd.decide.choosing` has another rule. A change of the slow tail alone
    is not seen by this, but by :func:`of_tail`.

    Args:
        values: times, in any unit, of the iterations after warm-up, in the order in which they ran.
        rule: which part.

    Raises:
        ValueError: no values, or one that is not positive and finite.
    """
    times = np.asarray(values, dtype=float)
    if not times.size:
        raise ValueError("a process without iterations has no time")
    if not (np.isfinite(times).all() and (times > 0).all()):
        bad = int(np.flatnonzero(~(np.isfinite(times) & (times > 0)))[0])
        raise ValueError(f"iteration {bad} took {times[bad]}: expected a positive, finite time")
    return float(of_each(times, rule))


def of_tail(values: Sequence[float], rule: model.Summary = DEFAULT) -> float | None:
    """The mean of the slowest quarter, where it is to be judged beside what ``rule`` makes of them and there are enough for it.

    Of the tails that were tried it tells most. Where a tenth of the treatment's iterations took twice as long, one guard found
    that by it in 82 to 88 % of 400 replays of each of the four tapes, by the 90th percentile in 29 to 46 %, and by the mean of
    all in 62 to 77 %.

    Raises:
        ValueError: as :func:`of_process`.
    """
    if not rule.guarded or len(values) - dropped(len(values), rule.skip) < model.TAILED:
        return None
    return of_process(values, rule.tail)


def of_each(times: Floats, rule: model.Summary) -> Floats:
    """As :func:`of_process`, of many processes of equally many iterations: shape (…, iterations), and (…) of the answer."""
    steady = np.sort(times[..., dropped(times.shape[-1], rule.skip) :], axis=-1)
    count = steady.shape[-1]
    first = min(math.floor(rule.low * count), count - 1)
    part = steady[..., first : max(first + 1, math.ceil(rule.high * count))]
    unit = part[..., -1:]  # so that no sum overflows
    found: Floats = unit[..., 0] * (part / unit).mean(axis=-1)
    return found


def dropped(iterations: int, skip: int) -> int:
    """How many leading ones a rule that skips so many leaves out: no more than half, and so few that a tail is left."""
    return max(0, min(skip, iterations // 2, iterations - model.TAILED))
