"""The directory of one clone: one process has it, and what an earlier one left there is cleared away.

Beside the clone itself it has ``trees/``, a note of every work tree that was made, and ``in-use``, which is locked by
the daemon and, because they inherit the lock, by every program that it started here. So a git that outlives a killed
daemon keeps the next daemon from taking its lock files for stale ones.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread

from aibenchd import errors


@contextlib.contextmanager
def _host_at_fault() -> Iterator[None]:
    """What the file system refuses is this host's fault, said with the path that it refused."""
    try:
        yield
    except OSError as error:
        raise errors.HarnessError(
            f"{error.filename or 'clone'}: {error.strerror or error}; look at the disk and its rights"
        ) from error


class Clone:
    """Get it by :func:`at`: all who work on a directory in this process share one, and its locks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor: int | None = None
        self._locks: dict[str, anyio.Lock] = collections.defaultdict(anyio.Lock)

    def lock(self, name: str) -> anyio.Lock:
        """One task at a time for what ``name`` stands for within this clone."""
        return self._locks[name]

    async def hold(self, sweep: Callable[[], None]) -> int:
        """The descriptor that keeps the directory ours. When it is taken, leftovers of an earlier process are cleared.

        ``sweep`` runs in a worker thread then, before anybody else is let in; leftover work trees are removed first.

        Raises:
            HarnessError: a program of an earlier daemon still works there, or the directory cannot be written.
        """
        async with self.lock("hold"):
            if self._descriptor is None:
                descriptor = self._take()
                try:
                    await anyio.to_thread.run_sync(self._clear, sweep)
                except BaseException:
                    os.close(descriptor)
                    raise
                self._descriptor = descriptor
            return self._descriptor

    @_host_at_fault()
    def put(self, path: Path, text: str) -> None:
        """See that a small file of the clone says ``text``, readable by the daemon alone; whole or as it was."""
        with contextlib.suppress(FileNotFoundError):
            if path.read_text(errors="surrogateescape") == text:
                return
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        new.touch(0o600)
        new.write_text(text, errors="surrogateescape")
        new.replace(path)

    @contextlib.asynccontextmanager
    async def claimed(self, target: Path, discard: Callable[[Path], Awaitable[None]]) -> AsyncIterator[Path]:
        """Make a work tree at ``target`` within; yields its absolute path, where nothing or an empty directory is.

        ``discard`` removes one: a leftover before, and the unfinished one where the making fails or is cancelled.

        Raises:
            HarnessError: something is there that was not made here.
        """
        tree = await anyio.to_thread.run_sync(Path.absolute, target)
        if self._note(tree).exists():
            await discard(tree)
        await anyio.to_thread.run_sync(self._claim, tree)
        try:
            yield tree
        except BaseException:
            with anyio.CancelScope(shield=True):
                await discard(tree)
            raise

    async def release(self, target: Path) -> None:
        """Remove the work tree at ``target``, then the note of it: in this order, so that a crash forgets none."""
        await anyio.to_thread.run_sync(self._release, target)

    @_host_at_fault()
    def _take(self) -> int:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor = os.open(self.directory / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise errors.HarnessError(
                f"{self.directory}: in use by another daemon, or by a program that one left behind; "
                f"'fuser {self.directory / 'in-use'}' names it"
            ) from None
        return descriptor

    @_host_at_fault()
    def _clear(self, sweep: Callable[[], None]) -> None:
        for note in self.directory.glob("trees/*"):
            remove(Path(os.fsdecode(note.read_bytes())))
            note.unlink()
        sweep()

    @_host_at_fault()
    def _claim(self, tree: Path) -> None:
        if tree.is_symlink() or (tree.exists() and (not tree.is_dir() or any(tree.iterdir()))):
            raise errors.HarnessError(f"{tree}: is there already and was not made by this clone; remove it")
        note = self._note(tree)
        note.parent.mkdir(exist_ok=True)
        note.write_bytes(os.fsencode(tree))

    @_host_at_fault()
    def _release(self, target: Path) -> None:
        tree = target.absolute()
        remove(tree)
        self._note(tree).unlink(missing_ok=True)

    def _note(self, tree: Path) -> Path:
        return self.directory / "trees" / hashlib.sha256(os.fsencode(tree)).hexdigest()[:32]


@functools.cache
def _at(directory: Path) -> Clone:
    return Clone(directory)


def at(directory: Path) -> Clone:
    """The one :class:`Clone` of a directory in this process."""
    return _at(directory.absolute())


def remove(path: Path) -> None:
    """Remove whatever is at ``path``; directories that a build made read-only too. Blocking."""
    if path.is_symlink() or path.is_file():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        _make_writable(path)
        shutil.rmtree(path)


def _make_writable(root: Path) -> None:
    root.chmod(stat.S_IRWXU)
    for directory, names, _ in os.walk(root):  # each name is mended before the walk goes into it
        for path in (Path(directory) / name for name in names):
            if not path.is_symlink():
                path.chmod(stat.S_IRWXU)
