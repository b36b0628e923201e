"""What people sent, by what is in it: verified while it comes, and put in its place in one step. Blocking throughout.

<directory>/.content           files and directories by their digests, as :mod:`aibenchd.specs.content` has them
<directory>/incoming           on its way; nothing of it is left when an upload ends, however it ends
<directory>/specifications     specifications laid out with their files, each under the digest of what it is made of
<directory>/senders            who sent each of both, as :mod:`aibenchd.submissions.senders` has it
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import structlog

from aibenchd import digests, errors, model, quantities
from aibenchd.specs import content, trees
from aibenchd.submissions import senders

LEAST_FREE = 64 << 20  # bytes of the disk that uploads leave to the journal
LEFT_SECONDS = 3600.0  # after which nothing more comes of what lies in the way: an upload is given up long before

log = structlog.get_logger()


class Incoming:
    """One file or directory on its way, which comes as it is or as a tar. Made by :meth:`Kept.begin`; close it.

    Attributes:
        sender: the user that sends it.
        size: bytes that it may have.
    """

    def __init__(self, kept: Kept, digest: str, sender: int, size: int, limit: int, *, is_directory: bool) -> None:
        directory = kept.directory / "incoming"
        directory.mkdir(parents=True, exist_ok=True)
        self.sender, self.size = sender, size
        handle, name = tempfile.mkstemp(dir=directory)
        self._partial = content.Partial(Path(name), os.fdopen(handle, "ab+"), ())
        self._staged = Path(f"{name}.d")
        self._kept, self._digest, self._limit, self._is_directory = kept, digest, limit, is_directory

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError: they are too many.
            NoSpaceError: the disk is full.
        """
        if self._partial.size + len(piece) > self._limit:
            raise _too_large(self._limit)
        with _no_space(self._partial.path):
            self._leave_room()
            self._partial.write(piece)

    def settle(self) -> None:
        """All has come: keep it, on the disk when this returns.

        Raises:
            UploadError: it is not what its digest says, or no tar that may be unpacked.
            NoSpaceError: the disk is full.
        """
        with _no_space(self._partial.path):
            if self._is_directory:
                self._unpack()
            else:
                self._judge(self._partial.digests()["sha256"])
                self._kept.settle(self._digest, self.sender, lambda content: content.keep(self._partial, self._digest))

    def close(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(OSError):  # of what could not be written any more
            self._partial.__exit__()
        trees.delete(self._partial.path)
        trees.delete(self._staged)
        self._kept.ended(self)

    def _unpack(self) -> None:
        from aibenchd.specs import archives  # and what it needs, which the daemon's start need not wait for

        self._partial.flush()
        try:
            archives.unpack(self._partial.path, self._staged, self._limit, self._leave_room)
        except errors.ModelFileError as error:
            raise errors.UploadError(f"the directory that was sent {error}; send a plain one") from error
        self._judge(digests.of_tree(self._staged, digests.OF_TREES_SENT))
        self._kept.settle(self._digest, self.sender, lambda content: content.keep_tree(self._staged, self._digest, self._digest))

    def _leave_room(self) -> None:
        _check_free(self._partial.path.parent)

    def _judge(self, found: str) -> None:
        if found != self._digest:
            advice = "send it again, by an aibenchctl of the daemon's version"
            raise errors.UploadError(f"what came has the digest {found}, and {self._digest} was announced; {advice}")


class Kept:
    """All that people sent and is not let go yet, below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._content = content.Content(directory / content.DIRECTORY, digests.OF_TREES_SENT)
        self._senders = senders.Senders(directory / "senders")
        self._coming: list[Incoming] = []  # in the order in which they began
        self._lock = threading.Lock()

    def has(self, digest: str) -> bool:
        """Whether it is here; asked for, it is kept for longer."""
        if not self._content.has({"sha256": digest}):
            return False
        self._content.use(digest)
        return True

    def path(self, digest: str) -> Path:
        """Where the file or directory is, if it is here."""
        return self._content.path({"sha256": digest})

    def begin(self, digest: str, size: int, limit: int, *, sender: int, is_directory: bool) -> Incoming:
        """Begin to take a file or directory.

        Args:
            digest: SHA-256 of the file, or of the directory :func:`aibenchd.digests.of_tree` by OF_TREES_SENT.
            size: bytes that are announced; 0 where that is not known.
            limit: bytes that it may have; of a directory, its tar and its files.
            sender: the user that sends it.

        Raises:
            TooLargeError: it is announced to be larger.
            NoSpaceError: the disk is full.
        """
        if size > limit:
            raise _too_large(limit)
        with _no_space(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            _check_free(self.directory, size)
            coming = Incoming(self, digest, sender, size or limit, limit, is_directory=is_directory)
        with self._lock:
            self._coming.append(coming)
        return coming

    def settle(self, digest: str, sender: int, keep: Callable[[content.Content], object]) -> None:
        """Have something in its place that has come, and is what its digest says."""
        if not self._content.has({"sha256": digest}):
            self._senders.note(digest, sender)
        keep(self._content)

    def ended(self, coming: Incoming) -> None:
        """It comes no more: all of it is here, or nothing."""
        with self._lock, contextlib.suppress(ValueError):
            self._coming.remove(coming)

    def lay_out(self, files: Mapping[str, str], sender: int) -> Path:
        """A directory that holds what these names stand for; the same for the same files.

        Args:
            files: digests of what is here, by paths that do not leave the directory.
            sender: the user that asks for it.

        Raises:
            UploadError: two of the paths cannot be in one directory.
            NoSpaceError: the disk is full.
        """
        place = self.directory / "specifications" / model.digest_of(sorted(files.items()))
        if place.is_dir():
            place.touch()
            return place
        with _no_space(self.directory), self._staging() as staged:
            for name, digest in files.items():
                _link(self.path(digest), staged / name)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._senders.note(place.name, sender)
            with contextlib.suppress(FileExistsError):  # of another who sends the same
                staged.rename(place)
        return place

    def share_out(self, coming: Incoming, share: int, needed: Collection[str]) -> None:
        """Have all that who sends this has here be ``share`` bytes at most: let go of what they have not used for an hour.

        Raises:
            ShareError: the rest of it is needed, or came just now.
        """
        excess = self._excess(coming, share)
        for path in self._spare(coming.sender, needed):
            if excess > 0 and self._used(path) < time.time() - LEFT_SECONDS:
                self._let_go(path)
                excess = self._excess(coming, share)
        if excess > 0:
            left = "what you sent that is needed now, or came within the hour, leaves too little of your share"
            raise errors.ShareError(
                f"{left} of submissions.cache_size ({quantities.size_text(share)})", self._wait(coming, excess, needed)
            )

    def make_room(self, wanted: int, keep: float, size: int, needed: Collection[str]) -> None:
        """Let go of what :meth:`forget` may, so that ``wanted`` bytes more make no more than ``size``.

        Raises:
            NoSpaceError: all the rest is needed, or came just now.
        """
        self.forget(keep, size - wanted, needed)
        if wanted + sum(trees.sizes(self._all()).values()) > size:
            left = "what is needed now, or came within the hour, leaves too little of submissions.cache_size"
            raise errors.NoSpaceError(f"{left} ({quantities.size_text(size)}); raise it, or wait")

    def sweep(self, older: float = 0.0) -> None:
        """Remove what was left on its way, and who sent what did not come, where it is as old as that, in seconds."""
        for path in _entries(self.directory / "incoming"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime <= time.time() - older:
                    trees.delete(path)
        for name in set(self._senders.names(time.time() - older)) - {path.name for path in self._all()}:
            self._senders.forget(name)

    def forget(self, keep: float, size: int, needed: Collection[str]) -> None:
        """Let go of what was not used for ``keep`` seconds; and of more, least recently used first, until all has ``size`` bytes.

        Args:
            needed: digests, and names of directories with specifications, that stay.
        """
        sizes = trees.sizes(self._all())
        kept = sorted(((self._used(path), path) for path in sizes if path.name not in needed), reverse=True)
        left = size - sum(own for path, own in sizes.items() if path.name in needed)
        oldest, recent = time.time() - keep, time.time() - LEFT_SECONDS  # what has come just now is about to be asked for
        for used, path in kept:
            left -= sizes[path]
            if used < oldest or (left < 0 and used < recent):
                self._let_go(path)

    def _let_go(self, path: Path) -> None:
        log.info("what was submitted was kept long enough", digest=path.name)
        # In one step: half of a program, after a crash, would pass for all of it. Another upload may let go of it too.
        with self._staging() as staged, contextlib.suppress(FileNotFoundError):
            path.rename(staged / path.name)
        (self.directory / content.DIRECTORY / "used" / path.name).unlink(missing_ok=True)
        self._senders.forget(path.name)

    def _excess(self, coming: Incoming, share: int) -> int:
        """By how many bytes more than ``share`` their sender has, with this and what they began to send before it."""
        kept = sum(size for path, size in trees.sizes(self._all()).items() if self._senders.of(path.name) == coming.sender)
        with self._lock:
            before = self._coming[: self._coming.index(coming) + 1]
        return kept + sum(one.size for one in before if one.sender == coming.sender) - share

    def _spare(self, sender: int, needed: Collection[str]) -> list[Path]:
        """What a user sent and no experiment needs, least recently used first."""
        own = (path for path in self._all() if path.name not in needed and self._senders.of(path.name) == sender)
        return sorted(own, key=lambda path: (self._used(path), path))

    def _wait(self, coming: Incoming, excess: int, needed: Collection[str]) -> float | None:
        """In how many seconds so many bytes may be let go; None where experiments have to end before."""
        sizes = trees.sizes(self._all())
        for path in self._spare(coming.sender, needed):
            excess -= sizes.get(path, 0)
            if excess <= 0:
                return max(0.0, self._used(path) + LEFT_SECONDS - time.time())
        return None

    def _all(self) -> Iterator[Path]:
        yield from _entries(self.directory / content.DIRECTORY / "sha256")
        yield from _entries(self.directory / "specifications")

    def _used(self, path: Path) -> float:
        for one in (self.directory / content.DIRECTORY / "used" / path.name, path):
            with contextlib.suppress(FileNotFoundError):
                return one.lstat().st_mtime
        return 0.0  # another let go of it just now

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        (self.directory / "incoming").mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=self.directory / "incoming"))
        try:
            yield staged
        finally:
            trees.delete(staged)


def _too_large(limit: int) -> errors.TooLargeError:
    return errors.TooLargeError(f"more than {quantities.size_text(limit)} is sent; send less, or raise submissions.max_size")


def _check_free(place: Path, size: int = 0) -> None:
    """Whether so much has room, again and again while it comes: others write too, and a packed directory grows.

    Raises:
        OSError: it has not, and leave :data:`LEAST_FREE`.
    """
    if shutil.disk_usage(place).free < size + LEAST_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def _no_space(place: Path) -> Iterator[None]:
    """Say so where the disk is full.

    Raises:
        NoSpaceError: it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = "free some space, or lower submissions.cache_size"
        raise errors.NoSpaceError(f"the disk that {place.parent} lies on is full; {advice}") from error


def _link(source: Path, target: Path) -> None:
    """Have a file, or a directory with all in it, at another place too, without its bytes a second time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link)
        else:
            os.link(source, target)
    except (FileExistsError, NotADirectoryError) as error:
        raise errors.UploadError(f"{target.name} would be a file and a directory; give one of them another name") from error


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
