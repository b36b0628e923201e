"""The commits of a small engine that runs a SqueezeNet, and how they become a repository.

Each commit is an edit of the files before it. One makes the engine slower, one faster, for reasons that happen in real
engines; the others are harmless.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aibenchd import model

BRANCH = "main"
AUTHOR = ("-c", "user.name=Engine", "-c", "user.email=engine@localhost")


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``old``, which occurs once, by ``new``; an empty ``old`` makes the file."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One revision, and what must be found of it; None for the first, which has no control."""

    subject: str
    edits: tuple[Edit, ...]
    expected: model.Verdict | None


@dataclass(frozen=True, slots=True)
class Engine:
    """What is watched.

    Attributes:
        framework: on which it runs.
        commits: oldest first.
        command: what its program is told.
        iterations: of each trial.
    """

    framework: str
    commits: Sequence[Commit]
    command: str
    iterations: int


def write(history: Sequence[Commit], remote: Path, work: Path) -> list[str]:
    """Make a bare git repository at ``remote`` with the whole history; ids of its commits, oldest first."""
    _git(work.parent, "init", "-q", "-b", BRANCH, str(work))
    commits: list[str] = []
    began = datetime.now(UTC) - timedelta(days=len(history))
    for age, commit in enumerate(history):
        for edit in commit.edits:
            apply(edit, work)
        _git(work, "add", "-A")
        time = (began + timedelta(days=age)).isoformat(timespec="seconds")
        _git(work, *AUTHOR, "commit", "-q", "-m", commit.subject, "--date", time, env={"GIT_COMMITTER_DATE": time})
        commits.append(_git(work, "rev-parse", "HEAD").strip())
    _git(work.parent, "clone", "-q", "--bare", str(work), str(remote))
    return commits


def apply(edit: Edit, work: Path) -> None:
    """Carry out one edit in a work tree."""
    path = work / edit.file
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if edit.old else ""
    if before.count(edit.old) != 1 and edit.old:
        raise ValueError(f"{edit.file}: {edit.old!r} occurs {before.count(edit.old)} times, expected once")
    path.write_text(before.replace(edit.old, edit.new) if edit.old else edit.new)


def _git(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=directory, env={**os.environ, **(env or {})}, check=True, capture_output=True, text=True
    ).stdout
