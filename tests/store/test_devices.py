"""What the journal knows of devices: what they turned out to be, and how to undo what was changed on them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aibenchd import events
from aibenchd.store import devices, store, undo

FACTS = {"abi": "arm64-v8a", "hash": "9B2C"}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


async def test_a_fingerprint_has_one_number_each_time_it_comes_back(journal: store.Store) -> None:
    async def seen(**facts: str) -> int:
        return await journal.write(lambda tx: devices.see(tx, "phone", facts))

    async with journal.events.subscribe() as told:
        first = await seen(**FACTS)
        assert await seen(**FACTS) == first
        other = await seen(**FACTS, os="13")
        assert other != first
        assert await seen(**FACTS) == first
        assert await journal.read(devices.known) == {"phone": FACTS}
        changes = [(await anext(told)).facts["fingerprint"] for _ in range(3)]
    assert changes == [FACTS, {**FACTS, "os": "13"}, FACTS]


async def test_what_is_known_can_be_asked_beside_the_daemon(journal: store.Store, tmp_path: Path) -> None:
    await journal.write(lambda tx: devices.see(tx, "phone", FACTS))
    assert devices.known_in(journal.path) == {"phone": FACTS}
    assert devices.known_in(tmp_path / "absent.db") == {}
    (tmp_path / "other.db").write_text("no journal")
    assert devices.known_in(tmp_path / "other.db") == {}


async def test_the_last_change_is_undone_first_and_then_forgotten(journal: store.Store) -> None:
    for value in (1, 2):
        await journal.write(lambda tx, value=value: undo.remember(tx, "phone", {"verb": "set", "value": value}))  # type: ignore[misc]
    await journal.write(lambda tx: undo.remember(tx, "other", {"verb": "set"}))
    rows = await journal.read(lambda connection: undo.of(connection, "phone"))
    assert [row.action["value"] for row in rows] == [2, 1]
    await journal.write(lambda tx: undo.forget(tx, rows[0].id))
    assert [row.id for row in await journal.read(lambda connection: undo.of(connection, "phone"))] == [rows[1].id]
    assert await journal.read(undo.left) == ["other", "phone"]
