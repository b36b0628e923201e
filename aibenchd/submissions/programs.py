"""The repository of programs that people sent: a program's digest is its commit."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, model, settings
from aibenchd.build import script
from aibenchd.submissions import kept
from aibenchd.watch import lineless


def settings_of(framework: str) -> settings.RepositorySettings:
    """The repository as others know it; what is submitted at one time is of one framework."""
    return settings.RepositorySettings(name=model.SUBMITTED, url=".", framework=framework)


class Submitted(lineless.Lineless):
    """``directory`` is that of :class:`aibenchd.submissions.kept.Kept`."""

    holds_programs = True

    def __init__(self, settings: settings.RepositorySettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self._kept = kept.Kept(directory)

    async def resolve(self, name: str) -> model.Revision:
        return await anyio.to_thread.run_sync(self._revision, name)

    async def check_out(self, commit: str, target: Path) -> None:
        await self.resolve(commit)
        await anyio.to_thread.run_sync(_lay_out, self._kept.path(commit), target)

    def _revision(self, digest: str) -> model.Revision:
        if not self._kept.has(digest):
            raise errors.UnknownRevisionError(f"the program {digest[:12]} that was sent is not kept any more; submit it again")
        # The links to it do not change when it was last written.
        return model.Revision(model.SUBMITTED, digest, datetime.fromtimestamp(int(self._kept.path(digest).stat().st_mtime), UTC))


def judge(program: Path, framework: str, named: str) -> None:
    """See whether something that was sent can be a program of a framework.

    Raises:
        CommandError: it cannot; ``named`` is what who sent it calls it.
    """
    if program.is_dir() and not (program / script.program_name(framework)).is_file():
        script.only_program(program, named)


def _lay_out(program: Path, target: Path) -> None:
    """As the build script of programs takes it."""
    target.mkdir(parents=True)
    if not program.is_dir():
        shutil.copyfile(program, target / "program")
        (target / "program").chmod(0o755)
        return
    shutil.copytree(program, target / "programs")
    executables = [path.name for path in program.iterdir() if path.is_file() and path.stat().st_mode & 0o111]
    if len(executables) == 1:
        (target / "main").write_bytes(os.fsencode(executables[0]))  # which need be no text
