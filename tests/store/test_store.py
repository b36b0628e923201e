"""The journal: durable when a write returns, whole or not at all, readable while it is written."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from aibenchd import errors, events, model
from aibenchd.plan import suspicion
from aibenchd.store import experiments, migrations, noises, schema, store


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def add(tx: store.Transaction, name: str) -> None:
    tx.connection.execute(schema.repositories.insert().values(name=name))


def names(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.select(schema.repositories.c.name).order_by("name")))


async def test_a_write_is_there_for_another_process_when_it_returns(journal: store.Store) -> None:
    await journal.write(lambda tx: add(tx, "engine"))
    with sqlite3.connect(journal.path) as other:
        assert other.execute("SELECT name FROM repositories").fetchall() == [("engine",)]


def test_what_is_done_before_anybody_waits_for_it_is_not_waited_for() -> None:
    """The writer's thread may be quicker than the task that gave it work; waiting then would stop the whole process."""
    done: Future[int] = Future()
    done.set_result(5)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(anyio.run(store._outcome, done)), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert answers == [5]


async def test_writes_that_share_a_commit_fail_alone(journal: store.Store) -> None:
    failures: list[Exception] = []

    async def write(name: str) -> None:
        try:
            await journal.write(lambda tx: add(tx, name))
        except sa.exc.IntegrityError as error:
            failures.append(error)

    hold = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.write, lambda _: hold.wait(10))  # so that those after it wait, and are one group
        await anyio.sleep(0.05)
        for name in ("a", "b", "a", "c", "b"):
            tasks.start_soon(write, name)
        await anyio.sleep(0.05)
        hold.set()
    assert len(failures) == 2
    assert await journal.read(names) == ["a", "b", "c"]


async def test_a_write_that_fails_leaves_nothing_and_tells_nobody(journal: store.Store) -> None:
    def fails(tx: store.Transaction) -> None:
        add(tx, "half")
        tx.announce("revision.found")
        raise ZeroDivisionError

    with journal.events.bell("revision.") as bell:
        with pytest.raises(ZeroDivisionError):
            await journal.write(fails)
        assert not await bell.wait(0)
    assert await journal.read(names) == []


async def test_an_announcement_comes_after_the_commit(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        add(tx, "engine")
        tx.announce("revision.found", repository="engine")

    async with journal.events.subscribe() as told:
        await journal.write(write)
        assert (await anext(told)).facts == {"repository": "engine"}
        assert await journal.read(names) == ["engine"]


async def test_a_cancelled_write_is_whole(journal: store.Store) -> None:
    hold = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.write, lambda _: hold.wait(10))
        tasks.start_soon(journal.write, lambda tx: add(tx, "engine"))
        await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
        hold.set()
    assert await journal.read(names) == ["engine"]


async def test_a_backup_is_whole_and_replaces_nothing(journal: store.Store, tmp_path: Path) -> None:
    await journal.write(lambda tx: add(tx, "engine"))
    copy = tmp_path / "copy.db"
    await journal.backup(copy)
    async with store.opened(copy, events.Events()) as opened:
        assert await opened.read(names) == ["engine"]
    with pytest.raises(errors.StoreError, match="exists"):
        await journal.backup(copy)


async def test_a_newer_journal_is_refused_with_advice(journal: store.Store, tmp_path: Path) -> None:
    copy = tmp_path / "newer.db"
    await journal.backup(copy)
    with sqlite3.connect(copy) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    before = copy.read_bytes()
    with pytest.raises(errors.StoreError, match=r"newer aibenchd.*install that version"):
        async with store.opened(copy, events.Events()):
            pass
    assert copy.read_bytes() == before


async def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, but longer than the header of one " * 100)
    with pytest.raises(errors.StoreError, match="not a usable journal"):
        async with store.opened(path, events.Events()):
            pass


async def test_the_migrations_make_what_the_code_reads(journal: store.Store) -> None:
    """Column by column and index by index: a schema that changed without a migration fails here."""
    from_code = sa.create_engine("sqlite://")
    with from_code.begin() as connection:
        schema.metadata.create_all(connection)
        expected = shape(connection)
    assert await journal.read(shape) == expected


def shape(connection: sa.Connection) -> dict[str, object]:
    """Tables by their columns, keys and constraints, for a column that was added later stands elsewhere in the text."""
    named = "FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name <> 'alembic_version' ORDER BY name"
    found: dict[str, object] = {}
    for kind, name, sql in connection.exec_driver_sql(f"SELECT type, name, sql {named}").all():
        if kind == "table":
            facts = ("table_xinfo", "foreign_key_list", "index_list")
            columns, *others = [[tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {fact}({name})")] for fact in facts]
            unordered = [sorted(row[1:] for row in rows) for rows in others]  # whatever the order in which they were made
            found[f"table {name}"] = (columns, unordered, "WITHOUT ROWID" in sql)
        else:
            found[f"{kind} {name}"] = " ".join((sql or "").split())
    return found


async def test_an_older_journal_gains_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    migrations.upgrade(path, "0002")
    with sqlite3.connect(path) as older:
        older.executescript(
            """
            INSERT INTO requests VALUES (1, 'engine', 'a', '', '[]', '[]', 0, 'planned', '', '', 0);
            INSERT INTO builds VALUES (1, 'engine', 'a', 'f', 'host', 'built', 0, '', '', '', 0, '', '', '{}', 0, NULL, NULL, 0);
            """
        )
        for pair, request, verdict in ((1, None, "measured"), (2, None, "identical"), (3, 1, "regressed")):
            older.execute("INSERT INTO pairs VALUES (?, 'engine', 'a', NULL, 'benchmark', 0, ?, 0)", (pair, request))
            older.execute(
                "INSERT INTO experiments (id, pair, benchmark, identifier, model, device, backend, treatment_build, digests,"
                " design, state, reason, priority, round, turn, blocks, verdict, created_at)"
                " VALUES (?, ?, 'd', 'net', 'net', 'host', 'cpu', 1, '', '{}', 'decided', '', 0, 0, 0, 0, ?, 0)",
                (pair, pair, verdict),
            )
    older.close()
    async with store.opened(path, events.Events()) as opened:
        cells = await opened.read(lambda connection: connection.execute(sa.select(schema.cells)).all())
    assert [tuple(cell) for cell in cells] == [("engine", "d", "host", "cpu", 2, 1)]


async def test_blocks_of_an_older_journal_are_of_the_first_stratum(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    migrations.upgrade(path, "0003")
    with sqlite3.connect(path) as older:
        older.execute("PRAGMA foreign_keys=OFF")
        older.execute(
            "INSERT INTO blocks (experiment, number, \"order\", valid, started_at, finished_at) VALUES (1, 0, 'T', 1, 1, 2)"
        )
    migrations.upgrade(path)
    with sqlite3.connect(path) as newer:
        assert newer.execute("SELECT stratum, fingerprint, conditions FROM blocks").fetchall() == [(0, None, None)]


async def test_what_regressed_in_an_older_journal_stays_a_finding_and_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    migrations.upgrade(path, "0004")
    with sqlite3.connect(path) as older:
        older.execute(
            "INSERT INTO builds VALUES"
            " (7, 'engine', 'a', 'f', 'host', 'built', 0, 'd', '', '', 0, '', '', '{}', 0, NULL, NULL, 5)"
        )
        older.execute("INSERT INTO pairs VALUES (1, 'engine', 'a', 'b', 'benchmark', 0, NULL, 0)")
        for number, verdict in enumerate(("regressed", "unchanged", "broken")):
            older.execute(
                "INSERT INTO experiments (pair, benchmark, identifier, model, device, backend, treatment_build, digests,"
                " design, state, reason, priority, round, turn, blocks, verdict, created_at, decided_at)"
                " VALUES (1, ?, 'net', 'net', 'host', 'cpu', 7, '', '{}', 'decided', '', 0, 0, 0, 0, ?, 0, 5)",
                (str(number), verdict),
            )
    older.close()
    async with store.opened(path, events.Events()) as opened:
        found = await opened.read(lambda connection: connection.execute(sa.select(schema.findings)).all())
        (build,) = await opened.read(lambda connection: connection.execute(sa.select(schema.builds)).all())
        counted = await opened.read(lambda connection: connection.execute(sa.text("PRAGMA foreign_key_check")).all())
    assert [(one.suspect, one.state, one.found_at.timestamp()) for one in found] == [(1, "unconfirmed", 5), (3, "unconfirmed", 5)]
    assert (build.id, build.copy, build.digest, counted) == (7, 0, "d", [])


async def test_a_reader_sees_one_state_while_another_writes_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    count = sa.select(sa.func.count()).select_from(schema.repositories)
    async with store.opened(path, events.Events()) as journal:
        await journal.write(lambda tx: add(tx, "a"))
        with store.reading(path) as connection:
            assert connection.scalar(count) == 1
            await journal.write(lambda tx: add(tx, "b"))
            assert connection.scalar(count) == 1
        with pytest.raises(errors.StoreError, match="readonly"):
            _delete(path)
    with store.reading(path) as connection:
        assert connection.scalar(count) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["journal.db"]


async def test_a_daemon_that_begins_to_write_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with store.opened(path, events.Events()):
        pass
    reader = store.reading(path)
    reader.__enter__()
    async with store.opened(path, events.Events()) as journal:
        await journal.write(lambda tx: add(tx, "a"))
        with pytest.raises(errors.StoreError, match="a daemon began to write to it while it was read"):
            reader.__exit__(None, None, None)


def _delete(path: Path) -> None:
    with store.reading(path) as connection:
        connection.execute(schema.repositories.delete())


async def test_experiments_of_an_older_journal_are_decided_on_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    migrations.upgrade(path, "0011")
    with sqlite3.connect(path) as older:
        older.execute("PRAGMA foreign_keys=OFF")
        older.execute(
            "INSERT INTO blocks (experiment, number, \"order\", valid, started_at, finished_at) VALUES (1, 0, 'TC', 1, 1, 2)"
        )
        older.execute(
            "INSERT INTO noises (repository, device, benchmark, backend, identifier, blocks, measured_at)"
            " VALUES ('engine', 'host', 'd', '', 'net', 9, 1)"
        )
    migrations.upgrade(path)
    async with store.opened(path, events.Events()) as opened:
        (block,) = await opened.read(lambda connection: experiments.journalled(connection, 1))
        now = await opened.read(lambda connection: noises.now(connection, suspicion.Cell("engine", "d", "host", "", "net")))
    assert (block.treatment_tail, block.control_tail, now) == (None, None, model.Summary())
