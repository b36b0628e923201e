"""What was pushed to a phone, by its digest: what is there is not sent again, and its bytes are those of its digest."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio.to_thread

from aibenchd import digests, errors
from aibenchd.devices import adbphone, base, pushed
from aibenchd.devices.adbphone import quoted

INCOMING = ".incoming"
HASHES = ("sha256", "sha1", "md5")  # that a phone may have a program for; the best goes first
HASH_SECONDS = 300.0  # that the phone has to hash what it holds of one push, or to delete what goes
FILE_MODE, PROGRAM_MODE = 0o644, 0o755
AT_ONCE = 100  # directories and links that are made by one command


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a name in what is pushed: a directory, a link with its text, or a file.

    Attributes:
        name: relative to where it is pushed to.
    """

    name: str
    source: Path
    kind: str  # directory, link, file or program
    link: str = ""


class Store:
    """Copies below ``root`` on the phone, as ``<digest>/<name>``, within ``size_limit`` bytes: the least recently used go first.

    A copy is hashed on the phone when it is made, and once more when a session first finds it there.
    """

    def __init__(self, phone: adbphone.Phone, root: PurePosixPath, size_limit: int) -> None:
        self._phone, self._root, self._size_limit = phone, root, size_limit
        self._hash = ""
        self._intact: set[PurePosixPath] = set()
        self._used: set[str] = set()
        self._sizes: dict[str, int] = {}  # of what is there; the least recently used first

    async def open(self) -> None:
        """Take stock; what a push that was broken off has left is removed.

        Raises:
            HarnessError: the directory cannot be laid out, or the phone has no program that hashes.
        """
        names = quoted(*(f"{name}sum" for name in HASHES))
        text = f"""
            cd {quoted(self._root)} && rm -rf {INCOMING} && mkdir {INCOMING} || exit
            for one in {names}; do command -v $one >/dev/null && break; one=; done
            echo $one; ls -tr 2>/dev/null || ls; echo; du -k -d 1 .  # Android 6 knows no order of time
        """
        told = await self._phone.do(f"({text})", "its directory cannot be laid out", HASH_SECONDS)
        names_there, _, sizes = told.partition("\n\n")
        program, *places = names_there.split("\n")
        self._hash = program.removesuffix("sum")
        if not self._hash:
            raise errors.HarnessError(f"{self._phone.name}: it has none of the programs {names}, by which files are verified")
        rows = (line.partition("\t") for line in sizes.splitlines())
        measured = {name.removeprefix("./"): int(size) << 10 for size, _, name in rows if size.isdecimal()}
        self._sizes = {name: measured.get(name, 0) for name in places if name}
        self._intact.clear()

    async def put(self, push: base.Push) -> PurePosixPath:
        """Where the copy is; made if it is not there.

        Raises:
            CommandError: it holds a link that leads out of it, or what is no file.
            HarnessError: the phone has not taken it as it is.
        """
        place = base.file_name(push.digest[: pushed.DIGEST_LENGTH])
        target = self._root / place / base.file_name(push.name)
        self._used.add(place)
        if target not in self._intact:
            entries, wanted = await anyio.to_thread.run_sync(self._described, push)
            if await self._manifest(target) != wanted:
                await self._copy(target, entries, wanted)
            await self._phone.do(f"touch {quoted(target.parent)}", "its directory cannot be written to")
            self._intact.add(target)
        self._sizes[place] = self._sizes.pop(place, 0)
        return target

    def _described(self, push: base.Push) -> tuple[list[Entry], set[str]]:
        """What is pushed, and its manifest. Blocking."""
        entries = list(_entries(push.source, push.name))
        return entries, {line for one in entries for line in self._lines(one)}

    def _lines(self, entry: Entry) -> Iterator[str]:
        if entry.kind == "link":
            yield f"link ./{entry.name} {entry.link}"
        elif entry.kind != "directory":
            yield f"{digests.of_file(entry.source, self._hash)}  ./{entry.name}"
        if entry.kind == "program":
            yield f"program ./{entry.name}"

    async def _manifest(self, target: PurePosixPath) -> set[str]:
        """What lies there: a row for each file with its hash, for each program, and for each link with its text."""
        find = f"find ./{quoted(target.name)}"
        text = f"""
            cd {quoted(target.parent)} 2>/dev/null || exit
            {find} -type f -exec {self._hash}sum {{}} +
            {find} -type f -perm -100 | while read -r one; do echo "program $one"; done
            {find} -type l | while read -r one; do echo "link $one $(readlink "$one")"; done
        """
        answer = await self._phone.ask(f"({text}) 2>/dev/null", HASH_SECONDS)
        return set(filter(None, answer.text.split("\n")))

    async def _copy(self, target: PurePosixPath, entries: Sequence[Entry], wanted: set[str]) -> None:
        incoming = self._root / INCOMING
        await self._make(incoming, entries)
        for one in entries:
            if one.kind in ("file", "program"):
                await self._send(one, incoming / one.name)
        if await self._manifest(incoming / target.name) != wanted:
            raise errors.HarnessError(
                f"{self._phone.name}: {entries[0].source} is not on the phone as it was sent; it has changed since it was made,"
                " or the phone's storage is at fault"
            )
        here, there = quoted(target.parent), quoted(target)
        text = f"rm -rf {there} && mkdir -p {here} && mv {quoted(incoming / target.name)} {there} && du -sk {here}"
        size = await self._phone.do(text, f"{target} cannot be made", HASH_SECONDS)
        self._sizes[target.parent.name] = int(size.split()[0]) << 10
        await self._evict()

    async def _make(self, incoming: PurePosixPath, entries: Sequence[Entry]) -> None:
        """All that is no file; nothing else is in ``incoming`` then."""
        commands = [f"rm -rf {quoted(incoming)}", f"mkdir -p {quoted(incoming)}"]
        commands += [f"mkdir {quoted(incoming / one.name)}" for one in entries if one.kind == "directory"]
        commands += [f"ln -s {quoted(one.link)} {quoted(incoming / one.name)}" for one in entries if one.kind == "link"]
        for first in range(0, len(commands), AT_ONCE):
            await self._phone.do(" && ".join(commands[first : first + AT_ONCE]), f"{incoming} cannot be made", HASH_SECONDS)

    async def _send(self, entry: Entry, target: PurePosixPath) -> None:
        mode = PROGRAM_MODE if entry.kind == "program" else FILE_MODE
        with await anyio.to_thread.run_sync(entry.source.open, "rb") as file:
            await self._phone.send(file, os.fstat(file.fileno()).st_size, str(target), mode)

    async def _evict(self) -> None:
        """Never what this session has used: it may be in use."""
        total = sum(self._sizes.values())
        for place in [place for place in self._sizes if place not in self._used]:
            if total <= self._size_limit:
                return
            await self._phone.do(f"rm -rf {quoted(self._root / place)}", f"{place} cannot be deleted", HASH_SECONDS)
            total -= self._sizes.pop(place)


def _entries(source: Path, name: str) -> Iterator[Entry]:
    """All of it, a directory before what is in it; links are not followed."""
    if not source.is_dir():
        yield Entry(name, source, _kind(source))
        return
    yield Entry(name, source, "directory")
    for path in pushed.entries(source):
        inner = f"{name}/{path.relative_to(source).as_posix()}"
        if path.is_symlink():
            yield Entry(inner, path, "link", pushed.inside(source, path).as_posix())
        else:
            yield Entry(inner, path, "directory" if path.is_dir() else _kind(path))


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise errors.CommandError(f"{path}: neither a file nor a directory, and cannot be pushed")
    return "program" if mode & 0o111 else "file"
