"""What was pushed to a directory of this host, by its digest. Blocking: call it in a worker thread."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

from aibenchd import digests, errors
from aibenchd.devices import base

DIGEST_LENGTH = 32  # hexadecimal digits in a path: the same for every digest, so that the arms' paths are of equal length
ALGORITHMS = {32: "md5", 64: "sha256"}
INCOMING = ".incoming"
DIRECTORY_MODE = 0o2750  # what is made in it is of the same group, which can look in

Signature = tuple[tuple[str, int, int, int, int, int], ...]


class Pushed:
    """Copies below ``root``, as ``<digest>/<name>``, within ``size_limit`` bytes: the least recently used go first.

    A copy is hashed when it is made, and once more when a session first finds it there; from then on sizes, inodes and
    times are compared. So bytes that are not those of their digest are not run. Programs cannot write to it where
    they are another user's.
    """

    def __init__(self, root: Path, size_limit: int) -> None:
        self._root, self._size_limit = root, size_limit
        self._known: dict[Path, Signature] = {}
        self._used: set[Path] = set()
        self._sizes: dict[Path, int] = {}

    def open(self) -> None:
        """Take stock; what a copy that was broken off has left is removed."""
        shutil.rmtree(self._root / INCOMING, ignore_errors=True)
        _make_directory(self._root / INCOMING)
        self._sizes = {entry: _size(entry) for entry in self._root.iterdir() if entry.name != INCOMING}

    def put(self, push: base.Push) -> Path:
        """Where the copy is; made if it is not there.

        Raises:
            CommandError: a link in it leads out of it, or it holds what is no file.
            HarnessError: its bytes are not those that its digest names, or it cannot be copied.
        """
        place = self._root / _checked(push.digest)[:DIGEST_LENGTH]
        target = place / base.file_name(push.name)
        try:
            self._used.add(place)
            if not self._intact(target, push.digest):
                self._copy(push, target)
            os.utime(place)
        except OSError as error:
            raise errors.HarnessError(f"{push.source} cannot be copied to {target}: {error.strerror}") from error
        return target

    def _intact(self, target: Path, digest: str) -> bool:
        if not os.path.lexists(target):
            return False
        if target not in self._known and _digest(target, digest) == digest:
            self._known[target] = _signature(target)
        return self._known.get(target) == _signature(target)

    def _copy(self, push: base.Push, target: Path) -> None:
        incoming = self._root / INCOMING / push.name
        _delete(incoming)
        _copy(push.source, incoming)
        if (found := _digest(incoming, push.digest)) != push.digest:
            _delete(incoming)
            raise errors.HarnessError(
                f"{push.source}: its digest is {found}, not {push.digest}: it has changed since it was made"
            )
        _delete(target)
        _make_directory(target.parent)
        incoming.rename(target)
        self._known[target] = _signature(target)
        self._sizes[target.parent] = _size(target.parent)
        self._evict()

    def _evict(self) -> None:
        """Never what this session has used: it may be in use."""
        total = sum(self._sizes.values())
        for place in sorted(self._sizes.keys() - self._used, key=lambda place: place.stat().st_mtime_ns):
            if total <= self._size_limit:
                return
            _delete(place)
            total -= self._sizes.pop(place)


def _checked(digest: str) -> str:
    if len(digest) not in ALGORITHMS or not set(digest) <= set("0123456789abcdef"):
        raise errors.HarnessError(f"{digest!r} is no digest: expected 64 (SHA-256) or 32 (MD5) lower case hexadecimal digits")
    return digest


def _digest(path: Path, like: str) -> str:
    if path.is_symlink():
        return ""
    return digests.of_tree(path) if path.is_dir() else digests.of_file(path, ALGORITHMS[len(like)])


def _signature(path: Path) -> Signature:
    entries = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    return tuple(
        (entry.as_posix(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
        for entry in entries
        for found in (entry.lstat(),)
    )


def _size(path: Path) -> int:
    return sum(entry.lstat().st_size for entry in path.rglob("*"))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        _copy_file(source, target)
        return
    _make_directory(target)
    for entry in entries(source):
        copy = target / entry.relative_to(source)
        if entry.is_symlink():
            copy.symlink_to(inside(source, entry))
        elif entry.is_dir():
            _make_directory(copy)
        else:
            _copy_file(entry, copy)


def _make_directory(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(DIRECTORY_MODE)  # past the umask


def entries(directory: Path) -> Iterator[Path]:
    """All below it, a directory before what is in it; links are not followed."""
    for entry in sorted(directory.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from entries(entry)


def inside(root: Path, link: Path) -> PurePath:
    """A link's text, where it leads to something below ``root``, wherever ``root`` is copied to.

    Raises:
        CommandError: it leads elsewhere.
    """
    text = link.readlink()
    end = os.path.normpath(link.parent / text)
    if text.is_absolute() or not PurePath(end).is_relative_to(root):
        raise errors.CommandError(f"{link}: a link to {text}, which is not in what is pushed; put a copy of the file there")
    return text


def _copy_file(source: Path, target: Path) -> None:
    """Sharing the blocks where the file system can."""
    mode = source.stat().st_mode
    if not stat.S_ISREG(mode):
        raise errors.CommandError(f"{source}: neither a file nor a directory, and cannot be pushed")
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except OSError:  # not between these two file systems
            pass
        shutil.copyfileobj(reader, writer, 1 << 20)  # what is left, if anything
        os.fchmod(writer.fileno(), 0o550 if mode & 0o111 else 0o440)
