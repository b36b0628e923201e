"""Whose block is next, and what an experiment is expected to take before its first one."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import model
from aibenchd.plan import order, suspicion
from aibenchd.store import again, experiments, noises, planning, schema, store

DESIGN = planning.design_json(model.Design(model.Benchmark({}, {}), "pytorch", model.Rule()))
CELL = suspicion.Cell("engine", statusd.DIGEST, "lab-host", "", "squeeze")
KEY = (CELL.benchmark, CELL.device, CELL.backend)
FACTS: dict[str, float | int | None] = {"blocks": 40, "scale": 0.01, "expected": 7.2, "seconds": 5.0}


@pytest.fixture
def tx() -> Any:
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield store.Transaction(connection)
    engine.dispose()


def in_turn(tx: store.Transaction, rank: Callable[[int, int], dict[str, Any]], pairs: int = 2, each: int = 3) -> list[str]:
    """The backends of all experiments in the order in which they get a block, each one and then no more."""
    for pair in range(pairs):
        number, built = statusd.pair(tx, f"{pair}"), statusd.build(tx, f"{pair}")
        statusd.revision(tx, f"{pair}", pair)
        for one in range(each):
            statusd.experiment(tx, number, built, backend=f"{pair}{one}", design=DESIGN, **rank(pair, one))
    ran: list[str] = []
    while True:
        found = experiments.next_of(tx.connection, "lab-host")
        if found is None:
            return ran
        table = schema.experiments
        backend = tx.connection.scalar(sa.select(table.c.backend).where(table.c.id == found.id))
        ran.append(str(backend))
        tx.connection.execute(table.update().where(table.c.id == found.id).values(state="decided"))


def test_what_can_be_decided_goes_before_what_hardly_can_of_newer_pairs_too(tx: store.Transaction) -> None:
    ran = in_turn(tx, lambda pair, one: {"out_of_reach": one == 1, "turn": one / 10})
    assert ran == ["10", "12", "00", "02", "11", "01"]


def test_priority_goes_before_all(tx: store.Transaction) -> None:
    assert in_turn(tx, lambda pair, one: {"out_of_reach": one == 1, "priority": one == 1})[:2] == ["11", "01"]


def test_within_a_pair_what_is_done_soonest_goes_first_and_rounds_are_by_lot(tx: store.Transaction) -> None:
    left = [30, 3_000, 50, None]
    turns = [0.9, 0.1, 0.2, 0.5]
    ran = in_turn(tx, lambda _, one: {"wave": order.wave(left[one]), "turn": turns[one], "round": one == 2}, pairs=1, each=4)
    assert ran == ["03", "00", "02", "01"]


def test_the_next_block_is_the_first_row_of_an_index(tx: store.Transaction) -> None:
    asked: list[tuple[str, Any]] = []
    sa.event.listen(tx.connection, "before_cursor_execute", lambda *of: asked.append((of[2], of[3])))
    experiments.next_of(tx.connection, "lab-host")
    statement, values = asked[0]
    plan = [row[3] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert plan[0] == "SEARCH experiments USING INDEX experiments_next (device=? AND state=?)"
    assert not [step for step in plan if "ORDER BY" in step]


@pytest.mark.parametrize(
    ("changes", "quota", "blocks"),
    [
        ({}, None, 8),
        ({"arms": 1, "blocks": 3}, None, 3),
        ({}, 5, 5),
        ({"profiled": True}, None, 1),
        ({"rule": dataclasses.asdict(model.Rule.of_blocks(20, 0.02))}, None, 20),
        ({"rule": dataclasses.asdict(model.Rule(max_blocks=4))}, None, 4),
    ],
)
def test_a_cell_that_is_known_says_what_its_next_experiment_takes(
    tx: store.Transaction, changes: dict[str, Any], quota: int | None, blocks: int
) -> None:
    pair = statusd.pair(tx, "a")
    assert noises.expected(tx.connection, pair, KEY, DESIGN | changes, quota) == {}
    noises.put(tx, CELL, FACTS, model.Summary())
    found = noises.expected(tx.connection, pair, KEY, DESIGN | changes, quota)
    assert (found["blocks_left"], found["out_of_reach"]) == (blocks, False)
    assert found["seconds_left"] == pytest.approx(blocks * 5, abs=5)
    assert found["wave"] == order.wave(found["seconds_left"])
    other = statusd.pair(tx, "a", repository="other")
    assert noises.expected(tx.connection, other, KEY, DESIGN) == {}


def test_an_experiment_finds_the_noise_of_its_own_cell(tx: store.Transaction) -> None:
    pair, built = statusd.pair(tx, "a"), statusd.build(tx, "a")
    one, other = (statusd.experiment(tx, pair, built, backend=backend) for backend in ("", "cuda"))
    noises.put(tx, CELL, FACTS | {"degrees": 8.0}, model.Summary())
    assert noises.of_experiment(tx.connection, one) == noises.Known(40, 0.01, 8.0, None, None, None)
    assert noises.of_experiment(tx.connection, other) is None


def test_what_is_kept_of_a_cell_by_another_number_says_nothing_of_an_experiment(tx: store.Transaction) -> None:
    pair, built = statusd.pair(tx, "a"), statusd.build(tx, "a")
    one = statusd.experiment(tx, pair, built, design=DESIGN)
    noises.put(tx, CELL, FACTS, model.Summary(high=1.0))
    assert noises.of_experiment(tx.connection, one) is None
    assert noises.expected(tx.connection, pair, KEY, DESIGN) == {}
    assert noises.summary_of(tx.connection, pair, KEY) == noises.now(tx.connection, CELL) == model.Summary(high=1.0)
    assert noises.summary_of(tx.connection, statusd.pair(tx, "a", repository="other"), KEY) == model.Summary()


@pytest.mark.parametrize(
    ("finding", "in_tail", "summary"),
    [
        (None, False, model.Summary(2, 0.0, 1 / 2)),
        (None, True, model.Summary(2, 0.0, 1 / 2)),  # it does not serve what was found
        (1, False, model.Summary(2, 0.0, 1 / 2, guard=False)),
        (1, True, model.Summary(2, 3 / 4, 1.0, guard=False)),
    ],
)
def test_what_serves_a_finding_is_decided_on_what_that_is_of(
    tx: store.Transaction, finding: int | None, in_tail: bool, summary: model.Summary
) -> None:
    pair, built = statusd.pair(tx, "a"), statusd.build(tx, "a")
    design = DESIGN | {"summary": dataclasses.asdict(model.Summary(2, 0.0, 1 / 2))}
    first = statusd.experiment(tx, pair, built, design=design, in_tail=in_tail)
    table = schema.experiments
    like = tx.connection.execute(sa.select(table).where(table.c.id == first)).one()
    another = again.experiment(tx, like, statusd.pair(tx, "b"), [built, built], 0, finding=finding)
    stored = tx.connection.scalar(sa.select(table.c.design).where(table.c.id == another))
    assert experiments.design_of(stored).summary == summary


def test_a_design_from_before_has_the_number_that_was_the_only_one() -> None:
    assert experiments.design_of({name: value for name, value in DESIGN.items() if name != "summary"}).summary == model.Summary(
        guard=False
    )


def timed(tx: store.Transaction, built: int, blocks: int, *, metric: str = "latency") -> None:
    """An experiment that has ended, with so many blocks of two arms, of three iterations each."""
    ended = {"control_build": built, "verdict": "unchanged", "state": "decided", "design": DESIGN}
    experiment = statusd.experiment(tx, statusd.pair(tx, "a"), built, **ended)
    for block in range(blocks):
        treatment = statusd.block(tx, experiment, block)
        for trial, values in ((treatment, [1.0, 2.0, 3.0]), (treatment - 1, [4.0, 5.0, 6.0])):
            tx.connection.execute(
                schema.samples.insert().values(trial=trial, type="NET", metric=metric, unit="us", values=values)
            )


def test_the_iterations_of_a_cell_are_those_of_its_newest_blocks(tx: store.Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    built = statusd.build(tx, "a")
    timed(tx, built, 2)
    timed(tx, built, 3)
    timed(tx, built, 2, metric="cold_start")
    found = noises.newest_iterations(tx.connection, CELL)
    assert [len(blocks) for blocks in found] == [2, 3, 0]
    first = found[0][0]
    assert (first.order, list(first.treatment), list(first.control)) == ("CT", [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    monkeypatch.setattr(noises, "TIMED_BLOCKS", 3)
    assert [len(blocks) for blocks in noises.newest_iterations(tx.connection, CELL)] == [3, 0]
    monkeypatch.setattr(noises, "TIMED_BYTES", 50)
    assert [len(blocks) for blocks in noises.newest_iterations(tx.connection, CELL)] == [0]


def test_a_number_is_chosen_anew_once_enough_blocks_have_been_run(tx: store.Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noises, "DUE", 5)
    built = statusd.build(tx, "a")
    due = []
    for _ in range(6):
        ended = {"control_build": built, "verdict": "unchanged", "state": "decided", "design": DESIGN, "blocks": 2}
        newest = statusd.experiment(tx, statusd.pair(tx, "a"), built, **ended)
        due.append(noises.due(tx.connection, CELL) == newest)
        if due[-1]:
            noises.put(tx, CELL, FACTS, model.Summary(), newest)
            assert noises.due(tx.connection, CELL) is None
        noises.put(tx, CELL, FACTS, model.Summary())  # which forgets nothing
    assert due == [False, False, True, False, False, True]


def test_a_side_without_a_bound_is_null() -> None:
    decision = model.Decision(None, 3, 0.1, -math.inf, math.inf)
    assert experiments._interval(decision) == {"estimate": 0.1, "low": None, "high": None}
