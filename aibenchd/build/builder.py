"""Makes the builds that are wanted: one revision after another, each once."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import random
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog

from aibenchd import backoff, board, crashpoints, errors, hostgate, redaction, settings
from aibenchd.build import cache, script, slot
from aibenchd.devices import base as devices
from aibenchd.devices import launching
from aibenchd.store import builds, store
from aibenchd.watch import base as watch

T = TypeVar("T")

LOOK_AGAIN = 60.0  # seconds between two looks for a build, where no word came of one
RESTS = (5.0, 900.0)  # first and longest seconds before a build is tried again that failed by no fault of its revision
JOURNAL_PAUSES = (0.5, 30.0)  # the same, of a result that the journal could not take
LOGS = "logs/build"
LOG_LIMIT = 16 << 20  # bytes of a build's output that are kept: the first half and the last
REASON_BYTES, REASON_LINES = 2_000, 12  # of the end of its output, in the reason of a failure
NO_SPACE = os.strerror(errno.ENOSPC)  # builds run with LC_ALL=C
LEAST_FREE = 16 << 20  # bytes; with less on the disk, a failure is laid to the disk

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class House:
    """What the builder shares with the rest of the process.

    Attributes:
        gate: passed once per build, so that none runs while the local host measures.
        launcher: runs the scripts; entered and left by its owner.
        paused: whether no build may begin now.
    """

    store: store.Store
    board: board.Board
    gate: hostgate.Gate
    launcher: launching.Launcher
    state_directory: Path
    paused: Callable[[], bool]


@dataclass(slots=True)
class _Rest:
    """A build that waits because this host, or the remote, is at fault; ``until`` is by the event loop's clock."""

    repository: str
    pauses: backoff.Backoff
    until: float = -math.inf


class Builder:
    """Makes builds until it is cancelled. What it was making then is made anew when it next runs.

    Args:
        repositories: by name, those that are configured; builds of others wait in the queue.
        rng: of the jitter of pauses.
    """

    def __init__(
        self, chosen: settings.BuildSettings, repositories: Mapping[str, watch.Repository], house: House, rng: random.Random
    ) -> None:
        self._settings, self._repositories, self._house, self._rng = chosen, repositories, house, rng
        self._directory = house.state_directory / "build"
        self._compiler_cache = self._directory / "ccache"
        self._cache = cache.Cache(house.state_directory / "builds")
        self._cache_lock = anyio.Lock()  # between the journal's word on a directory and the directory itself
        self._rests: dict[int, _Rest] = {}

    async def run(self) -> None:
        """Sweep what an earlier process left, then build what is queued, for ever."""
        (self._house.state_directory / LOGS).mkdir(parents=True, exist_ok=True)
        try:
            await self._sweep()
            async with anyio.create_task_group() as group:
                for number in range(self._settings.parallel):
                    group.start_soon(self._serve, f"slot-{number}")
        finally:
            for notice in (*self._house.board.notices("builder"), *self._house.board.notices("build")):
                self._house.board.take_down(notice.unit)

    async def _serve(self, name: str) -> None:
        with self._house.store.events.bell("build.queued", "daemon.") as bell:
            while True:
                looked = anyio.current_time()
                if self._house.paused() or not await self._advance(name):
                    self._house.board.put(f"builder/{name}", "paused" if self._house.paused() else "idle")
                    await bell.wait(self._until_next_look(looked))

    async def _advance(self, name: str) -> bool:
        """Make the build that is wanted most; whether there was one."""
        repositories, resting = self._repositories, self._resting()
        if await self._house.store.read(lambda connection: builds.next_of(connection, repositories, resting)) is None:
            return False
        self._house.board.put(f"builder/{name}", "waiting", "for this host to finish measuring")
        async with self._house.gate.building():
            if self._house.paused():  # while this one waited
                return False
            # Chosen only now: while this one waited, something more urgent may have been queued.
            resting = self._resting()
            entry = await self._write(lambda transaction: builds.take(transaction, repositories, resting, _log_of))
            if entry is None:
                return False
            self._house.board.put(f"builder/{name}", "building", str(entry))
            with structlog.contextvars.bound_contextvars(repository=entry.repository, commit=entry.commit, build=entry.id):
                await self._build(entry, repositories[entry.repository], slot.Slot(self._directory / name / entry.repository))
        return True

    async def _build(self, entry: builds.Entry, repository: watch.Repository, where: slot.Slot) -> None:
        try:
            await self._make(entry, repository, where)
        except (errors.BuildError, errors.UnknownRevisionError) as error:
            await self._fail(entry, str(error))
        except (errors.AibenchdError, OSError) as error:
            await self._put_back(entry, str(error))
        else:
            self._stop_resting(entry.id)
        await self._clear(repository, where)
        await self._trim()

    async def _make(self, entry: builds.Entry, repository: watch.Repository, where: slot.Slot) -> None:
        """From a revision to its programs in the cache."""
        chosen = self._settings
        if repository.holds_programs:
            found = script.OF_PROGRAMS
        else:
            found = await anyio.to_thread.run_sync(script.find, chosen.frameworks_directory, entry.framework, entry.platform)
        revision = await repository.resolve(entry.commit)
        await self._clear(repository, where)  # an earlier process may have been killed in the midst of a build
        await self._lay_out(entry, repository, where)
        environment = script.environment(chosen, where, self._compiler_cache, revision.time, entry.copy)
        await self._run_script(entry, found, where, environment)
        await self._run_own(where.readable)
        name = script.program_name(entry.framework)
        staged = await anyio.to_thread.run_sync(self._cache.stage, where.output, name, chosen.cache_size, str(entry.id))
        await self._keep(entry, staged, self._cache.place(entry, revision), found)

    async def _lay_out(self, entry: builds.Entry, repository: watch.Repository, where: slot.Slot) -> None:
        identity = await self._house.launcher.hello()
        group = None if identity.uid == os.geteuid() else identity.gid
        await anyio.to_thread.run_sync(self._make_directories, where, group)
        await repository.check_out(entry.commit, where.source)
        await anyio.to_thread.run_sync(slot.share, where.source, group)

    def _make_directories(self, where: slot.Slot, group: int | None) -> None:
        where.prepare(group)
        for above in (self._directory, where.directory.parent):
            slot.show(above, group)
        if not self._compiler_cache.exists():
            self._compiler_cache.mkdir()
            slot.share(self._compiler_cache, group)

    async def _run_script(self, entry: builds.Entry, found: script.Script, where: slot.Slot, env: Mapping[str, str]) -> None:
        argv = found.argv(where.source, where.output / script.program_name(entry.framework))
        output = self._house.state_directory / entry.log
        ended = await self._house.launcher.run_logged(argv, where.source, env, self._settings.timeout, output, LOG_LIMIT)
        if ended.ending is devices.Ending.EXITED and ended.code == 0:
            return
        last = await anyio.to_thread.run_sync(_last_lines, output)
        reason = f"{found.path} {_told(ended, self._settings.timeout)}"
        if NO_SPACE in last or await anyio.to_thread.run_sync(_free_bytes, where.directory) < LEAST_FREE:
            raise errors.HarnessError(f"{reason}: the disk is full; free some space, or lower builds.cache_size")
        raise errors.BuildError(f"{reason}\n{last}" if last else f"{reason}, and printed nothing")

    async def _keep(self, entry: builds.Entry, staged: cache.Staged, place: Path, found: script.Script) -> None:
        product = builds.Product(staged.digest, str(place), staged.program, staged.size, found.meta)
        async with self._cache_lock:
            await anyio.to_thread.run_sync(self._cache.settle, staged, place)
            await self._conclude(lambda transaction: builds.finish(transaction, entry, product))
        log.info("built", digest=product.digest, size=product.size)

    async def _trim(self) -> None:
        """Let go of builds until the cache is as small as configured."""
        limit = self._settings.cache_size
        async with self._cache_lock:
            evicted = await self._write(lambda transaction: builds.evict(transaction, limit))
            try:
                await anyio.to_thread.run_sync(self._cache.remove, evicted.directories)
            except OSError as error:
                log.warning("evicted builds are not removed before the next start", reason=str(error))
        if evicted.left > limit:
            reason = f"{evicted.left:,} bytes of builds are needed now, builds.cache_size is {limit:,}; raise it"
            self._house.board.put("cache/builds", "too small", reason, fault=True)
        else:
            self._house.board.take_down("cache/builds")

    async def _clear(self, repository: watch.Repository, where: slot.Slot) -> None:
        """Remove what a build made beside its programs, and what the repository remembers of the work tree."""
        await self._remove(where)
        try:
            await repository.discard(where.source)
        except (errors.AibenchdError, OSError) as error:
            log.warning("a work tree is not discarded", directory=str(where.source), reason=str(error))

    async def _remove(self, where: slot.Slot) -> None:
        try:
            await self._run_own(where.removed)
            await anyio.to_thread.run_sync(where.remove)
        except (errors.HarnessError, OSError) as error:
            log.warning("a build's directories are not removed", directory=str(where.directory), reason=str(error))

    async def _run_own(self, argv: tuple[str, ...]) -> None:
        """A command of ours, as the user that builds run as. What it cannot do is noticed by who needs it."""
        await self._house.launcher.run(devices.Command(argv, PurePosixPath("/"), env={"PATH": script.PATH}))

    async def _fail(self, entry: builds.Entry, reason: str) -> None:
        await anyio.to_thread.run_sync(_append, self._house.state_directory / entry.log, reason)
        await self._conclude(lambda transaction: builds.fail(transaction, entry, reason))
        log.info("does not build", reason=reason)
        self._stop_resting(entry.id)

    async def _put_back(self, entry: builds.Entry, reason: str) -> None:
        rest = self._rests.setdefault(entry.id, _Rest(entry.repository, backoff.Backoff(*RESTS, self._rng)))
        pause = rest.pauses.next()
        rest.until = anyio.current_time() + pause
        await self._conclude(lambda transaction: builds.put_back(transaction, entry, reason))
        self._house.board.put(
            f"build/{entry.repository}", "put off", f"{entry}: {reason} (tried again in {pause:.0f} s)", fault=True
        )

    def _stop_resting(self, build: int) -> None:
        rest = self._rests.pop(build, None)
        if rest is not None and all(other.repository != rest.repository for other in self._rests.values()):
            self._house.board.take_down(f"build/{rest.repository}")

    def _resting(self) -> list[int]:
        now = anyio.current_time()
        return [build for build, rest in self._rests.items() if rest.until > now]

    def _until_next_look(self, looked: float) -> float:
        """Seconds until a build has rested that had not when it ``looked``; less than 0 where one has since."""
        now = anyio.current_time()
        return min((rest.until - now for rest in self._rests.values() if rest.until > looked), default=LOOK_AGAIN)

    async def _sweep(self) -> None:
        """Put right what an earlier process left half done."""
        await self._write(builds.sweep)
        for directory in self._directory.glob("slot-*/*"):
            await self._remove(slot.Slot(directory))
        known = await self._house.store.read(builds.kept)
        try:
            lost = await anyio.to_thread.run_sync(self._cache.sweep, known)
        except OSError as error:
            log.warning("the cache of builds is not swept", reason=str(error))
        else:
            await self._write(lambda transaction: builds.lose(transaction, [known[directory] for directory in lost]))
        await self._trim()

    async def _conclude(self, work: Callable[[store.Transaction], None]) -> None:
        crashpoints.reach("build.before-commit")
        await self._write(work)
        crashpoints.reach("build.after-commit")

    async def _write(self, work: Callable[[store.Transaction], T]) -> T:
        """Write to the journal, again and again while it cannot be written: what a build took minutes to make is not dropped."""
        pauses = backoff.Backoff(*JOURNAL_PAUSES, self._rng)
        while True:
            try:
                result = await self._house.store.write(work)
            except errors.StoreError as error:
                self._house.board.put("builder/journal", "waiting", str(error), fault=True)
                await anyio.sleep(pauses.next())
            else:
                self._house.board.take_down("builder/journal")
                return result


def _log_of(entry: builds.Entry, started: datetime) -> str:
    return f"{LOGS}/{entry.repository}-{entry.commit[:12]}-{entry.id}-{started:%Y%m%dT%H%M%S.%fZ}.log"


def _told(ended: devices.Completed, timeout: float) -> str:
    match ended.ending:
        case devices.Ending.EXITED:
            return f"ended with exit status {ended.code}"
        case devices.Ending.SIGNALLED:
            return f"was killed by signal {ended.code} ({signal.strsignal(ended.code)})"
        case devices.Ending.TIMED_OUT:
            return f"took longer than builds.timeout ({timeout:.0f} s) and was killed"


def _last_lines(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - REASON_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return redaction.text("\n".join(lines[-REASON_LINES:]))


def _append(path: Path, reason: str) -> None:
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write(f"\naibenchd: {reason.splitlines()[0]}\n")


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free
