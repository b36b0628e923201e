"""The planner's looks, on a journal alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
import statusd

from aibenchd import events, planning, settings
from aibenchd.store import requests, schema, store


def watched(_revision: object) -> None:
    """No repository is there whose clone could be asked for."""
    raise AssertionError


async def test_one_look_deals_with_all_that_people_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "OLDEST", 2)
    chosen = settings.Settings.model_validate(statusd.CONFIGURATION | {"repositories": []})
    async with store.opened(tmp_path / "journal.db", events.Events()) as journal:

        def ask(tx: store.Transaction) -> None:
            for number in range(5):
                requests.add(
                    tx,
                    repository="gone",
                    treatment=f"c{number}",
                    control="",
                    benchmarks=[],
                    devices=[],
                    priority=0,
                    requested_by="ada",
                )

        await journal.write(ask)
        world = planning.World(chosen, (), watched)  # type: ignore[arg-type]
        await planning.Planning(journal, lambda: world, lambda _tx, _experiment: None).look()
        states = await journal.read(lambda connection: connection.scalars(sa.select(schema.requests.c.state)).all())
    assert states == ["refused"] * 5
