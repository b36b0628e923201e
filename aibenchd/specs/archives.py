"""Directories that come over the network: .tar, .tar.gz, .tar.xz, .tar.bz2 and .zip. Blocking."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from aibenchd import errors
from aibenchd.specs import trees

ENTRIES = 100_000  # of one archive, at most


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of an archive."""

    name: str
    size: int
    program: bool
    content: IO[bytes]


def unpack(archive: Path, target: Path, limit: int) -> None:
    """Unpack the files of an archive to the new directory ``target``; links and devices in it are refused.

    Args:
        limit: bytes, of all files as they are unpacked.

    Raises:
        ModelFileError: it is no archive, broken, too large, or a name in it leads out of the directory.
    """
    target.mkdir()
    left = limit
    try:
        for count, entry in enumerate(_entries(archive)):
            left -= entry.size
            if left < 0 or count >= ENTRIES:
                raise errors.ModelFileError(trees.too_large(limit))
            _write(entry, target)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise errors.ModelFileError(f"is no archive that can be unpacked: {error}; expected .tar, .tar.gz or .zip") from error


def _entries(archive: Path) -> Iterator[_Entry]:
    # In this order: a .tar whose last file is a .zip ends as one.
    return _of_tar(archive) if tarfile.is_tarfile(archive) else _of_zip(archive)


def _of_tar(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isfile() else None
            if content is not None:
                yield _Entry(member.name, member.size, bool(member.mode & 0o111), content)
            elif not member.isdir():
                raise errors.ModelFileError(f"holds {member.name!r}, neither a file nor a directory")


def _of_zip(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for item in packed.infolist():
            mode = item.external_attr >> 16  # as Unix writes it
            if stat.S_ISLNK(mode):
                raise errors.ModelFileError(f"holds {item.filename!r}, neither a file nor a directory")
            if not item.is_dir():
                with packed.open(item) as content:
                    yield _Entry(item.filename, item.file_size, bool(mode & 0o111), content)


def _write(entry: _Entry, target: Path) -> None:
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or not name.parts or "\0" in entry.name:
        raise errors.ModelFileError(f"holds {entry.name!r}, a name that leads out of its directory")
    path = target / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            shutil.copyfileobj(entry.content, file)
            os.fchmod(file.fileno(), 0o555 if entry.program else 0o444)
            file.flush()
            os.fsync(file.fileno())
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise errors.ModelFileError(f"holds {entry.name!r} twice") from error
