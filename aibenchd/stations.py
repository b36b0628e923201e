"""The rooms at work: what the daemon runs for each repository, device and sink, and once for all of them.

Each is made of the part of the configuration that it depends on, so that a change of any other does not touch it.
"""

from __future__ import annotations

import contextlib
import random
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread

from aibenchd import (
    board,
    events,
    following,
    histories,
    hostgate,
    housekeeping,
    planning,
    plugins,
    profiling,
    services,
    settings,
    standings,
)
from aibenchd.build import builder
from aibenchd.devices import base as devices
from aibenchd.devices import launching, local
from aibenchd.measure import worker
from aibenchd.report import outbox, recording
from aibenchd.specs import files, marks
from aibenchd.store import store
from aibenchd.submissions import programs
from aibenchd.watch import base as watch
from aibenchd.watch import watcher

if TYPE_CHECKING:
    from aibenchd import daemon  # it imports this

SPECIFICATION_SECONDS = 3.0  # between two looks at the files of specifications, at least
SPECIFICATION_SHARE = 0.001  # of the time is spent on looking, at most: of 1,000 files on it comes to more than 3 s


class Rooms(Protocol):
    """What stations share: the daemon, or a run without one.

    Attributes:
        drained: devices of which nothing is asked.
    """

    directory: Path
    rng: random.Random
    events: events.Events
    board: board.Board
    gate: hostgate.Gate
    store: store.Store
    recorder: recording.Recorder
    house: worker.House
    drained: set[str]

    def clone(self, chosen: settings.RepositorySettings) -> watch.Repository:
        """A repository's clone."""

    def world(self) -> planning.World:
        """What there is to plan with now."""

    def paused(self) -> bool:
        """Whether no block and no build may begin."""


def house(rooms: Rooms) -> worker.House:
    """What all workers of a process share."""

    def run() -> devices.RunSettings:
        return rooms.world().settings.run

    def host(device: str) -> AbstractAsyncContextManager[devices.Session]:
        """This host as what is done around a device's programs sees it."""
        chosen = local.Settings(name=f"host-of-{device}"[:64], kind="local")
        return local.Local(chosen, rooms.directory / "host" / device, run()).session()

    shared = files.House(rooms.events, rooms.board, rooms.gate, run)
    return worker.House(
        store=rooms.store,
        board=rooms.board,
        gate=rooms.gate,
        models=files.ModelCache(rooms.world().settings.models, rooms.directory / "models", shared),
        recorder=rooms.recorder,
        state_directory=rooms.directory,
        paused=rooms.paused,
        beside=contextlib.nullcontext,
        host=host,
    )


class Watching(services.Service):
    """One repository: its clone, and the watcher that polls it."""

    def __init__(self, chosen: settings.RepositorySettings, rooms: Rooms) -> None:
        self._watcher = watcher.Watcher(rooms.clone(chosen), rooms.store, rooms.board, rooms.rng)

    async def run(self) -> None:
        await self._watcher.run()


class Measuring(services.Service):
    """One device: the worker that owns it."""

    def __init__(self, chosen: tuple[Any, Any], rooms: Rooms) -> None:
        device_settings, run = chosen
        kind: type[devices.Device] = plugins.load("devices", device_settings.kind)
        device = kind(device_settings, rooms.directory / "devices" / device_settings.name, run)
        house = rooms.house
        if not device.on_this_host:  # what is done here around its programs is as a build is to those who measure here
            house = replace(house, gate=hostgate.OpenGate(), beside=rooms.gate.building)
        self.worker = worker.Worker(device, house, rooms.rng)
        self.worker.drain(draining=device_settings.name in rooms.drained)

    async def run(self) -> None:
        await self.worker.run()

    def stop(self) -> bool:
        self.worker.stop()
        return True


class Delivering(services.Service):
    """One sink."""

    def __init__(self, chosen: Any, rooms: Rooms) -> None:
        sink = plugins.load("sinks", chosen.kind)(chosen, rooms.directory)
        self._deliverer = outbox.Deliverer(sink, rooms.store, rooms.board, rooms.rng)

    async def run(self) -> None:
        await self._deliverer.run()


class Keeping(services.Service):
    """The outbox's size."""

    def __init__(self, limit: int, rooms: Rooms) -> None:
        self._keeper = outbox.Keeper(rooms.store, rooms.board, limit)

    async def run(self) -> None:
        await self._keeper.run()


class Building(services.Service):
    """The builder, with all repositories that it builds of."""

    def __init__(self, chosen: settings.Settings, rooms: Rooms) -> None:
        self._launcher = launching.Launcher(chosen.run)
        house = builder.House(rooms.store, rooms.board, rooms.gate, self._launcher, rooms.directory, rooms.paused)
        clones = {repository.name: rooms.clone(repository) for repository in chosen.repositories}
        self._builder = builder.Builder(chosen.builds, clones, house, rooms.rng)

    async def run(self) -> None:
        async with self._launcher:
            await self._builder.run()


class Planner(services.Service):
    """Of all repositories."""

    def __init__(self, _chosen: str, rooms: Rooms) -> None:
        self._planning = planning.Planning(rooms.store, rooms.world, rooms.recorder.identical)

    async def run(self) -> None:
        await self._planning.run()


class Following(services.Service):
    """What regressed: verified, reported, and searched for the commits at fault."""

    def __init__(self, _chosen: str, daemon: daemon.Daemon) -> None:
        self._following = following.Following(
            daemon.store, lambda: daemon.world().settings, daemon.recorder, daemon.clone, daemon.away
        )

    async def run(self) -> None:
        await self._following.run()


class Profiling(services.Service):
    """Has confirmed regressions profiled."""

    def __init__(self, _chosen: str, rooms: Rooms) -> None:
        self._profiling = profiling.Profiling(rooms.store, lambda: rooms.world().settings, rooms.directory)

    async def run(self) -> None:
        await self._profiling.run()


class Standings(services.Service):
    """How each commit stands, told to whom it may concern."""

    def __init__(self, _chosen: str, rooms: Rooms) -> None:
        self._standings = standings.Standings(rooms.store, lambda: rooms.world().settings, rooms.recorder)

    async def run(self) -> None:
        await self._standings.run()


class Histories(services.Service):
    """What only many experiments show: noise, and drifts."""

    def __init__(self, _chosen: str, rooms: Rooms) -> None:
        self._histories = histories.Histories(rooms.store, lambda: rooms.world().settings)

    async def run(self) -> None:
        await self._histories.run()


class Specifications(services.Service):
    """Has the specifications read again when what they were read from has changed."""

    def __init__(self, _chosen: str, daemon: daemon.Daemon) -> None:
        self._daemon = daemon

    async def run(self) -> None:
        before: marks.Marks = {}
        pause = SPECIFICATION_SECONDS
        while True:
            await anyio.sleep(pause)
            seen = self._daemon.seen
            now, spent = await anyio.to_thread.run_sync(marks.timed, seen)
            pause = max(SPECIFICATION_SECONDS, spent / SPECIFICATION_SHARE)
            if now != seen and now == before:  # once it is left alone: a file that is being written is not read
                await self._daemon.read_specifications()
            before = now


class Knowing(services.Service):
    """Follows what devices turn out to be, which benchmarks may choose them by."""

    def __init__(self, _chosen: str, daemon: daemon.Daemon) -> None:
        self._daemon = daemon

    async def run(self) -> None:
        daemon = self._daemon
        with daemon.events.bell("device.changed", "daemon.reloaded") as bell:
            while True:
                await bell.wait()
                await daemon.look_at_what_is_known()
                daemon.events.publish(events.Event("daemon.devices", {}))


class Housekeeping(services.Service):
    """Lets go of what is old."""

    def __init__(self, _chosen: str, rooms: Rooms) -> None:
        self._rooms = rooms

    async def run(self) -> None:
        rooms = self._rooms
        await housekeeping.run(rooms.house, lambda: rooms.world().settings)


def of_builds(chosen: settings.Settings) -> settings.Settings:
    """The part of the configuration that the builder depends on, so that no other change restarts it; with what people send."""
    repositories = (*chosen.repositories, programs.settings_of("generic"))  # of what is submitted, whatever framework it is of
    return settings.Settings.model_construct(builds=chosen.builds, repositories=repositories, run=chosen.run)
