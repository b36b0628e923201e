"""A step of the search for the commits at fault, on commits' names: what is known becomes :mod:`aibenchd.plan.bisect`'s
places on a line, and its answer names commits again. Pure; imports numpy, and only what searches should import it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aibenchd import model, settings
from aibenchd.plan import bisect, drift, fleet, posterior

# Blocks that a search is given at once: fewer looks, and a commit that must be built is worth it only with some. A culprit in 128
# commits costs 207 blocks, builds included, one block at a time, 219 by four, 245 by eight (errors of 10, on the same 24 lines).
BATCH = 4
DEAREST, CHEAPEST = 200.0, 1.0  # a build, in blocks
USUAL_PRICE = 20.0
# Probability that two findings of the same commits and fault have one culprit, and the same. Measured on 32 commits that are all
# built, with a culprit of 6 % and noise of 1 or 2 % a block: a right answer takes 5 or 6 blocks, a whole search 15 or 45.
# A wrong one was believed in 3 of 60 searches where noise of 2 % hides a culprit of 3 %.
SAME = 0.5
SHORT = 12  # characters of a commit
SHOWN = 10  # commits that are listed with their probabilities
RUNNING = "running"
NO_MORE_BLOCKS = "its budget of blocks is spent (bisect.max_blocks)"
NO_MORE_BUILDS = "its budget of builds is spent (bisect.max_builds), and what is built tells no more"
NONE_ALONE = "many commits changed it, each by less than can be found"
BESIDE_IT = "beside that many commits changed it, each by less than can be found"
STUCK = "one of the two ends cannot be measured"


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
        shown: log ratios of the blocks of the bad one against the good one that began it; none where the last commit is not
            known to be bad, as inside of a merge. There it need not be one that can be measured.
        min_effect: as a ratio minus 1.
        build_seconds, block_seconds: what they take; 0 where unknown.
        asked_first: commits that another search has named: they are laid against the one before them before anything else, and
            have prior weight. What the blocks show is evidence like all other.
        earlier: the noise of what was measured there before; None where unknown.
        beside: the parts of other devices that search for the same change.
        known: by commit, what it is known to do, as a log ratio: it is taken off all blocks over it; the search is for others.
    """

    line: Sequence[str]
    built: frozenset[str]
    unbuildable: frozenset[str]
    pairs: Sequence[Pair]
    shown: Sequence[float]
    min_effect: float
    build_seconds: float = 0.0
    block_seconds: float = 0.0
    asked_first: Collection[str] = ()
    earlier: bisect.Earlier | None = None
    known: Mapping[str, float] = field(default_factory=dict)
    beside: Sequence[Beside] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """Another device's part of a search.

    Attributes:
        known: as the device's own search has it.
        running: blocks that it has been given and will run, by (newer commit, older commit).
    """

    known: Known
    running: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Step:
    """What the search says now, and what it asks for.

    Attributes:
        search: ``running``, or how it ended.
        found: what is kept of it, as JSON.
        wanted: blocks by (newer commit, older commit), None for as many as a verdict takes; nothing where it has ended.
        beyond: commits at the end of the line that cannot be measured, where it is not known to be bad; the rest is searched.
        unlisted: merges that must be looked into first, each with what it brought its commits into.
    """

    search: str
    found: model.JsonObject
    wanted: Mapping[tuple[str, str], int | None]
    beyond: Sequence[str] = ()
    unlisted: Sequence[tuple[str, str]] = ()


UNTOLD = Step(posterior.Outcome.INCONCLUSIVE.value, {"probability": 0.0, "reason": "none of its commits can be measured"}, {})


def step(known: Known, rule: settings.BisectSettings) -> Step:
    """One look at a search."""
    if (kept := _reach(known)) < len(known.line):
        inner = dataclasses.replace(known, line=known.line[:kept])
        return dataclasses.replace(step(inner, rule) if kept > 1 else UNTOLD, beyond=known.line[kept:])
    whole = _fleet(known, rule)
    search = whole.of_what_is_built() if whole.builds >= rule.max_builds else whole
    told = search.told()
    found = _found(known, search.own, told, whole.builds)
    if told.outcome is None and _stuck(known):
        return _inconclusive(found, STUCK)
    if told.outcome is posterior.Outcome.INCONCLUSIVE:
        return _inconclusive(found, NO_MORE_BLOCKS)
    if told.outcome is posterior.Outcome.MANY_SMALL:
        return Step(told.outcome.value, {**found, "reason": _said(known, NONE_ALONE, told.spread)}, {})
    if told.outcome is not whole.told().outcome:
        return _inconclusive(found, NO_MORE_BUILDS)
    if told.outcome is not None:
        return Step(told.outcome.value, {**found, **_drift_beside(known, told)}, {})
    weighed = _weighed(known, told)
    if weighed is not told and weighed.probability >= rule.confidence:
        found = _found(known, search.own, weighed, whole.builds)
        return Step(posterior.Outcome.FOUND.value, {**found, **_drift_beside(known, weighed)}, {})
    return Step(RUNNING, found, _wanted(known, search))


def by_verdicts(
    line: Sequence[str],
    bad: Mapping[str, bool],
    useless: Collection[str],
    alpha: float,
    *,
    shown: Collection[str],
    asked_first: Collection[str] = (),
) -> Step:
    """As :func:`step`, of what is not a matter of time: a program that fails, or computes something else, from some commit on.

    Args:
        line: commits, oldest first, from the last good one on.
        bad: by commit after it, the verdict against the good one.
        useless: commits that can have none.
        alpha: of each verdict.
        shown: commits that are bad by what began the search: the last one; none where it is not known to be bad.
        asked_first: as of :class:`Known`.
    """
    end = len(line) if line[-1] in shown else _measurable(line, useless)
    if end == 1:
        return dataclasses.replace(UNTOLD, beyond=line[1:])
    line, beyond = line[:end], line[end:]
    verdicts = {**dict.fromkeys(shown, True), **bad}
    good_place = max((place for place, commit in enumerate(line) if verdicts.get(commit) is False), default=0)
    after = range(good_place + 1, len(line))
    bad_place = next((place for place in after if verdicts.get(line[place])), None)
    certainty = (1 - alpha) ** len(bad)
    if bad_place is None:
        found = _of_verdicts(line, (), certainty, len(bad))
        if good_place == len(line) - 1:
            return Step(posterior.Outcome.NO_CULPRIT.value, found, {}, beyond)
        return Step(RUNNING, found, {(line[-1], line[0]): None}, beyond)
    found = _of_verdicts(line, line[good_place + 1 : bad_place + 1], certainty, len(bad))
    between = [commit for commit in line[good_place + 1 : bad_place] if commit not in useless]
    if not between:
        return Step(posterior.Outcome.FOUND.value, found, {}, beyond)
    before = (line[line.index(commit) - 1] for commit in asked_first if commit in line[1:])
    first = next((commit for commit in (*asked_first, *before) if commit in between), between[len(between) // 2])
    return Step(RUNNING, found, {(first, line[0]): None}, beyond)


def _of_verdicts(line: Sequence[str], suspects: Sequence[str], certainty: float, builds: int) -> model.JsonObject:
    culprit: model.JsonObject = {"commits": list(suspects), "within": [], "probability": certainty}
    return {
        "culprits": [{**culprit, "effect": None, "low": None, "high": None}] if suspects else [],
        "probability": certainty,
        "commits": len(line) - 1,
        "blocks": None,
        "builds": builds,
        "by_commit": {commit: certainty / len(suspects) for commit in suspects[:SHOWN]},
    }


def _measurable(line: Sequence[str], useless: Collection[str]) -> int:
    """How many commits of a line are left once those at its end that cannot be measured are not of it; 1 at least."""
    return next((place + 1 for place in range(len(line) - 1, 0, -1) if line[place] not in useless), 1)


def _reach(known: Known) -> int:
    """How many commits of its line are searched: all, where the last is known to be bad."""
    return len(known.line) if known.shown else _measurable(known.line, _unmeasurable(known))


def _unmeasurable(known: Known) -> Collection[str]:
    return known.unbuildable | {pair.useless for pair in known.pairs if pair.useless}


def _inconclusive(found: model.JsonObject, reason: str) -> Step:
    return Step(posterior.Outcome.INCONCLUSIVE.value, {**found, "reason": reason}, {})


def _said(known: Known, what: str, spread: Sequence[drift.Share]) -> str:
    """That there is a drift, and how it is spread over its commits, for a person."""
    short = [commit[:SHORT] for commit in known.line]
    parts = (f"{one.share:.0%} of it by {short[one.place]} ({short[one.first]} … {short[one.last]})" for one in spread)
    return "; ".join((what, ", ".join(parts))) if spread else what


def _drift_beside(known: Known, told: posterior.Posterior) -> model.JsonObject:
    """That there is a drift beside what was found, where there is one."""
    return {"reason": _said(known, BESIDE_IT, told.spread)} if told.spread else {}


def _weighed(known: Known, told: posterior.Posterior) -> posterior.Posterior:
    """With prior weight on what is asked first: that with probability :data:`SAME` one of those commits is the only culprit.

    A mixture of that prior and the search's own. Of one group of k of n commits the latter's is p = (1 - exp(-E k / n))
    exp(-E (n - k) / n), with E culprits expected; so a posterior q by it alone says that the blocks favour the group by q / p
    over all else, which is what the mixture weighs. Where several are asked first, the others are taken to be as likely as
    they may be at most, which is (1 - q) / p together.
    """
    asked = [commit for commit in known.line[1:] if commit in known.asked_first]
    if len(told.culprits) != 1 or known.line[told.culprits[0].commits[-1]] not in asked:
        return told
    (culprit,), size, q = told.culprits, len(known.line) - 1, told.probability
    share = len(culprit.commits) / size
    p = -math.expm1(-posterior.EXPECTED * share) * math.exp(-posterior.EXPECTED * (1 - share))
    favoured, others = SAME / len(asked) * q / p, SAME * (1 - 1 / len(asked)) * (1 - q) / p
    weighed = (favoured + (1 - SAME) * q) / (favoured + others + 1 - SAME)
    by_commit = list(told.by_commit)
    for place in culprit.commits:
        by_commit[place - 1] = weighed / len(culprit.commits)
    named = dataclasses.replace(culprit, probability=weighed)
    return dataclasses.replace(told, culprits=(named,), probability=weighed, by_commit=tuple(by_commit))


def _wanted(known: Known, search: fleet.Fleet) -> Mapping[tuple[str, str], int]:
    first = next((pair for pair in _asked_first(known, search.own) if pair not in search.own.pairs()), None)
    blocks = [bisect.Measurement(*first)] * BATCH if first else search.next_measurements(BATCH)
    wanted = Counter((one.newer, one.older) for one in blocks)
    return {(known.line[newer], known.line[older]): count for (newer, older), count in wanted.items()}


def _asked_first(known: Known, search: bisect.Search) -> Iterator[tuple[int, int]]:
    """Of each commit that is asked first, what it did; then how the one before it is, which says on which side else to look."""
    usable = [place for place in range(search.commits + 1) if place not in search.unbuildable]
    for before, place in itertools.pairwise(usable):
        if known.line[place] in known.asked_first:
            yield place, before
            if before:
                yield before, 0


def _fleet(known: Known, rule: settings.BisectSettings) -> fleet.Fleet:
    """The search with what other devices know of the line, where they search as much of it."""
    own = dataclasses.replace(known, beside=())
    others = [one for one in known.beside if _reach(one.known) == len(known.line)]
    alike = [dataclasses.replace(one, known=dataclasses.replace(one.known, line=known.line)) for one in others]
    return fleet.Fleet(_search(own, rule), tuple(_other(one, rule) for one in alike))


def _other(beside: Beside, rule: settings.BisectSettings) -> fleet.Other:
    place = {commit: number for number, commit in enumerate(beside.known.line)}
    here = {pair: blocks for pair, blocks in beside.running.items() if place.keys() >= set(pair)}
    running = [bisect.Measurement(place[newer], place[older]) for (newer, older), count in here.items() for _ in range(count)]
    return fleet.Other(_search(beside.known, rule), tuple(running))


def _search(known: Known, rule: settings.BisectSettings) -> bisect.Search:
    place = {commit: number for number, commit in enumerate(known.line)}
    last = len(known.line) - 1
    useless = _useless(known)
    usable = [commit for commit in known.line if commit not in useless]
    before = dict(zip(usable[1:], usable, strict=False))
    # What lies between two commits may be built by now, or the line be another one: such a pair says nothing any more.
    measured = [pair for pair in known.pairs if pair.newer in before and pair.older in (known.line[0], before[pair.newer])]
    whole = Pair(known.line[last], known.line[0], known.shown)
    evidence = [_evidence(pair, place, known.known) for pair in (whole, *measured)]
    return bisect.Search(
        commits=last,
        evidence=tuple(one for one in evidence if one.ratios),
        earlier=known.earlier,
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


def _evidence(pair: Pair, place: Mapping[str, int], known: Mapping[str, float]) -> bisect.Evidence:
    newer, older = place[pair.newer], place[pair.older]
    over = sum(change for commit, change in known.items() if older < place.get(commit, older) <= newer)
    return bisect.Evidence(newer, older, tuple(ratio - over for ratio in pair.ratios))


def _price(known: Known) -> float:
    if not (known.build_seconds and known.block_seconds):
        return USUAL_PRICE
    return min(max(known.build_seconds / known.block_seconds, CHEAPEST), DEAREST)


def _found(known: Known, search: bisect.Search, told: posterior.Posterior, builds: int) -> model.JsonObject:
    likeliest = sorted(zip(told.by_commit, known.line[1:], strict=False), reverse=True)[:SHOWN]
    return {
        "culprits": [
            {
                "commits": [known.line[place] for place in culprit.commits],
                "within": [],
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
        "builds": builds,
        "by_commit": {commit: round(probability, 4) for probability, commit in likeliest},
        "spread": [
            {"share": one.share, "commit": known.line[one.place], "first": known.line[one.first], "last": known.line[one.last]}
            for one in told.spread
        ],
    }
