"""Git remotes, by way of a bare mirror and git's own command line (2.39 or newer)."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio.to_thread
import structlog

from aibenchd import credentials, errors, model, redaction
from aibenchd.settings import RepositorySettings
from aibenchd.watch import access, base, clone, lines, mirror, paths, process, submodules

BRANCHES_SHOWN = 10

log = structlog.get_logger()

_RECORD = "%x00%H%x00%P%x00%ct%x00%an <%ae>%x00%s"
_RECORD_WIDTH = 5

# Whatever the host's or the user's configuration says is not read: it could change what git prints, or make it ask.
# Proxies and certificates go by the environment: https_proxy, GIT_SSL_CAINFO.
_CONFIGURATION = {
    "safe.directory": "*",  # a remote on this host may be another user's; nothing of it is ever run
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.fsync": "committed,loose-object",
    "fetch.writeCommitGraph": "true",  # counting a long history takes milliseconds with it
    "gc.autoDetach": "false",  # nothing outlives the call
    "http.lowSpeedLimit": "1000",  # bytes per second, for
    "http.lowSpeedTime": "60",  # seconds: then the remote counts as away
}
_LFS = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
# Run by git through a shell. Neither the token nor anything of the configuration is part of the text.
_HELPER = r"""!f() { test "$1" = get || exit 0; printf 'username=%s\npassword=%s\n' "$AIBENCHD_USERNAME" """ + (
    r""""$(sed -n 's/^[[:space:]]*//; s/[[:space:]]*$//; /./{p;q;}' "$AIBENCHD_TOKEN_FILE")"; }; f"""
)


class Git(base.Repository):
    """A git repository. Its clone has ``mirror.git``, ``submodules/`` and the one configuration file that git reads."""

    def __init__(self, settings: RepositorySettings, directory: Path) -> None:
        super().__init__(settings, directory)
        self._url = access.absolute(settings.url)
        self._clone = clone.at(directory)
        self._head = ""

    async def reach(self) -> None:
        git, branch = await self._git(), self.settings.branch
        if not await self._heads(git, f"refs/heads/{branch}"):
            said = await anyio.to_thread.run_sync(base.suggestion, branch, await self._heads(git))
            raise errors.UnknownRevisionError(f"the remote has no branch {branch!r}; {said}")

    async def _heads(self, git: process.Program, *patterns: str) -> list[str]:
        """The remote's branches; thousands of them take megabytes."""
        heads = bytearray()
        try:
            async with contextlib.aclosing(git.chunks("ls-remote", "--heads", self._url, *patterns)) as chunks:
                async for chunk in chunks:
                    heads += chunk
        except process.ProgramFailedError as error:
            raise errors.RemoteUnreachableError(redaction.text(f"{self._url}: {error}")) from error
        return re.findall(r"\trefs/heads/(.+)", heads.decode(errors="replace"))

    async def fetch(self) -> str:
        watched = await self._mirror()
        await watched.fetch()
        head = await self._commit(watched, f"refs/heads/{self.settings.branch}")
        if head is None:
            raise errors.UnknownRevisionError(await self._no_branch(watched))
        if head != self._head:
            await watched.keep(head)
            await watched.release_ancestors(head)
            self._head = head
        return head

    async def resolve(self, name: str) -> model.Revision:
        watched = await self._mirror()
        commit = await self._commit(watched, name)
        if commit is None and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", name):
            await watched.obtain(name)
            commit = name
        if commit is None:
            raise errors.UnknownRevisionError(f"{self.settings.name} has no commit, tag or branch {name!r}, or several begin so")
        await watched.keep(commit)
        return await self._one(watched, commit)

    async def history(self, head: str, *, after: str = "") -> AsyncGenerator[model.Revision, None]:
        watched = await self._mirror()
        if not await watched.has(head):
            raise errors.UnknownRevisionError(f"{self.settings.name} has no commit {head}")
        async with contextlib.aclosing(self._log(watched, head, *([f"^{after}"] if after else []))) as line:
            async for revision in line:
                yield revision

    async def on_line(self, head: str, commit: str) -> bool:
        watched = await self._mirror()
        if not (await watched.has(commit) and await watched.has(head)):
            return False
        distance = await self._position(watched, head) - await self._position(watched, commit)
        return distance >= 0 and await watched.git.output("rev-parse", f"{head}~{distance}") == commit

    async def sides(self, merge: str, onto: str, limit: int) -> list[list[model.Revision]]:
        watched = await self._mirror()
        await watched.obtain(merge)
        merged = await self._one(watched, merge)
        found = [await self._side(watched, onto, parent, limit) for parent in merged.parents]
        return [line for line in found if line]

    async def check_out(self, commit: str, target: Path) -> None:
        watched = await self._mirror()
        async with self._clone.claimed(target, self.discard) as tree:
            await watched.obtain(commit)
            await self._check_large_files(watched, commit)
            await watched.add_tree(commit, tree)
            if self.settings.submodules:
                await submodules.check_out(watched, commit, tree, await self._submodule_mirrors())

    async def discard(self, target: Path) -> None:
        await self._clone.release(target)  # a mirror does not know who borrows its objects

    async def _side(self, watched: mirror.Mirror, onto: str, parent: str, limit: int) -> list[model.Revision]:
        """The line of one parent of a merge; empty where it brought nothing in."""
        base = await self._merge_base(watched, onto, parent)
        if base is None or base == parent:
            return []
        holding = await self._holding(watched, base, parent)
        found: list[model.Revision] = []
        async with contextlib.aclosing(self._log(watched, parent, f"^{base}", f"--max-count={limit}")) as line:
            async for revision in line:
                if revision.commit not in holding:
                    break
                found.append(revision)
        return lines.side(await self._one(watched, base), found)

    async def _merge_base(self, watched: mirror.Mirror, one: str, other: str) -> str | None:
        """The newest commit that both hold; None where they have none in common."""
        try:
            return await watched.git.output("merge-base", one, other)
        except process.ProgramFailedError as error:
            if error.code == 1:
                return None
            raise

    async def _holding(self, watched: mirror.Mirror, base: str, newest: str) -> set[str]:
        """The commits from after ``base`` to ``newest`` that hold it."""
        fields = watched.git.fields("log", "-z", "--format=%H", "--ancestry-path", f"{base}..{newest}", "--")
        async with contextlib.aclosing(fields):
            return {field.decode() async for field in fields}

    async def _one(self, watched: mirror.Mirror, commit: str) -> model.Revision:
        async with contextlib.aclosing(self._log(watched, commit, "--max-count=1")) as line:
            return await anext(line)

    async def _log(self, watched: mirror.Mirror, head: str, *limits: str) -> AsyncGenerator[model.Revision, None]:
        position = await self._position(watched, head)
        shown = "--name-only" if paths.filtering(self.settings.paths) else "--no-patch"
        fields = watched.git.fields(
            *("log", "--first-parent", "--diff-merges=first-parent", "--no-renames", "--no-mailmap", "--encoding=UTF-8"),
            *("-z", shown, f"--format={_RECORD}", head, *limits, "--"),
        )
        async with (
            contextlib.aclosing(fields),
            contextlib.aclosing(lines.records(fields, _RECORD_WIDTH, self.settings.paths)) as records,
        ):
            async for record in records:
                yield self._revision(record, position)
                position -= 1

    def _revision(self, record: lines.Record, position: int) -> model.Revision:
        commit, parents, seconds, author, subject = record.header
        return model.Revision(
            repository=self.settings.name,
            commit=commit.decode(),
            parents=tuple(parents.decode().split()),
            time=lines.instant(int(seconds)),
            author=lines.text(author),
            subject=lines.text(subject),
            position=position,
            relevant=record.relevant,
        )

    async def _position(self, watched: mirror.Mirror, commit: str) -> int:
        return int(await watched.git.output("rev-list", "--count", "--first-parent", commit, "--"))

    async def _commit(self, watched: mirror.Mirror, name: str) -> str | None:
        """The full id of the commit that ``name`` means to git; None where there is none, or more than one."""
        if not name or name.startswith("-") or "\0" in name:
            return None
        with contextlib.suppress(process.ProgramFailedError):
            return await watched.git.output("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return None

    async def _no_branch(self, watched: mirror.Mirror) -> str:
        there = await watched.git.output(
            *("for-each-ref", f"--count={BRANCHES_SHOWN}", "--sort=-committerdate", "--format=%(refname:lstrip=2)", "refs/heads")
        )
        names = ", ".join(there.splitlines()) or "none at all"
        return f"{self.settings.name} has no branch {self.settings.branch!r}; there are, newest first: {names}"

    async def _check_large_files(self, watched: mirror.Mirror, commit: str) -> None:
        if not self.settings.large_files or shutil.which("git-lfs"):
            return
        pattern = r"filter[[:space:]]*=[[:space:]]*lfs"
        if await watched.git.says_yes("grep", "--quiet", "-E", pattern, commit, "--", ":(glob)**/.gitattributes"):
            raise errors.HarnessError(
                f"{self.settings.name} keeps files in Git LFS at {commit[:12]}, and git-lfs is not installed; "
                "install it, or set large_files: false to build with the pointers that stand for them"
            )

    async def _mirror(self) -> mirror.Mirror:
        git = await self._git()
        return mirror.Mirror(self._url, self._clone.directory / "mirror.git", git, self._clone.lock("mirror.git"))

    async def _submodule_mirrors(self) -> submodules.Mirrors:
        return functools.partial(self._submodule_mirror, await self._git())

    def _submodule_mirror(self, git: process.Program, url: str) -> mirror.Mirror:
        name = submodules.directory_of(url)
        return mirror.Mirror(url, self._clone.directory / "submodules" / name, git, self._clone.lock(name))

    async def _git(self) -> process.Program:
        held = await self._clone.hold(self._sweep)
        directory = self._clone.directory
        secret = self._secret()
        configuration = directory / "gitconfig"
        self._clone.put(configuration, _written(self._configuration()))
        return process.Program(
            ("git", "-C", str(directory)),
            process.environment(
                GIT_CONFIG_NOSYSTEM="1",
                GIT_CONFIG_GLOBAL=str(configuration),
                GIT_ATTR_NOSYSTEM="1",
                GIT_CEILING_DIRECTORIES=str(directory.parent),
                GIT_TERMINAL_PROMPT="0",
                GIT_SSH_COMMAND=access.ssh_command(self.settings.credentials),
                GIT_SSH_VARIANT="ssh",
                GIT_ALLOW_PROTOCOL="https:http:ssh:git" + (":file" if access.is_local(self._url) else ""),
                **secret,
            ),
            self.settings.timeout,
            (held,),
        )

    def _secret(self) -> dict[str, str]:
        """What the credential helper is told: where the token lies, never what it is."""
        token_file = self.settings.credentials.token_file
        if token_file is None:
            return {}
        credentials.read(token_file)  # refused early and by name where it cannot be used; masked from now on
        path = credentials.path_of(token_file).absolute()
        return {"AIBENCHD_TOKEN_FILE": str(path), "AIBENCHD_USERNAME": self.settings.credentials.username}

    def _configuration(self) -> dict[str, str]:
        configuration = dict(_CONFIGURATION)
        if self.settings.large_files and shutil.which("git-lfs"):
            configuration |= _LFS
        host = access.origin(self._url)
        if self.settings.credentials.token_file is not None and host:
            configuration[f"credential.{host}.helper"] = _HELPER  # for this host only: a submodule's may be another's
        return configuration

    def _sweep(self) -> None:
        root = self._clone.directory
        for path in (root / "mirror.git", *root.glob("submodules/*.git")):
            mirror.sweep(path)


def _written(configuration: dict[str, str]) -> str:
    """Keys and values as git's own format has them."""
    text = ""
    for key, value in configuration.items():
        section, _, name = key.rpartition(".")
        section, _, subsection = section.partition(".")
        heading = f"{section} {_quoted(subsection)}" if subsection else section
        text += f"[{heading}]\n\t{name} = {_quoted(value)}\n"
    return text


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
