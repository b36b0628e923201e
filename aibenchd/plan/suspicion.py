"""From bad verdicts to findings: what is a new suspect, what is confirmed, and which is searched first. Pure.

An experiment that regressed, with no one asking, is a *suspect*: its estimate is biased by having stopped, and of many
experiments some err. It is measured again, independently, and only that counts: it is *refuted*, or it becomes an *open* finding,
with the effect that was measured then. Which of a commit's suspects are confirmed is chosen over all of them, at a false
discovery rate (:mod:`aibenchd.decide.multiplicity`): where none regressed, that is the chance of any alarm.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aibenchd import model

# States of a finding.
SUSPECT, REFUTED, UNCONFIRMED, OPEN = "suspect", "refuted", "unconfirmed", "open"
ACCEPTED = "accepted"  # by a person, as the new baseline
EXPLAINS = (SUSPECT, OPEN, ACCEPTED)  # what later experiments show again
# States of the search for its commits.
NOT_YET, RUNNING, DEFERRED, IMPOSSIBLE, FOUND = "", "running", "deferred", "impossible", "found"
STOPPED = "stopped"  # because the finding was accepted
UNSEARCHED = (NOT_YET, RUNNING, DEFERRED)
BAD = (model.Verdict.REGRESSED, model.Verdict.BROKEN)
FLEET = 8  # devices that search together at most: each look takes as much longer as there are more
LAY_OUT = "set builds.layout to what it heeds, or have build.sh heed AIBENCHD_LAYOUT_SEED"


class Fault(enum.StrEnum):
    """What a bad verdict is of. Each is searched apart: what made a program fail need not be what made it slower."""

    SLOWER = "slower"
    TAIL = "slower in its slow iterations alone"
    BROKEN = "broken"
    WRONG = "wrong"  # it computes something else


@dataclass(frozen=True, slots=True)
class Cell:
    """Where something regressed; ``benchmark`` is a digest, ``identifier`` what people call it."""

    repository: str
    benchmark: str
    device: str
    backend: str
    identifier: str


@dataclass(frozen=True, slots=True)
class Range:
    """Two commits, between which something changed; ``control`` is None where there is one arm."""

    repository: str
    treatment: str
    control: str | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """An experiment with a bad verdict.

    Attributes:
        newer, older: positions of its treatment and its control on the branch; None where they are not on it.
        estimate, low, high, in_tail: as :class:`aibenchd.model.Decision`; None where unknown.
    """

    experiment: int
    cell: Cell
    of: Range
    newer: int | None
    older: int | None
    verdict: model.Verdict
    reason: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    in_tail: bool = False

    @property
    def slower(self) -> bool:
        """Whether it is the time that shows it: else the program fails, or computes something else."""
        return slower(self.verdict, self.low)

    @property
    def fault(self) -> Fault:
        """What is wrong."""
        if self.verdict is model.Verdict.BROKEN:
            return Fault.BROKEN
        if not self.slower:
            return Fault.WRONG
        return Fault.TAIL if self.in_tail else Fault.SLOWER


@dataclass(frozen=True, slots=True)
class Effect:
    """A ratio minus 1, and its interval."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, row: Any) -> Effect | None:
        """Of what has the three as attributes; None where one is not known."""
        found = (row.estimate, row.low, row.high)
        return None if any(one is None or not math.isfinite(one) or one <= -1 for one in found) else cls(*found)

    def __add__(self, other: Effect) -> Effect:
        """Both after one another: log ratios add, and so do their bounds."""
        return self._log(lambda one, two: one + two, other, other)

    def __sub__(self, other: Effect) -> Effect:
        """What is left of one when another is taken off: at least what is left of the least by the most."""
        return self._log(lambda one, two: one - two, other, Effect(other.estimate, other.high, other.low))

    def _log(self, put: Callable[[float, float], float], other: Effect, ends: Effect) -> Effect:
        pairs = ((self.estimate, other.estimate), (self.low, ends.low), (self.high, ends.high))
        return Effect(*(math.expm1(put(math.log1p(one), math.log1p(two))) for one, two in pairs))


@dataclass(frozen=True, slots=True)
class Known:
    """A finding that stands, waits to be confirmed, or is accepted.

    Attributes:
        confirmed: its own effect, as what measured it again has it: without what findings within its range explain. None where
            it is not confirmed, or not a matter of time.
        named: the positions of its commits at fault on the branch; None while they may be searched.
        by_commit: what each of them did, as a log ratio; all of it at its treatment where they are not named.
        beyond: findings within its range that ``confirmed`` is without; what else lies there, it has in it.
    """

    finding: int
    suspect: Suspect
    confirmed: Effect | None = None
    named: Collection[int] | None = None
    by_commit: Mapping[str, float] = field(default_factory=dict)
    beyond: Collection[int] = ()

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """From which position to which it changed the time; none where it is not on the branch."""
        if self.named:
            return [(place - 1, place) for place in self.named]
        older, newer = self.suspect.older, self.suspect.newer
        return [(older, newer)] if older is not None and newer is not None and older < newer else []


@dataclass(frozen=True, slots=True)
class Explained:
    """What confirmed findings within its range explain of a suspect.

    A regression over commits that hold known ones is one of its own only by what is left beyond them. So the known effects are
    taken off, as those experiments have them that confirmed them, whose blocks did not choose them. All the same one that
    is confirmed because it is large is taken for a little too large: that leaves too little rather than too much. Bounds are
    added as they are, which holds however the measurements depend on each other, with the sum of their errors. What lies within
    another finding, and was not taken off that one's effect, is in it: it is not added again. Improvements are not taken off:
    nothing measures them again, so that a lucky one would make a drift of nothing.
    """

    findings: Sequence[int]
    effect: Effect
    by_commit: Mapping[str, float]

    def said(self, whole: Effect) -> str:
        """For a person."""
        left, one = whole - self.effect, self.effect
        within = (one.high - one.low) / 2
        explain = "explains" if len(self.findings) == 1 else "explain"
        return (
            f"of it {_numbered(self.findings)} {explain} {one.estimate:+.1%} ± {within:.1%}; "
            f"{left.estimate:+.1%} ({left.low:+.1%} … {left.high:+.1%}) is left"
        )

    def as_json(self, whole: Effect) -> model.JsonObject:
        """What is kept of it: effects as ratios minus 1, and what is left of the ``whole`` one."""
        left = whole - self.effect
        return {
            "of": list(self.findings),
            **dataclasses.asdict(self.effect),
            "left": dataclasses.asdict(left),
            "by_commit": dict(self.by_commit),
        }


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An open finding, whose search is in the state that is named.

    Attributes:
        waits: whether its search has blocks to run.
        build: of its treatment.
    """

    finding: int
    suspect: Suspect
    search: str
    waits: bool = False
    build: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether there is nothing to do for it but to wait: its line is still there, and its blocks are to come."""
        return self.waits and None not in (self.suspect.newer, self.suspect.older)


@dataclass(frozen=True, slots=True)
class Ended:
    """What measured a suspect again, at its end.

    Attributes:
        state: of that experiment; ``decided`` where it has a verdict.
        evidence: the logarithm of its e-value against no regression; -inf where it is not bad.
        relaid: whether both commits were built with another memory layout for it.
        unmoved: the arms whose builds came out as the first ones all the same.
    """

    finding: int
    state: str
    verdict: model.Verdict | None
    reason: str
    estimate: float | None
    evidence: float = -math.inf
    relaid: bool = False
    unmoved: Sequence[model.ArmName] = ()

    @property
    def again(self) -> str:
        """How it was measured."""
        return "built with another memory layout and measured again" if self.relaid and not self.unmoved else "measured again"


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of a suspect."""

    finding: int
    state: str
    reason: str
    evidence: float | None = None


def slower(verdict: model.Verdict | None, low: float | None) -> bool:
    """Whether a verdict is of the time: then, and only then, its interval begins at no change or beyond."""
    return verdict is model.Verdict.REGRESSED and low is not None and low >= 0


def sighting_of(suspect: Suspect, known: Collection[Known], *, searched: bool = True) -> int | None:
    """The newest finding that a suspect shows again: it is not more than findings explain, and its commits span that one's.

    Or they lie within that one's, which names them or may do so yet: an older control than the newest commit's has found first
    what the comparison of neighbours finds now.

    Args:
        searched: whether the commits at fault of findings are searched.
    """
    spanned = [one for one in known if _tells(one.suspect, suspect) and _spans(suspect, one.suspect)]
    if spanned:
        return None if _exceeds(suspect, spanned) else max(one.finding for one in spanned)
    around = [one for one in known if _within(suspect, one, searched=searched) and not _exceeds(suspect, [one])]
    return max((one.finding for one in around), default=None)


def no_more(suspect: Suspect, finding: Known) -> bool:
    """Whether what was taken for a finding's, as it lies within its commits, is not, now that its search has ended."""
    return not _spans(suspect, finding.suspect) and not _within(suspect, finding, searched=False)


def explained(suspect: Suspect, known: Iterable[Known]) -> Explained | None:
    """What confirmed findings explain of it; None where there are none in its range."""
    spanned = [one for one in known if _tells(one.suspect, suspect) and _spans(suspect, one.suspect)]
    sure = sorted((one for one in spanned if one.confirmed), key=lambda one: one.finding)
    if not sure or not suspect.slower:
        return None
    apart = [one.confirmed for one in _apart(sure) if one.confirmed]
    return Explained([one.finding for one in sure], functools.reduce(operator.add, apart), _by_commit(sure))


def beyond(settled: Settled, found: Explained | None, whole: Effect | None) -> Settled:
    """A confirmed suspect, once what other findings explain of it is taken off: it is none where nothing is left for sure."""
    if found is None or whole is None:
        return settled
    left = whole - found.effect
    reason = "; ".join(filter(None, (settled.reason, found.said(whole))))
    return dataclasses.replace(settled, state=OPEN if left.low > 0 else UNCONFIRMED, reason=reason)


def unsure(ended: Iterable[Ended], chosen: Collection[int]) -> list[Ended]:
    """Of a commit's suspects those that are bad again, and not surely enough to be ``chosen``."""
    return [one for one in ended if one.state == "decided" and one.verdict in BAD and one.finding not in chosen]


def not_surely(one: Ended, family: int, promise: str) -> str:
    """Of what is unsure, in words: it is one of so many suspects, among which is chosen with some promise."""
    return (
        f"{one.again}: {one.verdict}{_percent(one.estimate)}, but not surely enough for one of {family} of its commit {promise}"
    )


def settled(ended: Sequence[Ended], chosen: Collection[int], waiting: int, family: int, promise: str) -> list[Settled]:
    """What becomes of a commit's suspects that were measured again.

    Args:
        ended: those whose measurement has ended.
        chosen: findings of those that are confirmed.
        waiting: how many suspects the commit has, or may still have, that are not measured again to their end yet. One that
            is :func:`unsure` may be chosen once these have ended.
        family, promise: of how many at most, and with which promise, it was chosen; for what is said.
    """
    found = []
    for one in ended:
        said = f"{one.again}: {one.verdict}{_percent(one.estimate)}"
        if one.state != "decided":
            found.append(Settled(one.finding, UNCONFIRMED, f"it could not be measured again: {one.reason or one.state}"))
        elif one.verdict is model.Verdict.INCONCLUSIVE:
            found.append(Settled(one.finding, UNCONFIRMED, f"{said}; {one.reason}"))
        elif one.verdict not in BAD:
            found.append(Settled(one.finding, REFUTED, said))
        elif one.finding in chosen:
            found.append(Settled(one.finding, OPEN, one.reason, one.evidence))
        elif not waiting:
            found.append(Settled(one.finding, UNCONFIRMED, not_surely(one, family, promise), one.evidence))
    notes = {one.finding: _note(one) for one in ended}
    return [dataclasses.replace(one, reason="; ".join(filter(None, (one.reason, notes[one.finding])))) for one in found]


def lead_of(confirmed: Sequence[Confirmed], devices: Collection[str]) -> Confirmed:
    """Of findings of one range and fault, that which is searched first: the one that runs, or that of the clearest change.

    On one of these ``devices``, where any is: others have nothing measured on them now.
    """
    able = [one for one in confirmed if one.suspect.cell.device in devices] or confirmed
    return next((one for one in able if one.search == RUNNING), None) or max(able, key=_clearness)


def together(confirmed: Sequence[Confirmed], devices: Collection[str]) -> list[Confirmed]:
    """Of findings of one range and fault, those that are searched at once: that which leads, and it on other ``devices``.

    These are of the same benchmark, of builds for the same platform, so that one serves all; the clearest of each device, and
    those that run first. What is no matter of time is searched by one alone.
    """
    lead = lead_of(confirmed, devices)
    found = {lead.suspect.cell.device: lead}
    like = (one for one in confirmed if one.build == lead.build and one.suspect.cell.benchmark == lead.suspect.cell.benchmark)
    for one in sorted(like, key=lambda one: (one.search == RUNNING, _clearness(one)), reverse=True):
        if lead.suspect.slower and one.suspect.cell.device in devices:
            found.setdefault(one.suspect.cell.device, one)
    return list(found.values())[:FLEET]


def by_range(confirmed: Iterable[Confirmed]) -> dict[tuple[Range, Fault], list[Confirmed]]:
    """Findings by their commits and by what is wrong, oldest first."""
    found: dict[tuple[Range, Fault], list[Confirmed]] = {}
    for one in confirmed:
        found.setdefault((one.suspect.of, one.suspect.fault), []).append(one)
    return found


def _note(one: Ended) -> str:
    """What went wrong with another memory layout; empty where nothing did, or none was asked for."""
    if one.unmoved:
        arms = " and the ".join(one.unmoved)
        return f"built again with another memory layout, the {arms} came out the same: the tool chain did not listen; {LAY_OUT}"
    if one.relaid and one.state != "decided":
        return f"both commits were to be built with another memory layout; see the logs of these builds, and {LAY_OUT}"
    return ""


def _spans(suspect: Suspect, earlier: Suspect) -> bool:
    if suspect.newer is None or suspect.older is None or earlier.newer is None:
        return False
    return suspect.older < earlier.newer <= suspect.newer


def _tells(finding: Suspect, suspect: Suspect) -> bool:
    """Whether a finding may explain a suspect: what is slower in its slow iterations alone explains nothing of the others."""
    return finding.cell == suspect.cell and (suspect.in_tail or not finding.in_tail)


def _within(suspect: Suspect, around: Known, *, searched: bool) -> bool:
    """Whether it lies within the commits of a finding of the same fault, and is or may be what that one comes from."""
    outer = around.suspect
    if None in (suspect.newer, suspect.older, outer.newer, outer.older) or (outer.cell, outer.fault) != (
        suspect.cell,
        suspect.fault,
    ):
        return False
    older, newer = int(suspect.older or 0), int(suspect.newer or 0)
    if not int(outer.older or 0) <= older < newer <= int(outer.newer or 0):
        return False
    return searched if around.named is None else any(older < place <= newer for place in around.named)


def _exceeds(suspect: Suspect, known: Collection[Known]) -> bool:
    """Whether it is slower for sure than all these findings together may make it."""
    highs = [one.confirmed.high if one.confirmed else one.suspect.high for one in _apart(known)]
    if suspect.low is None or None in highs:
        return False
    return math.log1p(suspect.low) > sum(math.log1p(high) for high in highs if high is not None)


def _apart(known: Collection[Known]) -> list[Known]:
    """Those of findings whose effects add up: none that another one's effect has in it."""
    return [one for one in known if _holder(one, known) is None] or list(known)[:1]  # the oldest, where each holds another


def _by_commit(known: Collection[Known]) -> dict[str, float]:
    """What each commit did, as a log ratio: what a finding within another one did is none of what that one's last commit did."""
    found: dict[str, float] = {}
    for one in known:
        holder = _holder(one, known)
        for commit, change in one.by_commit.items():
            if holder is None or commit not in holder.by_commit:
                found[commit] = found.get(commit, 0.0) + change
            if holder is not None and holder.by_commit and commit not in holder.by_commit:
                last = next(reversed(list(holder.by_commit)))
                found[last] = found.get(last, 0.0) - change
    return found


def _holder(inner: Known, known: Collection[Known]) -> Known | None:
    """The narrowest of the findings whose effects have the inner one's in them; of two that are alike the older holds."""
    found = [one for one in known if one.finding != inner.finding and _holds(one, inner)]
    found = [one for one in found if one.finding < inner.finding or not _holds(inner, one)]
    return min(found, key=lambda one: sum(newer - older for older, newer in one.spans), default=None)


def _holds(outer: Known, inner: Known) -> bool:
    if inner.finding in outer.beyond or not _tells(inner.suspect, outer.suspect):
        return False
    within = [any(older <= first and last <= newer for older, newer in outer.spans) for first, last in inner.spans]
    return bool(within) and all(within)


def _clearness(one: Confirmed) -> tuple[float, int]:
    """Effect beside its uncertainty; of equals, the older finding."""
    suspect = one.suspect
    if suspect.low is None or suspect.high is None or suspect.estimate is None:
        return 0.0, -one.finding
    return suspect.estimate / max(suspect.high - suspect.low, 1e-9), -one.finding


def _numbered(findings: Sequence[int]) -> str:
    """In words, such as ``findings 1 to 3``."""
    if len(findings) == 1:
        return f"finding {findings[0]}"
    if len(findings) > 2 and findings[-1] - findings[0] == len(findings) - 1:
        return f"findings {findings[0]} to {findings[-1]}"
    return f"findings {', '.join(map(str, findings))}"


def _percent(estimate: float | None) -> str:
    return "" if estimate is None else f" ({estimate:+.1%})"
