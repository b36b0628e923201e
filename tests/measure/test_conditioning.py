"""What is changed on a device, and undone."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from aibenchd import board, errors, events
from aibenchd.devices import base, simulated
from aibenchd.measure import conditioning
from aibenchd.store import store, undo


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[store.Store]:
    async with store.opened(tmp_path / "journal.db", events.Events()) as journal:
        yield journal


def device(tmp_path: Path, pace: float = 0, **wanted: Any) -> simulated.Simulated:
    """Where time passes, it is away for an hour once it is lost."""
    keys = {"name": "dream", "kind": "simulated", "conditioning": wanted, "pace": pace, "away": "1h"}
    settings = simulated.Settings.model_validate(keys)
    return simulated.Simulated(settings, tmp_path / "device", base.RunSettings())


def house(made: base.Device, journal: store.Store) -> conditioning.House:
    return conditioning.House(made.settings, journal, board.Board(events.Events()))


async def tended(tmp_path: Path, journal: store.Store, **wanted: Any) -> list[tuple[str, Any]]:
    """Have a device as it is wanted, close the journal, and let go of the device; what was logged meanwhile."""
    made = device(tmp_path, **wanted)
    async with made.session() as session:
        held = conditioning.Held(session, house(made, journal))
        with structlog.testing.capture_logs() as logged:
            await held.make()
            await held.make()
            journal.read = closed  # type: ignore[method-assign]
            await held.undo()
            await held.undo()
        del journal.read
    return [(one["event"], one.get("action")) for one in logged]


async def closed(_: Any) -> Any:
    raise errors.StoreError("closed")


async def test_where_nothing_was_changed_the_journal_is_not_asked_what_to_undo(tmp_path: Path, journal: store.Store) -> None:
    assert await tended(tmp_path, journal) == []


async def test_what_was_changed_is_undone_later_where_it_cannot_be_now(tmp_path: Path, journal: store.Store) -> None:
    said = await tended(tmp_path, journal, frequency="min")
    assert [event for event, _ in said] == ["changed", "not undone yet", "not undone yet"]
    assert len(await journal.read(lambda connection: undo.of(connection, "dream"))) == 1
    assert [event for event, _ in await tended(tmp_path, journal)] == ["undone"]
    assert await journal.read(lambda connection: undo.of(connection, "dream")) == []


@pytest.mark.parametrize(("error", "left"), [(errors.CommandError, 0), (errors.HarnessError, 1), (errors.DeviceLostError, 1)])
async def test_a_change_that_is_refused_leaves_nothing_to_undo(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch, error: type[errors.AibenchdError], left: int
) -> None:
    async def refused(_: Any, action: base.Action) -> None:
        raise error(f"{action['verb']} cannot be done")

    made = device(tmp_path, frequency="min")
    async with made.session() as session:
        monkeypatch.setattr(type(session), "apply", refused)
        held = conditioning.Held(session, house(made, journal))
        with pytest.raises((conditioning.UnfitError, errors.DeviceLostError), match="set cannot be done"):
            await held.make()
    assert len(await journal.read(lambda connection: undo.of(connection, "dream"))) == left


async def test_who_gives_up_while_a_device_reboots_leaves_it_to_be_conditioned_anew(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device(tmp_path, frequency="min")
    async with made.session() as session:
        held = conditioning.Held(session, house(made, journal))
        await held.make()
        reboot = session.reboot

        async def rebooting() -> None:
            await reboot()
            scope.cancel()
            await anyio.sleep_forever()

        monkeypatch.setattr(session, "reboot", rebooting)
        with anyio.CancelScope() as scope:
            await held.reboot()
        found = dict(await session.fingerprint())
        await held.make()
        assert found != dict(await session.fingerprint())
        monkeypatch.setattr(session, "reboot", reboot)
        await held.reboot()
        assert found != dict(await session.fingerprint())
        await held.undo()


# ---- while profilers sample

TO_PROFILE = tuple(
    base.Change({"verb": "set", "key": key, "value": value}, {"verb": "set", "key": key, "value": before})
    for key, value, before in (("frequency", 1_000_000_000, 0), ("governor", "powersave", "performance"))
)


async def changes_to_profile(_: Any) -> tuple[base.Change, ...]:
    return TO_PROFILE


async def test_what_is_changed_to_profile_is_journalled_and_undone_alone(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device(tmp_path, frequency="mid")
    async with made.session() as session:
        monkeypatch.setattr(type(session), "changes_to_profile", changes_to_profile)
        held = conditioning.Held(session, house(made, journal))
        await held.make()
        before = dict(await session.fingerprint())
        with pytest.raises(errors.HarnessError, match="the profiler"):  # noqa: PT012  the state within is what is looked at
            async with held.profiled():
                assert (await session.fingerprint())["governor"] == "powersave"
                rows = await journal.read(lambda connection: undo.of(connection, "dream"))
                assert [row.action["value"] for row in rows] == ["performance", 0, 0]
                raise errors.HarnessError("the profiler failed")
        after = dict(await session.fingerprint())
        await held.undo()
        assert before == {**after, "frequency": before["frequency"]}
    assert await journal.read(lambda connection: undo.of(connection, "dream")) == []


async def test_what_is_changed_to_profile_on_a_device_that_is_lost_meanwhile_is_undone_when_it_is_back(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device(tmp_path, pace=1)
    async with made.session() as session:
        monkeypatch.setattr(type(session), "changes_to_profile", changes_to_profile)
        held = conditioning.Held(session, house(made, journal))
        with pytest.raises(errors.DeviceLostError):
            async with held.profiled():
                raise made._body.lose("its line dropped")
    assert len(await journal.read(lambda connection: undo.of(connection, "dream"))) == 2
    made._body.back = 0.0
    async with made.session() as session:
        assert (await session.fingerprint())["governor"] == "powersave"
        await conditioning.Held(session, house(made, journal)).make()
        found = await session.fingerprint()
    assert (found["governor"], "frequency" in found) == ("performance", False)
    assert await journal.read(lambda connection: undo.of(connection, "dream")) == []


async def test_what_an_earlier_session_left_changed_is_still_shown_after_a_profile(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device(tmp_path)
    colour = {"verb": "set", "key": "colour", "value": 1}
    left = await journal.write(functools.partial(undo.remember, device="dream", action=colour))
    async with made.session() as session:
        monkeypatch.setattr(type(session), "changes_to_profile", changes_to_profile)
        apply = session.apply

        async def fussy(action: base.Action) -> None:
            if action["key"] == "colour":
                raise errors.CommandError("there is no colour")
            await apply(action)

        monkeypatch.setattr(session, "apply", fussy)
        there = house(made, journal)
        held = conditioning.Held(session, there)
        await held.make()
        async with held.profiled():
            pass
        assert [(one.unit, one.state) for one in there.board.notices()] == [("device/dream/undo", "not undone")]
        monkeypatch.setattr(session, "apply", apply)
        await journal.write(functools.partial(undo.forget, undone=left))
        await held.undo()
        assert there.board.notices() == []


async def test_a_device_that_refuses_what_profilers_want_is_profiled_without(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: Any, action: base.Action) -> None:
        raise errors.CommandError(f"{action['key']} cannot be set")

    made = device(tmp_path)
    async with made.session() as session:
        monkeypatch.setattr(type(session), "changes_to_profile", changes_to_profile)
        monkeypatch.setattr(type(session), "apply", refused)
        with structlog.testing.capture_logs() as logged:
            async with conditioning.Held(session, house(made, journal)).profiled():
                pass
    assert [(one["event"], one["reason"]) for one in logged] == [
        ("not changed to profile", "frequency cannot be set"),
        ("not changed to profile", "governor cannot be set"),
    ]
    assert await journal.read(lambda connection: undo.of(connection, "dream")) == []


async def test_a_look_serves_the_block_that_follows_at_once_and_none_after_a_wait(
    tmp_path: Path, journal: store.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditioning, "FRESH_SECONDS", 3600)
    made = device(tmp_path)
    async with made.session() as session:
        held = conditioning.Held(session, house(made, journal))
        seen = await held.look()
        assert await held.latest() is seen
        held.waited()
        again = await held.latest()
        assert again is not seen
        assert await held.latest() is again
