"""Programs that write model files: run as the user that all programs run as, in a directory that is theirs alone.

<directory>/<digest>/output/<name>    what the program is to write
<directory>/<digest>/home             its working directory, and its HOME and TMPDIR
<directory>/<digest>.log              what it printed
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from aibenchd import errors, hostgate, redaction
from aibenchd.devices import base as devices
from aibenchd.devices import launching
from aibenchd.specs import schema, trees

PATH = "/usr/local/bin:/usr/bin:/bin"
LOOK_SECONDS = 0.2  # between two looks at how much it has written
LOG_LIMIT = 1 << 20  # bytes
REASON_BYTES, REASON_LINES = 2_000, 12  # of the end of what it printed, in the reason of a failure
OWN_DEADLINE = 600.0  # seconds
LEFT_SECONDS = 7 * 86400.0  # after which what a crash left is removed
READABLE = ("chmod", "-R", "u+rwX,g+rwX", "--")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run: ``timeout`` in seconds, ``size`` in bytes of all that it writes."""

    timeout: float
    size: int


class Generators:
    """Runs generator programs.

    Args:
        directory: where they work; made when it is needed.
        shared: where programs are looked for that do not lie beside their specification; then in the directory ``generators``
            of the tree whose ``models`` that lies in.
        run: as whom they run, now.
        gate: passed once per run, so that none runs while the local host measures.
    """

    def __init__(
        self, directory: Path, shared: Path, limits: Limits, run: Callable[[], devices.RunSettings], gate: hostgate.Gate
    ) -> None:
        self._directory, self._shared, self._limits, self._run, self._gate = directory, shared, limits, run, gate
        self._locks: weakref.WeakValueDictionary[Path, anyio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def output(self, generator: schema.Generator, specification: Path, name: str) -> AsyncIterator[Path]:
        """What the program writes, a file or a directory; removed at the end.

        Args:
            specification: the file that names it.
            name: the last part of the path that it must write.

        Raises:
            ModelFileError: there is no such program, it failed, took too long, wrote too much or nothing.
            HarnessError: programs cannot be run here.
        """
        program = await anyio.to_thread.run_sync(self.find, generator, specification)
        own = hashlib.sha256("\0".join((str(program), *generator.generator, name)).encode()).hexdigest()
        place = self._directory.absolute() / own[:32]
        lock = self._locks.setdefault(place, anyio.Lock())
        async with lock, self._gate.building(), launching.Launcher(self._run()) as launcher:
            try:
                await self._prepare(launcher, place)
                output = place / "output" / PurePosixPath(name).name
                await self._generate(launcher, (*_interpreter(program), *generator.generator[1:], str(output)), place)
                await _open_up(launcher, place)
                if not await anyio.to_thread.run_sync(os.path.lexists, output):
                    raise errors.ModelFileError("ended well and wrote nothing to the path that is its last argument")
                yield output
            finally:
                with anyio.CancelScope(shield=True):
                    await _remove(launcher, place)

    def find(self, generator: schema.Generator, specification: Path) -> Path:
        """The program that a specification means. Blocking.

        Raises:
            ModelFileError: it is not there, leads out of where it is looked for, or cannot be executed.
        """
        name, beside = generator.generator[0], specification.parent.resolve()
        own = _of_tree(beside)
        for directory in (beside, self._shared.resolve(), *own):
            program = Path(os.path.realpath(directory / name))  # which a link to itself does not stop
            if program.is_file():
                return _checked(program, directory)
        where = f"no {name} beside the specification, nor in models.generators_directory ({self._shared})"
        where += "".join(f", nor in {directory}" for directory in own)
        raise errors.ModelFileError(f"is not there: {where}; put it into one of them, or mend its name")

    def sweep(self) -> None:
        """Remove what crashes left long ago. Blocking."""
        before = time.time() - LEFT_SECONDS
        for path in self._directory.iterdir() if self._directory.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < before:
                    trees.delete(path)

    async def _prepare(self, launcher: launching.Launcher, place: Path) -> None:
        await _remove(launcher, place)  # an earlier process may have been killed in the midst of it
        identity = await launcher.hello()
        group = None if identity.uid == os.geteuid() else identity.gid
        try:
            await anyio.to_thread.run_sync(_lay_out, place, group)
        except OSError as error:
            raise errors.HarnessError(f"{place} cannot be made: {error.strerror}") from error

    async def _generate(self, launcher: launching.Launcher, argv: tuple[str, ...], place: Path) -> None:
        log, home = place.with_suffix(".log"), place / "home"
        ended: devices.Completed | errors.HarnessError | OSError | None = None

        async with anyio.create_task_group() as tasks:

            async def end_where_too_large() -> None:
                while await anyio.to_thread.run_sync(trees.size, place) <= self._limits.size:  # noqa: ASYNC110  nothing tells
                    await anyio.sleep(LOOK_SECONDS)
                tasks.cancel_scope.cancel()

            tasks.start_soon(end_where_too_large)
            try:
                ended = await launcher.run_logged(argv, home, _environment(home), self._limits.timeout, log, LOG_LIMIT)
            except (errors.HarnessError, OSError) as error:  # which the group would wrap up
                ended = error
            tasks.cancel_scope.cancel()
        if ended is None:
            raise errors.ModelFileError(trees.too_large(self._limits.size))
        if isinstance(ended, Exception):
            raise ended
        if (ended.ending, ended.code) != (devices.Ending.EXITED, 0):
            last = await anyio.to_thread.run_sync(_last_lines, log)
            raise errors.ModelFileError(f"{self._told(ended)}\n{last}" if last else f"{self._told(ended)}, and printed nothing")

    def _told(self, ended: devices.Completed) -> str:
        match ended.ending:
            case devices.Ending.EXITED:
                return f"ended with exit status {ended.code}"
            case devices.Ending.SIGNALLED:
                return f"was killed by signal {ended.code} ({signal.strsignal(ended.code)})"
            case devices.Ending.TIMED_OUT:
                return f"took longer than models.generator_timeout ({self._limits.timeout:.0f} s) and was killed"


def _of_tree(directory: Path) -> list[Path]:
    """``generators`` of the tree whose ``models`` a specification lies in, where there is such a tree; the nearest."""
    trees_of_it = (above.with_name("generators") for above in (directory, *directory.parents) if above.name == "models")
    return [found for found in trees_of_it if found.is_dir()][:1]


def _checked(program: Path, directory: Path) -> Path:
    if not program.is_relative_to(directory):
        raise errors.ModelFileError(f"lies outside {directory}, at {program}; put a copy of it there")
    if program.suffix != ".py" and not os.access(program, os.X_OK):
        raise errors.ModelFileError(f"cannot be executed; 'chmod +x {program}', or let its name end in .py")
    return program


def _interpreter(program: Path) -> tuple[str, ...]:
    return (sys.executable, str(program)) if program.suffix == ".py" else (str(program),)


def _environment(home: Path) -> dict[str, str]:
    """Little, and the same each time: the same bytes must come of it."""
    return {
        "PATH": PATH,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": "0",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _lay_out(place: Path, group: int | None) -> None:
    """Its directories; where programs run as another user, they are of that user's ``group``."""
    for above in (place.parent, place):
        for parent in reversed(above.parents):
            if not parent.exists():
                parent.mkdir()
                parent.chmod(0o711)  # programs pass through it
        above.mkdir(exist_ok=True)
        _give(above, group, 0o2750)
    for name in ("output", "home"):
        (place / name).mkdir()
        _give(place / name, group, 0o2770)


def _give(path: Path, group: int | None, mode: int) -> None:
    if group is None:
        return
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        raise errors.HarnessError(
            f"{path} cannot be given to group {group}, which programs run as; make the daemon's user a member of it"
        ) from error
    path.chmod(mode)


async def _open_up(launcher: launching.Launcher, place: Path) -> None:
    """Let the daemon read, and remove, what a program left, as the user that it ran as."""
    argv = (*READABLE, str(place / "output"), str(place / "home"))
    await launcher.run(devices.Command(argv, PurePosixPath("/"), env={"PATH": PATH}, timeout=OWN_DEADLINE))


async def _remove(launcher: launching.Launcher, place: Path) -> None:
    if await anyio.to_thread.run_sync(place.exists):
        await _open_up(launcher, place)
        await anyio.to_thread.run_sync(trees.delete, place)
    await anyio.to_thread.run_sync(trees.delete, place.with_suffix(".log"))


def _last_lines(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - REASON_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return redaction.text("\n".join(lines[-REASON_LINES:]))
