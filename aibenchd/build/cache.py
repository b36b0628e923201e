"""The programs that builds left, kept on disk: copied in whole, never changed after, removed whole.

All of it blocks: call it in worker threads.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import NoReturn

from aibenchd import digests, errors, model
from aibenchd.store import builds

INCOMING = ".incoming"  # no repository's name begins with a dot
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Staged:
    """A build's tree, copied and checked, that waits to be put in its place."""

    directory: Path
    program: str
    digest: str
    size: int


class Cache:
    """Everything below ``directory`` belongs to it: what the journal does not know is removed by :meth:`sweep`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def place(self, entry: builds.Entry, revision: model.Revision) -> Path:
        """Where a build's directory is, by its commit's time: FAI-PEP's layout, one tree per repository."""
        day = revision.time.astimezone(UTC).strftime("%Y/%m/%d")
        name = f"{revision.commit}-{entry.copy}" if entry.copy else revision.commit
        return self.directory / entry.repository / entry.framework / entry.platform / day / name

    def stage(self, source: Path, program: str, limit: int, name: str) -> Staged:
        """Copy what a build left in ``source`` to this cache, on the disk when this returns.

        A copy and not the files themselves: a process of the build's user, or a hard link, could still change those.

        Args:
            program: the main program's name; made executable.
            limit: bytes that a build may have.
            name: of the staging directory; one staging at a time under each name.

        Raises:
            BuildError: the program is not there or leads elsewhere, something leads out of ``source``, cannot be read,
                or is neither a file, a directory nor a link; or all is larger than ``limit``.
            HarnessError: the disk is full or at fault.
        """
        staged = self.directory / INCOMING / name
        try:
            _remove(staged)
            staged.mkdir(parents=True)
            size = _Copy(source, staged, limit).run()
            _finish_program(staged / program)
            return Staged(staged, program, digests.of_tree(staged), size)
        except errors.BuildError:
            _remove(staged)
            raise
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise _unwritable(error) from error

    def settle(self, staged: Staged, place: Path) -> None:
        """Put a staged build in its place, in one step; what was there goes.

        Raises:
            HarnessError: the disk is full or at fault.
        """
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _remove(place)
            staged.directory.rename(place)
            _flush_directory(place.parent)
        except OSError as error:
            raise _unwritable(error) from error

    def remove(self, directories: Iterable[str]) -> None:
        """Remove builds that the journal has let go of, and the directories of days that are empty by that."""
        for directory in map(Path, directories):
            if directory.is_relative_to(self.directory):
                _remove(directory)
                _prune(directory.parent, self.directory)

    def sweep(self, known: Collection[str]) -> frozenset[str]:
        """Remove all but the ``known`` directories; those of them that are not there."""
        ours = (Path(directory) for directory in known if Path(directory).is_relative_to(self.directory))
        present = {directory for directory in ours if directory.is_dir()}
        above = {parent for directory in present for parent in directory.parents}
        waiting = [self.directory] if self.directory.is_dir() else []
        while waiting:
            for path in waiting.pop().iterdir():
                if path in above:
                    waiting.append(path)
                elif path not in present:
                    _remove(path)
        return frozenset(known) - {str(directory) for directory in present}


class _Copy:
    """One tree being copied; modes are made plain, so that they are the same whatever the build's umask was.

    Programs of the build's user may run meanwhile and may be hostile: no link is ever followed out of the tree.
    """

    def __init__(self, source: Path, target: Path, limit: int) -> None:
        self._source, self._target, self._limit = source, target, limit
        self._size = 0

    def run(self) -> int:
        """The bytes that were copied."""
        for directory, directories, files, handle in os.fwalk(self._source, onerror=_unreadable):
            for name in (*directories, *files):
                self._copy(handle, name, Path(directory, name).relative_to(self._source))
        self._check_links()
        for directory, *_ in os.walk(self._target):
            Path(directory).chmod(0o755)
            _flush_directory(directory)
        return self._size

    def _copy(self, handle: int, name: str, path: Path) -> None:
        target = self._target / path
        mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            target.mkdir()
        elif stat.S_ISLNK(mode):
            target.symlink_to(os.readlink(name, dir_fd=handle))
        elif stat.S_ISREG(mode):
            self._copy_file(handle, name, target)
        else:
            raise errors.BuildError(f"{path} is neither a file, a directory nor a link; the build must not leave it")

    def _copy_file(self, handle: int, name: str, target: Path) -> None:
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
        except PermissionError as error:
            _unreadable(error)
        with os.fdopen(file, "rb") as old, target.open("xb") as new:
            status = os.fstat(old.fileno())
            self._count(status.st_size)
            shutil.copyfileobj(old, new, CHUNK)
            os.fchmod(new.fileno(), 0o755 if status.st_mode & 0o111 else 0o644)
            new.flush()
            os.fsync(new.fileno())

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise errors.BuildError(
                f"the build left more than builds.cache_size ({self._limit:,} bytes) beside its program; "
                "have the script leave less, or raise the limit"
            )

    def _check_links(self) -> None:
        # Looked at in the copy, whose name and neighbours are other ones: a link that leads out and comes back fails too.
        root = self._target.resolve()
        for link in _links(self._target):
            if link.readlink().is_absolute() or not Path(os.path.realpath(link)).is_relative_to(root):
                raise errors.BuildError(
                    f"the link {link.relative_to(self._target)} leads out of the build's directory, to {link.readlink()}; "
                    "copy what it names instead, or make the link relative"
                )


def _finish_program(program: Path) -> None:
    if not program.exists():
        raise errors.BuildError(f"the script ended well but did not make {program.name}; it must write its second argument")
    if not program.is_file():
        raise errors.BuildError(f"{program.name} is no file; the script must write a program there")
    program.chmod(0o755)


def _links(root: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(root):
        yield from filter(Path.is_symlink, (Path(directory, name) for name in (*directories, *files)))


def _flush_directory(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _prune(directory: Path, root: Path) -> None:
    while directory != root and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _unreadable(error: OSError) -> NoReturn:
    if isinstance(error, PermissionError):
        raise errors.BuildError(f"the build left {error.filename} so that it cannot be read") from error
    raise error


def _unwritable(error: OSError) -> errors.HarnessError:
    return errors.HarnessError(f"the cache of builds cannot be written: {error}; look at the disk it lies on")
