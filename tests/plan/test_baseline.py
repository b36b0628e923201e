from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model, settings, weeks
from aibenchd.plan import baseline

MONDAY = datetime(2024, 5, 13, tzinfo=UTC)


def at(position, hours, *, relevant=True):
    """A revision so many hours after Monday."""
    commit = f"{position:040x}"
    return model.Revision("engine", commit, MONDAY + timedelta(hours=hours), position=position, relevant=relevant)


def line(*hours):
    """Revisions from position 1 up, newest first."""
    return [at(position, when) for position, when in enumerate(hours, 1)][::-1]


def rule(name, **more):
    return settings.Baseline(rule=name, **more)


def choose(name, revisions, *, good=(), unbuildable=(), **more):
    """The position of the newest revision's control."""
    control = baseline.choose(rule(name, **more), revisions[0], revisions[1:], good=good, unbuildable=unbuildable)
    return None if control is None else control.position


def commits(*positions):
    return {f"{position:040x}" for position in positions}


def test_previous_is_the_newest_older_one_that_builds_and_is_relevant():
    revisions = [at(4, 4), at(3, 3), at(2, 2, relevant=False), at(1, 1)]
    assert choose("previous", revisions) == 3
    assert choose("previous", revisions, unbuildable=commits(3)) == 1
    assert choose("previous", revisions, unbuildable=commits(1, 3)) is None
    assert choose("previous", revisions[-1:]) is None


def test_last_good_else_previous():
    revisions = line(1, 2, 3, 4, 5)
    assert choose("last-good", revisions, good=commits(1, 3)) == 3
    assert choose("last-good", revisions, good=commits(1, 3), unbuildable=commits(3)) == 1
    assert choose("last-good", revisions, good=commits(5)) == 4
    assert choose("last-good", revisions) == 4


def test_pinned_has_no_other():
    revisions = line(1, 2, 3)
    (pin,) = commits(1)
    assert choose("pinned", revisions, commit=pin) == 1
    assert choose("pinned", revisions, commit=pin.upper()) == 1
    assert choose("pinned", revisions, commit=pin, unbuildable={pin}) is None
    assert choose("pinned", revisions, commit=f"{3:040x}") is None
    assert choose("pinned", revisions, commit="000000") is None


@pytest.mark.parametrize(
    ("hours", "control"),
    [
        ((-1, 0, 5, 30), 2),  # Monday 00:00 itself is in the week
        ((-1, 1, 5, 30), 2),
        ((-30, -1, 5), 1),  # the treatment begins its week: the week before's first
        ((-400, -200, -190, 5), 2),  # and where nothing landed in that, the last week's in which anything did
        ((-170, -160, -1, 5), 2),
        ((-1, 4, 2, 3, 5), 2),  # in any order within the week
        ((-1, 1, 10_000, 5), 2),  # a clock that is ahead
        ((10_000, -1, 1, 5), 3),
        ((-1, 1, -2, 3, 5), 4),  # made last week, landed in this: begins it anew
        ((5,), None),
    ],
)
def test_week_start(hours, control):
    assert choose("week-start", line(*hours)) == control


def test_week_start_passes_over_what_does_not_build():
    revisions = line(-1, 1, 2, 3)
    assert choose("week-start", revisions, unbuildable=commits(2)) == 3
    assert choose("week-start", revisions, unbuildable=commits(2, 3)) == 1
    assert choose("week-start", revisions, unbuildable=commits(1, 2, 3)) is None


def test_base_commit_counts_only_where_it_is_later_than_the_week():
    revisions = line(-1, 1, 2, 3)
    for position, control in ((1, 2), (2, 2), (3, 3), (4, 2), (9, 2)):
        assert choose("week-start", revisions, base_commit=f"{position:040x}") == control


rules = st.sampled_from(["week-start", "previous", "pinned", "last-good"])
lines = st.lists(st.tuples(st.integers(-1_000, 1_000), st.booleans()), min_size=1, max_size=20).map(
    lambda drawn: [at(position, when, relevant=relevant) for position, (when, relevant) in enumerate(drawn, 1)][::-1]
)
some = st.sets(st.integers(1, 20)).map(lambda positions: commits(*positions))


@given(rules, lines, some, some, st.integers(1, 20), st.integers(1, 20))
def test_a_control_is_older_and_builds(name, revisions, good, unbuildable, pin, base):
    chosen = rule(name, commit=f"{pin:040x}", base_commit=f"{base:040x}")
    control = baseline.choose(chosen, revisions[0], revisions[1:], good=good, unbuildable=unbuildable)
    if control is not None:
        assert control in revisions[1:]
        assert control.position < revisions[0].position
        assert control.commit not in unbuildable


@given(lines, some)
def test_there_is_a_control_wherever_something_older_builds(revisions, unbuildable):
    builds = [revision for revision in revisions[1:] if revision.commit not in unbuildable]
    assert (choose("week-start", revisions, unbuildable=unbuildable) is not None) == bool(builds)
    relevant = [revision for revision in builds if revision.relevant]
    for name in ("previous", "last-good"):
        assert (choose(name, revisions, unbuildable=unbuildable) is not None) == bool(relevant)


@given(st.lists(st.integers(-1_000, 1_000), min_size=2, max_size=20).map(sorted))
def test_where_times_rise_week_start_is_as_it_is_defined(hours):
    treatment, *older = line(*hours)
    week = [revision for revision in older if revision.time >= weeks.start(treatment.time)]
    before = [revision for revision in older if revision.time >= weeks.start(older[0].time)]
    assert baseline.week_opening(treatment, older) == (week or before)[-1]


@given(lines)
def test_treatments_of_one_week_have_one_control(revisions):
    ordered = sorted(revisions, key=lambda revision: revision.time)
    along = [at(position, (revision.time - MONDAY) / timedelta(hours=1)) for position, revision in enumerate(ordered, 1)][::-1]
    controls = {}
    for index, treatment in enumerate(along):
        control = baseline.week_opening(treatment, along[index + 1 :])
        if control is not None and weeks.start(control.time) == weeks.start(treatment.time):
            controls.setdefault(weeks.start(treatment.time), set()).add(control.commit)
    assert all(len(found) == 1 for found in controls.values())
