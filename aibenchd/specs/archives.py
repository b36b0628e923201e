"""Directories that come over the network: .tar, .tar.gz, .tar.xz, .tar.bz2 and .zip. Blocking."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import math
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from aibenchd import errors
from aibenchd.specs import trees

ENTRIES = 100_000  # of one archive, at most
DEPTH = 100  # of one, at most: who walks through a thousand directories within each other, as to remove them, does not come back
PIECE = 1 << 20  # bytes read at a time; a .tar's headers of one file that are more are none
PACKED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))  # how a packed .tar begins
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a way to pack that is not known here
    RuntimeError,  # a password
    ValueError,  # names that are no text among them
    OverflowError,
    LookupError,  # of a header that ends too soon
)
OF_ARCHIVES = (None, errno.EINVAL, errno.ENAMETOOLONG)  # an OSError's number, where it is no fault of the disk's


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of an archive; a directory has no content."""

    name: str
    size: int
    program: bool
    content: IO[bytes] | None


def unpack(archive: Path, target: Path, limit: int, going_on: Callable[[], None] = trees.nothing) -> None:
    """Unpack an archive to the new directory ``target``; links and devices in it are refused.

    Args:
        limit: bytes, of all files as they are unpacked.
        going_on: called again and again; may raise to end it.

    Raises:
        ModelFileError: it is no archive, broken, too large, or a name in it leads out of the directory.
    """
    target.mkdir()
    left = limit
    try:
        with archive.open("rb") as file:
            for count, entry in enumerate(_entries(file)):
                left -= entry.size
                if left < 0:
                    raise errors.ModelFileError(trees.too_large(limit))
                if count >= ENTRIES:
                    raise errors.ModelFileError(f"holds more than {ENTRIES} files and directories")
                _write(entry, target, going_on)
    except BROKEN as error:
        raise _broken(str(error)) from error
    except OSError as error:
        if error.errno not in OF_ARCHIVES:
            raise
        raise _broken(error.strerror or str(error)) from error


def _broken(reason: str) -> errors.ModelFileError:
    return errors.ModelFileError(f"is no archive that can be unpacked: {reason}; expected .tar, .tar.gz or .zip")


def _entries(archive: IO[bytes]) -> Iterator[_Entry]:
    begin = archive.read(8)
    archive.seek(0)
    with contextlib.ExitStack() as stack:
        for magic, opened in PACKED:
            if begin.startswith(magic):
                yield from _of_tar(cast(IO[bytes], stack.enter_context(opened(archive, "rb"))))
                return
        # In this order: a .tar whose last file is a .zip ends as one.
        yield from _of_tar(archive) if tarfile.is_tarfile(cast(IO[bytes], _Careful(archive))) else _of_zip(archive)


class _Careful:
    """A file for :mod:`tarfile`, which reads headers at once, however long and however many they say that they are.

    Attributes:
        left: bytes that may be read still, before it is set anew.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell, self.seek = file.tell, file.seek
        self.left: float = PIECE

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"headers of more than {PIECE} bytes")
        return self._file.read(size)


def _of_tar(archive: IO[bytes]) -> Iterator[_Entry]:
    careful = _Careful(archive)
    with tarfile.open(fileobj=cast(IO[bytes], careful), mode="r:") as packed:
        for member in packed:
            careful.left = math.inf  # of its content, whose size is known
            content = packed.extractfile(member) if member.isfile() else None
            if content is None and not member.isdir():
                raise errors.ModelFileError(f"holds {member.name!r}, neither a file nor a directory")
            yield _Entry(member.name, member.size if content else 0, bool(member.mode & 0o111), content)
            careful.left = PIECE


def _of_zip(archive: IO[bytes]) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for item in packed.infolist():
            mode = item.external_attr >> 16  # as Unix writes it
            if stat.S_ISLNK(mode):
                raise errors.ModelFileError(f"holds {item.filename!r}, neither a file nor a directory")
            if item.is_dir():
                yield _Entry(item.filename, 0, False, None)
                continue
            with packed.open(item) as content:
                yield _Entry(item.filename, item.file_size, bool(mode & 0o111), content)


def _write(entry: _Entry, target: Path, going_on: Callable[[], None]) -> None:
    name = PurePosixPath(entry.name)
    whole = entry.content is None and not name.parts  # "./", the directory itself
    if name.is_absolute() or ".." in name.parts or not (name.parts or whole) or "\0" in entry.name:
        raise errors.ModelFileError(f"holds {entry.name!r}, a name that leads out of its directory")
    if len(name.parts) > DEPTH:
        raise errors.ModelFileError(f"holds more than {DEPTH} directories within each other")
    path = target / name
    try:
        if entry.content is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            while piece := entry.content.read(PIECE >> 2):
                going_on()
                file.write(piece)
            os.fchmod(file.fileno(), 0o555 if entry.program else 0o444)
            file.flush()
            os.fsync(file.fileno())
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise errors.ModelFileError(f"holds {entry.name!r} twice") from error
