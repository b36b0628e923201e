"""What a version control system is to the rest of the house.

A kind is one file with one class derived from :class:`Repository`, and one line under ``aibenchd.repositories``.
"""

from __future__ import annotations

import abc
import difflib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import ClassVar

from aibenchd import faults, model, settings

SEARCHED = 10_000  # branches among which the nearest is looked for; it takes 25 µs each


class Repository(abc.ABC):
    """A clone that the daemon owns, of a remote that it watches.

    ``__init__`` does no I/O. All other methods run the system's own command line, each with a deadline, none
    through a shell, none ever asking for a password. They raise RemoteUnreachableError (tried again by the caller)
    and UnknownRevisionError.
    """

    holds_programs: ClassVar[bool] = False  # whether what it checks out is programs already, laid out as build/programs.sh says

    def __init__(self, settings: settings.RepositorySettings, directory: Path) -> None:
        self.settings = settings
        self.directory = directory

    @abc.abstractmethod
    async def reach(self) -> None:
        """Ask the remote whether it has the watched branch, for a person who wants to know before the daemon does.

        Nothing is cloned, and a daemon that has a clone of it is not disturbed.

        Raises:
            RemoteUnreachableError: it does not answer, or refuses; with the tool's own words.
            UnknownRevisionError: it has no such branch; the nearest that it has are named.
        """

    @abc.abstractmethod
    async def fetch(self) -> str:
        """Bring the clone up to date (made if it is not there); the full commit id of the watched branch's head."""

    @abc.abstractmethod
    async def resolve(self, name: str) -> model.Revision:
        """The revision that a commit id, an unambiguous prefix, a tag or a branch names."""

    @abc.abstractmethod
    def history(self, head: str, *, after: str = "") -> AsyncGenerator[model.Revision, None]:
        """First-parent line from ``head`` (newest first), streamed, up to but without ``after``, with path filters applied.

        ``position`` counts first-parent commits from the root, so that it is the same whenever it is asked.
        Close it (``contextlib.aclosing``) where it is not read to its end.
        """

    @abc.abstractmethod
    async def on_line(self, head: str, commit: str) -> bool:
        """Whether ``commit`` is on the first-parent line of ``head``; False where it is unknown."""

    @abc.abstractmethod
    async def sides(self, merge: str, onto: str, limit: int) -> list[list[model.Revision]]:
        """The lines of commits that a merge brought into ``onto``, a commit below it: one for each of its parents that has any.

        A line is oldest first. It begins with the merge base of ``onto`` and the parent; then come the commits of the parent's
        first-parent line that hold that base, ``limit`` of the newest at most, with path filters applied. Where the first of
        them came to the base by another than its first parent, it is a merge that brought in what lies before it, and is
        relevant. A parent that shares no commit with ``onto`` has no line.
        """

    @abc.abstractmethod
    async def check_out(self, commit: str, target: Path) -> None:
        """A work tree at ``commit`` in the new directory ``target``, with submodules and large files as configured."""

    @abc.abstractmethod
    async def discard(self, target: Path) -> None:
        """Remove a work tree that :meth:`check_out` made, and what the clone remembers of it."""


def suggestion(branch: str, there: Sequence[str]) -> str:
    """Which of the branches of a remote a person may have meant, or which there are. Blocking, up to a quarter of a second."""
    return faults.suggestion(branch, difflib.get_close_matches(branch, there[:SEARCHED], 1) or there)
