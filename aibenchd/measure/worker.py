"""One worker owns one device: it takes the next block, runs it, journals it, until it is told to stop."""

from __future__ import annotations

import collections
import contextlib
import math
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import sqlalchemy as sa
import structlog

from aibenchd import backoff, board, errors, events, hostgate, model
from aibenchd.devices import base as devices
from aibenchd.devices import conditioning as gates
from aibenchd.devices import metering
from aibenchd.measure import block as blocks
from aibenchd.measure import conditioning, health, journal, keeping, placing, resting, showing
from aibenchd.plan import order
from aibenchd.specs import files
from aibenchd.store import builds, experiments, housekeeping, store

IDLE_SECONDS = 60.0  # between two looks at a device that has nothing to do
PAUSE_SECONDS = (1.0, 300.0)  # first and longest pause before a lost device is tried again
LEAST_REST_SECONDS = 0.1
STALE_SECONDS = 10.0  # after which a device is looked at again when a block takes it
GATE_SECONDS = (0.2, 5.0)  # first and longest pause between two looks at a device that is not fit for a block yet
AWAY_SECONDS = 3600.0  # that a model file's server may be away; a mistyped one must not hold up a repository for ever
RESTS_AT_ONCE = 1_000  # experiments of which one question asks whether they have ended
PLACED = 256  # experiments whose pushed files a worker remembers
ABANDONED = 1_000  # experiments that a worker remembers to have been told of

log = structlog.get_logger()

Placing = dict[model.ArmName, placing.Placed]


@dataclass(frozen=True, slots=True)
class House:
    """What a worker shares with the rest of the process.

    Attributes:
        paused: whether no new block may begin now.
        beside: passed through by what runs on this host beside a block that does not.
        host: a session on this host, for what is done around programs; each of its own for the name that is given.
    """

    store: store.Store
    board: board.Board
    gate: hostgate.Gate
    models: files.ModelCache
    recorder: journal.Recorder[Any]
    state_directory: Path
    paused: Callable[[], bool]
    beside: Callable[[], AbstractAsyncContextManager[None]]
    host: Callable[[str], AbstractAsyncContextManager[devices.Session]]


class Worker:
    """Measures on one device. :meth:`run` ends at the end of a block after :meth:`stop`, or when it is cancelled."""

    def __init__(self, device: devices.Device, house: House, rng: random.Random) -> None:
        self.device = device
        self.name = device.settings.name
        self._house = house
        self._conditions = conditioning.House(device.settings, house.store, house.board)
        self._health = health.Health(device.settings.quarantine_after, rng)
        self._shown = showing.Shown(self.name, house.board, self._health)
        self._journal = journal.Journal(house.store, house.recorder)
        self._meter = metering.make(device.settings.meter, on_this_host=device.on_this_host)
        self._stopping = False
        self._released = 0  # how often
        self._bell = events.Bell()
        self._pauses = backoff.Backoff(*PAUSE_SECONDS, rng)
        self._placed: collections.OrderedDict[int, Placing] = collections.OrderedDict()
        self._rests = resting.Rests(rng)
        self._rebooted = 0  # the experiment that it was rebooted for last
        self._warmed = 0  # the experiment that it was warmed up for last
        self._running: tuple[int, anyio.CancelScope] | None = None  # the experiment of the block in flight
        self._abandoned: collections.deque[int] = collections.deque(maxlen=ABANDONED)
        self._turns = order.Turns()
        self._heard = -math.inf  # when the device last answered, by the event loop's clock
        self._reached = False  # whether it has answered since it was last connected to
        self._rng = rng

    def stop(self) -> None:
        """Begin no other block."""
        self._stopping = True
        self._bell.ring()

    def drain(self, draining: bool) -> None:
        """Begin no other block until undrained; the session stays, and what was changed on the device is undone."""
        self._shown.drain(draining)
        self._bell.ring()

    def release(self) -> bool:
        """Trust the device again, and try it now if it is lost or waits; whether it was so, or had failed of late."""
        fault = self._shown.fault
        released = fault or self._health.failures > 0
        if fault:
            self._shown.put("connecting")
        self._released += 1
        self._health.release()
        self._shown.health()
        self._pauses.reset()
        self._bell.ring()
        return released

    def abandon(self, experiment: int) -> None:
        """Break off the block in flight where it is of an experiment that was ended meanwhile; and begin none of it."""
        self._abandoned.append(experiment)
        if self._running is not None and self._running[0] == experiment:
            self._running[1].cancel()

    async def run(self) -> None:
        """Work until stopped. A device that is lost is tried again for ever, with what is wrong on the board."""
        with self._house.store.events.bell(f"experiment.open.{self.name}", "daemon.") as self._bell:
            while not self._stopping:
                try:
                    if self._health.quarantined:
                        await self._probe()
                    else:
                        await self._hold()
                except (errors.DeviceLostError, errors.HarnessError) as error:
                    if self._reached:  # what is away for a while, as one that reboots is, is lost once, however often it is tried
                        self._failed(str(error))
                    if not self._health.quarantined:
                        await self._pause("lost", str(error))
                except conditioning.UnfitError as error:
                    await self._pause("waiting", str(error))
        self._shown.take_down()

    async def _probe(self) -> None:
        """A device in quarantine: wait, then look at it."""
        advice = f"it is looked at now and then, or at once after 'aibenchctl release {self.name}'"
        self._shown.put("quarantined", f"{self._health.text}: {self._health.reason}; {advice}", fault=True)
        await self._sleep(self._health.pause())
        if self._stopping or not self._health.quarantined:
            return
        try:
            async with self.device.session() as session:
                await session.health()
        except (errors.DeviceLostError, errors.HarnessError) as error:
            self._health.probed(str(error))
        else:
            self._health.probed("")
        self._shown.health()
        if not self._health.quarantined:
            log.info("out of quarantine", device=self.name)

    async def _hold(self) -> None:
        self._shown.put("connecting")
        self._reached = False
        async with self.device.session() as session, contextlib.AsyncExitStack() as stack:
            meter = self._meter.of(session)
            sides = placing.Sides(
                session,
                meter,
                lambda: stack.enter_async_context(self._house.host(self.name)),
                self._house.beside,
            )
            held = conditioning.Held(session, self._conditions, await _unmetered(meter))
            self._placed.clear()  # nothing is guaranteed of what lay on the device in another session
            try:
                await self._serve(sides, held)
            finally:
                await held.undo()

    async def _serve(self, sides: placing.Sides, held: conditioning.Held) -> None:
        """Blocks, one after another, until stopped or no longer trusted with any."""
        await self._look_again(sides.device)
        self._reached = True
        await self._tend(held)
        await held.look()
        while not (self._stopping or self._health.quarantined):
            await self._tend(held)
            experiment = None if self._resting() else await self._next()
            if experiment is not None:
                await self._advance(sides, held, experiment)
            else:
                self._shown.put(self._resting() or "ready")
                await self._bell.wait(self._idle_seconds())
                held.waited()
                await self._look_again(sides.device)
                if not self._rests:  # nothing is amiss
                    self._succeeded()

    async def _tend(self, held: conditioning.Held) -> None:
        """What is changed on a device is so while blocks may run, and not while it is drained."""
        if self._shown.draining:
            await held.undo()
        else:
            await held.make()

    async def _look_again(self, session: devices.Session) -> None:
        await session.health()
        self._heard = anyio.current_time()

    def _resting(self) -> str:
        if self._shown.draining:
            return showing.DRAINED
        return "paused" if self._house.paused() else ""

    async def _next(self) -> experiments.Experiment | None:
        await self._forget_ended()
        at_rest = self._rests.now()

        def look(connection: sa.Connection) -> tuple[experiments.Experiment | None, experiments.Experiment | None]:
            first = experiments.next_of(connection, self.name, at_rest)
            if first is None or not first.submitted:
                return None, first
            return first, experiments.next_of(connection, self.name, at_rest, submitted=False)

        submission, other = await self._house.store.read(look)
        return submission if self._turns.of_submissions(submission is not None, other is not None) else other

    async def _forget_ended(self) -> None:
        """Experiments that rest may be cancelled by others meanwhile: nobody waits for their blocks any more."""
        at_rest = self._rests.first(RESTS_AT_ONCE)
        if at_rest:
            for experiment in await self._house.store.read(lambda connection: housekeeping.ended(connection, at_rest)):
                self._rested(experiment)

    def _idle_seconds(self) -> float:
        """Until the next look: at the device, or for an experiment that has rested."""
        if self._resting():
            return IDLE_SECONDS
        return min(IDLE_SECONDS, max(self._rests.next_in(), LEAST_REST_SECONDS))

    async def _advance(self, sides: placing.Sides, held: conditioning.Held, experiment: experiments.Experiment) -> None:
        """One block of one experiment; whatever goes wrong with it, other experiments go on."""
        with structlog.contextvars.bound_contextvars(device=self.name, experiment=experiment.id):
            began = anyio.current_time()
            try:
                if rest := self._rests.loses(experiment.id, self.device.settings.quarantine_after):
                    await self._blame(held, experiment, rest)
                else:
                    await self._unless_abandoned(sides, held, experiment)
            except (errors.ModelFileError, errors.CommandError, errors.UnknownKindError) as error:
                await self._give_up(experiment, str(error))
            except errors.SourceAwayError as error:
                if self._rests.since(experiment.id) < AWAY_SECONDS:
                    self._try_later(experiment, str(error))
                else:
                    await self._give_up(experiment, str(error))
            except errors.StoreError as error:
                self._try_later(experiment, str(error))
            except (errors.HarnessError, OSError) as error:
                self._placed.pop(experiment.id, None)
                self._failed(str(error))
                self._try_later(experiment, str(error))
            except errors.DeviceLostError as error:
                rest = self._rests.begin(experiment.id)  # it may be what this one does to the device: others go first
                if isinstance(error, errors.LostRunningError):
                    rest.losses[model.ArmName(error.arm)] += 1
                    rest.lost = str(error)
                raise
            finally:
                self._turns.took(anyio.current_time() - began, experiment.submitted)

    async def _unless_abandoned(self, sides: placing.Sides, held: conditioning.Held, experiment: experiments.Experiment) -> None:
        if experiment.id in self._abandoned:  # since it was chosen
            return
        with anyio.CancelScope() as scope:
            self._running = experiment.id, scope
            try:
                await self._block(sides, held, experiment)
            finally:
                self._running = None
        if scope.cancelled_caught:
            log.info("block is broken off: its experiment was cancelled", number=experiment.blocks)
            await self._forget(experiment)
            self._rested(experiment.id)

    async def _block(self, sides: placing.Sides, held: conditioning.Held, experiment: experiments.Experiment) -> None:
        self._busy(experiment)
        if self.device.settings.conditioning.reboot and not experiment.blocks and self._rebooted != experiment.id:
            self._placed.clear()
            self._warmed = 0
            await held.reboot()
            self._rebooted = experiment.id
        placed = await self._lay_out(sides, held, experiment)
        if placed is None:
            return
        keeper = keeping.Keeper(self._house.state_directory, experiment.id, self.name)
        bench = blocks.Bench(sides, self.device.settings, keeper)
        begun: list[model.ArmName] = []
        if not await self._fit(sides.device, held):
            return
        async with self.device.turn(), self._house.gate.measuring():
            await self._warm_up(bench, experiment, placed)
            before, obstacle = await self._look(sides.device, held)
            if obstacle or self._stopping or self._resting():  # it waited for its turn, and others wait for theirs
                return
            self._busy(experiment)
            try:
                profiled = experiment.design.profiled
                run, around = (blocks.profile, held.profiled()) if profiled else (blocks.run, contextlib.nullcontext())
                async with around:
                    block = await run(bench, experiment.design, experiment.blocks, placed, begun)
                after = await held.look_after(before)
            except (errors.DeviceLostError, errors.HarnessError, OSError) as error:
                await self._journal.exclude(experiment, begun, error)
                raise
        self._heard = anyio.current_time()
        decision = await self._journal.block(experiment, block, held.recorded, before, after)
        if decision is not None:
            self._pauses.reset()
            self._succeeded()
            log.info("block", number=block.number, valid=block.valid, verdict=decision.verdict, estimate=decision.estimate)
        if decision is None or decision.verdict is not None:
            await self._forget(experiment)
        self._rested(experiment.id)

    async def _warm_up(self, bench: blocks.Bench, experiment: experiments.Experiment, placed: Placing) -> None:
        """Before an experiment's first block, and only once; heat, caches and clocks then are as they are among blocks."""
        rounds = self.device.settings.conditioning.warm_up
        if experiment.blocks or self._warmed == experiment.id or not rounds:
            return
        self._shown.put("busy", f"{experiments.cell_text(experiment)}, warming up")
        for _ in range(rounds):
            await blocks.warm_up(bench, experiment.design, placed)
        self._warmed = experiment.id

    def _busy(self, experiment: experiments.Experiment) -> None:
        self._shown.put("busy", f"{experiments.cell_text(experiment)}, block {experiment.blocks}")

    async def _fit(self, session: devices.Session, held: conditioning.Held) -> bool:
        """Wait until the device is fit for a block, from ``max_wait`` on as a fault; False where none may begin any more."""
        longest, began = self.device.settings.conditioning.max_wait, anyio.current_time()
        pauses = backoff.Backoff(*GATE_SECONDS, self._rng)
        while not (self._stopping or self._resting()):
            _, obstacle = await self._look(session, held)
            if not obstacle:
                return True
            overdue = anyio.current_time() - began >= longest
            self._shown.put("waiting", f"{obstacle}; so for {longest:g} s or more" if overdue else obstacle, fault=overdue)
            await self._sleep(pauses.next())
        return False

    async def _look(self, session: devices.Session, held: conditioning.Held) -> tuple[conditioning.Look, str]:
        """How the device is, and what keeps blocks from it; empty where nothing does."""
        if anyio.current_time() - self._heard > STALE_SECONDS:
            await self._look_again(session)
        look = await held.latest()
        return look, gates.obstacle(self.device.settings.conditioning, look.state, session.more_state)

    async def _lay_out(self, sides: placing.Sides, held: conditioning.Held, experiment: experiments.Experiment) -> Placing | None:
        """What an experiment needs, on the device; None where a build is gone and is made again first."""
        if experiment.id in self._placed:
            self._placed.move_to_end(experiment.id)
            return self._placed[experiment.id]
        arms = {model.ArmName.TREATMENT: experiment.treatment_build, model.ArmName.CONTROL: experiment.control_build}
        present = {arm: build for arm, build in arms.items() if build is not None}
        missing = await anyio.to_thread.run_sync(_missing, list(present.values()))
        if missing:
            await self._house.store.write(lambda tx: experiments.await_builds(tx, experiment.id, missing))
            return None
        await self._house.store.write(lambda tx: builds.touch(tx, [build.digest for build in present.values()]))
        verified = {arm: await self._house.models.ensure(experiment.design.of(arm).benchmark) for arm in present}
        await anyio.to_thread.run_sync(placing.same_files, self._house.state_directory, experiment.id, verified)
        named = held.facts.get("hash", self.name)
        placed = {
            arm: await placing.lay_out(sides, experiment.design, arm, build, verified[arm], named)
            for arm, build in present.items()
        }
        self._placed[experiment.id] = placed
        if len(self._placed) > PLACED:
            self._placed.popitem(last=False)
        return placed

    async def _blame(self, held: conditioning.Held, experiment: experiments.Experiment, rest: resting.Rest) -> None:
        """End an experiment that loses the device, before it does so again."""
        decision = await self._journal.loses(experiment, rest, held.recorded)
        log.warning("experiment loses the device, and is ended", verdict=decision.verdict, reason=decision.reason)
        await self._forget(experiment)
        self._rested(experiment.id)

    async def _forget(self, experiment: experiments.Experiment) -> None:
        self._placed.pop(experiment.id, None)
        await placing.forget(self._house.state_directory, experiment.id)

    async def _give_up(self, experiment: experiments.Experiment, reason: str) -> None:
        log.warning("experiment cannot be measured", reason=reason)
        await self._house.store.write(lambda tx: experiments.skip(tx, experiment.id, reason))
        self._rested(experiment.id)

    def _try_later(self, experiment: experiments.Experiment, reason: str) -> None:
        """The same block again, after a rest; other experiments go on meanwhile."""
        self._rests.begin(experiment.id)
        log.warning("block could not be run", reason=reason)
        self._shown.blocks(f"{experiments.cell_text(experiment)}: {reason}")

    def _rested(self, experiment: int) -> None:
        """A block of it was run, or it has ended."""
        if self._rests.end(experiment):
            self._shown.no_blocks()

    def _failed(self, reason: str) -> None:
        self._health.failed(reason)
        self._shown.health()

    def _succeeded(self) -> None:
        self._health.succeeded()
        self._shown.health()

    async def _pause(self, state: str, reason: str) -> None:
        self._shown.put(state, reason, fault=True)
        await self._sleep(self._pauses.next())

    async def _sleep(self, seconds: float) -> None:
        """Until so much time has passed, the device is released, or no block may begin any more that might have."""
        before = self._released, self._resting()
        with anyio.move_on_after(seconds):
            while not self._stopping and (self._released, self._resting()) == before:
                await self._bell.wait()


async def _unmetered(meter: metering.Meter) -> str:
    """Why a device's energy is not told; empty where it is, and where no meter was asked for."""
    try:
        await meter.look()
    except errors.HarnessError as error:
        return str(error)
    return ""


def _missing(present: Sequence[model.Build]) -> list[str]:
    # One that the cache let go has no directory any more, and Path("") would be the working directory.
    return [build.directory for build in present if not build.directory or not Path(build.directory).is_dir()]
