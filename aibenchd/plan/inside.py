"""Inside merges: where the commit at fault is a merge, the lines of commits that it brought in are searched as the branch was.

Such a line begins with the merge base, which is good as far as this change goes: the branch has it too. Whether its other end is
bad is not known, for a merge may be at fault itself, by how it resolved conflicts, or because two changes do together what
neither does alone. So the line's own blocks have to show it: nothing is taken over from the branch. Where they show no culprit,
the merge itself is named; and beside those that they show, where these do not account for all that the merge did, but for half
of what is called a change: by so much a change may differ on two lines, whose programs are not the same. Commits at the end of
a line that cannot be measured stay suspects with the merge. Pure; imports what searches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aibenchd import model
from aibenchd.plan import posterior, searching

FOUND, NO_CULPRIT, RUNNING = posterior.Outcome.FOUND.value, posterior.Outcome.NO_CULPRIT.value, "running"
CONCLUSIVE = (FOUND, NO_CULPRIT)
NOTHING = "all that it brought in is left out by the path filters, or was there"

Culprit: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class History:
    """What is known of merges.

    Attributes:
        merges: of the commits that are searched, those with several parents.
        sides: the lines that a merge brought in, by the merge and by what it brought them into; each oldest first, from the
            merge base on. A merge that is not there was not looked into yet.
    """

    merges: Collection[str]
    sides: Mapping[tuple[str, str], Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Line:
    """Commits, oldest first, of which the first is good; ``shown``: whether the last is known to be bad."""

    commits: Sequence[str]
    shown: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """What other lines of a search have cost; blocks that are not counted are 0."""

    blocks: int = 0
    builds: int = 0

    def with_line(self, found: Mapping[str, Any]) -> Spent:
        """With what another line cost, by what its look says that it found."""
        return Spent(self.blocks + (found.get("blocks") or 0), self.builds + (found.get("builds") or 0))


Look: TypeAlias = Callable[[Line, Spent], searching.Step]


def search(branch: Sequence[str], history: History, look: Look, min_effect: float) -> searching.Step:
    """One look at a search, along the branch and then inside of what it finds.

    Args:
        branch: commits, oldest first, from the last good one to the bad one.
        look: one look at one line, given what others have cost.
        min_effect: a change's least size, as a ratio minus 1.
    """
    outer = look(Line(branch, shown=True), Spent())
    if outer.search != FOUND:
        return outer
    insides = _Insides(history, look, Spent().with_line(outer.found), math.log1p(min_effect) / 2)
    found: dict[str, Any] = dict(outer.found)
    named = insides.named(branch, found["culprits"], found["by_commit"])
    whole = {
        **found,
        "culprits": named.culprits,
        "probability": round(found["probability"] * insides.certainty, 4),
        "commits": found["commits"] + sum(one["commits"] for one in insides.told),
        "blocks": None if found["blocks"] is None else insides.spent.blocks,
        "builds": insides.spent.builds,
        "by_commit": dict(sorted(named.by_commit.items(), key=lambda one: -one[1])[: searching.SHOWN]),
        "merges": insides.told,
    }
    if insides.running is not None:
        return dataclasses.replace(insides.running, found=whole)
    return searching.Step(outer.search, whole, {})


@dataclass(frozen=True, slots=True)
class _Named:
    """The culprits of a line, and its commits by their probability."""

    culprits: list[Culprit] = field(default_factory=list)
    by_commit: dict[str, float] = field(default_factory=dict)


class _Insides:
    """Looks inside merges, one line after another, until one is not through.

    Attributes:
        spent: by all lines so far.
        running: what the line asks for that is not through.
        told: how the search of each line ended or stands, as JSON.
        certainty: probability of all that their ends say.
    """

    def __init__(self, history: History, look: Look, spent: Spent, slack: float) -> None:
        self._history, self._look, self._slack = history, look, slack
        self.spent = spent
        self.running: searching.Step | None = None
        self.told: list[dict[str, Any]] = []
        self.certainty = 1.0

    def named(self, line: Sequence[str], culprits: Sequence[Culprit], by_commit: Mapping[str, float]) -> _Named:
        """What is at fault of a line whose search found ``culprits``, once the merges among them are looked into."""
        found = _Named([], dict(by_commit))
        for culprit in culprits:
            inner, itself = self._inner(line, culprit)
            found.by_commit.update(inner.by_commit)
            found.culprits.extend(inner.culprits)
            if not _explains(inner.culprits, culprit, self._slack):
                found.culprits.append(itself)
            else:
                for commit in culprit["commits"]:
                    found.by_commit.pop(commit, None)
        return found

    def _inner(self, line: Sequence[str], culprit: Culprit) -> tuple[_Named, Culprit]:
        """What is inside of a culprit; and the culprit, as sure as the lines inside of it leave it."""
        inner, itself = _Named(), dict(culprit)
        for merge in culprit["commits"]:
            for side in self._sides_of(merge, line[line.index(merge) - 1]):
                step = self._searched(merge, side)
                if self.running is not None:
                    return inner, itself
                one = self._of_side(side, step, culprit["probability"], [*culprit["within"], merge])
                inner.culprits.extend(one.culprits)
                inner.by_commit.update(one.by_commit)
                if step.search == NO_CULPRIT:
                    itself["probability"] = round(itself["probability"] * _certainty(step), 4)
                itself["commits"] = [*step.beyond, *itself["commits"]]
        return inner, itself

    def _sides_of(self, merge: str, onto: str) -> Sequence[Sequence[str]]:
        if merge not in self._history.merges or self.running is not None:
            return ()
        sides = self._history.sides.get((merge, onto))
        if sides is None:
            self.running = searching.Step(RUNNING, {}, {}, unlisted=((merge, onto),))
        elif not sides:
            self._tell(merge, onto, 0, NO_CULPRIT, NOTHING)
        return sides or ()

    def _searched(self, merge: str, side: Sequence[str]) -> searching.Step:
        step = self._look(Line(side, shown=False), self.spent)
        self.spent = self.spent.with_line(step.found)
        self._tell(merge, side[0], len(side) - 1, step.search, step.found.get("reason", ""))
        if step.search == RUNNING:
            self.running = step
        elif step.search in CONCLUSIVE:
            self.certainty *= _certainty(step)
        return step

    def _of_side(self, side: Sequence[str], step: searching.Step, probability: float, within: Sequence[str]) -> _Named:
        """What is named of a side: nothing where its search found nothing."""
        if step.search != FOUND:
            return _Named()
        found: dict[str, Any] = dict(step.found)
        culprits = [
            {**one, "probability": round(one["probability"] * probability, 4), "within": within} for one in found["culprits"]
        ]
        return self.named(side, culprits, {commit: round(one * probability, 4) for commit, one in found["by_commit"].items()})

    def _tell(self, merge: str, base: str, commits: int, search: str, reason: model.Json) -> None:
        self.told.append({"commit": merge, "base": base, "commits": commits, "search": search, "reason": reason})


def _certainty(step: searching.Step) -> float:
    return float(step.found["probability"])  # type: ignore[arg-type]


def _explains(inner: Sequence[Culprit], whole: Culprit, slack: float) -> bool:
    """Whether what was found inside of a merge may be all that it did: together they may be as large as it is at least.

    Args:
        slack: log ratio that may be missing.
    """
    if not inner or whole["effect"] is None:
        return bool(inner)
    sign = math.copysign(1, whole["effect"])
    least = min(sign * math.log1p(whole[end]) for end in ("low", "high"))
    most = sum(max(sign * math.log1p(one[end]) for end in ("low", "high")) for one in inner)
    return most >= least - slack
