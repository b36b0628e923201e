"""Files below a directory that programs write to, who may be hostile: no link of theirs leads out of it.

Links that stay inside are followed. A path is resolved first, and then walked without following any: one put there
meanwhile is as if nothing were there. Blocking: call it in a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aibenchd import errors


def delete(root: Path, path: Path) -> None:
    """Delete a file, or a directory and all in it, if it is there.

    Raises:
        CommandError: it lies outside ``root``, or is ``root``.
        OSError: such as where a program has taken the right to.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _parent(root, path) as directory:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(path.name, dir_fd=directory)
        else:
            os.unlink(path.name, dir_fd=directory)


def copy_out(root: Path, path: Path, target: Path, limit: int) -> None:
    """Copy a file to ``target``, which has either all of it or what it had before.

    Raises:
        CommandError: there is no such file, it lies outside ``root``, is no plain file, or larger than ``limit`` bytes.
        OSError: such as where a program has taken the right to read it.
    """
    with _opened(root, path) as source, landing(target) as file:
        size = os.fstat(source).st_size
        if size > limit:
            raise errors.CommandError(f"{path}: {size} bytes are more than the {limit} that pull_limit lets through")
        with open(source, "rb", closefd=False) as reader:
            shutil.copyfileobj(reader, file, 1 << 20)


@contextlib.contextmanager
def landing(target: Path) -> Iterator[BinaryIO]:
    """What is written becomes ``target`` at the end; where that is not reached, ``target`` has what it had before."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:  # x: nothing that a program put there is followed
            yield file
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(root: Path, path: Path) -> Iterator[int]:
    real = Path(os.path.realpath(path))
    try:
        with _parent(root, real) as directory:
            # without blocking, lest it is a pipe that nobody writes to
            file = os.open(real.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        raise errors.CommandError(f"{path}: the program has not written it") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise errors.CommandError(f"{path}: no plain file")
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _parent(root: Path, path: Path) -> Iterator[int]:
    """The directory that ``path`` is an entry of."""
    top = Path(os.path.realpath(root))
    parent = Path(os.path.realpath(path.parent))
    if not parent.is_relative_to(top) or path.name in ("", ".", ".."):
        raise errors.CommandError(f"{path}: not inside {root}")
    directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parent.relative_to(top).parts:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = below
        yield directory
    finally:
        os.close(directory)
