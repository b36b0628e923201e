"""Blocks become a decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aibenchd import model

Floats = NDArray[np.float64]

_BETS = np.array([0.5, 1.0, 2.0])


def decide(
    treatment: Floats,
    control: Floats,
    rule: model.Rule,
    *,
    orders: Sequence[str],
    seconds: float = 0.0,
) -> model.Decision:
    """What the blocks so far say; final once it says something.

    Args:
        treatment, control: shape (blocks,), one number per process, in the order of the blocks.
        rule: error rates, smallest effect, budget.
        orders: of each block, ``TC`` where the treatment ran first, else ``CT``.
        seconds: since the first block.

    Raises:
        ValueError: a time is not positive and finite (the block is named), or the lengths differ.
    """
    ratios = _log_ratios(np.asarray(treatment, dtype=float), np.asarray(control, dtype=float))
    if len(orders) != len(ratios):
        raise ValueError(f"{len(ratios)} blocks, but {len(orders)} orders")
    margin = math.log1p(rule.min_effect)
    faster, slower = _first(_evidence(ratios, -1), 2 / rule.alpha), _first(_evidence(ratios, 1), 2 / rule.alpha)
    below, above = (
        _first(_evidence(ratios - margin, -1), 1 / rule.beta),
        _first(_evidence(ratios + margin, 1), 1 / rule.beta),
    )
    unchanged = max(below, above)
    stop = min(faster, slower, unchanged)
    if stop < len(ratios) and stop < rule.max_blocks:
        verdict = _named(stop, faster, unchanged)
        return _decision(verdict, ratios[: stop + 1])
    if len(ratios) >= rule.max_blocks or seconds >= rule.max_seconds:
        return _decision(model.Verdict.INCONCLUSIVE, ratios[: rule.max_blocks])
    return _decision(None, ratios)


def _named(stop: int, faster: int, unchanged: int) -> model.Verdict:
    if stop == unchanged:
        return model.Verdict.UNCHANGED
    return model.Verdict.IMPROVED if stop == faster else model.Verdict.REGRESSED


def _log_ratios(treatment: Floats, control: Floats) -> Floats:
    if treatment.shape != control.shape or treatment.ndim != 1:
        raise ValueError(f"expected two equally long rows of times, not shapes {treatment.shape} and {control.shape}")
    for name, times in (("treatment", treatment), ("control", control)):
        bad = np.flatnonzero(~(np.isfinite(times) & (times > 0)))
        if bad.size:
            raise ValueError(f"block {bad[0]}: the {name} took {times[bad[0]]}: expected a positive, finite time")
    return np.log(treatment) - np.log(control)


def _evidence(values: Floats, sign: int) -> Floats:
    """An e-process against symmetry about 0, in favour of ``sign``: mean of products of 2 / (1 + exp(-2 λ x))."""
    scale = np.array([np.median(np.abs(values[:i])) if i else 0.0 for i in range(len(values))])
    unit = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    logs = math.log(2) - np.logaddexp(0.0, -2 * sign * _BETS[:, None] * unit)
    total: Floats = np.exp(np.cumsum(logs, axis=1)).mean(axis=0)
    return total


def _first(evidence: Floats, threshold: float) -> int:
    """Where the evidence first reaches the threshold; a number past every budget where it does not."""
    reached = np.flatnonzero(evidence >= threshold)
    return int(reached[0]) if reached.size else 1 << 30


def _decision(verdict: model.Verdict | None, ratios: Floats) -> model.Decision:
    if not ratios.size:
        return model.Decision(verdict, 0)
    centre = float(np.median(ratios))
    return model.Decision(verdict, len(ratios), math.expm1(centre), -1.0, math.inf)
