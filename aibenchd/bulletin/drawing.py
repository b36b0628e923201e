"""Charts as still pictures: where the lines, marks and ticks of a :class:`aibenchd.web.charts.Chart` lie. Pure.

The template writes them as SVG. Lengths are in units of a picture that is :data:`WIDTH` by :data:`HEIGHT`, y downwards.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aibenchd.web import charts, render

WIDTH, HEIGHT = 400.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 392.0, 10.0, 164.0  # of what is drawn in
TICKS = 5  # on an axis, at most about
LABELS = 4  # of commits on an axis
COMMIT = 7  # characters of one
CHARACTER = 6.8  # how wide one of a tick's text is at most
MARGIN = 0.06  # of the span of values, free above and below
ZONE = 1.4  # of the zone where no change matters, that is shown
MARK, DOT = 4.5, 2.2  # half as wide as marks of verdicts, and the radius of dots
POINTS = 200  # of a line
FARTHEST = 1e7  # per cent: what is drawn of a change
Row = TypeVar("Row")
LIKE = {"slower": "regressed", "faster": "improved"}  # verdicts of two cells


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; one that is outside, at the nearer end."""
        inside = min(max(value, self.low), self.high)
        return round(self.begin + (self.end - self.begin) * (inside - self.low) / (self.high - self.low), 1)


def drawn(chart: charts.Chart) -> dict[str, Any]:
    """What a template writes of a chart.

    ``alt`` says it in words. ``legend`` names the lines where there is more than one.
    ``ticks_x`` and ``ticks_y`` are (place, text).
    ``bands``, ``lines`` and ``dots`` are (colour, path); ``marks`` are (verdict, path of its intervals, path of its shapes).
    ``zone`` is (top, height), ``zero`` a place; None where there is none.
    """
    x = Scale(*_span_x(chart["x"]), LEFT, RIGHT)
    y = Scale(*_span_y(chart), BOTTOM, TOP)
    zone = chart["zone"]
    return {
        "alt": words(chart),
        "legend": [(line["name"], line["colour"]) for line in chart["lines"]] if len(chart["lines"]) > 1 else [],
        "ticks_x": _ticks_x(chart, x),
        "ticks_y": [(y(value), text) for value, text in _ticks(y.low, y.high)],
        "bands": [(line["colour"], path) for line in chart["lines"] if (path := _band(chart["x"], line, x, y))],
        "lines": [(line["colour"], _course(chart["x"], line, x, y)) for line in chart["lines"] if not line["dots"]],
        "dots": [(line["colour"], _dots(chart["x"], line, x, y)) for line in chart["lines"] if line["dots"]],
        "marks": _marks(chart, x, y),
        "zone": None if zone is None else (y(zone[1]), round(y(zone[0]) - y(zone[1]), 1)),
        "zero": y(0) if y.low < 0 < y.high else None,
    }


def words(chart: charts.Chart) -> str:
    """A chart for who does not see it: what it is about, and the most of what it says."""
    said = [_of_points(chart["points"], chart["labels"] or (), chart["unit"])] if chart["points"] else []
    said += [_of_line(line, chart) for line in chart["lines"]]
    return f"{chart['about']}: {'; '.join(filter(None, said)) or 'nothing'}"


def _of_points(points: Mapping[str, Any], labels: Sequence[str], unit: str) -> str:
    tally = Counter(points["verdicts"])
    listed = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()))
    known = [(abs(value), value, label) for value, label in zip(points["values"], labels, strict=True) if value is not None]
    if not known:
        return listed
    _, value, label = max(known)
    return f"{listed}; the largest change is {render.signed(value)} {unit} at {label}"


def _of_line(line: Mapping[str, Any], chart: charts.Chart) -> str:
    places = [place for place, value in enumerate(line["values"]) if value is not None]
    if not places:
        return ""
    if line["steps"]:
        most = max(places, key=lambda place: line["values"][place])
        return f"{line['name']} most often from {chart['x'][most]:.4g} {chart['x_unit']} on"
    last = places[-1]
    value = f"{line['values'][last]:.4g} {chart['unit']}"
    if line["low"] is None or line["low"][last] is None or line["high"][last] is None:
        return f"{line['name']}: {value} at the last of {len(places)}"
    return f"{line['name']}: {value} ({line['low'][last]:.4g} to {line['high'][last]:.4g}) at the last of {len(places)}"


def _span_x(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    free = (high - low) * 0.02 if high > low else 1.0
    return low - free, high + free


def _span_y(chart: charts.Chart) -> tuple[float, float]:
    """What must be seen: all values, and intervals but for those of the first blocks, which may be far wider."""
    if any(line["steps"] for line in chart["lines"]):
        return 0.0, 1.08 * max(itertools.chain([1.0], *(_known(line["values"]) for line in chart["lines"])))
    shown = [value * ZONE for value in chart["zone"] or ()]
    for line in chart["lines"]:
        late = len(line["values"]) // 2 if _of_blocks(chart) else 0
        dots = line["values"] if line["dots"] else line["values"][late:]
        shown += [*_known(dots), *(value for side in ("low", "high") for value in _known((line[side] or ())[late:]))]
    for side in ("values", "low", "high"):
        shown += _known((chart["points"] or {}).get(side, ()))
    low, high = min(shown, default=-1.0), max(shown, default=1.0)
    free = (high - low) * MARGIN or abs(high) * MARGIN or 1.0
    return low - free, high + free


def _of_blocks(chart: charts.Chart) -> bool:
    """Whether it shows how something is known better from block to block."""
    return any(label.startswith("block ") for label in (chart["labels"] or ())[:1])


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and abs(value) < FARTHEST]


def _ticks(low: float, high: float, most: int = TICKS) -> list[tuple[float, str]]:
    """Round values between two, with their texts."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    values = (number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1))
    return [(value, f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if round(value, digits) else "0") for value in values]


def _ticks_x(chart: charts.Chart, x: Scale) -> list[tuple[float, str]]:
    """Where the middle of each text is: of commits their first characters, of a few; of blocks and units round numbers."""
    labels = chart["labels"]
    ticks = _ticks(x.low, x.high)
    if labels is not None and _of_blocks(chart):
        ticks = [(value, text) for value, text in ticks if "." not in text and value >= 0]
    elif labels is not None:
        some = range(0, len(labels), math.ceil(len(labels) / LABELS))
        ticks = [(chart["x"][place], labels[place][:COMMIT]) for place in some]
    return [(min(x(value), WIDTH - len(text) * CHARACTER / 2), text) for value, text in ticks]  # the last one would be cut


def _band(places: Sequence[float], line: Mapping[str, Any], x: Scale, y: Scale) -> str:
    """There along the upper ends, and back along the lower ones."""
    if line["low"] is None:
        return ""
    rows = _thinned(list(zip(places, line["low"], line["high"], strict=True)))
    ends = [(x(place), y(low), y(high)) for place, low, high in rows if _both(low, high)]
    there, back = ((at, high) for at, _, high in ends), ((at, low) for at, low, _ in reversed(ends))
    return f"M{_joined(there)}L{_joined(back)}z" if ends else ""


def _thinned(rows: Sequence[Row]) -> Sequence[Row]:
    """As many of them as a line can show, with the last."""
    every = math.ceil(len(rows) / POINTS)
    return rows if every <= 1 else [*rows[:-1:every], rows[-1]]


def _both(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None


def _course(places: Sequence[float], line: Mapping[str, Any], x: Scale, y: Scale) -> str:
    """A line through all values, broken where there is none; by steps of bins where it says so."""
    rows = list(zip(places, line["values"], strict=True))
    runs = itertools.groupby(rows if line["steps"] else _thinned(rows), key=lambda one: one[1] is not None)
    known = [[(x(place), y(value)) for place, value in run] for is_known, run in runs if is_known]
    if not line["steps"]:
        return "".join(f"M{_joined(run)}" for run in known)
    return "".join(
        f"M{run[0][0]:g} {y(0):g}" + "".join(f"V{top:g}H{end:g}" for top, end in _steps(run, x, places)) for run in known
    )


def _steps(run: Sequence[tuple[float, float]], x: Scale, edges: Sequence[float]) -> Iterable[tuple[float, float]]:
    """How high each bin is, and where it ends."""
    return [(top, x(edge)) for (_, top), edge in zip(run, edges[1:], strict=False)]


def _dots(places: Sequence[float], line: Mapping[str, Any], x: Scale, y: Scale) -> str:
    known = ((x(place), y(value)) for place, value in zip(places, line["values"], strict=True) if value is not None)
    return "".join(_circle(at, height, DOT) for at, height in known)


def _marks(chart: charts.Chart, x: Scale, y: Scale) -> list[tuple[str, str, str]]:
    points = chart["points"]
    if points is None:
        return []
    found: dict[str, tuple[list[str], list[str]]] = {}
    size = max(2.0, min(MARK, (RIGHT - LEFT) / len(chart["x"]) / 2))
    rows = zip(chart["x"], *(points[name] for name in ("verdicts", "values", "low", "high")), strict=True)
    for place, verdict, value, low, high in rows:
        name = LIKE.get(verdict, verdict)
        spans, shapes = found.setdefault(name, ([], []))
        at = x(place)
        if _both(low, high):
            spans.append(f"M{at:g} {y(low):g}V{y(high):g}")
        # What is broken has no time: it is drawn at the top.
        shapes.append(SHAPES.get(name, _circle)(at, TOP + MARK if value is None else y(value), size))
    return [(name, "".join(spans), "".join(shapes)) for name, (spans, shapes) in sorted(found.items())]


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{at:g} {height:g}" for at, height in points)


def _circle(x: float, y: float, radius: float) -> str:
    size = f"{radius:.2g}"
    return f"M{x - radius:.4g} {y:g}a{size} {size} 0 1 0 {2 * radius:.3g} 0a{size} {size} 0 1 0 {-2 * radius:.3g} 0"


def _triangle(x: float, y: float, size: float) -> str:
    return f"M{x:g} {y - size:.4g}l{size:.3g} {1.8 * size:.3g}h{-2 * size:.3g}z"


def _upside_down(x: float, y: float, size: float) -> str:
    return f"M{x:g} {y + size:.4g}l{size:.3g} {-1.8 * size:.3g}h{-2 * size:.3g}z"


def _cross(x: float, y: float, size: float) -> str:
    return f"M{x - size:.4g} {y - size:.4g}l{2 * size:.3g} {2 * size:.3g}m0 {-2 * size:.3g}l{-2 * size:.3g} {2 * size:.3g}"


def _diamond(x: float, y: float, size: float) -> str:
    return f"M{x:g} {y - size:.4g}l{size:.3g} {size:.3g}l{-size:.3g} {size:.3g}l{-size:.3g} {-size:.3g}z"


def _two_lines(x: float, y: float, size: float) -> str:
    return f"M{x - size:.4g} {y - size / 3:.4g}h{2 * size:.3g}m{-2 * size:.3g} {2 * size / 3:.3g}h{2 * size:.3g}"


SHAPES: Mapping[str, Callable[[float, float, float], str]] = {
    "regressed": _triangle,
    "regressed in the tail": _triangle,
    "improved": _upside_down,
    "broken": _cross,
    "inconclusive": _diamond,
    "unconfirmed": _diamond,
    "refuted": _triangle,
    "identical": _two_lines,
}
