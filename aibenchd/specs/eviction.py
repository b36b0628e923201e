"""What goes from the model cache when it is too large, and what is left over in it. Blocking."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import structlog

from aibenchd.specs import content, trees

RECENT_SECONDS = 3600.0  # an experiment that begins has all its files before it takes the first in hand
STALE_SECONDS = 7 * 86400.0  # after which nobody goes on with a download

log = structlog.get_logger()


class Store:
    """The files of one model cache.

    Args:
        directory: of the cache: what people find there, and the content below it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._root = directory / content.DIRECTORY
        self._now = time.time()

    def size(self) -> int:
        """Bytes of all that is kept."""
        return sum(map(trees.size, self._kept()))

    def evict(self, wanted: int, needed: Collection[str]) -> int:
        """Remove files that were not used for longest, until ``wanted`` bytes are free; how many are.

        Args:
            needed: SHA-256 of those that stay.
        """
        freed = 0
        for path in sorted(self._kept(), key=self._used):
            if freed >= wanted:
                break
            if path.name not in needed and self._used(path) < self._now - RECENT_SECONDS:
                size = trees.size(path)
                trees.delete(path)
                log.info("a model file was let go", sha256=path.name, bytes=size)
                freed += size
        return freed

    def tidy(self) -> None:
        """Remove downloads that nobody goes on with, and links to what is gone."""
        for path in _entries(self._root / "partial"):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < self._now - STALE_SECONDS:
                    trees.delete(path)
        for kind in ("md5", "seen"):
            for path in _entries(self._root / kind):
                _drop_dangling(path)
        for path in _entries(self._root / "used"):
            if not (self._root / "sha256" / path.name).exists():
                path.unlink(missing_ok=True)
        self._tidy_views()

    def _tidy_views(self) -> None:
        """Links of ours that lead nowhere, and directories that are empty by that; nothing else that may lie there."""
        views: list[Path] = []
        for directory, names, files in os.walk(self._directory):
            if Path(directory) == self._directory:
                names[:] = [name for name in names if name != content.DIRECTORY]
            for name in (*names, *files):
                link = Path(directory, name)
                if link.is_symlink() and content.DIRECTORY in link.readlink().parts:
                    _drop_dangling(link)
            views += (Path(directory, name) for name in names)
        for view in reversed(views):
            with contextlib.suppress(OSError):  # such as one that is not empty
                if view.lstat().st_mtime < self._now - RECENT_SECONDS:  # else a link may be on its way there
                    view.rmdir()

    def _kept(self) -> Iterator[Path]:
        return _entries(self._root / "sha256")

    def _used(self, path: Path) -> float:
        """When it was last asked for, in seconds since 1970."""
        for mark in (self._root / "used" / path.name, path):
            with contextlib.suppress(OSError):
                return mark.stat().st_mtime
        return self._now


def _entries(directory: Path) -> Iterator[Path]:
    return directory.iterdir() if directory.is_dir() else iter(())


def _drop_dangling(link: Path) -> None:
    if link.is_symlink() and not link.exists():
        link.unlink(missing_ok=True)
