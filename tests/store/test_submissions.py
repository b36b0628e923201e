"""Who sent what, what of it is needed still, and what comes first on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import model
from aibenchd.store import builds, experiments, planning, requests, schema, store, submissions

DESIGN = planning.design_json(model.Design(model.Benchmark({}, {}), "generic", model.Rule()))


@pytest.fixture
def tx() -> Iterator[store.Transaction]:
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield store.Transaction(connection)
    engine.dispose()


def sent(tx: store.Transaction, treatment: str, control: str | None = None, specification: str = "", **more: Any) -> int:
    """A submission with one experiment; the number of its request."""
    number = requests.add(
        tx,
        repository=model.SUBMITTED,
        treatment=treatment,
        control=control or "",
        benchmarks=[],
        devices=[],
        priority=0,
        requested_by="me",
    )
    submissions.add(tx, request=number, uid=1000, note="", names={}, specification=specification)
    requests.granted(tx, number)
    pair = statusd.pair(tx, treatment, control, request=number, run_type="submission", repository=model.SUBMITTED)
    built = statusd.build(tx, treatment, repository=model.SUBMITTED)
    statusd.revision(tx, treatment, 0, repository=model.SUBMITTED)
    statusd.experiment(tx, pair, built, design=DESIGN, **more)
    return number


def test_what_may_still_run_is_needed(tx: store.Transaction) -> None:
    sent(tx, "a", "b", "net", state="waiting")
    sent(tx, "c", None, "other", state="open")
    sent(tx, "d", "e", "old", **statusd.decided("unchanged"))
    assert submissions.needed(tx.connection) == {"a", "b", "net", "c", "other"}
    other = sent(tx, "f", state="open")
    tx.connection.execute(schema.submissions.update().where(schema.submissions.c.request == other).values(uid=77))
    assert submissions.undecided(tx.connection) == {1000: 2, 77: 1}


def test_what_is_left_of_a_request_ends_and_what_has_ended_stays(tx: store.Transaction) -> None:
    number, other = sent(tx, "a", state="open"), sent(tx, "b", state="open")
    pair = tx.connection.scalar(sa.select(schema.pairs.c.id).where(schema.pairs.c.request == number))
    built = statusd.build(tx, "x")
    statusd.experiment(tx, pair, built, device="phone", state="waiting")
    statusd.experiment(tx, pair, built, device="tablet", **statusd.decided("unchanged"))
    assert {device for _, device in submissions.cancel(tx, number, "cancelled by me")} == {"lab-host", "phone"}
    states = tx.connection.execute(
        sa.select(schema.experiments.c.state, schema.experiments.c.reason).order_by(schema.experiments.c.id)
    )
    assert [tuple(row) for row in states] == [
        ("cancelled", "cancelled by me"),
        ("open", ""),
        ("cancelled", "cancelled by me"),
        ("decided", ""),
    ]
    assert submissions.cancel(tx, number, "again") == []
    # Whatever its worker finds out meanwhile changes nothing.
    experiments.await_builds(tx, 1, ["/nowhere"])
    experiments.skip(tx, 1, "cannot be measured")
    row = tx.connection.execute(sa.select(schema.experiments.c.state, schema.experiments.c.reason).limit(1)).one()
    assert tuple(row) == ("cancelled", "cancelled by me")
    assert [submissions.owner(tx.connection, one) for one in (number, other, 99)] == [1000, 1000, None]


def test_what_waits_to_be_planned_is_refused_when_it_is_cancelled(tx: store.Transaction) -> None:
    number = requests.add(
        tx, repository="engine", treatment="t", control="", benchmarks=[], devices=[], priority=0, requested_by="me"
    )
    assert submissions.cancel(tx, number, "cancelled by me") == []
    row = tx.connection.execute(sa.select(schema.requests.c.state, schema.requests.c.reason)).one()
    assert tuple(row) == ("refused", "cancelled by me")


def test_a_submission_is_next_and_can_be_passed_over(tx: store.Transaction) -> None:
    statusd.revision(tx, "commit", 1)
    own = statusd.experiment(tx, statusd.pair(tx, "commit"), statusd.build(tx, "commit"), design=DESIGN)
    sent(tx, "a", priority=1_000)
    sent(tx, "b", priority=1_000)
    first = experiments.next_of(tx.connection, "lab-host")
    other = experiments.next_of(tx.connection, "lab-host", submitted=False)
    assert first is not None
    assert first.submitted
    assert other is not None
    assert (other.id, other.submitted) == (own, False)
    assert experiments.next_of(tx.connection, "lab-host", [own], submitted=False) is None


def test_a_program_that_is_sent_again_is_built_again_where_that_failed(tx: store.Transaction) -> None:
    failed = statusd.build(tx, "a", repository=model.SUBMITTED, state="failed")
    kept = statusd.build(tx, "b", repository=model.SUBMITTED, state="failed")
    builds.rebuild_all(tx, model.SUBMITTED, "a")
    rows = tx.connection.execute(sa.select(schema.builds.c.id, schema.builds.c.state).order_by(schema.builds.c.id))
    assert [tuple(row) for row in rows] == [(failed, "queued"), (kept, "failed")]
