"""What would help where an experiment could not be told, of a journal in which it could not."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import statusd

from aibenchd import events, model
from aibenchd.plan import suspicion
from aibenchd.store import noises, schema, store, undecided

CELL = suspicion.Cell("engine", statusd.DIGEST, "lab-host", "", "squeeze")
RULE = {"min_effect": 0.02, "max_blocks": 60, "max_seconds": 3600.0}


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as opened:
        yield opened


async def said(journal: store.Store, facts: dict[str, Any], *more: Any) -> str:
    """What would help one that ended so; each of ``more`` is given the transaction and the number of the experiment."""

    def write(tx: store.Transaction) -> int:
        built = statusd.build(tx, "b" * 40)
        row = {"control_build": built, "design": {"rule": RULE}, "blocks": 60, "reason": model.BLOCKS_SPENT} | facts
        number = statusd.experiment(
            tx, statusd.pair(tx, "b" * 40, "a" * 40), built, **statusd.decided(row.pop("verdict", "inconclusive")), **row
        )
        for work in more:
            work(tx, number)
        return number

    number = await journal.write(write)
    return await journal.read(lambda connection: undecided.would_help(connection, number))


def noise(smallest: float | None, scale: float | None, **summary: Any) -> Any:
    facts = dict.fromkeys(("degrees", "slot", "slot_low", "slot_high", "expected", "seconds"), None)
    known = facts | {"blocks": 120, "smallest": smallest, "scale": scale}
    return lambda tx, _: noises.put(tx, CELL, known, dataclasses.replace(model.Summary(), **summary))


def lost(block: int, arms: str, cause: str, reason: str, after: float) -> Any:
    """A block that was run again: its arms by their first letters, so many seconds after the first."""

    def write(tx: store.Transaction, number: int) -> None:
        for place, arm in enumerate(arms):
            name = "treatment" if arm == "T" else "control"
            at = statusd.NOW + timedelta(seconds=after, milliseconds=place)
            row = {"experiment": number, "block": block, "arm": name, "cause": cause, "reason": reason, "excluded_at": at}
            tx.connection.execute(schema.exclusions.insert().values(row))

    return write


@pytest.mark.parametrize(
    ("facts", "known", "expected"),
    [
        ({}, (0.041, 0.013), "the budget finds changes of 4.1% or more here, and 2.0% was asked for; raise max_blocks (60) or"),
        ({"reason": ""}, (0.041, 0.013), "the budget finds changes of 4.1% or more here"),
        ({}, (0.0204, 0.006), "the budget usually finds the 2.0% here that were asked for, so that to ask again may do; "),
        ({}, (None, 0.093), "a block varies by 9.30% here, in which the budget finds no change; "),
        ({}, (None, None), "how small a change is found here is not known yet ('aibenchctl calibrate lab-host' measures it); "),
        ({"blocks": 31, "reason": model.SPENT}, (0.041, 0.013), "2.0% was asked for; raise max_time (1h) or min_effect, "),
        ({"reason": model.TORN}, (0.041, 0.013), "more blocks alone would not tell it: have the device quieter, and ask again"),
        ({"reason": "treatment: exit code 1"}, (0.041, 0.013), "more blocks would not tell it: mend that first, and ask again"),
    ],
)
async def test_it_says_what_the_budget_finds_there_and_what_to_change(
    journal: store.Store, facts: dict[str, Any], known: tuple[float | None, float | None], expected: str
) -> None:
    assert expected in await said(journal, facts, noise(*known))


@pytest.mark.parametrize("facts", [{"verdict": "unchanged"}, {"verdict": "broken"}, {"reason": model.NO_MORE}])
async def test_where_nothing_is_left_to_tell_nothing_would_help(journal: store.Store, facts: dict[str, Any]) -> None:
    assert await said(journal, facts, noise(0.041, 0.013)) == ""


async def test_noise_of_another_number_of_a_process_is_not_told(journal: store.Store) -> None:
    assert "is not known yet" in await said(journal, {}, noise(0.041, 0.013, high=1.0))


async def test_blocks_that_do_not_count_are_told_by_their_causes(journal: store.Store) -> None:
    told = await said(
        journal,
        {},
        noise(0.041, 0.013),
        lost(3, "TC", "device changed", "the device changed during the block: turbo off, then on", 0),
        lost(3, "T", "device lost", "no route", 5),
        lost(3, "C", "device lost", "no answer", 10),
        lost(9, "CT", "device lost", "it was rebooted", 60),
        lambda tx, number: statusd.block(tx, number, 0, log="trial.log"),
        lambda tx, number: statusd.block(tx, number, 1),
    )
    assert (
        "5 blocks do not count (1 device changed: the device changed during the block: turbo off, then on, "
        "3 device lost: it was rebooted, 1 with a program that failed); "
    ) in told


async def test_one_block_that_does_not_count_is_one(journal: store.Store) -> None:
    assert "1 block does not count (1 harness at fault: disk full); more blocks alone" in await said(
        journal, {"reason": model.TORN}, lost(0, "T", "harness at fault", "disk full", 0)
    )


async def test_what_makes_the_device_vary_is_named(journal: store.Store) -> None:
    def hazardous(tx: store.Transaction, number: int) -> None:
        statusd.block(tx, number, 0)
        facts = {"device": "lab-host", "digest": "d", "facts": {"cpu": "x", "hazards": "turbo on, core shared"}}
        seen = tx.connection.execute(schema.fingerprints.insert().values(facts).returning(schema.fingerprints.c.id)).scalar_one()
        tx.connection.execute(schema.blocks.update().values(fingerprint=seen))

    expected = "have the device quieter (turbo on, core shared: 'aibenchctl devices' says what mends it), and ask again"
    assert (await said(journal, {}, hazardous)).endswith(expected)


async def test_two_rows_of_one_block_are_one_block_as_the_daemon_writes_them(journal: store.Store) -> None:
    from aibenchd.store import devices

    def exclude(tx: store.Transaction, number: int) -> None:
        devices.exclude(tx, number, 4, ("treatment", "control"), "device lost", "gone")

    assert "1 block does not count (1 device lost: gone)" in await said(journal, {}, exclude)
