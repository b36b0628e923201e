"""The directories that one build after another is made in: at the same paths for every revision, so that equal sources
give equal programs. Blocking: use worker threads."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from aibenchd import errors

READABLE = ("chmod", "-R", "u+rX,g+rX", "--")
REMOVED = ("sh", "-c", 'chmod -R u+rwX -- "$@" 2>/dev/null; rm -rf -- "$@"', "sh")


class Slot:
    """A place for the builds of one repository, one at a time.

    Each repository has its own, so that none removes, when it clears what a crash left, what another has there now.

    Where builds run as another user than the daemon, the two share a group, here called ``group``: it may look into the
    place, and write below it. None: they are the same user.

    Attributes:
        source: the work tree; a repository makes and discards it.
        output: what the script leaves here is the build.
        home, temporary: of the script; empty at its start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.output = directory / "output"
        self.home = directory / "home"
        self.temporary = directory / "tmp"

    @property
    def readable(self) -> tuple[str, ...]:
        """The command by which the user that builds run as lets the daemon read what a build left."""
        return (*READABLE, str(self.output))

    @property
    def removed(self) -> tuple[str, ...]:
        """The command by which that user removes what nobody else may."""
        return (*REMOVED, *map(str, (self.source, self.output, self.home, self.temporary)))

    def prepare(self, group: int | None) -> None:
        """Make its directories, all but the work tree."""
        self.directory.mkdir(parents=True, exist_ok=True)
        show(self.directory, group)
        for directory in (self.output, self.home, self.temporary):
            directory.mkdir()
            share(directory, group)

    def remove(self) -> None:
        """Remove what is left of it."""
        if self.directory.exists():
            shutil.rmtree(self.directory)


def show(directory: Path, group: int | None) -> None:
    """Let a group look into one directory; what is made in it is the group's."""
    if group is not None:
        _give(directory, group)
        directory.chmod(0o2750)


def share(directory: Path, group: int | None) -> None:
    """Let a group change a directory and all below it; what is made there is the group's."""
    if group is None:
        return
    # From the bottom, so that nobody of the group changes what is not yet done.
    for path, directories, files in os.walk(directory, topdown=False):
        for name in (*files, *directories):
            _open_up(Path(path, name), group)
    _open_up(directory, group)


def _open_up(path: Path, group: int) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISLNK(mode):
        _give(path, group)
        path.chmod(stat.S_IMODE(mode) | (mode & 0o700) >> 3 | (stat.S_ISGID if stat.S_ISDIR(mode) else 0))


def _give(path: Path, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        raise errors.HarnessError(
            f"{path} cannot be given to group {group}, which builds run as; make the daemon's user a member of it"
        ) from error
