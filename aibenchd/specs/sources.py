"""Where the bytes of a file come from: the network, this host, or a program that writes them. Each source alone."""

from __future__ import annotations

import os
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
import structlog

from aibenchd import digests, errors
from aibenchd.specs import content, download, generate, progress, schema, trees

LOOKED_AT = 64 << 20  # bytes; what is larger is not read before it is needed

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, for whom, and what it must be.

    Attributes:
        key: its place in the specification, such as ``files.predict``.
        name: what people call it: ``<model>/<file name>``.
        specification: the file that names it.
        expected: digests by algorithm; empty where they are not known.
    """

    key: str
    name: str
    file: schema.File
    specification: Path
    expected: Mapping[str, str]

    @property
    def shown(self) -> str:
        """Where it is asked for, for messages: ``<specification>: <key>``."""
        return f"{self.specification}: {self.key}"

    def origin(self, source: schema.Source) -> str:
        """What makes it the same bytes of the same place."""
        return f"{source} {sorted(self.expected.items())}"


class Sources:
    """Fetches into the cache from one source at a time; bytes that are not what is expected are not kept.

    Args:
        root: of locations that begin with ``//``.
        max_size: bytes, of one file or directory.
    """

    def __init__(
        self,
        kept: content.Content,
        downloader: download.Downloader,
        generators: generate.Generators,
        told: progress.Progress,
        root: Path | None,
        max_size: int,
    ) -> None:
        self._content, self._downloader, self._generators, self._told = kept, downloader, generators, told
        self._root, self._max_size = root, max_size
        self._locks: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()

    async def fetch(self, wanted: Wanted, source: schema.Source) -> content.VerifiedFile:
        """Have the bytes of a source here, found right.

        Raises:
            ModelFileError: it cannot be had, or is not what is expected; of the network, also when fetched anew.
            HarnessError: programs cannot be run here.
        """
        lock = self._locks.setdefault(wanted.origin(source), anyio.Lock())
        async with lock:  # what is on its way lies in one place for all who want it
            return await self._fetch(wanted, source)

    async def _fetch(self, wanted: Wanted, source: schema.Source) -> content.VerifiedFile:
        if isinstance(source, schema.Generator):
            with self._told.of(wanted.name, "generating", str(source)):
                async with self._generators.output(source, wanted.specification, wanted.file.filename) as written:
                    return await self._taken(wanted, source, written)
        if not schema.remote(source):
            return await self._taken(wanted, source, await self.local(wanted, source))
        with self._told.of(wanted.name, "downloading", source) as told:
            return await self._downloaded(wanted, source, told)

    async def look(self, wanted: Wanted, source: schema.Source) -> None:
        """See whether a source of this host has what is wanted. Nothing is fetched, run or kept.

        Raises:
            ModelFileError: it has not, or what lies there, of :data:`LOOKED_AT` or less, is not what is expected.
            SourceAwayError: it is not there yet.
        """
        try:
            if isinstance(source, schema.Generator):
                await anyio.to_thread.run_sync(self._generators.find, source, wanted.specification)
            elif not schema.remote(source):
                await anyio.to_thread.run_sync(_compare, wanted, await self.local(wanted, source))
        except OSError as error:
            raise errors.ModelFileError(f"cannot be read: {error.filename}: {error.strerror}") from error

    def place(self, wanted: Wanted, source: str) -> Path:
        """Where on this host a location leads. Blocking.

        Raises:
            ModelFileError: it is no path, or begins with ``//`` and the configuration does not say what that is relative to.
        """
        try:
            return Path(os.path.realpath(_path(wanted, source, self._root)))  # which a link to itself does not stop
        except ValueError as error:
            raise errors.ModelFileError(f"is no path of a file: {error}") from error

    async def local(self, wanted: Wanted, source: str) -> Path:
        """The file or directory that a location names on this host, where it is one that the location may name.

        Raises:
            ModelFileError: it may not, or is too large.
            SourceAwayError: it is not there yet.
        """
        path = await anyio.to_thread.run_sync(self.place, wanted, source)
        allowed = [await anyio.Path(place).resolve() for place in (wanted.specification.parent, self._root) if place]
        if not any(path.is_relative_to(place) for place in allowed):
            raise errors.ModelFileError("leaves the directory of its specification; move it there, or below models.root")
        await anyio.to_thread.run_sync(_judge, path, self._max_size)
        return path

    async def _downloaded(self, wanted: Wanted, source: str, told: progress.Told) -> content.VerifiedFile:
        try:
            return await self._download(wanted, source, told)
        except _WrongBytesError as error:
            log.warning("a model file is not what its digest says", file=wanted.shown, source=source, reason=str(error))
        try:
            return await self._download(wanted, source, told)
        except _WrongBytesError as error:
            raise errors.ModelFileError(f"{error}; it was fetched twice. {error.advice}") from error

    async def _download(self, wanted: Wanted, source: str, told: progress.Told) -> content.VerifiedFile:
        with await anyio.to_thread.run_sync(self._content.partial, wanted.origin(source), wanted.expected) as partial:
            await self._downloader.download(source, partial, told)
            if wanted.file.is_directory:
                return await self._unpacked(wanted, partial)
            return await self._kept(wanted, partial)

    async def _taken(self, wanted: Wanted, source: schema.Source, path: Path) -> content.VerifiedFile:
        """From a file or directory of this host."""
        is_directory = await anyio.to_thread.run_sync(_is_directory, wanted, path)
        try:
            with await anyio.to_thread.run_sync(self._content.partial, wanted.origin(source), wanted.expected) as partial:
                if is_directory:
                    return await self._staged(wanted, partial, trees.copy, path)
                await anyio.to_thread.run_sync(_fill, partial, path, self._max_size)
                return await self._kept(wanted, partial)
        except _WrongBytesError as error:
            raise error.here() from error

    async def _kept(self, wanted: Wanted, partial: content.Partial) -> content.VerifiedFile:
        found = partial.digests()
        if any(found[name] != digest for name, digest in wanted.expected.items()):
            partial.path.unlink()
            raise _WrongBytesError(wanted, found)
        return await anyio.to_thread.run_sync(self._content.keep, partial, wanted.file.filename)

    async def _unpacked(self, wanted: Wanted, partial: content.Partial) -> content.VerifiedFile:
        from aibenchd.specs import archives  # and what it needs, which the daemon's start need not wait for

        await anyio.to_thread.run_sync(partial.flush)
        return await self._staged(wanted, partial, archives.unpack, partial.path)

    async def _staged(
        self, wanted: Wanted, partial: content.Partial, fill: Callable[[Path, Path, int, Callable[[], None]], None], path: Path
    ) -> content.VerifiedFile:
        """Fill a new directory from ``path``, until its caller is cancelled, and keep it."""
        staged = await anyio.to_thread.run_sync(self._content.staging, partial)
        try:
            await anyio.to_thread.run_sync(fill, path, staged, self._max_size, anyio.from_thread.check_cancelled)
            return await self._kept_tree(wanted, staged)
        finally:
            partial.path.unlink()

    async def _kept_tree(self, wanted: Wanted, staged: Path) -> content.VerifiedFile:
        found = await anyio.to_thread.run_sync(digests.of_tree, staged)
        if wanted.expected.get("sha256", found) != found:
            await anyio.to_thread.run_sync(trees.delete, staged)
            raise _WrongBytesError(wanted, {"sha256": found})
        return await anyio.to_thread.run_sync(self._content.keep_tree, staged, found, wanted.file.filename)


class _WrongBytesError(Exception):
    """What came is not what is expected; the message names both digests."""

    def __init__(self, wanted: Wanted, found: Mapping[str, str]) -> None:
        name, digest = next((name, digest) for name, digest in wanted.expected.items() if found[name] != digest)
        super().__init__(f"has {name} {found[name]}, and the specification says {digest}")
        self.advice = (
            f"If these bytes are meant, write sha256: {found['sha256']} into the specification; else mend what lies there"
        )

    def here(self) -> errors.ModelFileError:
        """Of what lies on this host, where nothing comes of another try."""
        return errors.ModelFileError(f"{self}. {self.advice}")


def _path(wanted: Wanted, source: str, root: Path | None) -> Path:
    scheme, _, rest = source.partition("://")
    if rest and scheme == "file":
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(source).path))
    if rest and scheme.isalnum():
        raise errors.ModelFileError("is an address of a kind that is not known here; there are http, https and file")
    if not source.startswith("//"):
        return wanted.specification.parent / source
    if root is None:
        raise errors.ModelFileError("is relative to models.root, which the configuration does not set")
    return root / source.lstrip("/")


def _is_directory(wanted: Wanted, path: Path) -> bool:
    """Whether something of this host is a directory, where it is what the specification says."""
    is_directory = path.is_dir()
    if is_directory and "md5" in wanted.expected:
        raise errors.ModelFileError("is a directory, which has no MD5: write md5: directory, and its sha256")
    if not is_directory and wanted.file.is_directory:
        raise errors.ModelFileError("is a file, and the specification says a directory: take md5: directory away")
    return is_directory


def _compare(wanted: Wanted, path: Path) -> None:
    """Read what lies on this host, where it is not too large for that, and nothing else tells whether it is right."""
    is_directory = _is_directory(wanted, path)
    if not wanted.expected or trees.size(path) > LOOKED_AT:
        return
    names = {"sha256", *wanted.expected}
    found = {name: digests.of_tree(path) if is_directory else digests.of_file(path, name) for name in names}
    if any(found[name] != digest for name, digest in wanted.expected.items()):
        raise _WrongBytesError(wanted, found).here()


def _judge(path: Path, limit: int) -> None:
    if path.is_dir():
        trees.judge(path)
    elif not path.is_file():
        raise errors.SourceAwayError(f"is not there: no file or directory at {path}; put it there, or mend the location")
    if trees.size(path) > limit:
        raise errors.ModelFileError(trees.too_large(limit))


def _fill(partial: content.Partial, path: Path, limit: int) -> None:
    """Copy a file, in a worker thread, until its caller is cancelled."""
    partial.restart()
    with os.fdopen(trees.open_plain(path), "rb") as file:
        while chunk := file.read(content.CHUNK):
            anyio.from_thread.check_cancelled()
            partial.write(chunk)
            if partial.size > limit:
                raise errors.ModelFileError(trees.too_large(limit))
