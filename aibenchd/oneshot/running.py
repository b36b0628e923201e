"""Runs what was arranged: planner, builder, workers and sinks of this one process, until all of it is decided."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from aibenchd import board, errors, events, hostgate, model, planning, services, settings, stations
from aibenchd.measure import worker
from aibenchd.oneshot import arranging, results
from aibenchd.plan import coverage, planner
from aibenchd.report import outbox, recording
from aibenchd.store import meta, requests, revisions, runs, store
from aibenchd.store import outbox as waiting
from aibenchd.store import planning as plans
from aibenchd.watch import base as watch
from aibenchd.watch import clone

PATIENCE_SECONDS = 60.0  # that something may stand in the way before the run is given up
DELIVERY_SECONDS = 30.0  # for sinks to take what was measured
LOOK_SECONDS = 1.0
STANDS_IN_THE_WAY = ("device/", "build/", "builder/journal")  # how the units of the board begin whose faults a run waits out
CLEARED = ("ready", "busy", "idle", "building")  # states that a unit is in when what stood in the way is gone
ENDED = "the run has ended"


class Watcher:
    """Hears of a run, on the event loop. This one makes nothing of it."""

    def expect(self, planned: Mapping[int, tuple[str, int]]) -> None:
        """What will be run: by experiment, what it is called and how many blocks it has at most."""

    def told(self, event: events.Event, notices: board.Board) -> None:
        """Something has happened; ``notices`` are as they are then."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes:
        results: of all experiments, in the order in which they were planned.
        stuck: what stood in the way of some; empty where nothing did.
        killed: the signal that ended it.
        left_out: why what cannot be measured was not.
    """

    results: Sequence[results.Result]
    stuck: Sequence[str] = ()
    killed: int | None = None
    left_out: Sequence[str] = ()


@dataclass(slots=True)
class _State:
    """Of a run under way."""

    requests: dict[int, arranging.Arms] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    killed: int | None = None
    left_out: Sequence[str] = ()


class Run:
    """The rooms of one run: a :class:`aibenchd.stations.Rooms`.

    Args:
        directory: its state directory, held by the caller.
        patience: seconds that something may stand in the way.
    """

    def __init__(
        self, arranged: arranging.Arranged, directory: Path, watcher: Watcher, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._arranged, self.directory, self._watcher, self._patience = arranged, directory, watcher, patience
        self._settings = arranged.settings
        self.rng = random.Random()  # noqa: S311  of pauses, nothing secret
        self.events = events.Events()
        self.board = board.Board(self.events)
        self.gate: hostgate.Gate = hostgate.HostGate()
        self._collected = results.Collected(self._settings.sinks[0], directory)
        self._clones = {one.repository.name: one.make(one.repository, _place(one, directory)) for one in arranged.arms}
        self._state = _State()
        self.drained: set[str] = set()
        self.store: store.Store
        self.recorder: recording.Recorder
        self.house: worker.House

    async def run(self) -> Ended:
        """Run it to its end, or until a signal.

        Raises:
            AibenchdError: it cannot begin.
        """
        async with store.opened(self.directory / "journal.db", self.events) as self.store:
            try:
                await self._run()
            except ExceptionGroup as group:
                raise errors.first_of(group) from group
            finally:
                with anyio.CancelScope(shield=True):
                    found = await self._conclude()
        return Ended(found, self._state.stuck, self._state.killed, self._state.left_out)

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._signals, tasks.cancel_scope)
            tasks.start_soon(self._tell)
            await self._begin()
            self._start(tasks)
            await self._until_decided()
            await self._until_delivered()
            tasks.cancel_scope.cancel()

    # ---- what is run

    async def _begin(self) -> None:
        passing = [one for one in self._arranged.arms if one.passing]
        for one in passing:  # copies of an earlier run's programs
            await anyio.to_thread.run_sync(clone.remove, _place(one, self.directory))
        recipe = self._arranged.recipe
        await self.store.write(lambda tx: runs.begin(tx, recipe=recipe, passing=[one.repository.name for one in passing]))
        self.recorder = recording.Recorder(lambda: self._settings, await self.store.write(meta.installation))
        for repository, cells in self._cells().items():
            one = next(arms for arms in self._arranged.arms if arms.repository.name == repository)
            self._state.requests[await self._plan(one, cells)] = one
        self._watcher.expect(await self.store.read(functools.partial(runs.planned, requests=[*self._state.requests])))

    async def _plan(self, arms: arranging.Arms, cells: tuple[coverage.Cell, ...]) -> int:
        """The number of the request that stands for it."""
        treatment = await self._resolved(arms, arms.treatment)
        control = await self._resolved(arms, arms.control) if arms.control else None

        def write(tx: store.Transaction) -> int:
            request = requests.add(
                tx,
                repository=arms.repository.name,
                treatment=treatment.commit,
                control=control.commit if control else "",
                benchmarks=(),
                devices=(),
                priority=0,
                requested_by="",
            )
            revisions.remember(tx, {one for one in (treatment, control) if one is not None})
            step = planner.PlanPair(treatment, control, cells)
            plans.carry_out(tx, arms.repository, [step], self._settings.experiment, request=request)
            requests.granted(tx, request)
            return request

        return await self.store.write(write)

    def _cells(self) -> Mapping[str, tuple[coverage.Cell, ...]]:
        """By repository, what can be measured; of what cannot, why is noted.

        Raises:
            CommandError: nothing can.
        """
        world = self.world()
        found = {one.name: cells for one in self._settings.repositories if (cells := world.cells(one))}
        homes = world.homes()
        reasons = dict.fromkeys(home.cell.impossible for home in homes if home.repository and home.cell.impossible)
        if not found:
            wanted = dict.fromkeys(home.framework for home in homes if not home.repository)
            other = f"the specification is for {', '.join(wanted)}; see --framework"
            raise errors.CommandError(f"nothing can be measured: {'; '.join(reasons) or other}")
        self._state.left_out = tuple(reasons)
        return found

    async def _resolved(self, arms: arranging.Arms, name: str) -> model.Revision:
        repository, unit = self._clones[arms.repository.name], f"repository/{arms.repository.name}"
        self.board.put(unit, "fetching", name)
        try:
            with contextlib.suppress(errors.UnknownRevisionError):  # of a branch that it is set to, and need not have
                await repository.fetch()
            return await repository.resolve(name)
        finally:
            self.board.take_down(unit)

    # ---- the rooms

    def _start(self, tasks: anyio.abc.TaskGroup) -> None:
        self.house = stations.house(self)
        started: list[services.Service] = [
            *(stations.Measuring((one, self._settings.run), self) for one in self._settings.devices),
            *(stations.Delivering(one, self) for one in self._settings.sinks[1:]),
            stations.Building(self._settings, self),
            stations.Planner("", self),
            stations.Housekeeping("", self),
        ]
        for service in started:
            tasks.start_soon(service.run)
        tasks.start_soon(outbox.Deliverer(self._collected, self.store, self.board, self.rng).run)

    def clone(self, chosen: settings.RepositorySettings) -> watch.Repository:
        return self._clones[chosen.name]

    def world(self) -> planning.World:
        return planning.World(self._settings, self._arranged.selected, self.clone)

    def paused(self) -> bool:
        """Never."""
        return False

    # ---- until it ends

    async def _until_decided(self) -> None:
        asked = [*self._state.requests]
        in_the_way: dict[str, float] = {}
        with self.events.bell("experiment.", "board.") as bell:
            while await self.store.read(functools.partial(runs.unfinished, requests=asked)):
                for unit, reason in self._stuck(in_the_way).items():
                    self._state.stuck.append(f"{unit}: {reason}")
                    await self.store.write(functools.partial(runs.give_up, requests=asked, unit=unit, reason=reason))
                await bell.wait(LOOK_SECONDS)

    def _stuck(self, since: dict[str, float]) -> Mapping[str, str]:
        """What has stood in the way for too long, by unit; each is told once.

        Args:
            since: when each unit was first seen to, by the event loop's clock; what is told counts as seen far in the future.
        """
        now, found, notices = anyio.current_time(), {}, self.board.notices()
        for unit in since.keys() - {notice.unit for notice in notices}:
            del since[unit]
        for notice in notices:
            if notice.fault and notice.unit.startswith(STANDS_IN_THE_WAY):
                if now - since.setdefault(notice.unit, now) > self._patience:
                    remark = self._arranged.remarks.get(notice.unit)
                    found[notice.unit] = f"{notice.state}: {notice.reason}" + (f"; {remark}" if remark else "")
                    since[notice.unit] = math.inf
            elif notice.state in CLEARED:
                since.pop(notice.unit, None)
        return found

    async def _until_delivered(self) -> None:
        with anyio.move_on_after(DELIVERY_SECONDS), self.events.bell("outbox.") as bell:
            while any(depth.state == waiting.PENDING for depth in await self.store.read(waiting.depths)):
                await bell.wait(LOOK_SECONDS / 10)
        if await self.store.read(waiting.depths):
            reasons = [notice.reason for notice in self.board.notices("sink") if notice.reason]
            self._state.stuck.append(f"not all results were delivered: {'; '.join(reasons) or 'refused'}")

    async def _conclude(self) -> list[results.Result]:
        """What there is, and nothing left to do."""
        asked = self._state.requests
        names = {request: (one.treatment, one.control) for request, one in asked.items()}
        found = await self.store.read(lambda tx: results.of(tx, runs.of_requests(tx, asked), self._collected.records, names))
        await self.store.write(lambda tx: runs.cancel(tx, [one.experiment for one in found], ENDED))
        return found

    async def _signals(self, whole: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for number in received:
                self._state.killed = number
                whole.cancel()
                return

    async def _tell(self) -> None:
        async with self.events.subscribe() as happening:
            async for event in happening:
                self._watcher.told(event, self.board)


def _place(arms: arranging.Arms, directory: Path) -> Path:
    """Of a clone: two repositories may have one name."""
    told_apart = hashlib.sha256(arms.repository.url.encode(errors="surrogateescape")).hexdigest()[:12]
    return directory / "repositories" / f"{arms.repository.name}-{told_apart}"
