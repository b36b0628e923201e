"""The daemon: wires the rooms, owns the task group, the signals and what systemd is told."""

from __future__ import annotations

import aibenchd.lean  # before all others

# isort: split
import contextlib
import fcntl
import os
import random
import resource
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import structlog

import aibenchd
from aibenchd import (
    board,
    errors,
    events,
    hostgate,
    loading,
    model,
    planning,
    plugins,
    services,
    settings,
    stations,
    systemd,
    yamlfile,
)
from aibenchd.api import server
from aibenchd.measure import worker
from aibenchd.plan import coverage
from aibenchd.report import recording
from aibenchd.specs import catalog
from aibenchd.store import devices as stored
from aibenchd.store import meta, store, undo, views
from aibenchd.submissions import kept, programs, submitting
from aibenchd.watch import base as watch

STATUS_FILE_SECONDS = 5.0
ALWAYS = "whatever the configuration says"
EXTRA_STOP_SECONDS = 20.0  # beyond stop_timeout, for cleaning up

log = structlog.get_logger()


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold the state directory: one daemon at a time.

    Raises:
        HarnessError: another process holds it, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+")
    except OSError as error:
        raise errors.HarnessError(f"{directory}: cannot be used as the state directory: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise errors.HarnessError(f"{directory} is in use by process {lock.read().strip() or '?'}; stop it first") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


class Daemon:
    """One process's worth of rooms. Answers the status socket's controls."""

    def __init__(self, path: Path, loaded: loading.Loaded, directory: Path) -> None:
        self.path = path
        self.directory = directory
        self.rng = random.Random()  # noqa: S311  of pauses, nothing secret
        self.kept = kept.Kept(directory / "submissions")
        self.events = events.Events()
        self.board = board.Board(self.events)
        self.gate: hostgate.Gate = hostgate.HostGate() if loaded.settings.builds.same_host else hostgate.OpenGate()
        self.store: store.Store
        self.recorder: recording.Recorder
        self.house: worker.House
        self.drained: set[str] = set()  # devices; one whose settings change, or that broke, stays drained
        self.seen = loaded.seen  # what specifications were read from last, be they good or not
        self._loaded = loaded
        self._found: coverage.Found = coverage.NOTHING
        self._rosters: list[tuple[services.Roster[Any], Callable[[loading.Loaded], dict[str, Any]]]] = []
        self._paused: dict[str, tuple[str, datetime]] = {}
        self._started = datetime.now(UTC)
        self._stop = anyio.Event()
        self._reloading = anyio.Lock()
        self._notifier = systemd.Notifier()

    async def run(self) -> None:
        """Work until told to stop.

        Raises:
            StoreError: it cannot begin.
            ExceptionGroup: as well, of SocketError, and of InvalidFileError where the dashboard's token is not usable.
        """
        leave_trials_alone(self._loaded.settings)
        async with store.opened(self.directory / "journal.db", self.events) as self.store, anyio.create_task_group() as tasks:
            self.recorder = recording.Recorder(lambda: self._loaded.settings, await self.store.write(meta.installation))
            self.house = stations.house(self)
            if self._loaded.faults:
                self._refuse_specifications(self._loaded.faults)
            await anyio.to_thread.run_sync(self.kept.sweep)
            await tasks.start(self._listen)
            await tasks.start(self._signals)
            await self._look_at_status_file()
            await self.look_at_what_is_known()
            await self._look_for_what_was_left_changed()
            self._fill(tasks)
            tasks.start_soon(self._watch_status_file)
            tasks.start_soon(self._notifier.watchdog, self._alive)
            self._notifier.ready(self._summary())
            log.info("ready", pid=os.getpid(), state_directory=str(self.directory))
            await self._stop.wait()
            await self._end()
            tasks.cancel_scope.cancel()
        log.info("stopped")

    def clone(self, chosen: settings.RepositorySettings) -> watch.Repository:
        """A repository's clone; every caller's is the same one on the disk."""
        if chosen.name == model.SUBMITTED:
            return programs.Submitted(chosen, self.kept.directory)
        kind = plugins.load("repositories", chosen.kind)
        made: watch.Repository = kind(chosen, self.directory / "repositories" / chosen.name)
        return made

    def away(self) -> Collection[str]:
        """The devices that no block can be run on now: lost, in quarantine or drained."""
        notices = {notice.unit.removeprefix("device/"): notice for notice in self.board.notices("device")}
        return {name for name, notice in notices.items() if notice.fault} | self.drained

    def status(self) -> model.JsonObject:
        paused = next(iter(self._paused.values()), None)
        return {
            "version": aibenchd.__version__,
            "started_at": self._started.isoformat(),
            "pid": os.getpid(),
            "config": str(self.path),
            "state_directory": str(self.directory),
            "paused": paused is not None,
            "paused_by": paused and paused[0],
            "paused_since": paused and paused[1].isoformat(),
        }

    def cells(self) -> Sequence[server.Cell]:
        homes = self.world().homes()
        names = coverage.rows(homes)
        return [_cell(home, names) for home in homes]

    async def compare(self, wanted: planning.Comparison) -> int:
        return await planning.compare(self.store, self.world(), wanted)

    async def calibrate(self, wanted: planning.Calibration) -> int:
        return await planning.calibrate(self.store, self.world(), wanted)

    async def submit(self, wanted: submitting.Wanted) -> submitting.Planned | submitting.Lacking:
        return await submitting.submit(submitting.House(self.store, self.world(), self.house.models, self.kept), wanted)

    async def cancel(self, request: int, by: str) -> int:
        ended = await submitting.cancel(self.store, request, by)
        for experiment, device in ended:
            service = self._measuring.services.get(device)
            if service is not None:
                service.worker.abandon(experiment)
        log.info("cancelled", request=request, by=by, experiments=len(ended))
        return len(ended)

    async def reload(self) -> server.ReloadResult:
        """Read the configuration again and apply what is different; a bad one changes nothing."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                loaded = await anyio.to_thread.run_sync(loading.load, self.path)
                loading.refuse_what_needs_a_restart(self._loaded.settings, loaded.settings)
            except errors.AibenchdError as error:
                log.error("reload refused", faults=str(error))  # noqa: TRY400  the message says all
                # What is wrong with a specification is no fault any more once that is mended.
                unit = "specifications" if isinstance(error, catalog.BadSpecificationsError) else "configuration"
                self.board.put(f"daemon/{unit}", "refused", str(error), fault=True)
                return server.ReloadResult(applied=False, faults=str(error).splitlines())
            finally:
                self._notifier.ready(self._summary())
            self.board.put("daemon/configuration", "loaded")
            before = self._loaded.settings
            changes = self._put_into_effect(loaded)
            return server.ReloadResult(applied=True, changes=[*changes, *await self._without_device(before)])

    async def _without_device(self, before: settings.Settings) -> list[str]:
        """What waits for devices that ``before`` had, in words: nothing of it is skipped."""
        present = {device.name for device in self._loaded.settings.devices}
        counts = await self.store.read(views.counts)
        gone = {device.name: counts.by_state(device.name) for device in before.devices if device.name not in present}
        left = {name: states.get("waiting", 0) + states.get("open", 0) for name, states in gone.items()}
        return [
            f"experiments that wait for device {name} to be configured again: {count}" for name, count in left.items() if count
        ]

    async def read_specifications(self) -> None:
        """Read the specifications again, by the configuration as it is, and apply what is different.

        Of a file that is bad, what it said before stays.
        """
        async with self._reloading:
            chosen = self._loaded.settings
            found, faults = await anyio.to_thread.run_sync(catalog.read, chosen)
            bad = {Path(fault.file) for fault in faults}
            self._put_into_effect(loading.with_what_stays(loading.of(chosen, found), self._loaded, bad))
            if faults:
                self._refuse_specifications(str(errors.InvalidFileError(faults)))

    def _refuse_specifications(self, faults: str) -> None:
        log.error("specifications refused", faults=faults)
        self.board.put("daemon/specifications", "refused", faults, fault=True)

    def _put_into_effect(self, loaded: loading.Loaded) -> list[str]:
        changes = self._apply(loaded)
        self.seen = loaded.seen
        self.board.put("daemon/specifications", "loaded")
        self.events.publish(events.Event("daemon.reloaded", {"changes": changes}))
        log.info("reloaded", changes=changes)
        return changes

    async def pause(self, by: str) -> None:
        self._hold("operator", by)

    async def resume(self, by: str) -> None:
        log.info("resumed", by=by)
        self._release("operator")

    async def drain(self, device: str, by: str) -> None:
        log.info("drained", device=device, by=by)
        self.drained.add(device)
        self._drain(device)

    async def undrain(self, device: str, by: str) -> None:
        log.info("undrained", device=device, by=by)
        self.drained.discard(device)
        self._drain(device)

    async def release(self, device: str, by: str) -> bool:
        service = self._measuring.services.get(device)
        released = service is not None and service.worker.release()
        log.info("released", device=device, by=by, released=released)
        return released

    def paused(self) -> bool:
        """Whether no block and no build may begin."""
        return bool(self._paused)

    def stop(self) -> None:
        """Begin to end; what is in flight has its time."""
        self._stop.set()

    def _drain(self, device: str) -> None:
        service = self._measuring.services.get(device)  # none while it waits to be started again
        if service is not None:
            service.worker.drain(draining=device in self.drained)

    def _hold(self, why: str, by: str) -> None:
        if why not in self._paused:
            self._paused[why] = (by, datetime.now(UTC))
            self.events.publish(events.Event("daemon.paused", {"by": by}))

    def _release(self, why: str) -> None:
        if self._paused.pop(why, None) is not None:
            self.events.publish(events.Event("daemon.resumed", {}))

    def world(self) -> planning.World:
        """What there is to plan with now."""
        return planning.World(self._loaded.settings, self._loaded.selected, self.clone, self._found)

    async def look_at_what_is_known(self) -> None:
        """Take note of what devices turned out to be, and show what is to be measured and cannot be had."""
        self._found = await self.store.read(stored.known)
        self._show_absent_devices()
        await self._show_unknown_backends()

    def _show_absent_devices(self) -> None:
        for index, selection in enumerate(self._loaded.settings.benchmarks):
            unit = f"selection/{index}"
            missing = coverage.absent(selection.devices, self._loaded.settings.devices, self._found)
            if missing:
                reason = f"no device turned out to be {', '.join(missing)} yet; 'aibenchctl devices' shows what they are"
                self.board.put(unit, "device absent", f"{selection.specification}: {reason}", fault=True)
            else:
                self.board.take_down(unit)

    async def _show_unknown_backends(self) -> None:
        homes = await anyio.to_thread.run_sync(self.world().homes)  # of which there may be many
        unknown: dict[str, list[str]] = {}
        for (device, _), reason in coverage.unknown_backends(homes, planning.known_backends).items():
            unknown.setdefault(f"backends/{device}", []).append(reason)
        for notice in self.board.notices("backends"):
            if notice.unit not in unknown:
                self.board.take_down(notice.unit)
        for unit, reasons in unknown.items():
            self.board.put(unit, "not known", "\n".join(reasons), fault=True)

    async def _look_for_what_was_left_changed(self) -> None:
        """On devices that the configuration no longer has, so that nobody will undo it."""
        there = {device.name for device in self._loaded.settings.devices}
        for name in set(await self.store.read(undo.left)) - there:
            advice = "it was left changed, and is not in the configuration any more: put it back there until this is undone"
            self.board.put(f"device/{name}/undo", "not undone", advice, fault=True)

    def _fill(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start all services that the configuration names."""

        def roster(kind: str, make: Callable[[Any, Daemon], services.Service]) -> services.Roster[Any]:
            return services.Roster(kind, lambda chosen: make(chosen, self), tasks, self.board, self.rng)

        self._measuring: services.Roster[stations.Measuring] = roster("device", stations.Measuring)
        self._rosters = [
            (roster("repository", stations.Watching), lambda loaded: {one.name: one for one in loaded.settings.repositories}),
            (self._measuring, lambda loaded: {one.name: (one, loaded.settings.run) for one in loaded.settings.devices}),
            (roster("sink", stations.Delivering), lambda loaded: {one.name: one for one in loaded.settings.sinks}),
            (roster("outbox", stations.Keeping), lambda loaded: {"size": loaded.settings.retention.outbox_size}),
            (roster("builder", stations.Building), lambda loaded: {"all": stations.of_builds(loaded.settings)}),
            (roster("planner", stations.Planner), lambda _: {"all": ALWAYS}),
            (roster("following", stations.Following), lambda _: {"all": ALWAYS}),
            (roster("profiling", stations.Profiling), lambda _: {"all": ALWAYS}),
            (roster("histories", stations.Histories), lambda _: {"all": ALWAYS}),
            (roster("standings", stations.Standings), lambda _: {"all": ALWAYS}),
            (roster("specifications", stations.Specifications), lambda _: {"all": ALWAYS}),
            (roster("knowing", stations.Knowing), lambda _: {"all": ALWAYS}),
            (roster("housekeeping", stations.Housekeeping), lambda _: {"all": ALWAYS}),
        ]
        self._apply(self._loaded)

    def _apply(self, loaded: loading.Loaded) -> list[str]:
        before, self._loaded = self._loaded.selected, loaded
        changes = [change for roster, wanted in self._rosters for change in roster.apply(wanted(loaded))]
        return changes + (["benchmarks changed"] if before != loaded.selected else [])

    async def _end(self) -> None:
        await self._reloading.acquire()  # and held: a reload would start again what ends here
        within = self._loaded.settings.stop_timeout
        self._notifier.stopping(within + EXTRA_STOP_SECONDS)
        async with anyio.create_task_group() as tasks:
            for roster, _ in self._rosters:
                tasks.start_soon(roster.stop, within)

    async def _listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        path = server.default_path(self._loaded.settings.status, self.directory, os.environ)
        house = server.House(self.store, self.board, self.events, lambda: self._loaded.settings, self, self.directory, self.kept)
        try:
            await server.serve(house, path, task_status=task_status)
        except errors.CredentialError as error:
            document = await anyio.to_thread.run_sync(yamlfile.load, self.path)
            raise errors.InvalidFileError([document.fault(("dashboard", "token_file"), str(error))]) from error

    async def _signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()  # from here on a signal is obeyed: before that nobody must think that we are ready
            async for number in received:
                if number == signal.SIGHUP:
                    await self.reload()
                else:
                    log.info("told to stop", signal=signal.Signals(number).name)
                    self.stop()

    async def _watch_status_file(self) -> None:
        while True:
            await anyio.sleep(STATUS_FILE_SECONDS)
            await self._look_at_status_file()

    async def _look_at_status_file(self) -> None:
        """FAI-PEP's way to pause: while the first line of the configured file is 0."""
        path = self._loaded.settings.status_file
        if path is not None and await anyio.to_thread.run_sync(says_pause, path):
            self._hold("status file", str(path))
        else:
            self._release("status file")

    async def _alive(self) -> None:
        """Returns where the journal's writer answers; what the watchdog asks."""
        await self.store.write(lambda _: None)

    def _summary(self) -> str:
        chosen = self._loaded.settings
        return f"{len(chosen.repositories)} repositories, {len(chosen.devices)} devices, {len(self._loaded.selected)} benchmarks"


def _cell(home: coverage.Home, names: coverage.RowNames) -> server.Cell:
    selected = home.cell.selected
    return server.Cell(
        repository=home.repository,
        framework=home.framework,
        benchmark=selected.benchmark.identifier,
        benchmark_digest=selected.digest,
        model=selected.benchmark.name,
        metric=selected.benchmark.metric,
        row=names[home.framework, selected.digest],
        device=home.cell.device.name,
        backend=home.cell.backend,
        impossible=home.cell.impossible,
    )


def leave_trials_alone(chosen: settings.Settings) -> None:
    """Keep this process off the CPUs that trials run on, where there are others."""
    measured = {cpu for device in chosen.devices for cpu in device.cpus}
    free = os.sched_getaffinity(0) - measured
    if free and measured:
        os.sched_setaffinity(0, free)


def allow_many_files() -> None:
    """Let this process have as many files open as it may at all, rather than the 1024 of most shells: devices take several."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def says_pause(path: Path) -> bool:
    """Whether FAI-PEP's status file asks to pause; one that is not there, or says anything but 0, does not."""
    try:
        with path.open() as file:
            return file.readline(16).strip() == "0"
    except OSError:
        return False


async def serve(path: Path) -> None:
    """Run the daemon of a configuration until SIGTERM.

    Raises:
        AibenchdError: it cannot begin; the message says why and what to do.
    """
    loaded = loading.load_what_is_good(path)
    directory = settings.state_directory(loaded.settings)
    allow_many_files()
    with alone(directory):
        try:
            await Daemon(path, loaded, directory).run()
        except ExceptionGroup as group:
            raise errors.first_of(group) from group
