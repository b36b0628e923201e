"""What the planner reads of the journal and writes to it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import events, model, settings
from aibenchd.devices import base
from aibenchd.plan import coverage, planner, suspicion
from aibenchd.store import (
    builds,
    comparisons,
    experiments,
    noises,
    planning,
    promotion,
    requests,
    revisions,
    schema,
    store,
    window,
)

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DEVICE = base.DeviceSettings(name="host", kind="local")
ENGINE = settings.RepositorySettings(name="engine", url="/srv/engine.git", framework="pytorch")
OTHER = settings.RepositorySettings(name="other", url="/srv/other.git", framework="caffe2")
EXPERIMENT = settings.ExperimentSettings()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def cell(name: str, backend: str = "", device: base.DeviceSettings = DEVICE, **selection: object) -> coverage.Cell:
    benchmark = model.Benchmark({"name": "net", "framework": ""}, {"identifier": name, "metric": "delay"}, f"{name}.json")
    chosen = settings.BenchmarkSelection.model_validate({"specification": Path(f"{name}.json")} | selection)
    return coverage.Cell(coverage.Selected(benchmark, chosen), device, backend)


def line(tx: store.Transaction, *commits: str, repository: str = "engine") -> list[model.Revision]:
    """A watched line of these commits."""
    for position, commit in enumerate(commits, 1):
        statusd.revision(tx, commit, position, repository=repository)
    revisions.advance(tx, repository, commits[-1])
    return [revisions.one(tx.connection, repository, commit) for commit in commits]


def built(tx: store.Transaction, commit: str, state: str = "built", repository: settings.RepositorySettings = ENGINE) -> None:
    names = {"repository": repository.name, "framework": repository.framework, "digest": f"digest {repository.name} {commit}"}
    statusd.build(tx, commit, state=state, **names)


def planned(tx: store.Transaction, *steps: planner.Step) -> None:
    planning.carry_out(tx, ENGINE, steps, EXPERIMENT)


def look(connection: sa.Connection) -> planner.Window:
    return window.of(connection, ENGINE, [DEVICE], NOW)


async def test_a_cell_that_is_new_is_measured_with_one_arm_on_the_newest_pair_and_then_like_all(journal: store.Store) -> None:
    old, new = cell("old"), cell("new")

    def write(tx: store.Transaction) -> None:
        first, second, third = line(tx, "a", "b", "c")
        planned(tx, planner.PlanPair(second, first, (old,)))
        newest = look(tx.connection).newest[DEVICE.platform]
        planned(tx, planner.Extend(newest, (new,)), planner.PlanPair(third, second, (old, new)))

    await journal.write(write)
    rows = await journal.read(
        lambda connection: connection.execute(
            sa.select(schema.pairs.c.treatment, schema.experiments.c.identifier, schema.experiments.c.design)
            .join(schema.experiments)
            .order_by(schema.experiments.c.id)
        ).all()
    )
    assert [(commit, name, design["arms"]) for commit, name, design in rows] == [
        ("b", "old", 2),
        ("b", "new", 1),
        ("c", "old", 2),
        ("c", "new", 2),
    ]


async def test_what_does_not_build_is_not_where_new_cells_are_measured(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        first, second = line(tx, "a", "b")
        planned(tx, planner.PlanPair(first, None, (cell("old"),)), planner.PlanPair(second, first, (cell("old"),)))
        tx.connection.execute(schema.builds.update().where(schema.builds.c.commit == "b").values(state="failed"))

    await journal.write(write)
    newest = (await journal.read(look)).newest[DEVICE.platform]
    assert newest.treatment.commit == "a"


async def test_a_failed_build_says_nothing_of_other_platforms_and_frameworks(journal: store.Store) -> None:
    dsp = base.DeviceSettings(name="dsp", kind="vendor", platform="hexagon")

    def write(tx: store.Transaction) -> None:
        first, second = line(tx, "a", "b")
        on_both = (cell("net"), cell("net", device=dsp))
        planned(tx, planner.PlanPair(first, None, on_both), planner.PlanPair(second, first, on_both))
        table = schema.builds
        tx.connection.execute(table.update().where(table.c.commit == "b", table.c.platform == "hexagon").values(state="failed"))
        builds.want(tx, builds.Key("engine", "a", "another", DEVICE.platform), 0)
        tx.connection.execute(table.update().where(table.c.framework == "another").values(state="failed"))

    await journal.write(write)
    seen = await journal.read(lambda connection: window.of(connection, ENGINE, [DEVICE, dsp], NOW))
    assert seen.unbuildable == {"hexagon": {"b"}, DEVICE.platform: set()}
    assert {platform: pair.treatment.commit for platform, pair in seen.newest.items()} == {"hexagon": "a", DEVICE.platform: "b"}


async def test_a_copy_that_fails_says_nothing_of_its_revision(journal: store.Store) -> None:
    """The linker may know nothing of layouts: then all copies fail, and of every revision that had a suspect."""

    def write(tx: store.Transaction) -> None:
        first, second = line(tx, "a", "b")
        planned(tx, planner.PlanPair(second, first, (cell("net"),)))
        for commit in ("a", "b"):
            builds.want(tx, builds.Key("engine", commit, "pytorch", DEVICE.platform, copy=12345), 0)
        tx.connection.execute(schema.builds.update().where(schema.builds.c.copy != 0).values(state="failed"))

    await journal.write(write)
    seen = await journal.read(look)
    assert seen.unbuildable == {DEVICE.platform: set()}
    assert seen.newest[DEVICE.platform].treatment.commit == "b"


async def test_cells_whose_controls_do_not_build_are_given_others_one_by_one(journal: store.Store) -> None:
    """Whichever of a revision's pairs they are in: another pair of the same revision is not their replacement."""
    here, there = cell("here"), cell("there")

    def write(tx: store.Transaction) -> None:
        first, second, third = line(tx, "a", "b", "c")
        planned(tx, planner.PlanPair(third, second, (here,)), planner.PlanPair(third, first, (there,)))
        ended(tx, "here", state="skipped", reason=schema.CONTROL_DOES_NOT_BUILD)

    await journal.write(write)
    (orphan,) = (await journal.read(look)).orphans
    assert orphan.cells == {here.key}
    await journal.write(lambda tx: planned(tx, planner.PlanPair(orphan.treatment, None, (here,), "why")))
    assert not (await journal.read(look)).orphans
    rows = "SELECT reason FROM experiments ORDER BY id"
    assert list(await journal.read(lambda connection: connection.scalars(sa.text(rows)).all())) == [
        schema.CONTROL_DOES_NOT_BUILD,
        "",
        "why",
    ]


def ended(tx: store.Transaction, name: str, **values: object) -> None:
    """The experiments of a benchmark that wait have ended."""
    table = schema.experiments
    tx.connection.execute(table.update().where(table.c.identifier == name, table.c.state == "waiting").values(**values))


async def test_cells_that_were_given_another_control_do_not_hide_the_others_of_their_revision(journal: store.Store) -> None:
    here, there = cell("here"), cell("there")

    def write(tx: store.Transaction) -> None:
        first, second, third = line(tx, "a", "b", "c")
        planned(tx, planner.PlanPair(third, second, (here, there)))
        ended(tx, "there", state="skipped", reason=schema.CONTROL_DOES_NOT_BUILD)
        planned(tx, planner.PlanPair(third, first, (there,)))

    await journal.write(write)
    newest = (await journal.read(look)).newest[DEVICE.platform]
    assert newest.cells == {here.key, there.key}
    assert (await journal.read(look)).undecided == 1  # revision, whatever it is compared with


async def test_a_cell_that_no_one_has_measured_yet_is_measured_though_the_builds_are_the_same(journal: store.Store) -> None:
    new, known = cell("new"), cell("known")
    same: list[int] = []

    def write(tx: store.Transaction) -> None:
        first, second, third = line(tx, "a", "b", "c")
        planned(tx, planner.PlanPair(first, None, (known,)))
        ended(tx, "known", state="decided", verdict=model.Verdict.MEASURED)
        planned(tx, planner.PlanPair(second, first, (new, known)), planner.PlanPair(third, second, (new, known)))
        tx.connection.execute(schema.builds.update().values(state="built", digest="same"))
        assert promotion.promote(tx, identical) == 4

    def identical(tx: store.Transaction, experiment: int) -> None:
        same.append(experiment)
        experiments.decide(tx, experiment, model.Decision(model.Verdict.IDENTICAL, 0, 0.0, 0.0, 0.0, ""))

    await journal.write(write)
    found = await journal.read(lambda connection: [experiments.by_id(connection, number) for number in range(1, 6)])
    assert same == [2, 3, 5]  # of the new cell the one that is the last to tell is left
    names = [one.design.benchmark.identifier for one in found]
    assert names == ["known", "new", "known", "new", "known"]
    assert (found[3].design.arms, found[3].control_build, found[3].treatment.commit) == (1, None, "c")


async def test_who_asks_for_two_builds_that_are_the_same_is_told_so(journal: store.Store) -> None:
    same: list[int] = []

    def write(tx: store.Transaction) -> None:
        first, second = line(tx, "a", "b")
        request = requests.add(
            tx, repository="engine", treatment="b", control="a", benchmarks=[], devices=[], priority=0, requested_by="me"
        )
        planning.carry_out(tx, ENGINE, [planner.PlanPair(second, first, (cell("new"),))], EXPERIMENT, request=request)
        tx.connection.execute(schema.builds.update().values(state="built", digest="same"))
        promotion.promote(tx, lambda _, experiment: same.append(experiment))

    await journal.write(write)
    assert same == [1]


def sides(tx: store.Transaction) -> tuple[comparisons.Side, comparisons.Side]:
    line(tx, "a", "b")
    line(tx, "x", repository="other")
    built(tx, "a")
    built(tx, "x", repository=OTHER)
    control = cell("theirs", "eigen", env={"THREADS": "1"}, command_args="--their")
    return comparisons.Side(ENGINE, "a", cell("ours", "mkl", experiment={"arms": 1})), comparisons.Side(OTHER, "x", control)


def compare(tx: store.Transaction) -> int:
    return comparisons.compare(tx, [sides(tx)], EXPERIMENT, 1_000, "someone")


async def test_a_comparison_runs_each_cell_s_own_from_its_own_repository(journal: store.Store) -> None:
    request = await journal.write(compare)
    experiment = await journal.read(lambda connection: experiments.by_id(connection, 1))
    assert experiment.run_type == model.RunType.COMPARE
    assert (experiment.treatment.repository, experiment.treatment.commit) == ("engine", "a")
    assert experiment.control is not None
    assert (experiment.control.repository, experiment.control.commit) == ("other", "x")
    assert experiment.design.arms == 2
    ours, theirs = (experiment.design.of(arm) for arm in model.ArmName)
    assert (ours.benchmark.identifier, ours.framework, ours.backend) == ("ours", "pytorch", "mkl")
    assert dataclasses.replace(theirs, benchmark=ours.benchmark) == model.Variant(
        ours.benchmark, "caffe2", "eigen", {"THREADS": "1"}, "--their"
    )
    assert theirs.benchmark.identifier == "theirs"
    rows = await journal.read(lambda connection: connection.execute(sa.select(schema.requests)).all())
    assert [(row.id, row.state, row.repository, row.requested_by) for row in rows] == [(request, "planned", "engine", "someone")]


async def test_a_comparison_holds_up_no_plan_and_is_no_cell_s_newest(journal: store.Store) -> None:
    await journal.write(compare)
    seen = await journal.read(look)
    assert (seen.undecided, seen.newest, seen.good, seen.orphans) == (0, {}, frozenset(), [])
    assert await journal.read(lambda connection: connection.execute(sa.select(schema.cells)).all()) == []


async def test_two_cells_of_one_build_are_measured_though_their_programs_are_the_same(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> int:
        treatment, _ = sides(tx)
        control = comparisons.Side(ENGINE, "a", cell("ours", "onednn"))
        return comparisons.compare(tx, [(treatment, control)], EXPERIMENT, 0, "someone")

    def identical(tx: store.Transaction, experiment: int) -> None:
        raise AssertionError(f"experiment {experiment} was decided without a trial")

    await journal.write(write)
    assert await journal.write(lambda tx: promotion.promote(tx, identical)) == 1
    assert await journal.read(lambda connection: connection.scalars(sa.select(schema.experiments.c.state)).all()) == ["open"]


async def test_the_newest_build_is_of_the_line_and_may_have_left_the_cache(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        line(tx, "a", "b", "c", "d")
        statusd.revision(tx, "aside", 9, on_branch=False)
        for commit, state in (("a", "built"), ("b", "evicted"), ("c", "failed"), ("d", "queued"), ("aside", "built")):
            built(tx, commit, state)

    await journal.write(write)
    newest = await journal.read(lambda connection: revisions.newest_built(connection, "engine", "pytorch", "host"))
    assert newest is not None
    assert newest.commit == "b"
    assert await journal.read(lambda connection: revisions.newest_built(connection, "engine", "pytorch", "phone")) is None


async def test_a_comparison_has_a_build_made_again_that_was_evicted(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        pair = sides(tx)
        tx.connection.execute(schema.builds.update().values(state="evicted"))
        comparisons.compare(tx, [pair], EXPERIMENT, 0, "someone")

    await journal.write(write)
    waiting = await journal.read(lambda connection: builds.next_of(connection, ["engine"], []))
    assert waiting is not None
    assert waiting.commit == "a"


async def test_a_cell_is_measured_by_the_number_that_its_history_chose_and_two_cells_by_one(journal: store.Store) -> None:
    chosen, net = model.Summary(skip=2, high=1.0), cell("net")

    def write(tx: store.Transaction) -> None:
        two = sides(tx)
        for own in (net, *(side.cell for side in two)):
            where = suspicion.Cell("engine", own.selected.digest, own.device.name, own.backend, "net")
            noises.put(tx, where, {"blocks": 9}, chosen)
        comparisons.compare(tx, [two], EXPERIMENT, 1_000, "someone")
        first, second = line(tx, "c", "d")
        planned(tx, planner.PlanPair(second, first, (net,)))

    await journal.write(write)
    rows = await journal.read(
        lambda connection: connection.execute(
            sa.select(schema.pairs.c.run_type, schema.experiments.c.design).join(schema.experiments)
        ).all()
    )
    found = {row.run_type: experiments.design_of(row.design).summary for row in rows}
    assert found == {"benchmark": chosen, "compare": comparisons.OF_CELLS}
