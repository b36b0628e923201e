"""From revisions to the pairs that are measured. Pure: the store selects the window, and carries out the steps.

Backlog policy: at most ``backlog`` revisions of a repository wait for their verdicts. Where more have landed, the
newest is taken and the others are spread evenly over what has landed; those between are coalesced into the next newer
one taken, whose control is the last one taken before it, so that no change goes unmeasured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        newest: by platform, the newest pair that was planned of itself and whose treatment is not known not to build there,
            to be completed when cells are added.
        orphans: pairs whose control turned out not to build, for which another has not been chosen yet.
        unbuildable: by platform, commits that do not build there.
        good: commits whose experiments all ended with nothing regressed or broken.
    """

    now: datetime
    pending: Sequence[Ranked] = ()
    line: Sequence[Ranked] = ()
    undecided: int = 0
    planned_at: datetime | None = None
    newest: Mapping[str, Pair] = field(default_factory=dict)
    orphans: Sequence[Pair] = ()
    unbuildable: Mapping[str, Collection[str]] = field(default_factory=dict)
    good: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlanPair:
    """Measure ``treatment`` against ``control`` (None: as it is, and ``alone`` says why) in these cells."""

    treatment: model.Revision
    control: model.Revision | None
    cells: tuple[coverage.Cell, ...]
    alone: str = ""


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
    steps: list[Step] = []
    for orphan in window.orphans:
        wanted = tuple(cell for cell in cells if cell.key in orphan.cells)
        steps += pairs(orphan.treatment, window, repository.baseline, wanted)
    steps += _extended(window, cells)
    wait_until = _not_before(window, repository)
    if wait_until is not None:
        return Plan(tuple(steps), again_at=wait_until if window.pending else None)
    taken = _take([ranked.revision for ranked in window.pending], _room(window, repository))
    steps += _coalesced(window, taken)
    for treatment in reversed(taken):
        steps += pairs(treatment, window, repository.baseline, cells, taken)
    return Plan(tuple(steps))


def pairs(
    treatment: model.Revision,
    window: Window,
    rule: settings.Baseline,
    cells: Sequence[coverage.Cell],
    taken: Sequence[model.Revision] = (),
) -> list[PlanPair]:
    """A treatment against its control by the repository's rule; several pairs where what builds differs between platforms."""
    taken_now = {revision.commit for revision in taken}
    older = [
        ranked.revision
        for ranked in window.line
        if ranked.revision.position < treatment.position and _may_be_control(ranked, rule, taken_now)
    ]
    shared: dict[model.Revision | None, list[coverage.Cell]] = {}
    for platform, own in _by_platform(cells).items():
        control = baseline.choose(rule, treatment, older, good=window.good, unbuildable=window.unbuildable.get(platform, ()))
        shared.setdefault(control, []).extend(own)
    return [
        PlanPair(treatment, control, tuple(own), "" if control else _why_alone(rule, older, own))
        for control, own in shared.items()
    ]


def _by_platform(cells: Sequence[coverage.Cell]) -> dict[str, list[coverage.Cell]]:
    found: dict[str, list[coverage.Cell]] = {}
    for cell in cells:
        found.setdefault(cell.device.platform, []).append(cell)
    return found


def _why_alone(rule: settings.Baseline, older: Sequence[model.Revision], cells: Sequence[coverage.Cell]) -> str:
    if not older:
        return "no control: nothing older on the branch has been measured"
    if rule.rule == "pinned":
        return f"no control: the pinned {rule.commit} is not below it on the branch, or does not build"
    return f"no control: nothing older that may be one builds for {' or '.join(_by_platform(cells))}"


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


def _extended(window: Window, cells: Sequence[coverage.Cell]) -> list[Step]:
    missing: dict[int, tuple[Pair, list[coverage.Cell]]] = {}
    for platform, own in _by_platform(cells).items():
        newest = window.newest.get(platform)
        if newest is not None:
            missing.setdefault(newest.id, (newest, []))[1].extend(cell for cell in own if cell.key not in newest.cells)
    return [Extend(pair, tuple(new)) for pair, new in missing.values() if new]
