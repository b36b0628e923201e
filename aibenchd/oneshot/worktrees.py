"""A developer's own repository: whatever its tools call a commit there, and the working tree as it is.

The working tree becomes a commit of our clone alone: not an object, a ref or an index entry is written in the repository itself
(but hg may refresh its caches when it is asked what has changed). It is dated as the commit below it, so that the same changes
are the same commit, which is built once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, model
from aibenchd.oneshot.options import WORK_TREE
from aibenchd.settings import RepositorySettings
from aibenchd.watch import git, hg, mirror, process

AUTHOR = {"name": "aibenchd", "email": "aibenchd@localhost"}
SUBJECT = "the working tree"


class Git(git.Git):
    """Its ``url`` is the root of a working tree."""

    def __init__(self, settings: RepositorySettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self._own = Path(settings.url)

    async def resolve(self, name: str) -> model.Revision:
        if name in WORK_TREE:
            return await super().resolve(await self._snapshot())
        return await super().resolve(await self._meant(name))

    async def _meant(self, name: str) -> str:
        """The full id of what the repository itself calls so, ``HEAD~1`` and the like; ``name`` where it knows none."""
        if name.startswith("-"):
            return name
        with contextlib.suppress(process.ProgramFailedError):
            return await (await self._theirs()).output("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return name

    async def _theirs(self) -> process.Program:
        """git as it runs in the repository itself, where it changes nothing: it does not even refresh the index."""
        ours = await self._git()
        return dataclasses.replace(
            ours, arguments=("git", "-C", str(self._own)), environment={**ours.environment, "GIT_OPTIONAL_LOCKS": "0"}
        )

    async def _snapshot(self) -> str:
        head = await self._meant("HEAD")
        watched = await self._mirror()
        await watched.obtain(head)
        await self._refuse_changed_submodules()
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            tree = await self._tree(watched, head, Path(scratch) / "index")
        if tree == await watched.git.output("rev-parse", f"{head}^{{tree}}"):
            return head
        date = await watched.git.output("show", "--no-patch", "--format=%ct +0000", head)
        who = {f"GIT_{role}_{key.upper()}": value for role in ("AUTHOR", "COMMITTER") for key, value in AUTHOR.items()}
        dated = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        made = dataclasses.replace(watched.git, environment={**watched.git.environment, **who, **dated})
        commit = await made.output("commit-tree", tree, "-p", head, "-m", SUBJECT)
        await watched.keep(commit)
        return commit

    async def _tree(self, watched: mirror.Mirror, head: str, index: Path) -> str:
        """The working tree as a tree object of our mirror."""
        theirs = await self._theirs()
        real = self._own / await theirs.output("rev-parse", "--git-path", "index")
        if await anyio.to_thread.run_sync(real.exists):
            await anyio.to_thread.run_sync(shutil.copy2, real, index)  # its time says which entries git must not believe
        excluded = self._own / await theirs.output("rev-parse", "--git-path", "info/exclude")
        environment = {**watched.git.environment, "GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(self._own)}
        with_index = dataclasses.replace(watched.git, environment=environment)
        await with_index.output("read-tree", "--reset", head)  # what is staged is an object of the repository's, and none of ours
        await with_index.output("-c", f"core.excludesFile={excluded}", "-c", "core.bare=false", "add", "--all")
        return await with_index.output("write-tree")

    async def _refuse_changed_submodules(self) -> None:
        status = await (await self._theirs()).output("submodule", "--quiet", "foreach", "--recursive", _IS_CHANGED)
        if status:
            raise errors.CommandError(
                f"{self._own}: submodules have changes of their own ({', '.join(status.splitlines()[:5])}), which cannot be "
                "taken along; commit them there, and push them to where .gitmodules says"
            )


_IS_CHANGED = 'test -z "$(git status --porcelain)" || echo "$displaypath"'


class Mercurial(hg.Mercurial):
    """Its ``url`` is the root of a working directory. Subrepositories are taken as they were committed."""

    def __init__(self, settings: RepositorySettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self._own = Path(settings.url)

    async def resolve(self, name: str) -> model.Revision:
        commit = await self._snapshot() if name in WORK_TREE else await self._meant(name)
        await self._obtain(await self._hg(), commit)
        return await super().resolve(commit)

    async def _meant(self, name: str) -> str:
        if re.fullmatch("[0-9a-f]{40}", name):  # it may be one of our clone alone
            return name
        revset = f'id("{name}")' if name.isdigit() else name  # a number is short for an id, whatever hg has it for
        if name and not name.startswith("-"):
            with contextlib.suppress(process.ProgramFailedError):
                found = await (await self._theirs()).output("log", "--rev", revset, "--limit", "1", "--template", "{node}")
                if found:
                    return found
        raise errors.UnknownRevisionError(f"{self._own} has no commit, tag, bookmark or branch {name!r}")

    async def _theirs(self) -> process.Program:
        ours = await self._hg()
        return dataclasses.replace(ours, arguments=("hg", "--noninteractive", "--repository", str(self._own)))

    async def _snapshot(self) -> str:
        parent = await self._meant(".")
        changed = await self._changed("--modified", "--added", "--unknown")
        gone = await self._changed("--removed", "--deleted")
        if not changed and not gone:
            return parent
        ours = await self._hg()
        date = await (await self._theirs()).output("log", "--rev", parent, "--template", "{date|hgdate}")
        tree = self.directory / "worktree"
        await self.check_out(parent, tree)
        try:
            await anyio.to_thread.run_sync(_carry_over, self._own, tree, changed, gone)
            at = ("--repository", tree)
            await ours.output(*at, "addremove", "--quiet", "--similarity", "0")
            await ours.output(*at, "commit", "--quiet", "--message", SUBJECT, "--user", AUTHOR["name"], "--date", date)
            return await ours.output(*at, "log", "--rev", ".", "--template", "{node}")
        finally:
            with anyio.CancelScope(shield=True):
                await self.discard(tree)

    async def _changed(self, *states: str) -> list[str]:
        theirs = await self._theirs()
        async with contextlib.aclosing(theirs.fields("status", "--no-status", "--print0", *states)) as names:
            return [os.fsdecode(name) async for name in names if name]


def found(directory: Path) -> tuple[Path, str] | None:
    """The root and the kind, ``git`` or ``hg``, of the working tree that a directory is in; None where it is in none."""
    if (directory / "HEAD").is_file() and (directory / "objects").is_dir():  # git's without a working tree
        return None
    for above in (directory, *directory.parents):
        if (above / ".git").exists():
            return above, "git"
        if (above / ".hg").is_dir():
            return above, "hg"
    return None


KINDS: dict[str, type[Git] | type[Mercurial]] = {"git": Git, "hg": Mercurial}


def _carry_over(source: Path, target: Path, changed: list[str], gone: list[str]) -> None:
    for name in gone:
        (target / name).unlink(missing_ok=True)
    for name in changed:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name, follow_symlinks=False)
