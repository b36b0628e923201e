"""Directories as they are: their size, their copies, and what tells that they have changed. Blocking throughout.

Programs under test may own what is looked at here and change it meanwhile: no link is followed, and what is neither a
file, a directory nor a link that stays inside is refused.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from aibenchd import errors

CHUNK = 1 << 20  # bytes

Signature: TypeAlias = tuple[tuple[str, int, int, int, int], ...]


def nothing() -> None:
    """For who need not be told that a copy goes on."""


def signature(path: Path) -> Signature:
    """Name, size, inode, modification time (ns) and mode of a file, or of a directory and all below it; nothing is read."""
    entries = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    return tuple(
        (entry.relative_to(path).as_posix(), found.st_size, found.st_ino, found.st_mtime_ns, found.st_mode)
        for entry in entries
        for found in (entry.lstat(),)
    )


def size(path: Path) -> int:
    """The bytes of a file, or of all files below a directory; what vanishes meanwhile does not count."""
    return sum(one.st_size for one in _files(path))


def sizes(paths: Iterable[Path]) -> dict[Path, int]:
    """As :func:`size`, of each of these; what has several names in them has its bytes at the first."""
    counted: set[tuple[int, int]] = set()
    found: dict[Path, int] = {}
    for path in paths:
        found[path] = 0
        for one in _files(path):
            found[path] += 0 if (one.st_dev, one.st_ino) in counted else one.st_size
            counted.add((one.st_dev, one.st_ino))
    return found


def judge(root: Path) -> None:
    """See whether a directory can be copied.

    Raises:
        ModelFileError: there is what can not be, or a link leads out of it.
    """
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            _judge(root, Path(directory, name))


def copy(source: Path, target: Path, limit: int, going_on: Callable[[], None] = nothing) -> None:
    """Copy a directory to ``target``, on the disk when this returns; modes come down to whether it is a program.

    Args:
        limit: bytes.
        going_on: called again and again; may raise to end it.

    Raises:
        ModelFileError: it is larger than ``limit``, or :func:`judge` refuses it.
    """
    _Copy(source, target, limit, going_on).run()
    judge(target)


def delete(path: Path) -> None:
    """A file, a link, or a directory with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def open_plain(path: str | Path, directory: int | None = None) -> int:
    """A file for reading; not a link, and without waiting where it is a pipe that nobody writes to.

    Raises:
        ModelFileError: it cannot be read, or is no plain file.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise errors.ModelFileError(f"cannot be read: {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise errors.ModelFileError(f"is no plain file: {path}")
    return file


class _Copy:
    def __init__(self, source: Path, target: Path, limit: int, going_on: Callable[[], None]) -> None:
        self._source, self._target, self._limit, self._going_on = source, target, limit, going_on
        self._size = 0

    def run(self) -> None:
        self._target.mkdir()
        for directory, directories, names, handle in os.fwalk(self._source, onerror=_raised):
            for name in (*directories, *names):
                self._entry(handle, name, self._target / Path(directory, name).relative_to(self._source))
        self._target.chmod(0o755)

    def _entry(self, handle: int, name: str, target: Path) -> None:
        mode = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            target.mkdir(mode=0o755)
            target.chmod(0o755)
        elif stat.S_ISLNK(mode):
            target.symlink_to(os.readlink(name, dir_fd=handle))
        else:
            self._file(open_plain(name, handle), target)

    def _file(self, source: int, target: Path) -> None:
        with open(source, "rb") as reader, target.open("xb") as writer:
            while chunk := reader.read(CHUNK):
                self._going_on()
                self._size += len(chunk)
                if self._size > self._limit:
                    raise errors.ModelFileError(too_large(self._limit))
                writer.write(chunk)
            os.fchmod(writer.fileno(), 0o555 if os.fstat(source).st_mode & 0o111 else 0o444)
            writer.flush()
            os.fsync(writer.fileno())


def too_large(limit: int) -> str:
    """What is wrong with a file or directory, to be said after its name; ``limit`` in bytes."""
    return f"is larger than {limit} bytes; raise models.max_file_size to allow it"


def _judge(root: Path, path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        text = path.readlink()
        # By where it leads, not by its text: what is a link itself may stand before a "..".
        if text.is_absolute() or not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
            raise errors.ModelFileError(
                f"holds {path.relative_to(root)}, a link to {text}, which leads out; put a copy of the file there"
            )
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise errors.ModelFileError(f"holds {path.relative_to(root)}, neither a file nor a directory; remove it")


def _files(root: Path) -> Iterator[os.stat_result]:
    """A file or a link, or all files below a directory that can be seen."""
    if root.is_symlink() or not root.is_dir():
        with contextlib.suppress(FileNotFoundError):
            yield root.lstat()
        return
    waiting = [root]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    yield entry.stat(follow_symlinks=False)


def _raised(error: OSError) -> None:
    raise error
