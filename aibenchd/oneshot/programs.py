"""Programs in place of commits: a file, or a directory with all that belongs to it, which a person names by its path."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from aibenchd import digests, errors, model, settings
from aibenchd.build import script
from aibenchd.watch import clone, lineless

BUILD = '#!/bin/sh\nset -e\ncp -R -p "$1"/. "$(dirname "$2")"/\n'  # programs are there already


@dataclass(frozen=True, slots=True)
class Given:
    """One arm's program.

    Attributes:
        main: a file, or a directory that holds it as ``<framework>_benchmark`` or as its only executable.
        is_source: whether it is what a build script makes a program of; then it is a directory.
        others: more programs by the names that commands call them by.
        commit, time: what reports say that it was made of; empty where nobody said: its digest, and when it was changed last.
    """

    main: Path
    is_source: bool = False
    others: Mapping[str, Path] = field(default_factory=dict)
    commit: str = ""
    time: datetime | None = None


class Programs(lineless.Lineless):
    """Each is copied when it is resolved: what becomes of the file while it is measured changes nothing.

    Args:
        given: by the name that :meth:`resolve` is asked for.
    """

    def __init__(self, settings: settings.RepositorySettings, directory: Path, given: Mapping[str, Given]) -> None:
        super().__init__(settings, directory)
        self._given = given
        self._known: dict[str, tuple[model.Revision, Path]] = {}

    async def resolve(self, name: str) -> model.Revision:
        if name in self._given:
            revision, place = await anyio.to_thread.run_sync(self._copied, name, self._given[name])
            self._known[revision.commit] = (revision, place)
        elif name in self._known:
            revision, _ = self._known[name]
        else:
            raise errors.UnknownRevisionError(f"{name} is no program of this run")
        return revision

    async def check_out(self, commit: str, target: Path) -> None:
        await self.resolve(commit)
        _, place = self._known[commit]
        await anyio.to_thread.run_sync(lambda: shutil.copytree(place, target, symlinks=True, dirs_exist_ok=True))

    def _copied(self, name: str, given: Given) -> tuple[model.Revision, Path]:
        draft = self.directory / ".incoming"
        try:
            if draft.exists():
                clone.remove(draft)
            draft.mkdir(parents=True)
            _copy(given, draft, script.program_name(self.settings.framework))
            digest = digests.of_tree(draft)
            place = self.directory / digest
            if place.exists():
                clone.remove(draft)
            else:
                draft.rename(place)
            time = given.time or datetime.fromtimestamp(int(given.main.stat().st_mtime), UTC)
        except OSError as error:
            raise errors.CommandError(f"{error.filename or given.main}: {error.strerror or error}") from error
        return model.Revision(self.settings.name, given.commit or digest, time, subject=name), place


def write_script(directory: Path, framework: str) -> None:
    """The build script of programs that need no building."""
    place = directory / framework / script.NAME
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(BUILD)
    place.chmod(0o755)


def _copy(given: Given, target: Path, name: str) -> None:
    if given.main.is_dir():
        shutil.copytree(given.main, target, symlinks=True, dirs_exist_ok=True)
        if not given.is_source and not (target / name).exists():
            (target / name).symlink_to(script.only_program(given.main, str(given.main)))
    else:
        shutil.copy2(given.main, target / name)
        (target / name).chmod(0o755)
    for other, path in given.others.items():
        shutil.copy2(path, target / other)
