"""Files by what is in them: verified bytes under the name of their digest, and bytes on their way. Blocking throughout.

<root>/sha256/<digest>      the bytes, or a directory; they come here by one rename, when their digest is known to be right
<root>/md5/<digest>         a link to them, for specifications that know no other digest
<root>/seen/<digest>        a link from a local file without a digest, by its path, to what was in it last time
<root>/used/<digest>        an empty file, as old as the last time that somebody asked for the bytes of that SHA-256
<root>/partial/<digest>     bytes on their way, by where they come from; a later download goes on from them
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import structlog

from aibenchd import digests
from aibenchd.specs import trees

CHUNK = 256 << 10  # bytes
DIRECTORY = ".content"  # below the model cache

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class VerifiedFile:
    """A file, or a directory of files, whose bytes were read and found right.

    Attributes:
        digest: SHA-256, 64 hexadecimal digits; a directory's is :func:`aibenchd.digests.of_tree`.
        name: the file name that the specification gives it, which may have directories.
        size: bytes, of all files in it.
        signature: sizes, inodes and times as they were when it was read.
    """

    path: Path
    digest: str
    name: str
    size: int
    signature: trees.Signature

    def unchanged(self) -> bool:
        """Whether all in it still has the size, inode and modification time of when it was verified. Nothing is read."""
        try:
            return trees.signature(self.path) == self.signature
        except OSError:
            return False


class Partial:
    """Bytes on their way, with the digests of those that have arrived; ``file`` is open at ``path`` for who has this alone."""

    def __init__(self, path: Path, file: IO[bytes], algorithms: Iterable[str]) -> None:
        self.path = path
        self._algorithms = frozenset(algorithms) | {"sha256"}
        self._hashes = _hashes(self._algorithms)
        self.size = 0
        self._file = file
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
        """After what has arrived; it is on the disk only after :meth:`flush`. Blocking."""
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
    """One directory of verified bytes; directories in it go by their digests of the algorithm ``of_trees``."""

    def __init__(self, root: Path, of_trees: str = "sha256") -> None:
        self._root, self._of_trees = root, of_trees

    def find(self, expected: Mapping[str, str], name: str) -> VerifiedFile | None:
        """Read the file of these digests once more; None where it is not there, or is no longer what it was.

        Args:
            expected: hexadecimal digests by algorithm (``sha256``, ``md5``).
            name: the specification's name of it, for the answer.
        """
        path = self.path(expected)
        try:
            before = trees.signature(path)
            self.use(path.name)  # before it is read, so that it is not let go meanwhile
            found = self._digests_of(path, {"sha256", *expected})
        except OSError:
            return None
        if found["sha256"] != path.name:
            log.warning("a file in the model cache is not what it was", path=str(path), **found)
            trees.delete(path)
            return None
        if any(found.get(algorithm) != digest for algorithm, digest in expected.items()):
            return None
        return VerifiedFile(path, path.name, name, trees.size(path), before)

    def path(self, expected: Mapping[str, str]) -> Path:
        """Where the bytes of these digests are, if they are here."""
        algorithm = "sha256" if "sha256" in expected else "md5"
        return (self._root / algorithm / expected[algorithm]).resolve()

    def has(self, expected: Mapping[str, str]) -> bool:
        """Whether something is kept under these digests, and may be seen; it is not read."""
        return bool(expected) and os.path.exists(self.path(expected))  # noqa: PTH110  which takes what may not be seen for absent

    def partial(self, origin: str, algorithms: Iterable[str]) -> Partial:
        """The bytes that have come from ``origin`` so far; close it. Where another process fetches them too: none of them."""
        path = self._below("partial", _name(origin))
        file = _opened_alone(path)
        if file is None:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
            path, file = Path(name), os.fdopen(handle, "ab+")
        return Partial(path, file, algorithms)

    def keep(self, partial: Partial, name: str) -> VerifiedFile:
        """Take over bytes whose digests the caller has compared."""
        partial.flush()
        found = partial.digests()
        known = self.find({"sha256": found["sha256"]}, name)
        if known is None:
            partial.path.chmod(0o444)
            known = self._renamed(partial.path, found["sha256"], name)
        partial.path.unlink(missing_ok=True)
        if "md5" in found:
            link(self._below("md5", found["md5"]), known.path)
        return known

    def staging(self, partial: Partial) -> Path:
        """Where a directory is to be copied to by who has ``partial``; nothing is there."""
        path = partial.path.with_name(f"{partial.path.name}.d")
        trees.delete(path)
        return path

    def keep_tree(self, staged: Path, digest: str, name: str) -> VerifiedFile:
        """Take over a directory whose digest the caller has compared."""
        known = self.find({"sha256": digest}, name) or self._renamed(staged, digest, name)
        trees.delete(staged)
        return known

    def seen(self, local: Path) -> str:
        """The SHA-256 of a local file or directory now; a change since it was last seen is logged."""
        digest = digests.of_tree(local, self._of_trees) if local.is_dir() else digests.of_file(local)
        mark = self._below("seen", _name(str(local)))
        before = mark.readlink().name if mark.is_symlink() else digest
        if before != digest:
            log.warning("a model file without a digest was changed", path=str(local), before=before, now=digest)
        link(mark, self._below("sha256", digest))
        return digest

    def last_seen(self, local: Path) -> str:
        """What :meth:`seen` said of it last time; empty where it was never seen."""
        mark = self._root / "seen" / _name(str(local))
        return mark.readlink().name if mark.is_symlink() else ""

    def _digests_of(self, path: Path, algorithms: Iterable[str]) -> dict[str, str]:
        """Of a file, by algorithm, in one pass; a directory has one digest only, where files have their SHA-256."""
        if path.is_dir():
            return {"sha256": digests.of_tree(path, self._of_trees)}
        totals = _hashes(algorithms)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                for total in totals.values():
                    total.update(chunk)
        return {name: total.hexdigest() for name, total in totals.items()}

    def _renamed(self, path: Path, digest: str, name: str) -> VerifiedFile:
        target = self._below("sha256", digest)
        try:
            path.rename(target)
        except OSError:  # of a directory: another came meanwhile
            known = self.find({"sha256": digest}, name)
            if known is None:
                raise
            return known
        self.use(digest)
        return VerifiedFile(target, digest, name, trees.size(target), trees.signature(target))

    def use(self, digest: str) -> None:
        """Note that somebody asks for the bytes of this SHA-256 now."""
        self._below("used", digest).touch()

    def _below(self, kind: str, name: str) -> Path:
        directory = self._root / kind
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name


def _opened_alone(path: Path) -> IO[bytes] | None:
    """For appending; None where another process has it, or has just taken it over."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("ab+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                stack.pop_all()
                return file
        except OSError:  # one of the directory's own is told by who makes another file there
            pass
    return None


def link(path: Path, target: Path) -> None:
    """A relative symbolic link at ``path``, in place of a link that is there, at no moment absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    relative = Path(os.path.relpath(target, path.parent))
    if path.is_symlink() and path.readlink() == relative:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(relative)
    fresh.replace(path)


def show(root: Path, path: Path, target: Path) -> None:
    """A link to ``target`` at ``path``, below ``root``, for people; none where other links have that path for a directory.

    And none among the verified bytes, whatever a format is called.
    """
    if path.is_relative_to(root / DIRECTORY):
        return
    for parent in path.parents:
        if parent == root:
            break
        if parent.is_symlink():  # into a directory of verified bytes, where nothing may be written
            parent.unlink()
    if path.is_symlink() or not path.is_dir():
        link(path, target)


def _hashes(algorithms: Iterable[str]) -> dict[str, hashlib._Hash]:
    return {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}


def _name(origin: str) -> str:
    return hashlib.sha256(origin.encode(errors="surrogateescape")).hexdigest()
