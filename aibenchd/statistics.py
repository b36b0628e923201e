"""What is said of a list of samples: FAI-PEP's statistics, by their names there. Pure Python; samples are finite."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

DEFAULT = ("mean", "p0", "p10", "p50", "p90", "p100", "stdev", "MAD", "cv")

HALVINGS = 50  # of an interval that holds what is sought

_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d+)?)")


def known(name: str) -> bool:
    """Whether ``name`` is ``mean stdev MAD cv``, or a percentile from ``p0`` to ``p100`` (``p99.9`` too)."""
    return name in DEFAULT or _percent(name) is not None


def summary(values: Sequence[float], names: Sequence[str] = DEFAULT) -> dict[str, float]:
    """The named statistics of finite ``values``, in their unit (``cv`` has none); always with ``p50``.

    ``stdev`` is the population's, ``MAD`` the median distance from the median, ``cv`` is ``stdev / mean`` and left
    out where the mean is zero, as is whatever a float cannot hold. Empty where there are no values.

    Raises:
        ValueError: a name that is not :func:`known`.
    """
    if not values:
        return {}
    ordered = sorted(values)
    found = {name: _statistic(name, ordered) for name in dict.fromkeys((*names, "p50"))}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Of a probability, of which ``successes`` in ``trials`` were seen: Clopper and Pearson's ("The use of confidence or
    fiducial limits", 1934). 0 to 1 where there were no trials."""
    tail = (1 - confidence) / 2
    low = 0.0 if not successes else _where(lambda p: 1 - _at_most(successes - 1, trials, p) >= tail)
    high = 1.0 if successes == trials else _where(lambda p: _at_most(successes, trials, p) <= tail)
    return low, high


def _at_most(successes: int, trials: int, probability: float) -> float:
    """The chance of so many or fewer; ``probability`` is neither 0 nor 1."""
    yes, no = math.log(probability), math.log1p(-probability)
    logs = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * yes + (trials - k) * no
        for k in range(successes + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def _where(holds: Callable[[float], bool]) -> float:
    """The least probability from which on something holds."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of sorted values, interpolated linearly between ranks: ``percent`` 0 is the least, 100 the largest."""
    rank = (len(ordered) - 1) * percent / 100
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def _statistic(name: str, ordered: Sequence[float]) -> float:
    percent = _percent(name)
    if percent is not None:
        return percentile(ordered, percent)
    try:
        return {"mean": _mean, "stdev": _stdev, "MAD": _mad, "cv": _cv}[name](ordered)
    except KeyError:
        raise ValueError(f"{name!r} is no statistic; there are mean, stdev, MAD, cv and p0 to p100") from None
    except OverflowError:
        return math.nan  # larger than a float holds: left out, as what is not known


def _percent(name: str) -> float | None:
    match = _PERCENTILE.fullmatch(name)
    percent = float(match[1]) if match else math.inf
    return percent if percent <= 100 else None


def _mean(ordered: Sequence[float]) -> float:
    return math.fsum(ordered) / len(ordered)


def _stdev(ordered: Sequence[float]) -> float:
    mean = _mean(ordered)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))


def _mad(ordered: Sequence[float]) -> float:
    median = percentile(ordered, 50)
    return percentile(sorted(abs(value - median) for value in ordered), 50)


def _cv(ordered: Sequence[float]) -> float:
    mean = _mean(ordered)
    return _stdev(ordered) / mean if mean else math.nan
