"""From a window of revisions to steps: what is taken, what is coalesced, against which control."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibenchd import model, settings
from aibenchd.devices import base
from aibenchd.plan import coverage, planner

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DEVICE = base.DeviceSettings(name="host", kind="local")
SELECTED = coverage.Selected(
    model.Benchmark({"name": "net"}, {"identifier": "net"}), settings.BenchmarkSelection(specification=Path("net.json"))
)
CELLS = (coverage.Cell(SELECTED, DEVICE, ""),)
ON_DSP = coverage.Cell(SELECTED, base.DeviceSettings(name="dsp", kind="vendor", platform="hexagon"), "")


def repository(**keys: object) -> settings.RepositorySettings:
    given_keys = {"name": "engine", "url": "/srv/engine.git", "framework": "pytorch"} | keys
    return settings.RepositorySettings.model_validate(given_keys)


def revision(position: int) -> model.Revision:
    return model.Revision("engine", f"{position:040x}", NOW + timedelta(hours=position - 1_000), position=position)


def ranked(position: int, state: str = "new") -> planner.Ranked:
    return planner.Ranked(revision(position), state)


def window(*line: planner.Ranked, **keys: object) -> planner.Window:
    newest_first = sorted(line, key=lambda one: -one.revision.position)
    pending = [one for one in newest_first if one.state == "new"]
    return planner.Window(now=NOW, pending=pending, line=newest_first, **keys)  # type: ignore[arg-type]


def pairs(plan: planner.Plan) -> list[tuple[int, int | None]]:
    return [
        (step.treatment.position, None if step.control is None else step.control.position)
        for step in plan.steps
        if isinstance(step, planner.PlanPair)
    ]


def coalesced(plan: planner.Plan) -> dict[int, int]:
    return {step.revision.position: step.into.position for step in plan.steps if isinstance(step, planner.Coalesce)}


def test_each_revision_is_compared_with_the_one_before_and_the_newest_is_planned_last_so_that_it_runs_first() -> None:
    plan = planner.plan(window(ranked(1, "history"), ranked(2), ranked(3)), repository(), CELLS)
    assert pairs(plan) == [(2, 1), (3, 2)]


def test_the_first_revision_of_all_is_measured_as_it_is() -> None:
    assert pairs(planner.plan(window(ranked(1)), repository(), CELLS)) == [(1, None)]


def test_nothing_is_planned_that_could_not_be_measured() -> None:
    assert planner.plan(window(ranked(1), ranked(2)), repository(), ()) == planner.Plan()


def test_what_outruns_the_backlog_is_coalesced_into_the_next_newer_one_taken() -> None:
    plan = planner.plan(window(ranked(0, "planned"), *map(ranked, range(1, 7))), repository(backlog=2), CELLS)
    assert pairs(plan) == [(3, 0), (6, 3)]
    assert coalesced(plan) == {5: 6, 4: 6, 2: 3, 1: 3}


def test_a_backlog_that_is_full_lets_revisions_wait() -> None:
    plan = planner.plan(window(ranked(1), ranked(2), undecided=2), repository(backlog=2), CELLS)
    assert plan.steps == ()


def test_the_least_time_between_two_runs_is_kept_and_then_only_the_newest_runs() -> None:
    rare = repository(min_run_interval="1h")
    line = [ranked(1, "planned"), ranked(2), ranked(3)]
    early = planner.plan(window(*line, planned_at=NOW - timedelta(minutes=20)), rare, CELLS)
    assert (early.steps, early.again_at) == ((), NOW + timedelta(minutes=40))
    due = planner.plan(window(*line, planned_at=NOW - timedelta(hours=2)), rare, CELLS)
    assert (pairs(due), coalesced(due)) == ([(3, 1)], {2: 3})


def test_a_control_that_does_not_build_is_replaced_by_the_one_before_it() -> None:
    orphan = planner.Pair(7, revision(3), frozenset({CELLS[0].key}))
    seen = window(
        ranked(1, "planned"),
        ranked(2, "planned"),
        ranked(3, "planned"),
        orphans=[orphan],
        unbuildable={DEVICE.platform: {revision(2).commit}},
    )
    assert pairs(planner.plan(seen, repository(), CELLS)) == [(3, 1)]


def test_what_does_not_build_for_one_platform_is_a_control_on_the_others() -> None:
    line = [ranked(1, "planned"), ranked(2, "planned"), ranked(3)]
    seen = window(*line, unbuildable={"hexagon": {revision(2).commit}})
    host, dsp = planner.plan(seen, repository(), (*CELLS, ON_DSP)).steps
    assert (host, dsp) == (
        planner.PlanPair(revision(3), revision(2), CELLS),
        planner.PlanPair(revision(3), revision(1), (ON_DSP,)),
    )


@pytest.mark.parametrize(
    ("rule", "older", "why"),
    [
        ({"rule": "previous"}, [], "nothing older on the branch has been measured"),
        ({"rule": "previous"}, [1, 2], "nothing older that may be one builds for host"),
        (
            {"rule": "pinned", "commit": "0123456789"},
            [1],
            "the pinned 0123456789 is not below it on the branch, or does not build",
        ),
    ],
)
def test_what_is_measured_without_a_control_says_why(rule: dict[str, str], older: list[int], why: str) -> None:
    unbuildable = {DEVICE.platform: {revision(position).commit for position in older}}
    seen = window(*(ranked(position, "planned") for position in older), ranked(3), unbuildable=unbuildable)
    (step,) = planner.plan(seen, repository(baseline=rule), CELLS).steps
    assert step == planner.PlanPair(revision(3), None, CELLS, f"no control: {why}")


def test_a_new_cell_joins_the_newest_pair_that_may_build_for_it() -> None:
    newest = {DEVICE.platform: planner.Pair(5, revision(3), frozenset({CELLS[0].key})), "hexagon": planner.Pair(4, revision(2))}
    plan = planner.plan(window(ranked(2, "planned"), ranked(3, "planned"), newest=newest), repository(), (*CELLS, ON_DSP))
    assert plan.steps == (planner.Extend(newest["hexagon"], (ON_DSP,)),)


def test_a_cell_that_is_new_joins_the_newest_pair() -> None:
    newest = planner.Pair(4, revision(2), frozenset())
    plan = planner.plan(window(ranked(2, "planned"), newest={DEVICE.platform: newest}), repository(), CELLS)
    assert plan.steps == (planner.Extend(newest, CELLS),)


@pytest.mark.parametrize("state", ["coalesced", "filtered", "stepped", "gone"])
def test_what_was_passed_over_is_no_control(state: str) -> None:
    plan = planner.plan(window(ranked(1, "planned"), ranked(2, state), ranked(3)), repository(), CELLS)
    assert pairs(plan) == [(3, 1)]


@given(
    states=st.lists(st.sampled_from(["new", "planned", "coalesced", "gone"]), min_size=1, max_size=30),
    backlog=st.integers(1, 8),
    undecided=st.integers(0, 8),
)
def test_no_change_goes_unmeasured(states: list[str], backlog: int, undecided: int) -> None:
    """Each pending revision waits, is taken, or is coalesced into a newer one that is; and never more than fit."""
    seen = window(*(ranked(position, state) for position, state in enumerate(states)), undecided=undecided)
    plan = planner.plan(seen, repository(backlog=backlog), CELLS)
    taken = [treatment for treatment, _ in pairs(plan)]
    pending = {one.revision.position for one in seen.pending}
    assert len(taken) <= max(0, backlog - undecided)
    assert taken == sorted(taken)
    if taken:
        assert set(taken) | set(coalesced(plan)) == pending
        assert max(taken) == max(pending)
        assert all(into > old and into in taken for old, into in coalesced(plan).items())
    else:
        assert plan.steps == ()
