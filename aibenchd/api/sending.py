"""What a person sends from a desk: files and directories by their digests, read twice and never held."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from aibenchd import digests
from aibenchd.api import call, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE = 1 << 20  # bytes
TAR, BYTES = "application/x-tar", "application/octet-stream"
ENTRIES = 100_000  # of one directory, as many as the daemon takes
ROUNDS = 8  # in which a specification's files are asked for: it names files, which may name others, and so on
BLOCK = 512  # bytes of a tar
WAITING_SECONDS = 600.0  # that a file waits for its turn, while others send


class Unfit(Exception):  # noqa: N818
    """Something cannot be sent; the message says why, and what to do."""


class File:
    """One file."""

    kind = BYTES

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.digest = digests.of_file(path)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            Unfit: they are not as many as they were.
        """
        yield from _exactly(self.path, self.size)


class Directory:
    """A directory with all in it, as a tar; what links in it lead to is sent in their place.

    Attributes:
        digest: as :func:`aibenchd.digests.of_tree` has it of the directory without links, by OF_TREES_SENT.
        size: bytes of the tar.
        hidden: the first name in it that is hidden; empty where none is.
    """

    kind = TAR

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._entries = sorted(self._found(path, "", (path.resolve(),)), key=lambda one: one.name)
        self.hidden = next((one.name for one in self._entries if _is_hidden(one.name)), "")
        self.digest = self._digest()
        self._headers = [_header(one) for one in self._entries]
        self.size = sum(map(len, self._headers)) + sum(-(-one.size // BLOCK) * BLOCK for one in self._entries) + 2 * BLOCK

    def pieces(self) -> Iterator[bytes]:
        """The tar; errors as of :meth:`File.pieces`."""
        for header, one in zip(self._headers, self._entries, strict=True):
            yield header
            yield from _exactly(one.path, one.size)
            yield bytes(-one.size % BLOCK)
        yield bytes(2 * BLOCK)

    def _found(self, directory: Path, above: str, inside: tuple[Path, ...]) -> Iterator[_Entry]:
        """All below a directory.

        Args:
            inside: the directories that this one is in, and itself, without links.
        """
        for path in directory.iterdir():
            real = path.resolve()
            if not real.is_relative_to(inside[0]) or real in inside:
                raise Unfit(f"{path}: the link leads out of {self.path}, or round; copy what it names instead")
            if not real.is_file() and not real.is_dir():
                raise Unfit(f"{path}: is neither a file nor a directory, or leads to none; remove it")
            self._count += 1
            if self._count > ENTRIES:
                raise Unfit(f"{self.path}: has more than {ENTRIES} files and directories; name one with the program alone")
            yield _Entry(f"{above}{path.name}", real, real.stat())
            if real.is_dir():
                yield from self._found(real, f"{above}{path.name}/", (*inside, real))

    def _digest(self) -> str:
        total = hashlib.new(digests.OF_TREES_SENT)
        for one in self._entries:
            total.update(digests.entry(one.name, one.path).encode(errors="surrogateescape"))
        return total.hexdigest()


class _Entry:
    """A file or directory by its name in the tar; ``path`` is where it is, and no link."""

    __slots__ = ("is_directory", "is_program", "name", "path", "size")

    def __init__(self, name: str, path: Path, found: os.stat_result) -> None:
        self.name, self.path = name, path
        self.is_directory = stat.S_ISDIR(found.st_mode)
        self.is_program = bool(found.st_mode & 0o111)
        self.size = 0 if self.is_directory else found.st_size


def of(path: Path) -> File | Directory:
    """What is sent of a path.

    Raises:
        Unfit: it cannot be.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise Unfit(f"{path}: is neither a file nor a directory; name one")
    try:
        return Directory(path) if path.is_dir() else File(path)
    except OSError as error:
        raise Unfit(f"{error.filename or path}: cannot be read: {error.strerror}") from None


class Files:
    """Those of a specification, as the daemon asks for them; ``directory`` is what they are sent from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self.named: dict[str, File | Directory] = {}

    def name(self, path: str) -> None:
        """Have one of them sent.

        Raises:
            Unfit: it is not there, not in the directory, or hidden: the daemon asks for it, and who knows what it was told.
        """
        if _is_hidden(path):
            raise Unfit(f"{path}: is hidden; nothing hidden is sent, so give it another name")
        found = (self._directory / path).resolve()
        if not found.is_relative_to(self._directory) or found == self._directory:
            raise Unfit(f"{path}: is not in {self._directory}; nothing else of this host is sent")
        if not found.exists():
            raise Unfit(
                f"{self._directory / path}: the specification names it, and it is not there; neither does the daemon have it"
            )
        one = of(found)
        if isinstance(one, Directory) and one.hidden:
            raise Unfit(f"{path}/{one.hidden}: is hidden; nothing hidden is sent, so remove it, or give it another name")
        self.named[path] = one


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def submit(
    daemon: call.Daemon,
    body: dict[str, Any],
    programs: Mapping[str, File | Directory],
    files: Files | None,
    status: screen.Status,
) -> bytes:
    """Ask for a submission, and send what the daemon has not yet; its answer, once it has all.

    Args:
        body: of ``POST /v1/submissions``, but for the digests of files.
        programs: by arm.
        files: of the specification, where one is sent.
        status: shows what is under way.

    Raises:
        Unfit: something cannot be sent.
        call.Refused, call.Unreachable: the daemon will not, or does not answer.
    """
    import json

    for _ in range(ROUNDS):
        if files is not None:
            body["specification"]["files"] = {name: one.digest for name, one in files.named.items()}
        answer = daemon.post("/v1/submissions", body)
        lacking = json.loads(answer)
        if "request" in lacking:
            return answer
        if files is not None:
            for path in lacking["name"]:
                files.name(path)
        there = [*programs.values(), *(files.named.values() if files is not None else ())]
        for one in {one.digest: one for one in there if one.digest in lacking["send"]}.values():
            _upload(daemon, one, status)
    raise Unfit("the daemon asks for files again and again; is its clock, or the specification, being changed meanwhile?")


def _upload(daemon: call.Daemon, one: File | Directory, status: screen.Status) -> None:
    """Send it; where the daemon has no place for it now, once it has, by the pauses that it asks for."""

    def counted() -> Iterator[bytes]:
        sent = 0
        for piece in one.pieces():
            status.show(f"sending {one.path}: {sent >> 20} of {one.size >> 20} MiB")
            yield piece
            sent += len(piece)

    began, said = time.monotonic(), False
    while True:
        try:
            daemon.put(f"/v1/contents/{one.digest}", counted(), one.size, one.kind)
        except call.Refused as refused:
            pause = None if refused.retry_after is None else refused.retry_after * (0.5 + random.random())  # noqa: S311  jitter
            if pause is None or time.monotonic() + pause > began + WAITING_SECONDS:
                raise
            if not said:
                status.say(f"{one.path} waits to be sent, for {screen.span(WAITING_SECONDS)} at most: {refused}")
            said = True
            time.sleep(pause)
        else:
            return


def _exactly(path: Path, size: int) -> Iterator[bytes]:
    """A file's bytes; nothing of a directory, which has none."""
    if not size:
        return
    with path.open("rb") as file:
        while size and (piece := file.read(min(size, PIECE))):
            size -= len(piece)
            yield piece
    if size:
        raise Unfit(f"{path}: was changed while it was sent; submit it again")


def _header(one: _Entry) -> bytes:
    import tarfile

    info = tarfile.TarInfo(one.name)
    info.type = tarfile.DIRTYPE if one.is_directory else tarfile.REGTYPE
    info.mode = 0o755 if one.is_program else 0o644
    info.size = one.size
    return info.tobuf(tarfile.PAX_FORMAT)
