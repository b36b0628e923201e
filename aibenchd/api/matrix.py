"""The coverage matrix: what is configured and what the journal knows of it, cell by cell. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aibenchd import model
from aibenchd.api import server
from aibenchd.plan import coverage
from aibenchd.store import cell_facts, paging, schema

CONFIDENCE = 0.95
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}  # units of time
WRONG = "wrong output"  # begins the reason of an experiment whose treatment's output is wrong


class Interval(NamedTuple):
    """Where a median lies: the two values that enclose it, and how surely they do."""

    low: float
    high: float
    confidence: float


def interval_of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The narrowest interval between two values of equal rank from either end that holds the median as surely as asked.

    It supposes nothing of the distribution but that the values are independent: the median lies outside the j-th value
    from either end where fewer than j of n fair tosses fall on one side, so with probability 2 P(Binomial(n, 1/2) < j).
    From six values on that is 95 % at least; of fewer it is their whole range, with the lesser confidence that it has
    (three: 75 %; one: none).

    Args:
        values: at least one.
    """
    ordered = sorted(values)
    rank, outside = _rank(len(ordered), confidence)
    if not rank:
        return Interval(ordered[0], ordered[0], 0.0)
    return Interval(ordered[rank - 1], ordered[-rank], 1 - outside)


@functools.cache  # cells are many, and their counts of processes few: paging.BLOCKS at most
def _rank(count: int, confidence: float) -> tuple[int, float]:
    """From either end, of the values that enclose the median, and how likely it lies outside; 0 where there is none."""
    outside, rank = 0.0, 0
    for below in range(count // 2):
        more = outside + math.ldexp(math.comb(count, below), 1 - count)
        if rank and more > 1 - confidence:
            break
        outside, rank = more, below + 1
    return rank, outside


def answer(configured: Sequence[server.Cell], known: dict[cell_facts.Key, cell_facts.Facts]) -> list[paging.Item]:
    """Each configured cell, as ``GET /v1/coverage`` shows it."""
    columns = _columns(configured)
    shown = [
        {**cell._asdict(), "column": columns[cell.repository, cell.framework, cell.device, cell.backend]}
        | _state(cell, known.get((cell.repository, cell.benchmark_digest, cell.device, cell.backend)))
        for cell in configured
    ]
    fastest = _fastest(shown)
    return [{**cell, "fastest": index in fastest} for index, cell in enumerate(shown)]


def _columns(configured: Iterable[server.Cell]) -> dict[tuple[str, str, str, str], str]:
    """What each column is called: by the framework, or by the repository where several build programs of that framework."""
    places = {(cell.repository, cell.framework, cell.device, cell.backend) for cell in configured}
    repositories: dict[str, set[str]] = {}
    for repository, framework, _, _ in places:
        repositories.setdefault(framework, set()).add(repository)
    return {
        place: coverage.place_name(place[0] if len(repositories[place[1]]) > 1 else place[1], place[2], place[3])
        for place in places
    }


def _state(cell: server.Cell, facts: cell_facts.Facts | None) -> paging.Item:
    """``state`` with why and since when, and what was measured."""
    state, reason = ("impossible", cell.impossible) if cell.impossible else _standing(facts)
    decided = None if facts is None else facts.decided
    return {
        "state": state,
        "reason": reason,
        "verdict": decided and decided.verdict,
        "experiment": decided and decided.id,
        "commit": decided and decided.commit,
        "measured_at": decided and decided.decided_at and decided.decided_at.isoformat(),
        "measured": None if facts is None or state not in ("measured", "wrong") else _figure(cell.metric, facts),
        "outputs": [] if facts is None else [one for one in facts.series if one["type"].startswith(schema.OUTPUT_SERIES)],
        "newest": facts and {"experiment": facts.newest.id, "state": _waiting(facts.newest), "reason": facts.newest.reason},
    }


def _standing(facts: cell_facts.Facts | None) -> tuple[str, str]:
    if facts is None:
        return "unplanned", ""
    if facts.decided is None:
        return _waiting(facts.newest), facts.newest.reason
    reason = facts.decided.reason
    if reason.removeprefix("treatment: ").startswith(WRONG):
        return "wrong", reason
    if facts.decided.verdict == model.Verdict.BROKEN or not facts.numbers:
        return "broken", reason
    return "measured", ""


def _waiting(newest: cell_facts.Stand) -> str:
    """The state of an experiment, in a word of this matrix."""
    if newest.state == "decided":
        return str(newest.verdict)
    if newest.state in ("waiting", "open"):
        return "running" if newest.started else "queued"
    return "skipped"


def _figure(metric: str, facts: cell_facts.Facts) -> paging.Item | None:
    """How much it is: the median over processes of the one number of each that is decided on, with its interval."""
    if not facts.numbers:
        return None
    # An accuracy is decided on as its reciprocal, so that larger is worse as of all else.
    ordered = sorted(1 / number for number in facts.numbers) if metric == "accuracy" else sorted(facts.numbers)
    middle = len(ordered) // 2
    interval = interval_of_median(ordered)
    return {
        **_decided_on(metric, facts.series),
        "median": (ordered[middle] + ordered[~middle]) / 2,
        **interval._asdict(),
        "processes": len(ordered),
    }


def _decided_on(metric: str, series: Iterable[paging.Item]) -> paging.Item:
    """The series that the numbers are of: the network's latency, else the only one; nothing where that is not clear."""
    of_network = {
        f"{one['type']} {one['metric']}": one["unit"]
        for one in series
        if (one["metric"] == metric if metric in schema.OTHER_METRICS else one["type"] == schema.MAIN_SERIES)
    }
    if model.NETWORK in of_network:
        return {"key": model.NETWORK, "unit": of_network[model.NETWORK]}
    (key, unit), *others = of_network.items() or [("", "")]
    return {"key": "", "unit": ""} if others else {"key": key, "unit": unit}


def _fastest(shown: Sequence[paging.Item]) -> set[int]:
    """The cells that have the least latency of their row, of two at least that are right."""
    rows: dict[str, list[tuple[float, int]]] = {}
    for index, cell in enumerate(shown):
        figure: dict[str, Any] | None = cell["measured"]
        if cell["state"] == "measured" and figure and figure["key"] == model.NETWORK and figure["unit"] in SECONDS:
            rows.setdefault(cell["row"], []).append((figure["median"] * SECONDS[figure["unit"]], index))
    return {min(row)[1] for row in rows.values() if len(row) > 1}
