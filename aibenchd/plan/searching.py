"""A step of the search for the commits at fault, on commits' names: what is known becomes :mod:`aibenchd.plan.bisect`'s
places on a line, and its answer names commits again. Pure; imports numpy, and only what searches should import it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aibenchd import model, settings
from aibenchd.plan import bisect

BATCH = 4  # blocks that a search is given at once: fewer looks, and a commit that must be built is worth it only with some
DEAREST, CHEAPEST = 200.0, 1.0  # a build, in blocks
USUAL_PRICE = 20.0
SHOWN = 10  # commits that are listed with their probabilities


@dataclass(frozen=True, slots=True)
class Pair:
    """Two commits that were measured: log ratios of their blocks; ``useless`` is which one cannot be, where one cannot."""

    newer: str
    older: str
    ratios: Sequence[float]
    useless: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What a search has to go on.

    Attributes:
        line: commits, oldest first, from the last good one to the bad one.
        built: of them, those whose programs were there before the search; and those that were known not to build.
        unbuildable: those that do not build, as far as known.
        pairs: what was measured for the search.
        shown: log ratios of the blocks of the bad one against the good one that began it.
        min_effect: as a ratio minus 1.
        build_seconds, block_seconds: what they take; 0 where unknown.
    """

    line: Sequence[str]
    built: frozenset[str]
    unbuildable: frozenset[str]
    pairs: Sequence[Pair]
    shown: Sequence[float]
    min_effect: float
    build_seconds: float = 0.0
    block_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """What the search says now, and what it asks for.

    Attributes:
        search: ``running``, or how it ended.
        found: what is kept of it, as JSON.
        wanted: blocks by (newer commit, older commit), None for as many as a verdict takes; nothing where it has ended.
    """

    search: str
    found: model.JsonObject
    wanted: Mapping[tuple[str, str], int | None]


def step(known: Known, rule: settings.BisectSettings) -> Step:
    """One look at a search."""
    search = _search(known, rule)
    told = bisect.posterior(search)
    if told.outcome is None and _stuck(known):
        return Step(bisect.Outcome.INCONCLUSIVE.value, _found(known, search, told), {})
    wanted: Counter[tuple[int, int]] = Counter((one.newer, one.older) for one in bisect.next_measurements(search, BATCH))
    named = {(known.line[newer], known.line[older]): blocks for (newer, older), blocks in wanted.items()}
    return Step(told.outcome.value if told.outcome else "running", _found(known, search, told), named)


def by_verdicts(line: Sequence[str], bad: Mapping[str, bool], useless: Collection[str], alpha: float) -> Step:
    """As :func:`step`, of what is not a matter of time: a program that fails, or computes something else, from some commit on.

    Args:
        line: commits, oldest first, from the last good one to the bad one.
        bad: by commit between them, the verdict against the good one.
        useless: commits that can have none.
        alpha: of each verdict.
    """
    good_place = max((place for place, commit in enumerate(line) if bad.get(commit) is False), default=0)
    bad_place = min((place for place, commit in enumerate(line) if bad.get(commit) and place > good_place), default=len(line) - 1)
    between = [commit for commit in line[good_place + 1 : bad_place] if commit not in useless]
    suspects, certainty = line[good_place + 1 : bad_place + 1], (1 - alpha) ** len(bad)
    culprit: model.JsonObject = {"commits": list(suspects), "probability": certainty, "effect": None, "low": None, "high": None}
    found: model.JsonObject = {
        "culprits": [culprit],
        "probability": certainty,
        "commits": len(line) - 1,
        "blocks": None,
        "builds": len(bad),
        "by_commit": {commit: certainty / len(suspects) for commit in suspects[:SHOWN]},
    }
    if between:
        return Step("running", found, {(between[len(between) // 2], line[0]): None})
    return Step(bisect.Outcome.FOUND.value, found, {})


def _search(known: Known, rule: settings.BisectSettings) -> bisect.Search:
    place = {commit: number for number, commit in enumerate(known.line)}
    last = len(known.line) - 1
    useless = _useless(known)
    usable = [commit for commit in known.line if commit not in useless]
    before = dict(zip(usable[1:], usable, strict=False))
    # What lies between two commits may be built by now, or the line be another one: such a pair says nothing any more.
    measured = [pair for pair in known.pairs if pair.newer in before and pair.older in (known.line[0], before[pair.newer])]
    evidence = [bisect.Evidence(last, 0, tuple(known.shown)), *(_evidence(pair, place) for pair in measured)]
    return bisect.Search(
        commits=last,
        evidence=tuple(one for one in evidence if one.ratios),
        unbuildable=frozenset(place[commit] for commit in useless if commit in place),
        built=frozenset(place[commit] for commit in known.built if commit in place),
        build_price=_price(known),
        min_effect=known.min_effect,
        confidence=rule.confidence,
        max_blocks=rule.max_blocks + len(known.shown),
        max_builds=rule.max_builds,
    )


def _useless(known: Known) -> frozenset[str]:
    """Commits between the ends that cannot be measured; where an end is what cannot, the other commit of that pair."""
    ends = {known.line[0], known.line[-1]}
    found = set(known.unbuildable)
    for pair in known.pairs:
        both = {pair.newer, pair.older}
        if pair.useless and not both & known.unbuildable:  # else that is why
            found |= ({pair.useless} - ends) or both
    return frozenset(found - ends)


def _stuck(known: Known) -> bool:
    """Whether an end cannot be measured any more, without which nothing can be told."""
    ends = {known.line[0], known.line[-1]}
    return bool(ends & known.unbuildable) or any(pair.useless and {pair.newer, pair.older} == ends for pair in known.pairs)


def _evidence(pair: Pair, place: Mapping[str, int]) -> bisect.Evidence:
    return bisect.Evidence(place[pair.newer], place[pair.older], tuple(pair.ratios))


def _price(known: Known) -> float:
    if not (known.build_seconds and known.block_seconds):
        return USUAL_PRICE
    return min(max(known.build_seconds / known.block_seconds, CHEAPEST), DEAREST)


def _found(known: Known, search: bisect.Search, told: bisect.Posterior) -> model.JsonObject:
    likeliest = sorted(zip(told.by_commit, known.line[1:], strict=True), reverse=True)[:SHOWN]
    return {
        "culprits": [
            {
                "commits": [known.line[place] for place in culprit.commits],
                "probability": round(culprit.probability, 4),
                "effect": culprit.effect,
                "low": culprit.low,
                "high": culprit.high,
            }
            for culprit in told.culprits
        ],
        "probability": round(told.probability, 4),
        "commits": search.commits,
        "blocks": search.blocks - len(known.shown),
        "builds": search.builds,
        "by_commit": {commit: round(probability, 4) for probability, commit in likeliest},
    }
