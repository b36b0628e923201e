"""One bare git mirror: of the watched repository, or of a submodule."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from aibenchd import errors, redaction
from aibenchd.watch import clone, process

log = structlog.get_logger()

KEPT = "refs/aibenchd/kept"  # refs on what the journal may name, lest it is collected when its branch goes


class Mirror:
    """Heads and tags of ``url`` in ``path``, and work trees of it.

    Args:
        git: how git is run, without ``--git-dir``.
        lock: who holds it may change the mirror; reading, and making a work tree, need none.
    """

    def __init__(self, url: str, path: Path, git: process.Program, lock: anyio.Lock) -> None:
        self.url, self.path = url, path
        self.git = process.Program((*git.arguments, f"--git-dir={path}"), git.environment, git.timeout, git.held)
        self._plain, self._lock = git, lock

    async def fetch(self) -> None:
        """Bring heads and tags up to date. A mirror that is missing, half made or damaged is made.

        Raises:
            RemoteUnreachableError: the remote did not answer, or refused.
        """
        async with self._changing():
            await self._prepare()
            try:
                await self._fetch()
            except process.ProgramFailedError as error:
                await self._fetch_anew(error)
            await self.git.output("-c", "pack.threads=1", "gc", "--auto", "--quiet")

    async def has(self, commit: str) -> bool:
        """Whether a full commit id is here."""
        with contextlib.suppress(process.ProgramFailedError):  # 128 where there is no mirror yet
            return await self.git.says_yes("cat-file", "-e", f"{commit}^{{commit}}")
        return False

    async def obtain(self, commit: str) -> None:
        """See that a full commit id is here; the remote is asked, and a fetch under way waited for, only where it is not.

        Raises:
            UnknownRevisionError: the remote answers, and does not have it either.
            RemoteUnreachableError: it is not here, and the remote does not answer.
        """
        if await self.has(commit):
            return
        await self.fetch()
        if not await self.has(commit):
            await self._fetch_by_id(commit)
        await self.keep(commit)

    async def keep(self, commit: str) -> None:
        """See that a commit which is here stays here, whatever becomes of the branches."""
        async with self._changing():
            await self.git.output("update-ref", f"{KEPT}/{commit}", commit)

    async def release_ancestors(self, commit: str) -> None:
        """Drop the refs that :meth:`keep` made on true ancestors of ``commit``: it holds them."""
        async with self._changing():
            merged = await self.git.output("for-each-ref", "--format=%(refname)", f"--merged={commit}", KEPT)
            for name in merged.splitlines():
                if name != f"{KEPT}/{commit}":
                    await self.git.output("update-ref", "-d", name)

    async def add_tree(self, commit: str, target: Path) -> None:
        """A work tree at ``commit`` in ``target``, which is empty or not there. It borrows the mirror's objects.

        It is a clone, not one of ``git worktree``: two of those that are made at a time, or one and a fetch, can trip
        over each other's half written entries.
        """
        storage = f"lfs.storage={self.path / 'lfs'}"
        local = dataclasses.replace(self._plain, environment={**self._plain.environment, "GIT_ALLOW_PROTOCOL": "file"})
        await local.output(
            *("clone", "--quiet", "--shared", "--no-checkout", "--template=", "--config", storage, "--", self.path, target)
        )
        await self._plain.output("-C", target, "config", "remote.origin.url", self.url)
        await self._plain.output("-C", target, "checkout", "--quiet", "--detach", commit, "--")

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncGenerator[None, None]:
        """Nobody else changes refs or objects within. A git that was stopped may have left locks, and they are swept away."""
        async with self._lock:
            try:
                yield
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(sweep, self.path)
                raise

    async def _prepare(self) -> None:
        if await self._answer("config", "remote.origin.url") == self.url:  # what is set last, so all else is there
            return
        if await self._answer("rev-parse", "--is-bare-repository") != "true":
            await anyio.to_thread.run_sync(clone.remove, self.path)
            await self._plain.output("init", "--quiet", "--bare", "--template=", "--initial-branch=main", self.path)
        await self.git.output("config", "remote.origin.url", self.url)

    async def _answer(self, *arguments: str) -> str:
        """What git prints; nothing where it fails, as in a mirror that is not there."""
        with contextlib.suppress(process.ProgramFailedError):
            return await self.git.output(*arguments)
        return ""

    async def _fetch(self) -> None:
        await self.git.output(
            *("fetch", "--quiet", "--prune", "--force", "--no-auto-gc", "--no-write-fetch-head"),
            *("--recurse-submodules=no", "origin", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"),
        )

    async def _fetch_anew(self, failed: process.ProgramFailedError) -> None:
        """A fetch failed: where the remote is well and the mirror is not, make the mirror anew and try once more."""
        try:
            await self._plain.output("ls-remote", "--quiet", "--heads", self.url, "refs/heads/aibenchd/none")
        except process.ProgramFailedError as error:
            raise _unreachable(self.url, error) from error
        if await self._is_sound():
            raise _unreachable(self.url, failed) from failed
        log.warning("mirror is damaged; made anew", path=str(self.path), reason=str(failed))
        await anyio.to_thread.run_sync(clone.remove, self.path)
        await self._prepare()
        try:
            await self._fetch()
        except process.ProgramFailedError as error:
            raise _unreachable(self.url, error) from error

    async def _is_sound(self) -> bool:
        with contextlib.suppress(process.ProgramFailedError):
            await self.git.output("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
            return True
        return False

    async def _fetch_by_id(self, commit: str) -> None:
        """Most servers give any commit that they have, also where no branch leads to it any more."""
        async with self._changing():
            try:
                await self.git.output("fetch", "--quiet", "--no-auto-gc", "--no-write-fetch-head", "--no-tags", "origin", commit)
            except process.ProgramFailedError as error:
                raise errors.UnknownRevisionError(redaction.text(f"{commit}: not in {self.url}: {error.said}")) from error


def sweep(path: Path) -> None:
    """Clear away what a killed git left in a mirror: locks, and packs that it had not finished. Blocking.

    Only while no git changes the mirror.
    """
    for pattern in ("*.lock", "refs/**/*.lock", "objects/info/**/*.lock", "objects/pack/tmp_*", "gc.pid"):
        for file in path.glob(pattern):
            file.unlink(missing_ok=True)


def _unreachable(url: str, error: process.ProgramFailedError) -> errors.RemoteUnreachableError:
    return errors.RemoteUnreachableError(redaction.text(f"{url}: {error}"))
