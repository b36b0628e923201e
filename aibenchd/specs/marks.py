"""How a change of what specifications were read from is noticed. Blocking."""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias


class Mark(NamedTuple):
    """What is different where the bytes of a file, or the names in a directory, are."""

    mode: int
    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns

    @property
    def is_directory(self) -> bool:
        """Whether it is one itself; a link to one is not."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file, and no link, pipe or device."""
        return stat.S_ISREG(self.mode)


Marks: TypeAlias = Mapping[Path, Mark | None]


def of(path: Path) -> Mark | None:
    """The mark of a file or directory; None where there is nothing that can be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Mark(found.st_mode, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def now(paths: Iterable[Path]) -> Marks:
    """The marks of all of them as they are."""
    return {path: of(path) for path in paths}


def timed(paths: Iterable[Path]) -> tuple[Marks, float]:
    """As :func:`now`, with the seconds of a CPU that it took."""
    began = time.thread_time()
    return now(paths), time.thread_time() - began
