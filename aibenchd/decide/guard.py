"""A verdict on a process's fast iterations, with a guard for the slow ones.

What is decided on looks at a part of the iterations only (:mod:`aibenchd.decide.summary`), so that a change of the slow tail
alone goes by it. Beside that *body* the *tail* has a number of its own in each process: the mean of the slowest quarter. Where
the body has come to *unchanged* or *improved*, or to the end of its budget, the guard is asked:

- The treatment's tail is slower by more than ``min_effect``, beyond doubt: *regressed*, in the tail, with its own effect and
  interval, whatever the body is.
- It looks so: the mean of its log ratios is above ``min_effect`` by :data:`LOOKS` standard errors. It goes on, block by block,
  until it is one or the other. Where the budget ends first the body's verdict stands, and its reason says so.
- Else the body's verdict stands.

Where the body itself regressed nobody asks, so that what is called *in the tail* is in the tail alone. The bets are those of
:mod:`aibenchd.decide.sequential`, on the coins alone: they err at their own rate whatever the tail is like, and tails are like
nothing. That the tail is slower by less than ``min_effect`` is not called, for a change of the body by so little is not either.

The two share one ``alpha``: :data:`SHARE` of it is the guard's, the body has the rest, so that both together err at ``alpha``. It
is as large as eight blocks that all point one way allow at 1 % (see :data:`aibenchd.decide.verdict.BY_COINS`); a tenth would
make nine of them. A tail that is clearly slower needs 13 blocks at the least.

Measured by ``tests/bench/bench_tail.py``: 800 replays of each of the four recorded tapes by coin, ``alpha`` = 1 %, ``min_effect``
= 2 %, 60 blocks; errors are from tape to tape. Where nothing changed, 0.19 ± 0.08 % were called a change, as many as without
the guard, and none of 3,200 in the tail. Mean trials to a verdict, without it and with it: where nothing changed 19.9 and
20.0 (by 0.13 ± 0.05 more), where all is 1 % slower 35.8 and 35.9, where it is 2 % slower 29.1 and 29.2. Where a tenth of the
treatment's iterations takes twice as long, that is found in 94.4 ± 1.0 %, after 39 trials; where it takes 1.5 times as long
in 85.5 ± 3.1 %, after 44; where a twentieth takes three times as long in 79.1 ± 2.3 %, after 57. The rest did not look so
when the body had come to its verdict.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aibenchd import model
from aibenchd.decide import sequential, verdict

SHARE = 1 / 50  # of alpha
LOOKS = 1.5  # standard errors
ASKED = (model.Verdict.UNCHANGED, model.Verdict.IMPROVED, model.Verdict.INCONCLUSIVE)
WHERE = "the slowest quarter of the iterations"

Tails = tuple[Sequence[float], Sequence[float]]  # of the treatment and of the control, one number per process


@dataclass(frozen=True, slots=True)
class Watched:
    """After each block: whether the tail is slower beyond doubt, and whether it looks so."""

    slower: sequential.Bools
    suspected: sequential.Bools


def body(rule: model.Rule) -> model.Rule:
    """The rule of what is decided on beside a guard."""
    return dataclasses.replace(rule, alpha=rule.alpha * (1 - SHARE))


def decide(
    found: model.Decision,
    tails: Tails,
    rule: model.Rule,
    *,
    orders: Sequence[str],
    kind: str,
    numbers: Sequence[int],
    spent: bool,
) -> model.Decision:
    """What becomes of a decision on the body, once its tail has been looked at.

    Args:
        found: by :func:`aibenchd.decide.verdict.decide` with :func:`body`, of the same blocks.
        tails: shape (blocks,) each, as are ``orders`` and ``numbers``.
        rule: of both together.
        spent: whether no block will follow.

    Raises:
        ValueError: as :func:`aibenchd.decide.verdict.decide`.
    """
    if found.verdict not in ASKED or not orders:
        return found
    seen = verdict.seen(*tails, orders, kind, numbers).up_to(min(len(orders), rule.max_blocks))
    watched = watch(seen, rule)
    since = max(found.blocks, 1) - 1
    stop = int(verdict.first((watched.slower | ~watched.suspected)[since:]))
    if stop == verdict.NEVER:
        return (
            dataclasses.replace(found, reason=found.reason or model.TAIL_UNSURE)
            if spent
            else dataclasses.replace(found, verdict=None)
        )
    if not watched.slower[since + stop]:
        return found
    return _in_tail(seen.up_to(since + stop + 1), rule, found)


def watch(seen: verdict.Experiment, rule: model.Rule) -> Watched:
    """The guard's view of one experiment's tails, or of independent repetitions."""
    (units, scale), margin = _cleared(seen, rule), math.log1p(rule.min_effect)
    won = sequential.evidence(units, scale, margin, +1)
    slower = np.logical_or.accumulate(won >= _certain(rule), axis=-1)
    return Watched(seen.by_block(slower), seen.by_block(_looks_above(units, margin)))


def _looks_above(units: sequential.Floats, margin: float) -> sequential.Bools:
    """After each of two units or more, whether their mean is above the margin by so many standard errors."""
    count = np.arange(1, units.shape[-1] + 1)
    above = np.cumsum(units - margin, axis=-1) / count
    square = np.maximum(np.cumsum((units - margin) ** 2, axis=-1) / count - above**2, 0.0)
    found: sequential.Bools = (above > 0) & (above**2 * (count - 1) > LOOKS**2 * square)
    return found


def _cleared(seen: verdict.Experiment, rule: model.Rule) -> tuple[sequential.Floats, sequential.Floats]:
    """The units without what their slots add, and their noise."""
    slots, scale = sequential.foreseen(seen.units, seen.unit_signs, math.log1p(rule.min_effect) / 2)
    return seen.units - seen.unit_signs * slots, scale


def _certain(rule: model.Rule) -> float:
    return -math.log(rule.alpha * SHARE)


def _in_tail(seen: verdict.Experiment, rule: model.Rule, beside: model.Decision) -> model.Decision:
    units, scale = _cleared(seen, rule)
    low = max(sequential.bound(units, scale, _certain(rule), -1), math.log1p(rule.min_effect))
    high = max(
        sequential.bound(units, scale, _certain(rule), +1), low
    )  # where it changed while it was measured no one effect holds
    inside = float(np.fmin(max(verdict.centre(seen.units), low), high))
    whole = "" if math.isnan(beside.estimate) else f" ({beside.estimate:+.2%})"
    return model.Decision(
        model.Verdict.REGRESSED,
        len(seen.ratios),
        verdict.change(inside),
        verdict.change(low),
        verdict.change(high),
        f"in the tail: {WHERE}; apart from it {beside.verdict}{whole}",
        in_tail=True,
    )
