"""From revisions to the pairs that are measured. Pure: the store selects the window, and carries out the steps.

Backlog policy: at most ``backlog`` revisions of a repository wait for their verdicts. Where more have landed, the
newest is taken and the others are spread evenly over what has landed; those between are coalesced into the next newer
one taken, whose control is the last one taken before it, so that no change goes unmeasured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from aibenchd import model, settings
from aibenchd.plan import baseline, coverage

PASSED_OVER = frozenset({"coalesced", "stepped", "filtered", "gone"})


@dataclass(frozen=True, slots=True)
class Ranked:
    """A revision and what the journal says of it."""

    revision: model.Revision
    state: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair that is in the journal: ``cells`` are those it has experiments in."""

    id: int
    treatment: model.Revision
    cells: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Window:
    """What the planner sees of one repository.

    Attributes:
        pending: revisions in state ``new``, newest first.
        line: the watched line below the newest pending revision, newest first, pending ones included.
        undecided: how many revisions have experiments that wait or run.
        planned_at: when a revision was last planned.
        newest: the newest pair that was planned of itself and whose treatment is not known not to build, to be completed
            when cells are added.
        orphans: pairs whose control turned out not to build, for which another has not been chosen yet.
        unbuildable: commits that do not build.
        good: commits whose experiments all ended with nothing regressed or broken.
    """

    now: datetime
    pending: Sequence[Ranked] = ()
    line: Sequence[Ranked] = ()
    undecided: int = 0
    planned_at: datetime | None = None
    newest: Pair | None = None
    orphans: Sequence[Pair] = ()
    unbuildable: frozenset[str] = frozenset()
    good: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlanPair:
    """Measure ``treatment`` against ``control`` (None: as it is) in these cells."""

    treatment: model.Revision
    control: model.Revision | None
    cells: tuple[coverage.Cell, ...]


@dataclass(frozen=True, slots=True)
class Extend:
    """Measure a pair's treatment, as it is, in more cells: a benchmark, device or backend is new.

    One arm tells whether the cell works at all, and how fast; the next revision's A/B has it like all others.
    """

    pair: Pair
    cells: tuple[coverage.Cell, ...]


@dataclass(frozen=True, slots=True)
class Coalesce:
    """Pass a revision over; the change in it is measured with ``into``."""

    revision: model.Revision
    into: model.Revision


Step: TypeAlias = PlanPair | Extend | Coalesce


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, in the order to carry them out; ``again_at`` is when to look again though nothing happens."""

    steps: tuple[Step, ...] = ()
    again_at: datetime | None = field(default=None)


def plan(window: Window, repository: settings.RepositorySettings, cells: tuple[coverage.Cell, ...]) -> Plan:
    """What to do now for one repository."""
    if not cells:
        return Plan()
    steps: list[Step] = [_replaced(window, repository, cells, orphan) for orphan in window.orphans]
    steps += _extended(window, cells)
    wait_until = _not_before(window, repository)
    if wait_until is not None:
        return Plan(tuple(steps), again_at=wait_until if window.pending else None)
    taken = _take([ranked.revision for ranked in window.pending], _room(window, repository))
    steps += _coalesced(window, taken)
    steps += [
        PlanPair(treatment, control_of(treatment, window, repository.baseline, taken), cells) for treatment in reversed(taken)
    ]
    return Plan(tuple(steps))


def control_of(
    treatment: model.Revision,
    window: Window,
    rule: settings.Baseline,
    taken: Sequence[model.Revision] = (),
) -> model.Revision | None:
    """The control of a treatment by the repository's rule; None where there is none, and it is measured as it is."""
    taken_now = {revision.commit for revision in taken}
    older = [
        ranked.revision
        for ranked in window.line
        if ranked.revision.position < treatment.position and _may_be_control(ranked, rule, taken_now)
    ]
    return baseline.choose(rule, treatment, older, good=window.good, unbuildable=window.unbuildable)


def _may_be_control(ranked: Ranked, rule: settings.Baseline, taken_now: set[str]) -> bool:
    # The calendar and a pin name a commit whatever became of it; the other rules want one that is measured anyway.
    if rule.rule in ("week-start", "pinned"):
        return ranked.state != "gone"
    if ranked.state == "new":
        return ranked.revision.commit in taken_now
    return ranked.state not in PASSED_OVER


def _not_before(window: Window, repository: settings.RepositorySettings) -> datetime | None:
    if window.planned_at is None or not repository.min_run_interval:
        return None
    earliest = window.planned_at + timedelta(seconds=repository.min_run_interval)
    return earliest if window.now < earliest else None


def _room(window: Window, repository: settings.RepositorySettings) -> int:
    room = max(0, repository.backlog - window.undecided)
    return min(room, 1) if repository.min_run_interval else room


def _take(pending: Sequence[model.Revision], room: int) -> list[model.Revision]:
    """The newest, and others spread evenly, ``room`` at most; newest first."""
    if len(pending) <= room:
        return list(pending)
    return [pending[index * len(pending) // room] for index in range(room)]


def _coalesced(window: Window, taken: Sequence[model.Revision]) -> list[Step]:
    if not taken:
        return []
    into = taken[0]
    steps: list[Step] = []
    kept = {revision.commit for revision in taken}
    for ranked in window.pending:
        if ranked.revision.commit in kept:
            into = ranked.revision
        else:
            steps.append(Coalesce(ranked.revision, into))
    return steps


def _replaced(
    window: Window,
    repository: settings.RepositorySettings,
    cells: tuple[coverage.Cell, ...],
    orphan: Pair,
) -> Step:
    wanted = tuple(cell for cell in cells if cell.key in orphan.cells)
    return PlanPair(orphan.treatment, control_of(orphan.treatment, window, repository.baseline), wanted)


def _extended(window: Window, cells: tuple[coverage.Cell, ...]) -> list[Step]:
    if window.newest is None:
        return []
    missing = tuple(cell for cell in cells if cell.key not in window.newest.cells)
    return [Extend(window.newest, missing)] if missing else []
