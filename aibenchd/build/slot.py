"""The directories that one build after another is made in: at the same paths for every revision, so that equal sources
give equal programs. Blocking: use worker threads."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from aibenchd import errors
from aibenchd.devices import launching

EVERYTHING = ("sh", "-c", 'chmod -R u+rwX -- "$@" 2>/dev/null; rm -rf -- "$@"', "sh")


class Slot:
    """One of ``builds.parallel`` places to build in.

    Attributes:
        source: the work tree; a repository makes and discards it.
        output: what the script leaves here is the build.
        home, temporary: of the script; empty at its start.
    """

    def __init__(self, directory: Path) -> None:
        self.name = directory.name
        self.directory = directory
        self.source = directory / "source"
        self.output = directory / "output"
        self.home = directory / "home"
        self.temporary = directory / "tmp"

    @property
    def directories(self) -> tuple[Path, ...]:
        """Those that a build may write in."""
        return (self.source, self.output, self.home, self.temporary)

    @property
    def removal(self) -> tuple[str, ...]:
        """The command that removes all in it that only the user may remove that builds run as; run it as that user."""
        return (*EVERYTHING, *map(str, self.directories))

    def prepare(self, group: int | None) -> None:
        """Make its directories, all but the work tree, as :func:`make` does."""
        for directory in (self.output, self.home, self.temporary):
            make(directory, group)

    def remove(self) -> None:
        """Remove what is left of it."""
        if self.directory.exists():
            shutil.rmtree(self.directory)


def common_group(identity: launching.Identity) -> int | None:
    """The group by which the daemon and the user that builds run as share files; None where they are the same user.

    Raises:
        HarnessError: they have none in common.
    """
    if identity.uid == os.geteuid():
        return None
    for group in (identity.gid, *identity.groups):
        if os.geteuid() == 0 or group in (os.getegid(), *os.getgroups()):
            return group
    raise errors.HarnessError(
        f"builds run as user {identity.uid}, who is in none of the daemon's groups; "
        f"add the daemon's user to group {identity.gid} and restart it"
    )


def make(directory: Path, group: int | None) -> None:
    """Make a directory, if it is not there, and :func:`share` it."""
    if not directory.exists():
        directory.mkdir(parents=True)
        share(directory, group)


def share(directory: Path, group: int | None) -> None:
    """Let a group change all below ``directory``; what it adds there stays the group's. None: nobody to share with."""
    if group is None:
        return
    for path in (directory, *_walk(directory)):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        os.chown(path, -1, group)
        path.chmod(stat.S_IMODE(mode) | (mode & 0o700) >> 3 | (stat.S_ISGID if stat.S_ISDIR(mode) else 0))


def _walk(root: Path) -> Iterator[Path]:
    for directory, directories, files in os.walk(root):
        yield from (Path(directory, name) for name in (*directories, *files))
