"""How far the y axis of a chart reaches, so that one value that is huge hides no small ones. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

FEW = 5  # points, below which all are shown
SHARE = 0.1  # of all ends, on either side, that need not be among the bulk
REACH = 2.0  # heights of the bulk, from it: what lies farther is far out
HIDES = 3.0  # times as high as what is shown otherwise, from which on all of it is not shown at once
FREE = 0.08  # of the range, above and below what is shown


def edge(
    values: Sequence[float | None],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    *,
    least: float,
    always: Sequence[float | None] = (),
) -> dict[str, Any] | None:
    """Between which numbers, ``low`` and ``high``, the bulk of values and intervals lies; and ``text``, how many do not.

    None where all can be shown: where there are few, or none is so far out that it hides others.

    Args:
        low, high: ends of the values' intervals.
        least: height in which a difference between two values can be seen; what is about as far from the bulk is not far out.
        always: what is shown wherever it lies.
    """
    ends = sorted(_known((*values, *low, *high)))
    if len(_known(values)) < FEW:
        return None
    rest = SHARE * (len(ends) - 1)
    bulk = [ends[math.ceil(rest)], ends[math.floor(len(ends) - 1 - rest)], *_known(always)]
    first, last = min(bulk), max(bulk)
    reach = REACH * max(last - first, least)
    shown = [first, last, *(end for end in ends if first - reach <= end <= last + reach)]
    free = FREE * max(max(shown) - min(shown), least)
    bottom, top = min(shown) - free, max(shown) + free
    if bottom == top or max(ends[-1], last) - min(ends[0], first) < HIDES * (top - bottom):
        return None
    return {"low": bottom, "high": top, "text": _told(_beyond(values, bottom, top), _reaching(values, low, high, bottom, top))}


def _beyond(values: Sequence[float | None], bottom: float, top: float) -> int:
    return sum(not bottom <= value <= top for value in _known(values))


def _reaching(
    values: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None], bottom: float, top: float
) -> int:
    """How many intervals end beyond the edge, of values that do not lie there themselves."""
    rows = zip(values, low, high, strict=True) if low else ()
    return sum(
        one is not None and bottom <= one <= top and any(not bottom <= end <= top for end in _known(ends)) for one, *ends in rows
    )


def _told(points: int, intervals: int) -> str:
    said = [f"{points} point{' lies' if points == 1 else 's lie'}"] if points else []
    said += [f"{intervals} interval{' reaches' if intervals == 1 else 's reach'}"] if intervals else []
    return f"{' and '.join(said)} beyond the edge"


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
