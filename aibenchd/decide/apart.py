"""How two programs compare that were measured each by itself, on two devices: nothing they share cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd.decide import attribution


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the treatment's time to the control's, minus 1, with its interval."""

    estimate: float
    low: float
    high: float


def ratio(treatment: Sequence[float], control: Sequence[float], error: float) -> Ratio | None:
    """The ratio of two geometric means; None where an arm has fewer than two processes.

    The interval is Welch's, of logarithms ("The generalization of Student's problem when several different population variances
    are involved", Biometrika 34, 1947), with whole degrees of freedom, rounded down. It holds for the state that each device
    was in meanwhile: what another day, another heat or another device of the kind would bring is not in it.

    Args:
        treatment, control: the number of each process, all positive.
        error: chance at most that the interval does not hold the ratio.
    """
    if min(len(treatment), len(control)) < 2:
        return None
    logs = [np.log(np.asarray(values, dtype=float)) for values in (treatment, control)]
    centre = float(logs[0].mean() - logs[1].mean())
    parts = [float(arm.var(ddof=1)) / len(arm) for arm in logs]
    weight = sum(part**2 / (len(arm) - 1) for part, arm in zip(parts, logs, strict=True))
    freedom = int(sum(parts) ** 2 / weight) if weight else 1
    reach = attribution.student(max(freedom, 1), error) * math.sqrt(sum(parts))
    return Ratio(*(math.expm1(end) for end in (centre, centre - reach, centre + reach)))
