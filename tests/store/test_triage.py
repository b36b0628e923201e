"""What people make of findings, and what it changes."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import errors, events
from aibenchd.store import finding_views, findings, schema, store, triage, window

NOW = statusd.NOW
LATER = NOW + timedelta(days=7)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


def found(tx: store.Transaction, state: str, **more: Any) -> int:
    """A finding of the commit ``c1`` against ``c0``."""
    pair = statusd.pair(tx, "c1", "c0")
    builds = [statusd.build(tx, commit) for commit in ("c1", "c0")]
    for place, commit in enumerate(("c0", "c1")):
        statusd.revision(tx, commit, place)
    suspect = statusd.experiment(tx, pair, builds[0], control_build=builds[1], **statusd.decided("regressed"))
    return statusd.finding(tx, suspect, state=state, **more)


async def make(journal: store.Store, action: str, finding: int = 1, **more: Any) -> None:
    wanted = triage.Wanted(finding, action, "kim", "because", **more)
    await journal.write(lambda tx: triage.apply(tx, wanted, NOW))


async def shown(journal: store.Store, finding: int = 1) -> dict[str, Any]:
    item = await journal.read(lambda connection: finding_views.finding(connection, finding))
    assert item is not None
    return item


async def test_what_was_made_of_a_finding_is_kept_with_who_and_why(journal: store.Store) -> None:
    await journal.write(lambda tx: found(tx, "open"))
    async with journal.events.subscribe() as told:
        await make(journal, triage.ACKNOWLEDGE)
        event = await anext(told)
    assert (event.topic, event.facts) == ("finding.acknowledged", {"id": 1, "by": "kim", "why": "because"})
    await make(journal, triage.ACCEPT)
    await make(journal, triage.REOPEN)
    item = await shown(journal)
    assert [(one["action"], one["state"]) for one in item["triages"]] == [
        ("reopen", "accepted"),
        ("accept", "open"),
        ("acknowledge", "open"),
    ]
    assert {one["by"] for one in item["triages"]} == {"kim"}
    assert (item["state"], item["triage"]) == ("open", "")


@pytest.mark.parametrize("state", ["open", "unconfirmed"])
async def test_what_is_reopened_is_as_it_was(journal: store.Store, state: str) -> None:
    await journal.write(lambda tx: found(tx, state, search="stopped"))
    await make(journal, triage.ACCEPT)
    accepted = await shown(journal)
    assert (accepted["state"], accepted["confirmed"]) == ("accepted", state == "open")
    await make(journal, triage.REOPEN)
    item = await shown(journal)
    assert (item["state"], item["search"]) == (state, "")  # and is searched again


@pytest.mark.parametrize(
    ("state", "action", "words"),
    [
        ("suspect", triage.ACCEPT, "measured again: wait"),
        ("refuted", triage.ACKNOWLEDGE, "nothing regressed"),
        ("accepted", triage.MUTE, "'aibenchctl reopen' takes that back"),
        ("open", triage.REOPEN, "nothing to take back"),
    ],
)
async def test_what_cannot_be_made_of_a_finding_says_why(journal: store.Store, state: str, action: str, words: str) -> None:
    await journal.write(lambda tx: found(tx, state))
    with pytest.raises(errors.TriageError, match=words):
        await make(journal, action, until=LATER)
    assert await journal.read(lambda connection: triage.history(connection, [1])) == {1: []}


async def test_a_mute_ends_by_itself(journal: store.Store) -> None:
    await journal.write(lambda tx: found(tx, "open"))
    await make(journal, triage.MUTE, until=LATER)

    async def at(when: Any) -> tuple[list[str], list[int]]:
        made = sa.select(triage.of(when)).select_from(schema.findings)
        lapsed = await journal.read(lambda connection: triage.lapsed(connection, when))
        return list(await journal.read(lambda connection: connection.scalars(made).all())), lapsed

    assert await at(LATER - timedelta(seconds=1)) == (["muted"], [])
    assert await at(LATER) == ([""], [1])
    await journal.write(lambda tx: triage.lapse(tx, [1], LATER))
    assert await at(LATER) == ([""], [])
    newest = (await shown(journal))["triages"][0]
    assert (newest["action"], newest["by"], newest["why"]) == ("lapse", "", "its mute has ended")


async def test_an_accepted_level_is_the_new_baseline(journal: store.Store) -> None:
    def commits(tx: store.Transaction) -> None:
        found(tx, "open")
        tx.connection.execute(schema.repositories.insert().values(name="engine"))

    await journal.write(commits)
    good = window._good
    assert await journal.read(lambda connection: good(connection, "engine")) == frozenset()
    await make(journal, triage.ACCEPT)
    assert await journal.read(lambda connection: good(connection, "engine")) == {"c1"}


async def test_what_shows_an_accepted_level_again_is_a_sighting_and_good(journal: store.Store) -> None:
    await journal.write(lambda tx: found(tx, "open"))
    await make(journal, triage.ACCEPT)

    def again(tx: store.Transaction) -> int:
        statusd.revision(tx, "c2", 2)
        builds = [statusd.build(tx, "c2"), 2]
        pair = statusd.pair(tx, "c2", "c0")
        return statusd.experiment(tx, pair, builds[0], control_build=builds[1], **statusd.decided("regressed"))

    experiment = await journal.write(again)
    (suspect,) = await journal.read(findings.unseen)
    assert suspect.experiment == experiment
    standing = await journal.read(lambda connection: findings.standing(connection, suspect))
    assert [one.finding for one in standing] == [1]
    await journal.write(lambda tx: findings.sighted(tx, 1, experiment))
    assert await journal.read(lambda connection: window._good(connection, "engine")) == {"c1", "c2"}
