"""Mercurial remotes, by way of a clone without a work tree and hg's own command line (6.0 or newer)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio.to_thread
import structlog

from aibenchd import credentials, errors, model, redaction
from aibenchd.settings import RepositorySettings
from aibenchd.watch import access, base, clone, lines, paths, process

BRANCHES_SHOWN = 10
LOCK_SECONDS = 60  # that hg waits for another hg in the same clone

log = structlog.get_logger()

_NONE = "0" * 40  # hg's id of a parent that is not there
_HEADER = r"\0{dict(node, p1=p1.node, p2=p2.node, date=(date|hgdate), author=author, subject=(desc|firstline))|json}\0"
# hg lists of a merge only what the merge itself changed. Relative to the first parent it is what the merge brought in.
_PATHS = r"""{revset("only(%d,%d)", rev, p1.rev) % "{files % '{file}\0'}"}"""


class Mercurial(base.Repository):
    """A Mercurial repository. Its clone has ``mirror`` and the one configuration file that hg reads.

    ``branch`` is what the remote takes it for: a bookmark where it has one of that name, else a named branch, of which
    the newest open head is watched. Path filters see a merge as all that it brought in, commit by commit.
    """

    def __init__(self, settings: RepositorySettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self._url = access.absolute(settings.url)
        self._clone = clone.at(directory)
        self._mirror = self._clone.directory / "mirror"

    async def reach(self) -> None:
        hg, branch = await self._hg(), self.settings.branch
        if not await self._identified(hg):
            there, what = await self._named(hg)
            said = await anyio.to_thread.run_sync(base.suggestion, branch, there)
            raise errors.UnknownRevisionError(f"the remote has no bookmark or branch {branch!r}; {what}{said}")

    async def _named(self, hg: process.Program) -> tuple[list[str], str]:
        """Bookmarks and branches of the remote, and of which of them it is silent: branches are told of a local one alone."""
        try:
            keys = await hg.output("debugpushkey", self._url, "bookmarks")
            local = access.is_local(self._url)
            branches = await hg.output("--repository", self._url, "branches", "--template", "{branch}\n") if local else ""
        except process.ProgramFailedError as error:
            raise self._unreachable(error) from error
        bookmarks = [row.partition("\t")[0] for row in keys.splitlines()]
        return [*bookmarks, *branches.splitlines()], "" if local else "of its bookmarks, "

    async def _identified(self, hg: process.Program) -> str:
        """The remote's head of the watched branch; empty where there is no such branch."""
        try:
            return await hg.output("identify", "--rev", self.settings.branch, "--template", "{node}", self._url)
        except process.ProgramFailedError as error:
            if "unknown revision" in error.said:
                return ""
            raise self._unreachable(error) from error

    async def fetch(self) -> str:
        hg = await self._hg()
        async with self._clone.lock("mirror"):
            await self._prepare(hg)
            head = await self._identified(hg)  # by the remote: what was stripped or moved back there is still here
            await self._pull(hg)
            if not head:
                raise errors.UnknownRevisionError(await self._no_branch(hg))
        return head

    async def resolve(self, name: str) -> model.Revision:
        # A number would be hg's own, of this clone only.
        revset = f'id("{name}")' if name.isdigit() else f'"{name}"'
        if name and not name.startswith("-") and not re.search(r'["\\\0]', name):
            async with contextlib.aclosing(self._log(await self._hg(), revset)) as revisions:
                async for revision in revisions:
                    if revision.commit != _NONE:
                        return revision
        raise errors.UnknownRevisionError(f"{self.settings.name} has no commit, tag, bookmark or branch {name!r}")

    async def history(self, head: str, *, after: str = "") -> AsyncGenerator[model.Revision, None]:
        newer = f" and only({head},present({after}))" if after else ""
        async with contextlib.aclosing(self._log(await self._hg(), f"reverse(_firstancestors({head}){newer})")) as line:
            async for revision in line:
                yield revision

    async def on_line(self, head: str, commit: str) -> bool:
        return await self._is_any(await self._hg(), f"present({commit}) and _firstancestors(present({head}))")

    async def sides(self, merge: str, onto: str, limit: int) -> list[list[model.Revision]]:
        hg = await self._hg()
        await self._obtain(hg, merge)
        (merged,) = await self._every(hg, merge)
        found = [await self._side(hg, onto, parent, limit) for parent in merged.parents]
        return [line for line in found if line]

    async def _side(self, hg: process.Program, onto: str, parent: str, limit: int) -> list[model.Revision]:
        """The line of one parent of a merge; empty where it brought nothing in."""
        joint = await self._every(hg, f"ancestor({onto},{parent}) - {parent}")
        if not joint:
            return []  # it was there, or their histories have nothing in common
        begin = joint[0].commit
        holding = f"_firstancestors({parent}) and {begin}::{parent} - {begin}"
        return lines.side(joint[0], await self._every(hg, f"limit(reverse({holding}),{limit})"))

    async def _every(self, hg: process.Program, revset: str) -> list[model.Revision]:
        async with contextlib.aclosing(self._log(hg, revset)) as revisions:
            return [revision async for revision in revisions]

    async def check_out(self, commit: str, target: Path) -> None:
        hg = await self._hg()
        async with self._clone.claimed(target, self.discard) as tree:
            await self._obtain(hg, commit)
            await hg.output("share", "--noupdate", self._mirror, tree)
            await hg.output("--repository", tree, "update", "--clean", "--rev", commit)

    async def discard(self, target: Path) -> None:
        await self._clone.release(target)  # a shared work tree leaves no trace in what it shares

    async def _obtain(self, hg: process.Program, commit: str) -> None:
        if not await self._is_any(hg, f"present({commit})"):
            await self.fetch()
        if not await self._is_any(hg, f"present({commit})"):
            raise errors.UnknownRevisionError(redaction.text(f"{commit}: not in {self._url}"))

    async def _log(self, hg: process.Program, revset: str) -> AsyncGenerator[model.Revision, None]:
        template = _HEADER + (_PATHS if paths.filtering(self.settings.paths) else "")
        fields = hg.fields("--repository", self._mirror, "log", "--rev", revset, "--template", template)
        position = 0
        try:
            async with (
                contextlib.aclosing(fields),
                contextlib.aclosing(lines.records(fields, 1, self.settings.paths)) as records,
            ):
                async for record in records:
                    header = json.loads(record.header[0])
                    position = position or await self._position(hg, header["node"])
                    yield self._revision(header, position, relevant=record.relevant)
                    position -= 1
        except process.ProgramFailedError as error:
            if re.search("unknown revision|ambiguous identifier|repository .* not found", error.said):
                raise errors.UnknownRevisionError(f"{self.settings.name}: {error.said}") from error
            raise

    def _revision(self, header: dict[str, str], position: int, *, relevant: bool) -> model.Revision:
        return model.Revision(
            repository=self.settings.name,
            commit=header["node"],
            parents=tuple(parent for parent in (header["p1"], header["p2"]) if parent != _NONE),
            time=lines.instant(float(header["date"].split()[0])),
            author=lines.text(header["author"].encode(errors="replace")),
            subject=lines.text(header["subject"].encode(errors="replace")),
            position=position,
            relevant=relevant,
        )

    async def _position(self, hg: process.Program, commit: str) -> int:
        template = r'{count(revset("_firstancestors(%d)", rev))}'
        return int(await hg.output("--repository", self._mirror, "log", "--rev", commit, "--template", template))

    async def _is_any(self, hg: process.Program, revset: str) -> bool:
        if not self._mirror.exists():
            return False
        return bool(await hg.output("--repository", self._mirror, "log", "--rev", revset, "--template", "x"))

    async def _prepare(self, hg: process.Program) -> None:
        """A clone that is missing is made; one that hg was killed in is rolled back, or made anew."""
        if (self._mirror / ".hg/store/journal").exists():
            try:
                await hg.output("--repository", self._mirror, "recover")
            except process.ProgramFailedError as error:
                await self._clear(str(error))
        if not self._mirror.exists():
            partial = self._mirror.with_name("mirror.partial")
            await anyio.to_thread.run_sync(clone.remove, partial)
            try:
                await hg.output("clone", "--noupdate", "--pull", self._url, partial)
            except process.ProgramFailedError as error:
                raise self._unreachable(error) from error
            partial.rename(self._mirror)

    async def _pull(self, hg: process.Program) -> None:
        pull = ("--repository", self._mirror, "pull", "--quiet", "--force", self._url)
        try:
            await hg.output(*pull)
        except process.ProgramFailedError as error:
            if await self._is_sound(hg):
                raise self._unreachable(error) from error
            await self._clear(str(error))
            await self._prepare(hg)

    async def _is_sound(self, hg: process.Program) -> bool:
        with contextlib.suppress(process.ProgramFailedError):
            await hg.output("--repository", self._mirror, "verify", "--quiet")
            return True
        return False

    async def _clear(self, reason: str) -> None:
        log.warning("clone is damaged; made anew", path=str(self._mirror), reason=reason)
        await anyio.to_thread.run_sync(clone.remove, self._mirror)

    async def _no_branch(self, hg: process.Program) -> str:
        bookmarks = await hg.output("--repository", self._mirror, "bookmarks", "--template", "{bookmark}\n")
        branches = await hg.output("--repository", self._mirror, "branches", "--template", "{branch}\n")
        names = [*bookmarks.splitlines(), *branches.splitlines()]
        there = ", ".join(names[:BRANCHES_SHOWN]) or "none at all"
        return f"{self.settings.name} has no bookmark or branch {self.settings.branch!r}; there are: {there}"

    def _unreachable(self, error: process.ProgramFailedError) -> errors.RemoteUnreachableError:
        return errors.RemoteUnreachableError(redaction.text(f"{self._url}: {error}"))

    async def _hg(self) -> process.Program:
        held = await self._clone.hold(self._sweep)
        configuration = self._clone.directory / "hgrc"
        self._clone.put(configuration, self._configuration())
        return process.Program(
            ("hg", "--noninteractive", "--cwd", str(self._clone.directory)),
            process.environment(HGRCPATH=str(configuration), HGPLAIN="1", HGENCODING="UTF-8"),
            self.settings.timeout,
            (held,),
        )

    def _configuration(self) -> str:
        """What hg is told, the token too: the file is the daemon's alone, and hg has no other way than the command line."""
        text = f"[ui]\nssh = {access.ssh_command(self.settings.credentials)}\ntimeout = {LOCK_SECONDS}\n"
        text += f"[paths]\ndefault = {self._url}\ndefault:bookmarks.mode = mirror\n"
        text += f"[extensions]\nshare =\n{'lfs =' if self.settings.large_files else ''}\n"
        text += f"[subrepos]\nallowed = {self.settings.submodules}\n"
        host = access.origin(self._url)
        if self.settings.credentials.token_file is not None and host:
            secret = credentials.read(self.settings.credentials.token_file)
            scheme, _, prefix = host.partition("://")
            text += f"[auth]\nremote.schemes = {scheme}\nremote.prefix = {prefix}\n"
            text += f"remote.username = {self.settings.credentials.username}\nremote.password = {secret}\n"
        return text

    def _sweep(self) -> None:
        """Locks that a killed hg left; hg itself only breaks one where no process has its number."""
        for name in (".hg/wlock", ".hg/store/lock"):
            (self._mirror / name).unlink(missing_ok=True)
