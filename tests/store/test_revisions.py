from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from aibenchd import events, model
from aibenchd.store import merges, revisions, schema, store

START = datetime(2024, 5, 13, tzinfo=UTC)


def revision(position, commit="", repository="engine"):
    return model.Revision(
        repository=repository,
        commit=commit or f"{position:040x}",
        time=START + timedelta(hours=position),
        parents=(f"{position - 1:040x}",),
        author="Ada",
        subject=f"change {position}",
        position=position,
    )


@pytest.fixture
async def journal(tmp_path):
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


async def fill(journal, *positions, state="new"):
    found = [(revision(position), state) for position in positions]
    count = await journal.write(lambda tx: revisions.record(tx, found))
    await journal.write(lambda tx: revisions.advance(tx, "engine", f"{max(positions):040x}", first=1))
    return count


async def states(journal):
    """State, and whether it is on the line, of every row in the order of positions."""
    query = sa.select(schema.revisions.c.state, schema.revisions.c.on_branch).order_by(schema.revisions.c.position)
    return [tuple(row) for row in await journal.read(lambda connection: connection.execute(query).all())]


def positions(known):
    return [one.revision.position for one in known]


async def test_a_revision_comes_back_as_it_was_written(journal):
    await fill(journal, 1)
    (known,) = await journal.read(lambda connection: revisions.recent(connection, "engine", 10))
    assert known == revisions.Known(revision(1), "new", "", on_branch=True)


async def test_progress(journal):
    assert await journal.read(lambda connection: revisions.progress(connection, "engine")) is None
    await fill(journal, 1, 2)
    progress = await journal.read(lambda connection: revisions.progress(connection, "engine"))
    assert progress == revisions.Progress(f"{2:040x}", 2, 1)


async def test_known_revisions_keep_their_state(journal):
    assert await fill(journal, 1, 2) == 2
    assert await fill(journal, 1, 2, 3, state="history") == 0
    assert await journal.write(lambda tx: revisions.record(tx, [])) == 0
    known = await journal.read(lambda connection: revisions.recent(connection, "engine", 10))
    assert [one.state for one in known] == ["history", "new", "new"]


async def test_windows_are_bounded_and_end_at_the_head(journal):
    await fill(journal, *range(1, 10))
    await journal.write(lambda tx: revisions.record(tx, [(revision(10), "new"), (revision(5, "a" * 40, "other"), "new")]))
    read = journal.read
    assert positions(await read(lambda connection: revisions.recent(connection, "engine", 3))) == [9, 8, 7]
    assert positions(await read(lambda connection: revisions.newest_pending(connection, "engine", 2))) == [9, 8]
    assert await read(lambda connection: revisions.recent(connection, "other", 3)) == []


async def test_retreat_keeps_what_is_planned(journal):
    await fill(journal, 1, 2)
    await fill(journal, 3, state="planned")
    joint = (await journal.read(lambda connection: revisions.recent(connection, "engine", 10)))[2]
    assert await journal.write(lambda tx: revisions.retreat(tx, "engine", joint)) == 2
    assert positions(await journal.read(lambda connection: revisions.recent(connection, "engine", 10))) == [1]
    assert await states(journal) == [("new", True), ("gone", False), ("planned", False)]
    assert await fill(journal, 2, 3) == 1
    assert positions(await journal.read(lambda connection: revisions.recent(connection, "engine", 10))) == [3, 2, 1]


async def test_what_a_person_named_is_on_no_line_until_the_line_comes_to_it(journal):
    await fill(journal, 1)
    await journal.write(lambda tx: revisions.remember(tx, [revision(1), revision(2)]))
    assert positions(await journal.read(lambda connection: revisions.recent(connection, "engine", 10))) == [1]
    assert await states(journal) == [("new", True), ("asked", False)]
    assert await fill(journal, 2) == 1
    assert positions(await journal.read(lambda connection: revisions.newest_pending(connection, "engine", 10))) == [2, 1]


async def test_thousands_that_a_merge_brought_in_are_written_at_once(journal):
    """One by one they would hold up the blocks that wait to be written, for half a minute."""
    await fill(journal, 1, 2)
    side = [revision(1), *(revision(position) for position in range(3, 1_000))]
    asked = []

    def write(tx):
        sa.event.listen(tx.connection, "before_cursor_execute", lambda *of: asked.append(of[2]))
        merges.put(tx, "engine", "merge", f"{2:040x}", [side, side[:5]])

    await journal.write(write)
    asked = [words for words in asked if "SAVEPOINT" not in words]
    assert len(asked) == 2  # the commits, and what the merge brought in
    assert (await states(journal))[:3] == [("new", True), ("new", True), ("side", False)]
    known = await journal.read(lambda connection: merges.known(connection, "engine", [f"{1:040x}"]))
    assert known == merges.Known(frozenset(), {})
    assert (
        await journal.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(schema.revisions))) == 999
    )
