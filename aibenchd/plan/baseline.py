"""Which revision is the control of a treatment. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from datetime import datetime

from aibenchd import model, settings, weeks

PREFIX_LEAST = 7  # hexadecimal digits, of a commit that the configuration names by its beginning


def choose(
    rule: settings.Baseline,
    treatment: model.Revision,
    older: Sequence[model.Revision],
    *,
    good: Collection[str] = (),
    unbuildable: Collection[str] = (),
) -> model.Revision | None:
    """The control of ``treatment`` by the repository's rule; None where there is none.

    - ``previous``: the newest older one that the path filters let through.
    - ``last-good``: the newest older one that is good; where none is, as ``previous``.
    - ``pinned``: the one that the configuration names, where it is older than the treatment.
    - ``week-start``: see :func:`week_opening`; or the configuration's ``base_commit`` where that is further up the line.

    What does not build is passed over as if it were not there; ``pinned`` has no other to turn to.

    Args:
        older: what is below ``treatment`` on its line and may be its control, newest first.
        good: commits whose experiments all ended with nothing regressed or broken.
        unbuildable: commits that are known not to build.
    """
    built = [revision for revision in older if revision.commit not in unbuildable]
    match rule.rule:
        case "previous":
            return _previous(built)
        case "last-good":
            return next((revision for revision in built if revision.commit in good), None) or _previous(built)
        case "pinned":
            return _named(built, rule.commit)
        case "week-start":
            chosen = (week_opening(treatment, built), _named(built, rule.base_commit))
            return max(filter(None, chosen), key=lambda revision: revision.position, default=None)


def week_opening(treatment: model.Revision, older: Sequence[model.Revision]) -> model.Revision | None:
    """The first commit at or after Monday 00:00 UTC of the treatment's week; None where ``older`` is empty.

    Where that is the treatment itself, no week has begun below it, and the control is the first commit of the week
    that the one before it belongs to: the week before, or the last in which anything landed.

    Times along a line may go up and down, while it is certain what lies below what. A commit counts as landed no later
    than any above it; so the week reaches down the line as far as no commit is older than its Monday. A commit with a
    time in the future does not make a week of its own; one that was made last week and landed in this begins it anew.
    """
    if not older:
        return None
    opening = _opening(weeks.start(treatment.time), older)
    return opening or _opening(weeks.start(older[0].time), older)


def _opening(monday: datetime, older: Sequence[model.Revision]) -> model.Revision | None:
    week = list(itertools.takewhile(lambda revision: revision.time >= monday, older))
    return week[-1] if week else None


def _previous(built: Sequence[model.Revision]) -> model.Revision | None:
    return next((revision for revision in built if revision.relevant), None)


def _named(built: Sequence[model.Revision], name: str) -> model.Revision | None:
    if len(name) < PREFIX_LEAST:
        return None
    return next((revision for revision in built if revision.commit.startswith(name.lower())), None)
