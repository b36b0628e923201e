"""How commits stand, told from a journal in which experiments end as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import events, settings, standings
from aibenchd.plan import suspicion
from aibenchd.report import recording
from aibenchd.store import experiments, findings, outbox, schema, store

STATUS = {
    "name": "github",
    "kind": "http",
    "url": "http://localhost:1/",
    "format": {"kind": "commit-status", "repositories": {"engine": "lab/engine"}},
}
e, f, s = schema.experiments, schema.findings, schema.standings


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def teller(journal: store.Store, *sinks: Any) -> standings.Standings:
    chosen = settings.Settings.model_validate(statusd.CONFIGURATION | {"sinks": list(sinks)})
    recorder = recording.Recorder(lambda: chosen, "0d7a3b9e-8a53-4a0f-9c1e-5c9f2b1f7c11")
    return standings.Standings(journal, lambda: chosen, recorder)


async def told(journal: store.Store) -> list[tuple[str, str]]:
    """Commit and state of all that waits."""
    rows = await journal.read(lambda connection: outbox.batch(connection, "github", records=99, size=1 << 20))
    assert {row.record.kind for row in rows} <= {"status"}
    assert len({row.record.id for row in rows}) == len(rows)
    return [(str(row.record.payload["commit"]), str(row.record.payload["state"])) for row in rows]


def planned(tx: store.Transaction, *devices: str, commit: str = "a", **more: Any) -> list[int]:
    pair, build = statusd.pair(tx, commit, "0", **more), statusd.build(tx, commit)
    return [statusd.experiment(tx, pair, build, device=device) for device in devices]


async def end(journal: store.Store, experiment: int, **facts: Any) -> None:
    change = e.update().where(e.c.id == experiment).values(**facts)
    await journal.write(lambda tx: tx.connection.execute(change) and None)


async def test_a_commit_is_pending_until_all_of_it_is_known(journal: store.Store) -> None:
    one = teller(journal, STATUS)
    first, second = await journal.write(lambda tx: planned(tx, "lab-host", "phone"))
    await one.look()
    await end(journal, first, **statusd.decided("unchanged"))
    await one.look()
    await one.look()
    assert await told(journal) == [("a", "pending")]
    await end(journal, second, **statusd.decided("improved"))
    await one.look()
    await one.look()
    assert await told(journal) == [("a", "pending"), ("a", "success")]


async def test_what_becomes_of_a_finding_is_told(journal: store.Store) -> None:
    one = teller(journal, STATUS)
    (first,) = await journal.write(lambda tx: planned(tx, "lab-host"))
    await end(journal, first, **statusd.decided("regressed"))
    await one.look()
    finding = await journal.write(lambda tx: findings.add(tx, first, suspicion.SUSPECT))
    await one.look()
    assert await told(journal) == [("a", "pending")]
    settled = suspicion.Settled(finding, suspicion.OPEN, "", 9.0)
    await journal.write(lambda tx: findings.settle(tx, settled, None))
    await one.look()
    assert await told(journal) == [("a", "pending"), ("a", "failure")]


async def test_what_an_older_commit_has_done_is_not_held_against_a_newer(journal: store.Store) -> None:
    one = teller(journal, STATUS)
    (older,) = await journal.write(lambda tx: planned(tx, "lab-host"))
    (newer,) = await journal.write(lambda tx: planned(tx, "lab-host", commit="b"))
    finding = await journal.write(lambda tx: findings.add(tx, older, suspicion.OPEN))
    for experiment in (older, newer):
        await end(journal, experiment, **statusd.decided("regressed"))
    await journal.write(lambda tx: findings.sighted(tx, finding, newer))
    await one.look()
    assert await told(journal) == [("a", "failure"), ("b", "success")]


async def test_what_does_not_build_is_an_error(journal: store.Store) -> None:
    (first,) = await journal.write(lambda tx: planned(tx, "lab-host"))
    await journal.write(lambda tx: experiments.skip(tx, first, "the treatment does not build"))
    await teller(journal, STATUS).look()
    assert await told(journal) == [("a", "error")]


async def test_what_waits_for_a_device_that_is_gone_holds_up_nothing(journal: store.Store) -> None:
    first, _ = await journal.write(lambda tx: planned(tx, "lab-host", "sold"))
    await end(journal, first, **statusd.decided("unchanged"))
    await teller(journal, STATUS).look()
    assert await told(journal) == [("a", "success")]


async def test_what_a_person_asked_for_or_was_measured_again_is_no_commit_s_standing(journal: store.Store) -> None:
    def write(tx: store.Transaction) -> None:
        request = statusd._insert(
            tx,
            schema.requests,
            {
                "repository": "engine",
                "treatment": "x",
                "benchmarks": [],
                "devices": [],
                "state": "planned",
                "created_at": statusd.NOW,
            },
        )
        planned(tx, "lab-host", commit="x", request=request)
        planned(tx, "lab-host", commit="y", run_type="verify")

    await journal.write(write)
    await teller(journal, STATUS).look()
    assert await told(journal) == []


async def test_a_state_that_comes_back_is_told_again(journal: store.Store) -> None:
    """Under another id: else the outbox would take it for the one that still waits, and the one between would be the last."""
    one = teller(journal, STATUS)
    (first,) = await journal.write(lambda tx: planned(tx, "lab-host"))
    for facts in (statusd.decided("unchanged"), {"state": "open", "verdict": None}, statusd.decided("unchanged")):
        await end(journal, first, **facts)
        await journal.write(lambda tx: tx.connection.execute(s.update().values(stale=True)) and None)
        await one.look()
    assert [state for _, state in await told(journal)] == ["success", "pending", "success"]


async def test_what_came_before_anyone_wanted_to_know_is_not_told_later(journal: store.Store) -> None:
    (first,) = await journal.write(lambda tx: planned(tx, "lab-host"))
    await end(journal, first, **statusd.decided("unchanged"))
    await teller(journal).look()
    await teller(journal, STATUS).look()
    assert await told(journal) == []
    await journal.write(lambda tx: planned(tx, "lab-host", commit="b"))
    await teller(journal, STATUS).look()
    assert await told(journal) == [("b", "pending")]


async def test_a_status_and_what_is_kept_of_it_are_one_transaction(journal: store.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one = teller(journal, STATUS)
    await journal.write(lambda tx: planned(tx, "lab-host"))

    def refuse(*_: Any) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "put", refuse)
        with pytest.raises(OSError, match="no space"):
            await one.look()
    assert await journal.read(lambda connection: connection.execute(sa.select(s.c.told, s.c.stale)).all()) == [("", True)]
    await one.look()
    assert await told(journal) == [("a", "pending")]
