"""Files by what is in them: verified bytes under the name of their digest, and bytes on their way. Blocking throughout.

<root>/sha256/<digest>      the bytes; they come here by one rename, when their digest is known to be right
<root>/md5/<digest>         a link to them, for specifications that know no other digest
<root>/seen/<digest>        a link from a local file without a digest, by its path, to what was in it last time
<root>/partial/<digest>     bytes on their way, by where they come from; a later download goes on from them
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import structlog

from aibenchd import digests

CHUNK = 256 << 10  # bytes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A file whose bytes were read and found right.

    Attributes:
        digest: SHA-256, 64 hexadecimal digits.
        name: the file name that the specification gives it, which may have directories.
        size, inode, modified: as they were when it was read; ``modified`` in nanoseconds.
    """

    path: Path
    digest: str
    name: str
    size: int
    inode: int
    modified: int

    def unchanged(self) -> bool:
        """Whether the file still has the size, inode and modification time of when it was verified. One ``stat``."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_size, now.st_ino, now.st_mtime_ns) == (self.size, self.inode, self.modified)


class Partial:
    """Bytes on their way, with the digests of those that have arrived."""

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self.path = path
        self._algorithms = frozenset(algorithms) | {"sha256"}
        self._hashes = _hashes(self._algorithms)
        self.size = 0
        self._file: IO[bytes] = path.open("ab+")
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._count(chunk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def restart(self) -> None:
        """Forget what has arrived."""
        self._file.truncate(0)
        self._hashes = _hashes(self._algorithms)
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._count(chunk)

    def digests(self) -> dict[str, str]:
        """By algorithm, of all that has arrived."""
        return {name: total.hexdigest() for name, total in self._hashes.items()}

    def flush(self) -> None:
        """Have it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for total in self._hashes.values():
            total.update(chunk)


class Content:
    """One directory of verified bytes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, expected: Mapping[str, str], name: str) -> VerifiedFile | None:
        """Read the file of these digests once more; None where it is not there, or is no longer what it was.

        Args:
            expected: hexadecimal digests by algorithm (``sha256``, ``md5``).
            name: the specification's name of it, for the answer.
        """
        algorithm = "sha256" if "sha256" in expected else "md5"
        path = (self._root / algorithm / expected[algorithm]).resolve()
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                found = _digests(file, {"sha256", *expected})
        except OSError:
            return None
        if found != {"sha256": path.name, **expected}:
            log.warning("a file in the model cache is not what it was", path=str(path), **found)
            path.unlink(missing_ok=True)
            return None
        return VerifiedFile(path, path.name, name, state.st_size, state.st_ino, state.st_mtime_ns)

    def partial(self, origin: str, algorithms: Iterable[str]) -> Partial:
        """The bytes that have come from ``origin`` so far, for one caller at a time; close it."""
        return Partial(self._below("partial", _name(origin)), algorithms)

    def keep(self, partial: Partial, name: str) -> VerifiedFile:
        """Take over bytes whose digests the caller has compared."""
        partial.flush()
        found = partial.digests()
        known = self.find({"sha256": found["sha256"]}, name) or self._renamed(partial, found["sha256"], name)
        partial.path.unlink(missing_ok=True)
        if "md5" in found:
            link(self._below("md5", found["md5"]), known.path)
        return known

    def seen(self, file: Path) -> str:
        """The SHA-256 of a local file now; a change since it was last seen is logged."""
        digest = digests.of_file(file)
        mark = self._below("seen", _name(str(file)))
        before = mark.readlink().name if mark.is_symlink() else digest
        if before != digest:
            log.warning("a model file without a digest was changed", path=str(file), before=before, now=digest)
        link(mark, self._below("sha256", digest))
        return digest

    def _renamed(self, partial: Partial, digest: str, name: str) -> VerifiedFile:
        path = self._below("sha256", digest)
        partial.path.replace(path)
        path.chmod(0o444)
        state = path.stat()
        return VerifiedFile(path, digest, name, state.st_size, state.st_ino, state.st_mtime_ns)

    def _below(self, kind: str, name: str) -> Path:
        directory = self._root / kind
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name


def link(path: Path, target: Path) -> None:
    """A relative symbolic link at ``path``, in place of one that is there, at no moment absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    relative = Path(os.path.relpath(target, path.parent))
    if path.is_symlink() and path.readlink() == relative:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(relative)
    fresh.replace(path)


def _hashes(algorithms: Iterable[str]) -> dict[str, hashlib._Hash]:
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def _digests(file: IO[bytes], algorithms: Iterable[str]) -> dict[str, str]:
    """Of the rest of a file, by algorithm, in one pass."""
    totals = _hashes(algorithms)
    while chunk := file.read(CHUNK):
        for total in totals.values():
            total.update(chunk)
    return {name: total.hexdigest() for name, total in totals.items()}


def _name(origin: str) -> str:
    return hashlib.sha256(origin.encode(errors="surrogateescape")).hexdigest()
