"""What the status socket reads: right, and by an index also where there is a lot."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import statusd
from hypothesis import given, settings
from hypothesis import strategies as st

from aibenchd import errors, events, model
from aibenchd.plan import suspicion
from aibenchd.store import (
    builds,
    cell_facts,
    finding_views,
    findings,
    merges,
    noises,
    paging,
    planning,
    schema,
    searches,
    selfchecks,
    series,
    store,
    submissions,
    triage,
    views,
    window,
)

STATES = ("waiting", "open", "decided", "skipped")
VERDICTS = (None, "regressed", "unchanged")
DEVICES = ("lab-host", "phone")


@pytest.fixture
async def journal(tmp_path: Path) -> Any:
    async with store.opened(tmp_path / "journal.db", events.Events()) as journal:
        yield journal


@pytest.fixture(scope="module")
def connection() -> Iterator[sa.Connection]:
    """A journal in memory; what a test writes is undone."""
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


CHANGES = st.one_of(
    st.tuples(st.just("insert"), st.sampled_from(DEVICES), st.sampled_from(STATES), st.sampled_from(VERDICTS)),
    st.tuples(st.just("update"), st.integers(1, 9), st.sampled_from(STATES), st.sampled_from(VERDICTS)),
    st.tuples(st.just("delete"), st.integers(1, 9)),
    st.tuples(st.just("ignore"), st.integers(1, 9)),
)


@settings(max_examples=60)
@given(st.lists(CHANGES, max_size=20))
def test_tallies_are_what_counting_would_find(connection: sa.Connection, changes: list[tuple[Any, ...]]) -> None:
    table = schema.experiments
    try:
        tx = store.Transaction(connection)
        built, pair = statusd.build(tx, "a"), statusd.pair(tx, "a")
        for number, (what, *values) in enumerate(changes):
            if what == "insert":
                device, state, verdict = values
                statusd.experiment(tx, pair, built, device=device, state=state, verdict=verdict, backend=str(number))
            elif what == "update":
                connection.execute(table.update().where(table.c.id == values[0]).values(state=values[1], verdict=values[2]))
            elif what == "delete":
                connection.execute(table.delete().where(table.c.id == values[0]))
            else:  # one that is there already
                same = sa.select(table).where(table.c.id == values[0])
                connection.execute(table.insert().prefix_with("OR IGNORE").from_select(list(table.c.keys()), same))
        counted = connection.execute(
            sa.select(table.c.device, table.c.state, sa.func.coalesce(table.c.verdict, ""), sa.func.count()).group_by(
                table.c.device, table.c.state, table.c.verdict
            )
        )
        assert views.counts(connection).experiments == {
            (device, state, verdict): count for device, state, verdict, count in counted
        }
    finally:
        connection.rollback()


EXPECTED = st.one_of(st.none(), st.tuples(st.integers(1, 60), st.integers(1, 10_000)))
QUEUED = st.one_of(
    st.tuples(st.just("insert"), st.sampled_from(DEVICES), st.sampled_from(STATES), EXPECTED),
    st.tuples(st.just("update"), st.integers(1, 9), st.sampled_from(STATES), EXPECTED),
    st.tuples(st.just("delete"), st.integers(1, 9)),
)


@settings(max_examples=60)
@given(st.lists(QUEUED, max_size=20))
def test_queues_are_what_summing_up_would_find(connection: sa.Connection, changes: list[tuple[Any, ...]]) -> None:
    table = schema.experiments
    try:
        tx = store.Transaction(connection)
        built, pair = statusd.build(tx, "a"), statusd.pair(tx, "a")
        for number, (what, *values) in enumerate(changes):
            if what == "delete":
                connection.execute(table.delete().where(table.c.id == values[0]))
                continue
            which, state, expected = values
            blocks, seconds = expected or (None, None)
            columns = {"state": state, "blocks_left": blocks, "seconds_left": seconds}
            if what == "insert":
                statusd.experiment(tx, pair, built, device=which, backend=str(number), **columns)
            else:
                connection.execute(table.update().where(table.c.id == which).values(**columns))
        summed = connection.execute(
            sa.select(table.c.device, sa.func.count(), sa.func.sum(table.c.blocks_left), sa.func.sum(table.c.seconds_left))
            .where(table.c.state.in_(("waiting", "open")), table.c.seconds_left.is_not(None))
            .group_by(table.c.device)
        )
        assert {name: one for name, one in views.queues(connection).items() if one["experiments"]} == {
            device: {"experiments": count, "blocks": blocks, "seconds": seconds} for device, count, blocks, seconds in summed
        }
    finally:
        connection.rollback()


async def test_blocks_and_trials_are_tallied(journal: store.Store) -> None:
    def rows(tx: store.Transaction) -> None:
        experiment = statusd.experiment(tx, statusd.pair(tx, "a"), statusd.build(tx, "a"))
        statusd.block(tx, experiment, 0)
        statusd.block(tx, experiment, 1, log="log")

    await journal.write(rows)
    counts = await journal.read(views.counts)
    assert (counts.blocks, counts.trials) == ({"valid": 1, "invalid": 1}, {"ok": 3, "failed": 1})


async def test_what_is_undone_is_not_tallied(journal: store.Store) -> None:
    def rows(tx: store.Transaction) -> None:
        statusd.experiment(tx, statusd.pair(tx, "a"), statusd.build(tx, "a"))
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        await journal.write(rows)
    assert (await journal.read(views.counts)).experiments == {}


async def test_a_comparison_of_cells_counts_for_no_commit(journal: store.Store) -> None:
    def rows(tx: store.Transaction) -> None:
        pair, built = statusd.pair(tx, "a", run_type="compare"), statusd.build(tx, "a")
        experiment = statusd.experiment(tx, pair, built, state="open")
        decided = schema.experiments.update().where(schema.experiments.c.id == experiment)
        tx.connection.execute(decided.values(state="decided", verdict="regressed"))

    await journal.write(rows)
    assert [(state, verdict) for _, state, verdict in (await journal.read(views.counts)).experiments] == [("decided", "compared")]


async def test_steps_of_a_search_hide_no_verdict(journal: store.Store) -> None:
    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "a")
        for run_type, verdict in (("benchmark", "regressed"), ("verify", "regressed"), *[("regress", "measured")] * 12):
            statusd.experiment(tx, statusd.pair(tx, "a", run_type=run_type), built, **statusd.decided(verdict))

    await journal.write(rows)
    found = await journal.read(lambda connection: views.verdicts(connection, 10))
    assert sorted(item["run_type"] for item in found) == ["benchmark", "verify"]


EVENTS = st.one_of(
    st.tuples(st.just("plan"), st.sampled_from("ab"), st.sampled_from(DEVICES), st.sampled_from(["", "cpu"]), st.booleans()),
    st.tuples(st.just("decide"), st.integers(0, 9), st.sampled_from(["unchanged", "identical", "broken"])),
)


@settings(max_examples=100)
@given(st.lists(EVENTS, max_size=25))
def test_cells_have_their_newest_and_their_newest_decided_experiments(
    connection: sa.Connection, happening: list[tuple[Any, ...]]
) -> None:
    """By the triggers, as walking through all experiments would find them; what was asked for does not count."""
    try:
        tx = store.Transaction(connection)
        built = statusd.build(tx, "a")
        request = schema.requests.insert().values(
            repository="engine", treatment="a", benchmarks=[], devices=[], state="new", created_at=statusd.NOW
        )
        asked = connection.execute(request.returning(schema.requests.c.id)).scalar_one()
        planned: list[tuple[int, tuple[str, str, str, str], bool]] = []
        verdicts: dict[int, str] = {}
        for number, (what, *values) in enumerate(happening):
            if what == "plan":
                benchmark, device, backend, by_request = values
                pair = statusd.pair(tx, str(number), request=asked if by_request else None)
                key = {"benchmark": benchmark, "device": device, "backend": backend}
                planned.append((statusd.experiment(tx, pair, built, **key), ("engine", *key.values()), by_request))
            elif values[0] < len(planned) and planned[values[0]][0] not in verdicts:  # a verdict is for good
                experiment, verdict = planned[values[0]][0], values[1]
                table = schema.experiments
                connection.execute(table.update().where(table.c.id == experiment).values(statusd.decided(verdict)))
                verdicts[experiment] = verdict
        newest = {key: experiment for experiment, key, by_request in planned if not by_request}
        decided = {
            key: experiment
            for experiment, key, by_request in planned
            if not by_request and verdicts.get(experiment, "identical") != "identical"
        }
        shown = cell_facts.coverage(connection, [("engine", "a"), ("engine", "b")])
        assert {key: facts.newest.id for key, facts in shown.items()} == newest
        assert {key: facts.decided.id for key, facts in shown.items() if facts.decided} == decided
    finally:
        connection.rollback()


def test_cells_that_are_no_more_leave_those_that_are_shown(connection: sa.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_facts, "CELLS", 3)
    try:
        tx = store.Transaction(connection)
        pair, built = statusd.pair(tx, "a"), statusd.build(tx, "a")
        for benchmark in ("kept", *(f"edited {number}" for number in range(5))):
            statusd.experiment(tx, pair, built, benchmark=benchmark, device="phone", backend="cpu")
        assert list(cell_facts.coverage(connection, [("engine", "kept")])) == [("engine", "kept", "phone", "cpu")]
        assert len(cell_facts.coverage(connection, [("engine", f"edited {number}") for number in range(5)])) == 3
    finally:
        connection.rollback()


DESIGN = planning.design_json(model.Design(model.Benchmark({}, {}), "pytorch", model.Rule()))
# Builds are few enough to be counted, by an index.
SCAN = re.compile(r"SCAN (?:experiments|revisions|pairs|trials|blocks|results|samples|builds(?! USING COVERING INDEX))")
QUESTIONS = {
    "counts": views.counts,
    "experiments": lambda c: views.experiments(c, views.ExperimentQuery()),
    "of a state": lambda c: views.experiments(c, views.ExperimentQuery(state="open")),
    "of a verdict": lambda c: views.experiments(c, views.ExperimentQuery(verdict="regressed", device="phone")),
    "of a device": lambda c: views.experiments(c, views.ExperimentQuery(device="phone", cursor=7)),
    "of a repository": lambda c: views.experiments(c, views.ExperimentQuery(repository="engine")),
    "of a benchmark": lambda c: views.experiments(c, views.ExperimentQuery(benchmark="squeeze")),
    "one experiment": lambda c: views.experiment(c, 1),
    "subjects": lambda c: views.subjects(c, "engine", ["a", "b"]),
    "samples": lambda c: views.samples(c, 1),
    "verdicts": lambda c: views.verdicts(c, 10),
    "findings": lambda c: finding_views.findings(c, finding_views.FindingQuery()),
    "findings of a kind": lambda c: finding_views.findings(
        c, finding_views.FindingQuery(state="open", triage="none", device="lab-host")
    ),
    "a finding": lambda c: finding_views.finding(c, 1),
    "what nobody has looked at": finding_views.to_triage,
    "what is not muted any more": lambda c: triage.lapsed(c, statusd.NOW),
    "what is searched though it was accepted": searches.to_stop,
    "revisions": lambda c: views.revisions(c, views.RevisionQuery(repository="engine")),
    "coverage": lambda c: cell_facts.coverage(c, [("engine", "squeeze"), ("engine", "other")]),
    "history": lambda c: views.history(c, views.HistoryQuery(benchmark="squeeze", device="phone")),
    "builds": lambda c: views.builds(c, views.BuildQuery()),
    "a request": lambda c: views.request(c, 1),
    "suspects": findings.unseen,
    "what is measured again": findings.to_settle,
    "a commit's family": lambda c: findings.family(c, OF),
    "what stands": lambda c: [findings.standing(c, one.suspect) for one in findings.known(c, CELL)],
    "what is searched": searches.to_search,
    "what searches have named": lambda c: searches.named(c, OF, suspicion.Fault.SLOWER),
    "one finding": lambda c: finding_views.finding(c, 1),
    "what merges brought in": lambda c: merges.known(c, "engine", ["a", "b"]),
    "a search": lambda c: searches.searched(c, 1),
    "what was decided": lambda c: series.decided_since(c, statusd.NOW),
    "a series": lambda c: series.of_cell(c, CELL),
    "noise": lambda c: noises.newest_blocks(c, CELL),
}
OF = suspicion.Range("engine", "a", "b")
CELL = suspicion.Cell("engine", statusd.DIGEST, "lab-host", "", "squeeze")


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_walks_through_a_whole_table(connection: sa.Connection, question: str) -> None:
    """Each is answered by an index, or by walking back through a primary key up to its limit."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    try:
        tx = store.Transaction(connection)
        request = schema.requests.insert().values(
            id=1, repository="engine", treatment="a", benchmarks=[], devices=[], state="new", created_at=statusd.NOW
        )
        connection.execute(request)
        pair = statusd.pair(tx, "a", request=1)
        statusd.experiment(tx, pair, statusd.build(tx, "a"), id=1, design=DESIGN, **statusd.decided("regressed"))
        statusd.finding(tx, 1, state="open")
        statusd.revision(tx, "a", 1)
        asked.clear()
        QUESTIONS[question](connection)
        plans = [(statement, plan) for statement, values in tuple(asked) for plan in _plan(connection, statement, values)]
    finally:
        sa.event.remove(connection, "before_cursor_execute", note)
        connection.rollback()
    assert plans
    for statement, plan in plans:
        is_page = "ORDER BY" in statement and "LIMIT" in statement
        assert is_page or not SCAN.match(plan), f"{plan}: {statement}"


FEW = {
    "what is undecided": (lambda c: window._undecided(c, "engine", ["phone"]), "experiments USING INDEX experiments_undecided"),
    "what is good": (lambda c: window._good(c, "engine"), "experiments USING INDEX experiments_bad"),
    "what lost its control": (lambda c: window._orphans(c, "engine"), "experiments USING INDEX experiments_orphaned"),
    "what people sent": (submissions.undecided, "experiments USING INDEX experiments_undecided"),
    "what of it is needed": (submissions.needed, "experiments USING INDEX experiments_undecided"),
    "what a build takes": (
        lambda c: searches._build_seconds(c, builds.Key("engine", "a", "pytorch", "host")),
        "builds USING INDEX builds_made",
    ),
}


@pytest.mark.parametrize("question", FEW)
def test_a_question_about_few_among_very_many_has_an_index_of_those_few(connection: sa.Connection, question: str) -> None:
    ask, index = FEW[question]
    asked: list[tuple[str, Any]] = []
    sa.event.listen(connection, "before_cursor_execute", note := lambda *of: asked.append((of[2], of[3])))
    try:
        ask(connection)
        plans = [plan for statement, values in tuple(asked) for plan in _plan(connection, statement, values)]
    finally:
        sa.event.remove(connection, "before_cursor_execute", note)
    assert any(index in plan for plan in plans), plans
    assert not [plan for plan in plans if "experiments_by_state" in plan or SCAN.match(plan)], plans


def test_self_checks_are_counted_without_the_other_experiments(connection: sa.Connection) -> None:
    asked: list[tuple[str, Any]] = []
    sa.event.listen(connection, "before_cursor_execute", note := lambda *of: asked.append((of[2], of[3])))
    try:
        selfchecks.counts(connection)
        ((statement, values),) = asked
    finally:
        sa.event.remove(connection, "before_cursor_execute", note)
    assert "SCAN pairs USING INDEX pairs_of_selfchecks" in _plan(connection, statement, values)


def _plan(connection: sa.Connection, statement: str, values: Any) -> list[str]:
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]


async def test_a_question_has_a_deadline_and_the_next_one_its_own(journal: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "STEPS", 1)

    def slow(connection: sa.Connection) -> Any:
        with paging.deadline(connection, 0.0):
            return views.counts(connection)

    with pytest.raises(errors.QueryTooSlowError):
        await journal.read(slow)
    assert (await journal.read(views.counts)).experiments == {}


async def test_a_history_says_where_something_else_began_to_be_measured(journal: store.Store) -> None:
    summary = {"skip": 0, "low": 0.0, "high": 0.125, "guard": True}
    designs = {
        "a": {},  # as ever, which the first ones do not say
        "b": {"design": {"rule": {}, "summary": summary | {"guard": False}}},  # the same number
        "c": {"benchmark": "e" * 64, "design": {"rule": {}, "summary": summary | {"skip": 3}}},
        "d": {"benchmark": "e" * 64, "design": {"rule": {}, "summary": summary | {"skip": 3}}},
        "e": {"benchmark": "e" * 64, "design": {"rule": {}, "summary": summary | {"skip": 2}}},
        "f": {"benchmark": "e" * 64, "backend": "opencl"},  # another series
    }

    def rows(tx: store.Transaction) -> None:
        for commit, more in designs.items():
            statusd.experiment(tx, statusd.pair(tx, commit), statusd.build(tx, commit), **statusd.decided("unchanged") | more)

    await journal.write(rows)
    query = views.HistoryQuery(benchmark="squeeze", device="lab-host")
    history = (await journal.read(lambda connection: views.history(connection, query)))["history"]
    assert {item["treatment"]: item["changed"] for item in history if item["changed"]} == {"c": "specification", "e": "number"}
    assert history[1]["number"] == "mean of the fastest eighth of a process's iterations, without the first 2"
    assert "summary" not in history[0]


@pytest.mark.parametrize(
    ("state", "before", "confirmed"),
    [
        ("refuted", None, False),
        ("unconfirmed", None, False),
        ("open", None, True),
        ("accepted", "open", True),
        ("accepted", "unconfirmed", False),
    ],
)
async def test_an_experiment_has_what_its_second_look_says(
    journal: store.Store, state: str, before: str | None, confirmed: bool
) -> None:
    again = {"verdict": "unchanged", "estimate": 0.001, "low": -0.01, "high": 0.012, "finding": 1}

    def rows(tx: store.Transaction) -> None:
        built = statusd.build(tx, "a")
        for name in ("a", "b"):
            statusd.experiment(tx, statusd.pair(tx, name), built, **statusd.decided("regressed"))
        statusd.finding(tx, 1, state=state)
        if before is not None:
            made = {"finding": 1, "action": "accept", "by": "me", "why": "worth it", "state": before, "at": statusd.NOW}
            tx.connection.execute(schema.triages.insert().values(made))
        statusd.experiment(tx, statusd.pair(tx, "a", run_type="verify"), built, **statusd.decided("unchanged") | again)

    await journal.write(rows)
    listed = (await journal.read(lambda connection: views.experiments(connection, views.ExperimentQuery())))["experiments"]
    look = {"finding": 1, "state": state, "confirmed": confirmed, "verify": 3, "estimate": 0.001, "low": -0.01, "high": 0.012}
    assert {item["id"]: item["second_look"] for item in listed} == {1: look, 2: None, 3: None}
    finding = await journal.read(lambda connection: finding_views.finding(connection, 1))
    assert finding is not None
    assert {name: finding[name] for name in look if name != "finding"} == {n: v for n, v in look.items() if n != "finding"}
