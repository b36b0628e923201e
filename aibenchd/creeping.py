"""Whether a series creeps, and what to measure about it: the journal's comparisons as :mod:`aibenchd.decide.creep` takes them.

Imports numpy: only what looks at series should import it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from aibenchd import model
from aibenchd import settings as configuration
from aibenchd.decide import creep
from aibenchd.measure import judging
from aibenchd.store import series as stored

GAP = 10  # commits between two comparisons of commits that are far apart, at least


@dataclass(frozen=True, slots=True)
class Wanted:
    """Two commits to compare, and why."""

    older: str
    newer: str
    reason: str


def wanted(series: stored.Series, rule: configuration.CreepSettings) -> Wanted | None:
    """What to measure: the commit before a drift against the newest, or the oldest where levels have become too loose.

    Not across known changes, but between two of them, or from the newest on: what is compared then is the drift and nothing
    else, with an interval of its own. To take known effects off would add their errors to it, and a change that was
    confirmed because it is large is taken for too large. What drifted on either side of a known change is two drifts, each
    of which has to matter.
    """
    if series.pending or not series.edges or _measured_of_late(series):
        return None
    series = compared(series)
    buildable = series.commits.keys() - series.unbuildable
    if len(buildable) < 2:
        return None
    edges, min_effect = _edges(series), series.edges[0].rule.min_effect
    stretches = _stretches(buildable, series.known)
    if not stretches:
        return None
    found = creep.detect(edges, series.known, min_effect=min_effect, run_length=rule.run_length)
    if found.compare is not None:
        since = max((place for place in buildable if place <= found.compare.older), default=min(buildable))
        crept = [(max(first, since), last) for first, last in stretches if last > since]
        older, newer = max(crept, key=lambda one: (one[1] - one[0], one), default=(since, since))
        if older < newer and not _known(series, older, newer):
            return Wanted(series.commits[older], series.commits[newer], f"it has crept up by {found.estimate:.1%}")
    release, newest = stretches[-1]
    if newest < max(buildable):
        return None
    if creep.anchor_due(edges, release, series.known, min_effect=min_effect) and not _known(series, release, newest):
        return Wanted(series.commits[release], series.commits[newest], "its level is known too loosely")
    return None


def _stretches(places: Collection[int], known: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last of the neighbours among places between which nothing is known to have changed, two at least; in order."""
    found: list[tuple[int, int]] = []
    for one, two in itertools.pairwise(sorted(places)):
        if any(older < two and one < newer for older, newer in known):
            continue
        first = found.pop()[0] if found and found[-1][1] == one else one
        found.append((first, two))
    return found


def levels(series: stored.Series, rule: configuration.CreepSettings) -> model.JsonObject:
    """The time of each commit over that of the oldest one, with its interval of 90 %, and whether it creeps; as JSON.

    Levels begin where the ``number`` of a process that is compared now was first: one does not tell how another changed.
    Whether it creeps is asked of all, for where nothing changes no number does.
    """
    if not series.edges:
        return {"levels": [], "number": "", "creep": None}
    number, whole = series.edges[0].number, compared(series)
    alike = dataclasses.replace(whole, edges=[edge for edge in whole.edges if edge.number.same_number(number)])
    found = creep.levels(_edges(alike), whole.known)
    return {
        "levels": [{"commit": series.commits[one.place], "ratio": one.ratio, "low": one.low, "high": one.high} for one in found],
        "number": number.name,
        "creep": detected(series, rule),
    }


def detected(series: stored.Series, rule: configuration.CreepSettings) -> model.JsonObject | None:
    """Whether a series ``creeps``, ``since`` between which commits, and by how much, as JSON; None where nothing was compared."""
    series = compared(series)
    edges = _edges(series)
    if not edges:
        return None
    found = creep.detect(edges, series.known, min_effect=series.edges[0].rule.min_effect, run_length=rule.run_length)
    return {
        "creeps": found.creeps,
        "since": found.since and [series.commits[place] for place in found.since],
        "estimate": _number(found.estimate),
        "low": _number(found.low),
        "high": _number(found.high),
        "chance": found.chance,
    }


def compared(series: stored.Series) -> stored.Series:
    """With what is said of the times that are compared, where a verdict is of slow iterations alone."""
    edges = [_of_body(edge) for edge in series.edges]
    both = zip(series.edges, edges, strict=True)
    improved = [(edge.older, edge.newer) for was, edge in both if was.in_tail and edge.decision.verdict is model.Verdict.IMPROVED]
    return dataclasses.replace(series, edges=edges, known=[*series.known, *improved])


def _of_body(edge: stored.Edge) -> stored.Edge:
    if edge.in_tail is None:
        return edge
    return dataclasses.replace(edge, decision=judging.body(edge.in_tail.design, edge.in_tail.blocks), in_tail=None)


def _edges(series: stored.Series) -> list[creep.Edge]:
    return [
        creep.Edge.of(one.older, one.newer, one.decision, one.rule)
        for one in series.edges
        if one.decision.estimate == one.decision.estimate  # of a verdict by other things than time there is none
    ]


def _measured_of_late(series: stored.Series) -> bool:
    """Also where that came to nothing: it would at the next commit too."""
    return series.anchored is not None and max(edge.newer for edge in series.edges) - series.anchored < GAP


def _known(series: stored.Series, older: int, newer: int) -> bool:
    return any((edge.older, edge.newer) == (older, newer) for edge in series.edges)


def _number(value: float) -> float | None:
    return value if value == value else None
