"""Which experiments are of a period."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd.store import periods, schema, store

HOUR = timedelta(hours=1)


@pytest.fixture
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    schema.metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def commit(number: int) -> str:
    return f"{number:04x}" + "c" * 36


@pytest.fixture
def line(connection: sa.Connection) -> sa.Connection:
    """Ten commits, one an hour, each with an experiment that ended then; and one of another repository."""
    tx = store.Transaction(connection)
    for number in range(10):
        statusd.revision(tx, commit(number), number)
        pair = statusd.pair(tx, commit(number), commit(number - 1))
        ended = statusd.decided("regressed" if number == 5 else "unchanged", 60 * number)
        made = statusd.experiment(tx, pair, statusd.build(tx, commit(number)), device=f"device-{number % 2}", **ended)
        if number == 5:
            statusd.finding(tx, made, state="open")
    statusd.revision(tx, commit(0), 0, repository="other")
    pair = statusd.pair(tx, commit(0), repository="other")
    statusd.experiment(tx, pair, 1, identifier="other", **statusd.decided("measured", 60 * 5))
    return connection


def shown(connection: sa.Connection, since: periods.End, until: periods.End, **more: Any) -> list[str]:
    """The first characters of the commits, oldest first."""
    period = periods.Period(since, until, **more)
    items = periods.experiments(connection, period, ("regressed", "unchanged", "measured"), None)
    assert sum(row["experiments"] for row in periods.counts(connection, period)) == len(items)
    return [item["treatment"][3] for item in reversed(items)]


def at(connection: sa.Connection, number: int) -> periods.Commit:
    (found,) = periods.commits(connection, commit(number), "engine")
    return found


def test_times_hold_their_begin_and_not_their_end(line: sa.Connection) -> None:
    assert shown(line, statusd.NOW + 3 * HOUR, statusd.NOW + 6 * HOUR) == ["3", "4", "5", "0"]
    assert shown(line, statusd.NOW + 3 * HOUR, statusd.NOW + 6 * HOUR, repository="engine") == ["3", "4", "5"]
    assert shown(line, statusd.NOW + 3 * HOUR, statusd.NOW + 6 * HOUR, device="device-1") == ["3", "5"]
    assert shown(line, statusd.NOW + 3 * HOUR, statusd.NOW + 6 * HOUR, benchmark="other") == ["0"]
    assert shown(line, statusd.NOW - HOUR, statusd.NOW) == []


def test_commits_hold_what_came_after_the_first_up_to_the_last_on_their_line(line: sa.Connection) -> None:
    assert shown(line, at(line, 3), at(line, 6)) == ["4", "5", "6"]
    assert shown(line, at(line, 6), statusd.NOW + 9 * HOUR) == ["7", "8"]
    assert shown(line, statusd.NOW + 2 * HOUR, at(line, 3)) == ["2", "3"]
    assert shown(line, at(line, 9), statusd.NOW + 99 * HOUR) == []


def test_what_ended_before_the_period_stands_from_before(line: sa.Connection) -> None:
    for since, until, found, before in (
        (statusd.NOW, statusd.NOW + 9 * HOUR, 1, 0),
        (statusd.NOW + 6 * HOUR, statusd.NOW + 9 * HOUR, 0, 1),
        (statusd.NOW, statusd.NOW + 5 * HOUR, 0, 0),
        (at(line, 4), at(line, 9), 1, 0),
        (at(line, 5), at(line, 9), 0, 1),
        (at(line, 0), at(line, 4), 0, 0),
    ):
        period = periods.Period(since, until)
        assert (len(periods.findings(line, period)), len(periods.standing(line, period))) == (found, before)


def test_what_is_mended_or_accepted_does_not_stand(line: sa.Connection) -> None:
    period = periods.Period(statusd.NOW + 6 * HOUR, statusd.NOW + 9 * HOUR)
    line.execute(schema.findings.update().values(mended=7))
    assert periods.standing(line, period) == []
    line.execute(schema.findings.update().values(mended=None, state="accepted"))
    assert periods.standing(line, period) == []


def test_a_commit_is_known_by_how_it_begins(line: sa.Connection) -> None:
    assert [one.repository for one in periods.commits(line, "0000", None)] == ["other", "engine"]
    assert [one.commit for one in periods.commits(line, "0007c", None)] == [commit(7)]
    assert periods.commits(line, "00%", None) == []


def test_devices_work_is_added_up(connection: sa.Connection) -> None:
    tx = store.Transaction(connection)
    pair, build = statusd.pair(tx, "a", "b"), statusd.build(tx, "a")
    made = statusd.experiment(tx, pair, build, **statusd.decided("regressed"))
    statusd.block(tx, made, 0)
    statusd.block(tx, made, 1, log="log")
    late = statusd.NOW + timedelta(seconds=90)
    connection.execute(schema.blocks.update().where(schema.blocks.c.number == 1).values(finished_at=late))
    open_one = statusd.experiment(tx, pair, build, backend="other")
    statusd.block(tx, open_one, 0)
    period = periods.Period(statusd.NOW - HOUR, statusd.NOW + HOUR)
    assert periods.worked(connection, period) == {"lab-host": periods.Worked(2, 1, 90.0, 0, {"failed": 1, "ok": 3}, {})}
