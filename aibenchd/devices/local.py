"""The host that the daemon runs on, as a device."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Self, TypeVar, cast

import anyio
import anyio.to_thread
import pydantic

from aibenchd import errors
from aibenchd.devices import base, beneath, cpufreq, heat, host, launching, permission, pushed

T = TypeVar("T")

PROBE = "probe"  # the directory in which health() sees whether programs can work
OWN_DEADLINE = 600.0  # seconds
OWN_OUTPUT = 4096  # bytes


class Settings(base.FiledSettings):
    """Keys of a device of the kind ``local``."""

    directory: Annotated[
        Path | None,
        pydantic.Field(description="holds what is pushed and what programs write; default: below the state directory"),
    ] = None
    helper: Annotated[
        Path | None,
        pydantic.Field(description="socket of aibenchd-helper, which sets governor and frequency where only root may"),
    ] = None

    @pydantic.model_validator(mode="after")
    def _stays_up(self) -> Self:
        if self.conditioning.reboot:
            raise ValueError("conditioning.reboot: this host runs aibenchd itself, and cannot be rebooted for an experiment")
        return self


class Local(base.Device):
    """Trials run on this host, one at a time. A kind that starts programs in a way of its own derives from it."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings
    on_this_host = True

    def started(self, command: base.Command) -> base.Command:
        """What is run in place of a command. Pure; called for each process of a trial, and for nothing of our own."""
        return command

    def served(self, launcher: launching.Launcher) -> LocalSession:
        """A session that is not open yet; a kind whose sessions can do more makes one of its own."""
        settings = cast("Settings", self.settings)
        return LocalSession(settings, settings.directory or self.state_directory, launcher, self.started)

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._session()

    async def reach(self) -> None:
        """Run a program on its CPUs as whom it would; what is in its directory is left alone, because a session may be there."""
        command = base.Command(("true",), PurePosixPath("/"), env={"PATH": base.SEARCH_PATH}, cpus=self.settings.cpus)
        settings, found = cast("Settings", self.settings), errors.Gathering()
        with found.look(), lost(settings.name):
            if settings.directory is not None:
                await anyio.to_thread.run_sync(permission.look_at_directory, settings.directory)
        with found.look(), lost(settings.name):
            if settings.helper is not None:
                await permission.look_at_helper(settings.helper)
        with found.look(), lost(settings.name):
            async with launching.Launcher(self.run) as launcher:
                with found.look(), lost(settings.name), base.about_words():
                    await launcher.run(command)
                with found.look(), lost(settings.name):
                    await self.agree(self.served(launcher))
        found.tell()

    async def look_at_room(self) -> None:
        settings = cast("Settings", self.settings)
        directory = settings.directory or self.state_directory
        await anyio.to_thread.run_sync(permission.look_at_room, directory.absolute(), settings.minimum_free)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[base.Session]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                launcher = await stack.enter_async_context(launching.Launcher(self.run))
                session = self.served(launcher)
                await session.open()
            except (errors.HarnessError, OSError) as error:
                raise errors.DeviceLostError(f"{self.settings.name}: {error}") from error
            stack.callback(session.close)
            yield session


@contextlib.contextmanager
def lost(name: str) -> Iterator[None]:
    """What this host does not let us do loses a device on it."""
    try:
        yield
    except errors.HarnessError as error:
        reason = str(error).removeprefix("true: ")  # which nobody asked for
        raise errors.DeviceLostError(f"{name}: {reason}") from error


class LocalSession(base.Session):
    """See :class:`aibenchd.devices.base.Session`.

    Below ``directory`` lie ``programs``, which programs can read, and ``work``, in whose directories they can write.
    Where programs run as another user, both belong to that user's group, whose member the daemon must be.
    """

    root: ClassVar[Path] = Path("/")  # of the kernel's files

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        launcher: launching.Launcher,
        started: Callable[[base.Command], base.Command],
    ) -> None:
        self._settings = settings
        self._directory = directory.absolute()
        self._work = self._directory / "work"
        self._launcher = launcher
        self._started = started
        self._pushed = pushed.Pushed(self._directory / "programs", settings.store_size)
        self._cpus = settings.cpus or tuple(range(os.cpu_count() or 1))
        self._host = host.Host(self._cpus, self.root)
        self._limits = heat.Limits()
        self._limiter = anyio.CapacityLimiter(1)
        self._busy = ""

    async def open(self) -> None:
        """Lay out the directory; what an earlier session left in ``work`` is removed.

        Raises:
            DeviceLostError: programs could not run here.
            HarnessError, OSError: it cannot be laid out.
        """
        identity = await self._launcher.hello()
        await self._in_thread(lambda: _lay_out(self._directory, identity.gid))
        for left in await self._in_thread(lambda: list(self._work.iterdir())):
            await self._delete(left)
        await self._in_thread(self._pushed.open)
        await self._look()

    def close(self) -> None:
        """Whatever is asked of it now is an error."""
        self._busy = "the session's end"

    async def push(self, push: base.Push) -> PurePosixPath:
        with self._alone("push"):
            return PurePosixPath(await self._in_thread(lambda: self._pushed.put(push)))

    async def directory(self, name: str) -> PurePosixPath:
        with self._alone("directory"):
            return PurePosixPath(await self._make(name))

    async def run(self, command: base.Command) -> base.Completed:
        with self._alone("run"):
            return await self._launcher.run(self._complete(self._started(command)))

    async def pull(self, source: PurePosixPath, target: Path) -> None:
        with self._alone("pull"):
            copy = functools.partial(beneath.copy_out, self._directory, Path(source), target, self._settings.pull_limit)
            await self._permitted(copy, Path(source), ("chmod", "u+r,g+r"))

    async def remove(self, path: PurePosixPath) -> None:
        with self._alone("remove"):
            await self._delete(Path(path))

    async def health(self) -> None:
        with self._alone("health"):
            await self._look()

    async def fingerprint(self) -> Mapping[str, str]:
        return await self._in_thread(self._host.facts)

    async def state(self) -> Mapping[str, str]:
        return await self._in_thread(self._host.state)

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        found = await self._in_thread(lambda: cpufreq.changes(self._cpus, wanted, self._limits, self.root))
        await permission.look_at_changes(found, self._settings.helper, self.root)
        return found

    async def apply(self, action: base.Action) -> None:
        if action.get("verb") in cpufreq.VERBS:
            await cpufreq.apply(action, self._settings.helper, self.root)
        else:
            await super().apply(action)

    async def disturb(self) -> None:
        with self._alone("disturb"):
            await self._launcher.disturb(self._settings.disturb_size, self._settings.cpus)

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if self._busy:
            raise errors.HarnessError(f"{self._settings.name}: {what} during {self._busy}; a session serves one caller at a time")
        self._busy = what
        try:
            yield
        except OSError as error:
            raise errors.HarnessError(f"{self._settings.name}: {what}: {error}") from error
        finally:
            if self._busy == what:
                self._busy = ""

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    async def _make(self, name: str) -> Path:
        path = self._work / base.file_name(name)
        await self._emptied(functools.partial(_make_anew, self._work, path), path)
        return path

    async def _delete(self, path: Path) -> None:
        await self._emptied(functools.partial(beneath.delete, self._work, path), path)

    async def _emptied(self, work: Callable[[], None], path: Path) -> None:
        """Do it, for which ``path`` has to be deleted first."""
        await self._permitted(work, path, ("chmod", "-R", "u+rwX"), ("rm", "-rf"))

    async def _permitted(self, work: Callable[[], None], path: Path, *remedies: tuple[str, ...]) -> None:
        """Do it; where it is not permitted, apply the remedies to ``path`` as the user that programs run as, and do it again."""
        try:
            await self._in_thread(work)
        except PermissionError:
            for remedy in remedies:
                await self._launcher.run(self._own((*remedy, "--", str(path))))
            await self._in_thread(work)

    def _own(self, argv: tuple[str, ...]) -> base.Command:
        """A program of our own, for our needs."""
        cwd = PurePosixPath(self._work)
        return base.Command(argv, cwd, env=base.small_environment(cwd), timeout=OWN_DEADLINE, output_limit=OWN_OUTPUT)

    def _complete(self, command: base.Command) -> base.Command:
        """With this device's environment and CPUs."""
        env = {**base.small_environment(command.cwd), **self._settings.env, **command.env}
        return dataclasses.replace(command, env=env, cpus=command.cpus or self._settings.cpus)

    async def _look(self) -> None:
        try:
            await self._look_at_disk()
            await self._look_at_launcher()
        except (errors.HarnessError, OSError) as error:
            raise errors.DeviceLostError(f"{self._settings.name}: {error}") from error

    async def _look_at_disk(self) -> None:
        await self._in_thread(lambda: permission.look_at_room(self._directory, self._settings.minimum_free))

    async def _look_at_launcher(self) -> None:
        probe = self._work / PROBE
        if not await self._in_thread(probe.is_dir):
            await self._make(PROBE)
        command = dataclasses.replace(self._own(("test", "-w", ".")), cwd=PurePosixPath(probe))
        completed = await self._launcher.run(self._complete(command))
        if completed.code:
            raise errors.HarnessError(f"programs cannot write to {probe} {completed.stderr}".rstrip())


def _lay_out(directory: Path, group: int) -> None:
    """``directory`` with ``programs`` and ``work``, of the group that programs run as; that group can only look in."""
    for parent in reversed(directory.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o711)  # programs pass through it
    for path in (directory, directory / "programs", directory / "work"):
        path.mkdir(exist_ok=True)
        if path.stat().st_gid != group:
            _give(path, group)
        path.chmod(pushed.DIRECTORY_MODE)


def _give(path: Path, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        raise errors.HarnessError(
            f"{path} cannot be given to group {group}, which programs run as; make the daemon's user a member of it"
        ) from error


def _make_anew(work: Path, path: Path) -> None:
    beneath.delete(work, path)
    path.mkdir()
    path.chmod(0o2770)  # past the umask
