"""A device while experiments run on it: what is changed on it and undone, what it is and what state it is in."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import structlog

from aibenchd import board, errors
from aibenchd.devices import base as devices
from aibenchd.devices import conditioning
from aibenchd.store import devices as stored
from aibenchd.store import store, undo

FRESH_SECONDS = 0.1  # for which a look holds: less than the shortest pause between two of them
UNDO_SECONDS = 15.0  # to undo what was changed, also when the daemon ends

log = structlog.get_logger()

Owed = undo.Undo


class UnfitError(errors.AibenchdError):
    """A device cannot be had as its configuration asks; tried again later."""


class ChangedError(errors.HarnessError):
    """A device became another during a block, which therefore says nothing of the programs; the block is run again."""


@dataclass(frozen=True, slots=True)
class Look:
    """A device as it was at one time.

    Attributes:
        facts: its fingerprint; ``number`` is what the journal calls it.
    """

    number: int
    facts: Mapping[str, str]
    state: Mapping[str, str]


@dataclass(slots=True)
class House:
    """What of a device outlives its sessions; ``said`` are the hazards that were logged."""

    settings: devices.DeviceSettings
    store: store.Store
    board: board.Board
    said: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Of the device, as it is configured."""
        return self.settings.name


class Held:
    """A device in hand.

    What is changed on it is undone by :meth:`undo`, which whoever made one calls when it lets go of the device. A row of the
    journal says how, from before the change until it is undone: so it is undone after a crash too, by the next :meth:`make`.
    """

    def __init__(self, session: devices.Session, house: House, unmetered: str = "") -> None:
        self._session, self._house = session, house
        self._unmetered = unmetered  # why the meter that it is given tells nothing
        self._made = False
        self._owes = True  # whether the journal may have something to undo: at first an earlier session's
        self._throttled = ""  # what it was last said to be throttled by: that it was at any time is a hazard
        self._seen = Look(0, {}, {})
        self._seen_at = -math.inf  # by the event loop's clock

    @property
    def facts(self) -> Mapping[str, str]:
        """Its fingerprint as it was last seen."""
        return self._seen.facts

    @property
    def recorded(self) -> Mapping[str, str]:
        """Its fingerprint for records, with the hazards by name."""
        found = ", ".join(self._hazards())
        return {**self._seen.facts, "hazards": found} if found else self._seen.facts

    async def make(self) -> None:
        """Have the device as it is configured, unless it is; what an earlier session left changed is undone first.

        Raises:
            UnfitError: it cannot be had so.
            DeviceLostError: it is lost.
        """
        if self._made:
            return
        if self._owes:
            await self._undo_all()
        try:
            for change in await self._session.changes(self._house.settings.conditioning):
                await self._change(change)
        except (errors.CommandError, errors.HarnessError) as error:
            raise UnfitError(f"it cannot be had as its conditioning asks: {error}") from error
        self._made = True
        self._seen_at = -math.inf

    async def undo(self) -> None:
        """Have the device as it was found. Whatever cannot be undone now is shown, and tried again in the next session."""
        self._made = False
        if not self._owes:  # and the journal is not asked: where a lab of many devices ends, all would ask at once
            return
        self._seen_at = -math.inf
        async with self._in_time():
            await self._undo_all()

    @contextlib.asynccontextmanager
    async def profiled(self) -> AsyncIterator[None]:
        """The device as profilers want it. What that changes is undone at the end, or after a crash, as by :meth:`undo`.

        What the device refuses to have changed is not: the profiler that wants it says so.
        """
        made = list[Owed]()
        try:
            for change in await self._session.changes_to_profile():
                try:
                    made.insert(0, await self._change(change))
                except errors.CommandError as error:
                    log.warning("not changed to profile", device=self._house.name, reason=str(error))
            yield
        finally:
            if made:
                async with self._in_time():
                    await self._undo(made)
                    self._owes = bool(await self._journalled())

    async def _change(self, change: devices.Change) -> Owed:
        """Do it; what the journal has of how to undo it."""
        self._owes = True
        row = await self._house.store.write(functools.partial(undo.remember, device=self._house.name, action=change.undo))
        try:
            await self._session.apply(change.do)
        except errors.CommandError:  # nothing was changed, and to undo it might be refused for ever
            await self._house.store.write(functools.partial(undo.forget, undone=row))
            raise
        log.info("changed", device=self._house.name, action=dict(change.do))
        return Owed(row, change.undo)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """What is undone has a time for it, also where the daemon ends; what is not undone is told, and is no error."""
        with anyio.move_on_after(UNDO_SECONDS, shield=True) as scope:
            try:
                yield
            except errors.AibenchdError as error:
                log.warning("not undone yet", device=self._house.name, reason=str(error))
        if scope.cancelled_caught:
            log.warning("not undone yet", device=self._house.name, reason=f"not done within {UNDO_SECONDS:g} s")

    async def _undo_all(self) -> None:
        self._owes = not await self._undo(await self._journalled())
        if not self._owes:
            self._house.board.take_down(f"device/{self._house.name}/undo")

    async def _journalled(self) -> Sequence[Owed]:
        name = self._house.name
        return await self._house.store.read(lambda connection: undo.of(connection, name))

    async def _undo(self, rows: Sequence[Owed]) -> bool:
        """Whether all of them are undone; what is not is shown, till nothing of the journal's is left."""
        name, failed = self._house.name, ""
        for row in rows:
            try:
                await self._session.apply(row.action)
            except (errors.CommandError, errors.HarnessError) as error:
                failed = f"{dict(row.action)}: {error}; it is tried again in the next session"
                continue
            await self._house.store.write(functools.partial(undo.forget, undone=row.id))
            log.info("undone", device=name, action=dict(row.action))
        if failed:
            self._house.board.put(f"device/{name}/undo", "not undone", failed, fault=True)
        return not failed

    async def reboot(self) -> None:
        """Start the device anew, and have it as it is configured again.

        Raises:
            UnfitError: this kind cannot be rebooted, or not be had as it is configured.
        """
        self._made = False  # before it begins: who waits for it may give up
        try:
            await self._session.reboot()
        except errors.CommandError as error:
            raise UnfitError(str(error)) from error
        await self.make()

    def waited(self) -> None:
        """No block follows at once on what was last found: the next one is preceded by a look of its own."""
        self._seen_at = -math.inf

    async def latest(self) -> Look:
        """As :meth:`look`, or what that found where it was a moment ago: one look serves the end of a block and the next one."""
        fresh = anyio.current_time() - self._seen_at < FRESH_SECONDS
        return self._seen if fresh else await self.look()

    async def look(self) -> Look:
        """What it is now, and its state."""
        facts, state = dict(await self._session.fingerprint()), dict(await self._session.state())
        number = self._seen.number
        if not number or facts != self._seen.facts:
            name = self._house.name
            number = await self._house.store.write(lambda tx: stored.see(tx, name, facts))
        self._seen, self._seen_at = Look(number, facts, state), anyio.current_time()
        self._throttled = state.get("throttled", "") or self._throttled
        self._say()
        return self._seen

    async def look_after(self, before: Look) -> Look:
        """As :meth:`look`, at the end of a block.

        Raises:
            ChangedError: it is no longer what it was ``before`` the block.
        """
        after = await self.look()
        if after.facts != before.facts:
            raise ChangedError(f"the device changed during the block: {difference(before.facts, after.facts)}")
        return after

    def _hazards(self) -> Mapping[str, str]:
        found = conditioning.hazards(self._seen.facts, {**self._seen.state, "throttled": self._throttled})
        return {**found, "energy not metered": self._unmetered} if self._unmetered else found

    def _say(self) -> None:
        found, unit = self._hazards(), f"device/{self._house.name}/hazards"
        for hazard in found.keys() - self._house.said:
            log.warning("hazard", device=self._house.name, hazard=hazard, reason=found[hazard])
        self._house.said |= found.keys()
        if found:
            self._house.board.put(unit, ", ".join(found), "\n".join(found.values()))
        else:
            self._house.board.take_down(unit)


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """How two fingerprints differ, as ``governor: performance, now powersave``."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return "; ".join(f"{name}: {before.get(name, 'not known')}, now {after.get(name, 'not known')}" for name in names)
