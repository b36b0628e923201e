import contextlib
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import anyio
import pytest
import sqlalchemy as sa

from aibenchd import board, errors, events
from aibenchd.store import revisions, schema, store
from aibenchd.watch import watcher

LIMIT = 60  # seconds that a test waits for what must happen


class Watched:
    """A watcher, its journal and its board."""

    def __init__(self, repository, journal, told):
        self.store, self.events = journal, told
        self.board = board.Board(told)
        self.watcher = watcher.Watcher(repository, journal, self.board, random.Random(1))

    async def poll(self):
        """Poll, and say each recorded revision's subject and state, newest first."""
        await self.watcher.poll()
        return await self.seen()

    async def seen(self):
        line = await self.store.read(lambda connection: revisions.recent(connection, "engine", 100_000))
        return [(known.revision.subject, known.state) for known in line]

    async def states(self):
        """Every row, also those beside the line."""
        query = sa.select(schema.revisions.c.subject, schema.revisions.c.state, schema.revisions.c.on_branch)
        rows = await self.store.read(lambda connection: connection.execute(query.order_by(schema.revisions.c.id)).all())
        return {row.subject: (row.state, row.on_branch) for row in rows}

    async def set_state(self, commit, state):
        update = schema.revisions.update().where(schema.revisions.c.commit == commit).values(state=state)
        await self.store.write(lambda tx: tx.connection.execute(update))

    async def until(self, state):
        with anyio.fail_after(LIMIT):
            while [notice.state for notice in self.board.notices("repository")] != [state]:
                await anyio.sleep(0.01)
        (notice,) = self.board.notices("repository")
        assert notice.unit == "repository/engine"
        return notice


@pytest.fixture
async def watched(git_clone, git_remote, tmp_path):
    told = events.Events()
    async with store.opened(tmp_path / "journal.db", told) as journal:
        yield lambda **more: Watched(git_clone(git_remote.url, **more), journal, told)


async def test_the_head_is_tested_at_once_and_then_what_is_new(git_remote, watched):
    for number in range(4):
        git_remote.commit(f"old {number}")
    told = watched()
    async with told.events.subscribe() as heard:
        assert await told.poll() == [("old 3", "new"), ("old 2", "history"), ("old 1", "history"), ("old 0", "history")]
        first = await anext(heard)
        assert (first.topic, first.facts) == ("revision.found", {"repository": "engine", "count": 1})
        git_remote.commit("five")
        git_remote.commit("six")
        assert (await told.poll())[:3] == [("six", "new"), ("five", "new"), ("old 3", "new")]
        second = await anext(heard)
        assert second.facts["count"] == 2
    assert (await told.poll())[:3] == [("six", "new"), ("five", "new"), ("old 3", "new")]


async def test_start_at_measures_everything_from_it_on(git_remote, watched):
    git_remote.commit("zero")
    start = git_remote.commit("one")
    git_remote.commit("two")
    git_remote.commit("three")
    told = watched(start_at=start[:10])
    assert await told.poll() == [("three", "new"), ("two", "new"), ("one", "new"), ("zero", "history")]


async def test_start_at_must_be_on_the_line(git_remote, watched):
    git_remote.commit("zero")
    git_remote("checkout", "--quiet", "-b", "side")
    side = git_remote.commit("side", other="x")
    git_remote("checkout", "--quiet", "main")
    git_remote.commit("two")
    git_remote("merge", "--quiet", "--no-ff", "--message", "merge", "side")
    with pytest.raises(errors.UnknownRevisionError, match="not on the first-parent line of branch 'main'"):
        await watched(start_at=side).poll()
    with pytest.raises(errors.UnknownRevisionError, match="no commit"):
        await watched(start_at="nope").poll()
    assert await watched().seen() == []


async def test_history_goes_back_to_monday_of_the_week_before(git_remote, watched, monkeypatch):
    monkeypatch.setattr(watcher, "HISTORY_LEAST", 3)
    monday = datetime(2024, 5, 13, tzinfo=UTC)
    git_remote.time = int((monday - timedelta(weeks=1, days=20)).timestamp())
    for number in range(6):
        git_remote.commit(f"too old {number}")
    git_remote.time = int((monday - timedelta(weeks=1)).timestamp()) - 60
    git_remote.commit("week before")
    git_remote.time -= 86_400
    git_remote.commit("an odd clock")
    git_remote.time = int(monday.timestamp()) + 86_400
    git_remote.commit("head")
    assert [subject for subject, _ in await watched().poll()] == [
        "head",
        "an odd clock",
        "week before",
        *(f"too old {number}" for number in (5, 4, 3)),
    ]


async def test_history_is_bounded(git_remote, watched, monkeypatch):
    monkeypatch.setattr(watcher, "HISTORY_BOUND", 3)
    for number in range(6):
        git_remote.commit(str(number))
    assert [subject for subject, _ in await watched().poll()] == ["5", "4", "3", "2"]


async def test_steps_count_from_the_first_measured(git_remote, watched):
    for number in range(5):
        git_remote.commit(f"old {number}")
    told = watched(step=3)
    assert (await told.poll())[0] == ("old 4", "new")
    for number in range(4):
        git_remote.commit(f"{number}")
    await told.poll()
    for number in range(4, 7):
        git_remote.commit(f"{number}")
    states = [state for _, state in await told.poll()]
    assert states[:8] == ["stepped", "new", "stepped", "stepped", "new", "stepped", "stepped", "new"]


async def test_filtered_revisions_are_recorded_as_such(git_remote, watched):
    git_remote.commit("code", src__a="1")
    git_remote.commit("docs", docs__a="1")
    told = watched(paths={"include": ["src/**"]})
    assert await told.poll() == [("docs", "filtered"), ("code", "new")]
    git_remote.commit("more docs", docs__a="2")
    git_remote.commit("more code", src__a="2")
    assert (await told.poll())[:2] == [("more code", "new"), ("more docs", "filtered")]


async def test_nothing_that_the_filters_let_through(git_remote, watched):
    git_remote.commit("docs", docs__a="1")
    git_remote.commit("more docs", docs__a="2")
    assert await watched(paths={"include": ["src/**"]}).poll() == [("more docs", "filtered"), ("docs", "history")]


async def test_a_rewritten_branch(git_remote, watched):
    git_remote.commit("root")
    git_remote.commit("kept")
    planned = git_remote.commit("planned")
    git_remote.commit("lost")
    told = watched(start_at="main~3")
    await told.poll()
    await told.set_state(planned, "planned")
    git_remote("reset", "--quiet", "--hard", "HEAD~2")
    git_remote.commit("rewritten")
    assert await told.poll() == [("rewritten", "new"), ("kept", "new"), ("root", "new")]
    assert await told.states() == {
        "root": ("new", True),
        "kept": ("new", True),
        "planned": ("planned", False),
        "lost": ("gone", False),
        "rewritten": ("new", True),
    }
    git_remote("reset", "--quiet", "--hard", planned)
    assert (await told.poll())[0] == ("planned", "planned")
    git_remote("reset", "--quiet", "--hard", "HEAD~1")
    assert (await told.poll())[0] == ("kept", "new")


async def test_a_branch_that_is_moved_back_and_forth(git_remote, watched):
    git_remote.commit("root")
    head = git_remote.commit("head")
    told = watched()
    await told.poll()
    git_remote("reset", "--quiet", "--hard", "HEAD~1")
    assert await told.poll() == [("root", "history")]
    git_remote("reset", "--quiet", "--hard", head)
    assert await told.poll() == [("head", "new"), ("root", "history")]


async def test_a_line_that_becomes_the_second_parent(git_remote, watched):
    git_remote.commit("root")
    git_remote("branch", "local")
    git_remote.commit("on the line")
    told = watched(start_at="main~1")
    await told.poll()
    git_remote("checkout", "--quiet", "local")
    git_remote.commit("local", other="x")
    git_remote("merge", "--quiet", "--message", "merge", "main")
    git_remote("branch", "--force", "main", "local")
    assert await told.poll() == [("merge", "new"), ("local", "new"), ("root", "new")]
    assert (await told.states())["on the line"] == ("gone", False)


async def test_a_history_that_is_wholly_new(git_remote, watched):
    start = git_remote.commit("old")
    told = watched(start_at=start)
    await told.poll()
    git_remote("checkout", "--quiet", "--orphan", "other")
    git_remote.commit("new root")
    git_remote.commit("new head")
    git_remote("branch", "--force", "main", "other")
    assert await told.poll() == [("new head", "new"), ("new root", "history")]
    assert (await told.states())["old"] == ("gone", False)


async def test_more_than_a_batch_is_seen_whole_or_not_at_all(git_remote, watched, monkeypatch):
    monkeypatch.setattr(watcher, "BATCH", 2)
    git_remote.commit("root")
    told = watched()
    await told.poll()
    for number in range(7):
        git_remote.commit(str(number))
    seen = []
    write = told.store.write

    async def watching(work):
        result = await write(work)
        seen.append(await told.seen())
        return result

    monkeypatch.setattr(told.store, "write", watching)
    await told.watcher.poll()
    assert seen[:-1] == [[("root", "new")]] * 3
    assert seen[-1] == [(str(number), "new") for number in range(6, -1, -1)] + [("root", "new")]


async def test_it_says_what_it_does_and_comes_back(git_remote, watched):
    git_remote.commit("one")
    told = watched()
    away = git_remote.path.rename(git_remote.path.with_name("away"))
    async with anyio.create_task_group() as group:
        group.start_soon(told.watcher.run)
        notice = await told.until("unreachable")
        assert notice.fault
        assert "does not appear to be a git repository" in notice.reason
        away.rename(git_remote.path)
        told.watcher.poke()
        assert not (await told.until("watching")).fault
        assert await told.seen() == [("one", "new")]
        git_remote("branch", "--move", "main", "trunk")
        told.watcher.poke()
        assert "trunk" in (await told.until("faulty")).reason
        group.cancel_scope.cancel()


async def test_pauses_have_jitter_and_grow_while_the_remote_is_away(git_remote, watched):
    git_remote.commit("one")
    told = watched(poll_interval="100s")
    pauses = [await told.watcher._try() for _ in range(5)]
    assert all(90 <= pause <= 110 for pause in pauses)
    assert len(set(pauses)) == 5
    git_remote.path.rename(git_remote.path.with_name("away"))
    longest = [100, 200, 400, 800, 1600, 1800, 1800]
    for most in longest:
        assert most / 2 <= await told.watcher._try() <= most


async def test_being_stopped_anywhere_leaves_a_journal_that_goes_on(git_remote, watched, tmp_path):
    for number in range(10):
        git_remote.commit(str(number))
    told = watched(start_at="main~9")
    for hundredths in range(8):
        with anyio.move_on_after(hundredths / 50):
            await told.watcher.poll()
    assert await told.poll() == [(str(number), "new") for number in range(9, -1, -1)]


POLL = """
import random, sys, anyio
from pathlib import Path
from aibenchd import board, events, settings
from aibenchd.store import store
from aibenchd.watch import git, watcher
url, state = sys.argv[1], Path(sys.argv[2])
async def main():
    told = events.Events()
    async with store.opened(state / "journal.db", told) as journal:
        known = settings.RepositorySettings(name="engine", url=url, framework="generic", start_at="main~2")
        await watcher.Watcher(git.Git(known, state / "clone of it"), journal, board.Board(told), random.Random(1)).poll()
watcher.BATCH = 2
anyio.run(main)
"""


@pytest.mark.parametrize("point", ["before-commit", "before-commit:2", "after-commit", "after-commit:2"])
def test_a_crash_repeats_and_loses_nothing(git_remote, tmp_path, point):
    for number in range(5):
        git_remote.commit(str(number))

    def poll(**more):
        command = [sys.executable, "-c", POLL, git_remote.url, str(tmp_path)]
        return subprocess.run(command, check=False, capture_output=True, env={**os.environ, **more})

    assert poll(AIBENCHD_CRASH_AT=f"revision.{point}").returncode == -signal.SIGKILL
    done = poll()
    assert done.returncode == 0, done.stderr.decode()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/journal.db")
    with contextlib.closing(engine.connect()) as connection:
        line = revisions.recent(connection, "engine", 10)
    engine.dispose()
    assert [(known.revision.subject, known.state) for known in line] == [
        ("4", "new"),
        ("3", "new"),
        ("2", "new"),
        ("1", "history"),
        ("0", "history"),
    ]
