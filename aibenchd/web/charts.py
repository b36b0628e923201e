"""What charts show, as data that ``charts.js`` draws. Pure.

A chart has ``x`` (places from 0, or numbers of a unit), ``lines`` (each with a band where its values have intervals) and
``points`` (each with its verdict, that in ``words``, its interval and what it links to). Whatever it shows is in a table of the
page too.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from aibenchd.api import experiments, screen
from aibenchd.store import schema
from aibenchd.web import ranges


class Chart(TypedDict):
    """``labels`` say what each place of ``x`` is; where there are none it is a number of ``x_unit``. ``zone`` is where no change
    matters; ``beyond`` samples lie further right than is shown. ``edge`` is how far the y axis reaches where all would hide the
    most, as :mod:`aibenchd.web.ranges` has it. At ``breaks`` something else begins: ``at`` a place of ``x``, where no line leads
    to from before, with its commit and a ``text``.
    """

    about: str
    unit: str
    x: Sequence[float]
    x_unit: str
    labels: Sequence[str] | None
    lines: Sequence[Mapping[str, Any]]
    points: Mapping[str, Any] | None
    zone: Sequence[float] | None
    beyond: int
    edge: Mapping[str, Any] | None
    breaks: Sequence[Mapping[str, Any]]


def _chart(
    about: str,
    unit: str,
    x: Sequence[float],
    *,
    x_unit: str = "",
    labels: Sequence[str] | None = None,
    lines: Sequence[Mapping[str, Any]] = (),
    points: Mapping[str, Any] | None = None,
    zone: Sequence[float] | None = None,
    beyond: int = 0,
    edge: Mapping[str, Any] | None = None,
    breaks: Sequence[Mapping[str, Any]] = (),
) -> Chart:
    return Chart(
        about=about,
        unit=unit,
        x=list(x),
        x_unit=x_unit,
        labels=labels,
        lines=lines,
        points=points,
        zone=zone,
        beyond=beyond,
        edge=edge,
        breaks=breaks,
    )


DIGITS = 4  # of a value in a table
BINS = 48  # of a distribution
TAIL = 0.005  # of all samples, that lie beyond the last bin on the right: a few that are far out would hide all others
BULK = 0.9  # of all samples; one that is farther above them than they are wide is far out, however few there are
BULK_OF_TAIL = 0.99  # the same where the slow ones are looked at: of all samples they may be a twentieth, a tenth of one arm's
CHANGE, LEVEL = 2.0, 10.0  # percent, in which a difference can be seen where no zone or noise says more
TIME = 0.1  # the same of times, of the middle one
UNITS = (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6), ("ns", 1e-9))
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def changes(history: Sequence[Mapping[str, Any]], min_effect: float | None) -> Chart:
    """The change of each commit against its control, oldest first, with its verdict."""
    shown = [item for item in reversed(history) if item["estimate"] is not None or item["verdict"] == "broken"]
    points = {
        "values": [_percent(item["estimate"]) for item in shown],
        "low": [_percent(item["low"]) for item in shown],
        "high": [_percent(item["high"]) for item in shown],
        "verdicts": [_standing(item) for item in shown],
        "words": [experiments.told(item) for item in shown],
        "links": [f"/experiments/{item['id']}" for item in shown],
    }
    labels = [_commit(item["treatment"], item["subject"]) for item in shown]
    return _chart(
        "change against the control",
        "%",
        range(len(shown)),
        labels=labels,
        points=points,
        zone=_zone(min_effect),
        edge=_edge(points, _zone(min_effect) or (), CHANGE),
        breaks=_breaks(history, shown, ("specification", "number")),
    )


def levels(found: Sequence[Mapping[str, Any]], subjects: Mapping[str, str]) -> Chart:
    """The time of each commit over that of the oldest one, in percent, with the interval of 90 %."""
    line = _line(
        "level",
        "accent",
        [_percent(one["ratio"] - 1) for one in found],
        low=[_percent(one["low"] - 1) for one in found],
        high=[_percent(one["high"] - 1) for one in found],
    )
    labels = [_commit(one["commit"], subjects.get(one["commit"])) for one in found]
    edge = _edge(line, _newest(line), LEVEL)
    return _chart("time over that of the oldest commit", "%", range(len(found)), labels=labels, lines=[line], edge=edge)


def times(history: Sequence[Mapping[str, Any]], metric: str) -> Chart | None:
    """The median of all samples of each commit, of the treatment; None where there is nothing to show."""
    shown = [(item, result) for item in reversed(history) for result in item["results"] if result["metric"] == metric]
    values = [(result["treatment"] or {}).get("p50") for _, result in shown]
    known = [value for value in values if value is not None]
    if not known:
        return None
    unit, factor = _unit(shown[-1][1]["unit"], known)
    line = _line(metric, "accent", [_scaled(value, factor) for value in values], dots=True)
    labels = [_commit(item["treatment"], item["subject"]) for item, _ in shown]
    breaks = _breaks(history, [item for item, _ in shown], ("specification",))  # of all samples, whatever is decided on
    about = f"{metric}: median of all samples"
    edge = _edge(line, _newest(line), _seen(line["values"]))
    return _chart(about, unit, range(len(shown)), labels=labels, lines=[line], edge=edge, breaks=breaks)


def interval(blocks: Sequence[Mapping[str, Any]], min_effect: float | None) -> Chart | None:
    """The estimate and its interval after each block."""
    shown = [block for block in blocks if block["estimate"] is not None]
    if not shown:
        return None
    values, low, high = ([_percent(block[name]) for block in shown] for name in ("estimate", "low", "high"))
    line, zone = _line("change", "accent", values, low=low, high=high), _zone(min_effect)
    return _chart(
        "change and its interval after each block",
        "%",
        [block["number"] for block in shown],
        labels=[f"block {block['number']}" for block in shown],
        lines=[line],
        zone=zone,
        edge=_edge(line, (*_newest(line), *(zone or ())), CHANGE),
    )


def course(blocks: Sequence[Mapping[str, Any]], min_effect: float | None) -> Chart | None:
    """As :func:`interval`, with the change that each block by itself shows."""
    chart = interval(blocks, min_effect)
    if chart is None:
        return None
    shown = [block for block in blocks if block["estimate"] is not None]
    both = [(block["treatment"], block["control"]) for block in shown]
    own = [_percent(treatment / control - 1) if treatment and control else None for treatment, control in both]
    about = "change after each block, with its interval"
    return Chart(**chart | {"about": about, "lines": [*chart["lines"], _line("each block", "treatment", own, dots=True)]})


def processes(blocks: Sequence[Mapping[str, Any]], unit: str) -> Chart | None:
    """The one number of each process that is decided on, by block."""
    return _by_process("what is decided on", blocks, {"treatment": "treatment", "control": "control"}, unit)


def tails(blocks: Sequence[Mapping[str, Any]], unit: str) -> Chart | None:
    """The mean of the slowest quarter of each process, by block; None where these are not judged."""
    return _by_process("its slowest quarter", blocks, {"treatment": "treatment_tail", "control": "control_tail"}, unit)


def _by_process(number: str, blocks: Sequence[Mapping[str, Any]], of_arm: Mapping[str, str], unit: str) -> Chart | None:
    arms = {arm: name for arm, name in of_arm.items() if any(block[name] is not None for block in blocks)}
    if not arms:
        return None
    shown, factor = _unit(unit, [block[name] for block in blocks for name in arms.values() if block[name] is not None])
    lines = [_line(arm, arm, [_scaled(block[name], factor) for block in blocks], dots=True) for arm, name in arms.items()]
    values = [value for line in lines for value in line["values"]]
    return _chart(
        f"each process: {number}",
        shown,
        [block["number"] for block in blocks],
        labels=[f"block {block['number']}, {block['order']}" for block in blocks],
        lines=lines,
        edge=ranges.edge(values, least=_seen(values)),
    )


def distribution(samples: Mapping[str, Sequence[float]], unit: str, bulk: float = BULK) -> Chart | None:
    """How the samples of each arm are distributed: the share of each arm's that falls into each bin; ``bulk`` as of BULK."""
    arms = {arm: sorted(value for value in samples.get(arm, ()) if math.isfinite(value)) for arm in ("treatment", "control")}
    pooled = sorted(itertools.chain.from_iterable(arms.values()))
    high = _last(pooled, bulk) if pooled else 0.0
    if not pooled or high <= pooled[0]:
        return None
    shown, factor = _unit(unit, pooled)
    edges = [pooled[0] + (high - pooled[0]) * place / BINS for place in range(BINS + 1)]
    return _chart(
        "share of each arm's samples",
        "%",
        [round(edge * factor, 5) for edge in edges],
        x_unit=shown,
        lines=[_line(arm, arm, [*_shares(values, edges), None], steps=True) for arm, values in arms.items() if values],
        beyond=sum(value > high for value in pooled),
    )


def _last(ordered: Sequence[float], bulk: float) -> float:
    """The largest of some samples, in order, that is not far out."""
    most = ordered[min(len(ordered) - 1, math.ceil((1 - TAIL) * len(ordered)))]
    end = next((value for value in ordered[math.floor(bulk * (len(ordered) - 1)) :] if value > ordered[0]), ordered[0])
    return ordered[bisect.bisect_right(ordered, min(most, end + (end - ordered[0]))) - 1]


def main_metric(history: Iterable[Mapping[str, Any]]) -> str:
    """The series of the network that is shown of a history: the latency, else the first."""
    metrics = list(dict.fromkeys(result["metric"] for item in history for result in item["results"]))
    return "latency" if "latency" in metrics or not metrics else metrics[0]


def unit_of(results: Iterable[Mapping[str, Any]]) -> str:
    """The unit of the network's own series; empty where that is not clear."""
    units = [one["unit"] for one in results if one["type"] == schema.MAIN_SERIES and one["metric"] == "latency"]
    return units[0] if units else ""


def _standing(item: Mapping[str, Any]) -> str:
    """A verdict, or what has become of one that no second look has confirmed."""
    return str(item["second_look"]["state"]) if experiments.doubted(item) else experiments.ended(item)


def _breaks(
    history: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]], kinds: Collection[str]
) -> list[dict[str, Any]]:
    """Where one of these kinds of change lies between two neighbours that are shown, of a history that begins with its newest."""
    places = {item["id"]: place for place, item in enumerate(shown)}
    found: list[dict[str, Any]] = []
    begun: Mapping[str, Any] | None = None
    for item in reversed(history):
        begun = item if item.get("changed") in kinds else begun
        place = places.get(item["id"])
        if place and begun:
            found.append({"at": place, "commit": item["treatment"], "text": experiments.changed(begun)})
        begun = begun if place is None else None
    return found


def _line(name: str, colour: str, values: Sequence[float | None], **more: Any) -> dict[str, Any]:
    """``more`` has ``low`` and ``high`` of a band, or says that there are ``dots``, or that it goes by ``steps``."""
    return {"name": name, "colour": colour, "values": values, "low": None, "high": None, "dots": False, "steps": False} | more


def _edge(drawn: Mapping[str, Any], always: Sequence[float | None], least: float) -> dict[str, Any] | None:
    """Of a line or of points."""
    return ranges.edge(drawn["values"], drawn["low"] or (), drawn["high"] or (), always=always, least=least)


def _newest(line: Mapping[str, Any]) -> list[float | None]:
    """The last value with its interval: what holds now is shown wherever it lies."""
    return [line[name][-1] for name in ("values", "low", "high") if line[name]]


def _seen(values: Sequence[float | None]) -> float:
    known = sorted(value for value in values if value is not None)
    return TIME * known[len(known) // 2] if known else 0.0


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 5)


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    places = [bisect.bisect_left(values, edge) for edge in edges[:-1]] + [bisect.bisect_right(values, edges[-1])]
    return [round(100 * (end - begin) / len(values), 3) for begin, end in itertools.pairwise(places)]


def aligned(values: Sequence[float | None], unit: str) -> tuple[list[str], str]:
    """Values with as many digits behind the point, and the unit that they are all in; empty where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return [""] * len(values), unit
    shown, factor = _unit(unit, known)
    middle = abs(sorted(known)[len(known) // 2] * factor)
    digits = max(0, DIGITS - 1 - math.floor(math.log10(middle))) if middle else 0
    return ["" if value is None else f"{value * factor:.{digits}f}" for value in values], shown


def _unit(unit: str, values: Sequence[float]) -> tuple[str, float]:
    """The unit that suits values, and what to multiply them by."""
    if unit not in SECONDS:
        return unit, 1.0
    middle = sorted(values)[len(values) // 2] * SECONDS[unit]
    name, length = next(((name, length) for name, length in UNITS if middle >= length), UNITS[-1])
    return name, SECONDS[unit] / length


def _zone(min_effect: float | None) -> list[float] | None:
    return None if min_effect is None else [-100 * min_effect, 100 * min_effect]


def _percent(ratio: float | None) -> float | None:
    return None if ratio is None else round(100 * ratio, 4)


def _commit(commit: str, subject: str | None) -> str:
    return f"{commit[: screen.SHORT]} {subject or ''}".rstrip()
