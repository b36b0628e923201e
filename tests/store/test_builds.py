from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from aibenchd import events
from aibenchd.store import builds, schema, store

START = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = ("engine", "other")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.sqlite", events.Events()) as opened:
        yield opened


async def _want(journal: store.Store, commit: str, priority: int = 0, *, repository: str = "engine") -> int:
    return await journal.write(lambda tx: builds.want(tx, builds.Key(repository, commit, "generic", "host"), priority))


async def _revision(journal: store.Store, commit: str, position: int) -> None:
    row = {"repository": "engine", "commit": commit, "parents": [], "author": "", "subject": "", "relevant": True, "state": "new"}
    times = {"time": START + timedelta(hours=position), "position": position, "seen_at": START}
    await journal.write(lambda tx: tx.connection.execute(schema.revisions.insert().values(**row, **times)))


async def _take(journal: store.Store, *, resting: tuple[int, ...] = (), repositories: tuple[str, ...] = EVERYTHING) -> str:
    entry = await journal.write(lambda tx: builds.take(tx, repositories, resting, lambda entry, _: f"{entry.id}.log"))
    return "" if entry is None else entry.commit


async def _built(journal: store.Store, commit: str, *, size: int = 10, used: int = 0) -> int:
    """A build that ended well, last used so many hours after the start."""
    build = await _want(journal, commit)

    def finish(tx: store.Transaction) -> None:
        entry = builds.by_id(tx.connection, build)
        assert entry is not None
        builds.finish(tx, entry, builds.Product(f"digest of {commit}", f"/builds/{commit}", "program", size, {}))
        used_at = START + timedelta(hours=used)
        tx.connection.execute(schema.builds.update().where(schema.builds.c.id == build).values(used_at=used_at))

    await journal.write(finish)
    return build


async def _state(journal: store.Store, build: int) -> str:
    entry = await journal.read(lambda connection: builds.by_id(connection, build))
    assert entry is not None
    return entry.state


async def _experiment(journal: store.Store, treatment: int, control: int | None, state: str) -> None:
    def insert(tx: store.Transaction) -> None:
        pair = schema.pairs.insert().values(repository="engine", treatment="t", run_type="benchmark", created_at=START)
        number = tx.connection.scalar(pair.returning(schema.pairs.c.id))
        arms = {"treatment_build": treatment, "control_build": control}
        cell = {"benchmark": "b", "identifier": "b", "model": "m", "device": "d", "backend": "", "design": {}}
        tx.connection.execute(schema.experiments.insert().values(pair=number, **arms, **cell, state=state, created_at=START))

    await journal.write(insert)


async def test_a_build_is_wanted_once(journal: store.Store) -> None:
    assert await _want(journal, "a") == await _want(journal, "a")
    assert await journal.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(schema.builds)).scalar()) == 1


async def test_wanting_tells_the_builder_only_when_there_is_something_to_build(journal: store.Store) -> None:
    with journal.events.bell("build.queued") as bell:
        await _want(journal, "a")
        assert await bell.wait(0)
        await _want(journal, "a", 5)
        assert not await bell.wait(0)


async def test_priority_is_raised_and_never_lowered(journal: store.Store) -> None:
    build = await _want(journal, "a", 3)
    for priority in (7, 1):
        await _want(journal, "a", priority)
    entry = await journal.read(lambda c: builds.by_id(c, build))
    assert entry is not None
    assert entry.priority == 7


async def test_highest_priority_then_newest_revision_is_taken(journal: store.Store) -> None:
    for position, commit in enumerate(("old", "middle", "new")):
        await _revision(journal, commit, position)
    for commit in ("middle", "new", "old"):
        await _want(journal, commit, 1)
    await _want(journal, "urgent", 2)
    assert [await _take(journal) for _ in range(5)] == ["urgent", "new", "middle", "old", ""]


async def test_those_that_rest_or_are_of_unknown_repositories_are_not_taken(journal: store.Store) -> None:
    resting = await _want(journal, "a", 9)
    await _want(journal, "b", 5, repository="other")
    await _want(journal, "c")
    assert await _take(journal, resting=(resting,), repositories=("engine",)) == "c"
    assert await _take(journal, resting=(resting,), repositories=("engine",)) == ""


async def test_a_failed_build_stays_failed_until_a_person_asks(journal: store.Store) -> None:
    build = await _want(journal, "a")
    entry = await journal.write(lambda tx: builds.take(tx, EVERYTHING, (), lambda *_: "log"))
    assert entry is not None
    await journal.write(lambda tx: builds.fail(tx, entry, "exit status 2"))
    await _want(journal, "a", 9)
    assert await _state(journal, build) == "failed"
    assert await _take(journal) == ""
    assert await journal.write(lambda tx: builds.rebuild(tx, build))
    assert await _take(journal) == "a"
    assert not await journal.write(lambda tx: builds.rebuild(tx, build))


async def test_an_evicted_build_that_is_wanted_is_queued_again(journal: store.Store) -> None:
    build = await _built(journal, "a")
    await journal.write(lambda tx: builds.evict(tx, 0))
    assert await _state(journal, build) == "evicted"
    assert await _want(journal, "a") == build
    assert await _take(journal) == "a"


async def test_a_sweep_puts_back_what_was_being_built(journal: store.Store) -> None:
    build = await _want(journal, "a")
    await _take(journal)
    await journal.write(builds.sweep)
    assert await _state(journal, build) == "queued"


async def test_least_recently_used_goes_first_and_no_more_than_needed(journal: store.Store) -> None:
    await _built(journal, "a", used=3)
    await _built(journal, "b", used=1)
    await _built(journal, "c", used=2)
    evicted = await journal.write(lambda tx: builds.evict(tx, 15))
    assert evicted == builds.Evicted(("/builds/b", "/builds/c"), 10)
    assert await journal.read(lambda c: list(builds.kept(c))) == ["/builds/a"]


async def test_touching_a_build_keeps_it_longer(journal: store.Store) -> None:
    await _built(journal, "a", used=1)
    await _built(journal, "b", used=2)
    await journal.write(lambda tx: builds.touch(tx, ["digest of a"]))
    evicted = await journal.write(lambda tx: builds.evict(tx, 10))
    assert evicted.directories == ("/builds/b",)


@pytest.mark.parametrize(("state", "stays"), [("waiting", True), ("open", True), ("decided", False), ("cancelled", False)])
async def test_what_an_experiment_needs_is_never_let_go(journal: store.Store, state: str, stays: bool) -> None:
    treatment, control, unused = [await _built(journal, commit) for commit in "abc"]
    await _experiment(journal, treatment, control, state)
    evicted = await journal.write(lambda tx: builds.evict(tx, 0))
    assert await _state(journal, unused) == "evicted"
    assert [await _state(journal, build) for build in (treatment, control)] == ["built" if stays else "evicted"] * 2
    assert evicted.left == (20 if stays else 0)


async def test_a_build_whose_directory_is_gone_is_evicted(journal: store.Store) -> None:
    build = await _built(journal, "a")
    await journal.write(lambda tx: builds.lose(tx, [build]))
    assert await _state(journal, build) == "evicted"
