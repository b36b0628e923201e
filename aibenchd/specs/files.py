"""The model cache: files that specifications name, fetched once, verified when an experiment starts, never run unverified.

People find them under ``<directory>/<format>/<name>/<filename>``, links to bytes that are kept by digest.
"""

from __future__ import annotations

import contextlib
import dataclasses
import urllib.parse
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from aibenchd import errors, model, redaction, settings
from aibenchd.specs import content, download, schema

GROUPS = ("files", "input_files", "host_files", "golden")
FETCHES = 2  # of one file: where the bytes are wrong they are fetched once more, from the start

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BenchmarkFiles:
    """All files of a benchmark that are fetched, by their keys. Those made at run time are not among them.

    Attributes:
        files: the model's; pushed to the device.
        input_files: the test's; pushed to the device.
        host_files: the test's ``files``, and those of its pre- and postprocess; they stay on this host.
        golden: what the test's output files must hold, by their keys; they stay on this host.
    """

    files: Mapping[str, content.VerifiedFile]
    input_files: Mapping[str, content.VerifiedFile]
    host_files: Mapping[str, content.VerifiedFile]
    golden: Mapping[str, content.VerifiedFile] = field(default_factory=dict)

    def unchanged(self) -> bool:
        """Whether each has the size, inode and time of when it was verified; else call :meth:`ModelCache.ensure` again."""
        groups = (self.files, self.input_files, self.host_files, self.golden)
        return all(file.unchanged() for group in groups for file in group.values())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file, for whom, and what it must be: digests by algorithm, none where a local file's are not known."""

    key: str
    file: schema.File
    source: Path
    view: Path
    expected: Mapping[str, str]

    @property
    def origin(self) -> str:
        """What makes it the same bytes of the same place."""
        return f"{self.file.sources[0]} {sorted(self.expected.items())}"

    @property
    def shown(self) -> str:
        return f"{self.source}: {self.key}: {redaction.text(str(self.file.sources[0]))}"


class ModelCache:
    """The files of all benchmarks. Safe to use from any task of one event loop.

    Args:
        chosen: sizes, times and the root of locations that begin with ``//``.
        directory: where it lies, unless ``chosen`` says; made when it is needed.
        first_pause: seconds after the first try of a download that failed.
    """

    def __init__(
        self, chosen: settings.ModelCacheSettings, directory: Path, *, first_pause: float = download.FIRST_PAUSE
    ) -> None:
        self._directory = chosen.directory or directory
        self._root = chosen.root
        self._max_size = chosen.max_file_size
        self._content = content.Content(self._directory / ".content")
        self._downloader = download.Downloader(chosen.max_file_size, chosen.timeout, first_pause)
        self._locks: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()

    async def ensure(self, benchmark: model.Benchmark) -> BenchmarkFiles:
        """Have all files of a benchmark here, read and found right. Call it when an experiment starts.

        Raises:
            ModelFileError: one cannot be had, or its bytes are not those of its digest also when fetched anew.
            CommandError: the benchmark is not valid.
        """
        groups: dict[str, dict[str, content.VerifiedFile]] = {name: {} for name in GROUPS}
        for group, name, wanted in self._wanted(benchmark):
            try:
                groups[group][name] = await self._file(wanted)
            except OSError as error:
                message = f"{wanted.shown}: the model cache {self._directory} cannot be used: {error.strerror}"
                raise errors.ModelFileError(message) from error
        return BenchmarkFiles(**groups)

    def _wanted(self, benchmark: model.Benchmark) -> Iterator[tuple[str, str, _Wanted]]:
        test, whole = schema.typed(benchmark)
        around = {
            name: file for process in (test.preprocess, test.postprocess) if process for name, file in process.files.items()
        }
        golden = {name: output.golden for name, output in test.output_files.items() if output.golden}
        host_files = {**around, **test.files}
        groups = zip(GROUPS, (whole.files, test.input_files, host_files, golden), strict=True)
        directory = self._directory / (whole.format or "any") / whole.name
        for group, files in groups:
            for name, file in files.items():
                if not file.made_at_run_time:
                    view = directory / file.filename
                    yield group, name, _Wanted(f"{group}.{name}", file, Path(benchmark.source), view, file.digests)

    async def _file(self, wanted: _Wanted) -> content.VerifiedFile:
        if not wanted.expected:
            digest = await anyio.to_thread.run_sync(self._content.seen, await self._local(wanted))
            wanted = dataclasses.replace(wanted, expected={"sha256": digest})
        name = wanted.file.filename
        async with self._lock(wanted):
            found = await anyio.to_thread.run_sync(self._content.find, wanted.expected, name) or await self._fetched(wanted)
        await anyio.to_thread.run_sync(content.link, wanted.view, found.path)
        return found

    @contextlib.asynccontextmanager
    async def _lock(self, wanted: _Wanted) -> AsyncIterator[None]:
        """One task at a time for the same bytes; the others then find them here."""
        lock = self._locks.setdefault(wanted.origin, anyio.Lock())
        async with lock:
            yield

    async def _fetched(self, wanted: _Wanted) -> content.VerifiedFile:
        found: dict[str, str] = {}
        for _ in range(FETCHES):
            with await anyio.to_thread.run_sync(self._content.partial, wanted.origin, wanted.expected) as partial:
                await self._bytes(wanted, partial)
                found = partial.digests()
                if all(found[name] == digest for name, digest in wanted.expected.items()):
                    return await anyio.to_thread.run_sync(self._content.keep, partial, wanted.file.filename)
                partial.path.unlink()
            log.warning("a model file is not what its digest says", file=wanted.shown, found=found, expected=wanted.expected)
        raise errors.ModelFileError(_mismatch(wanted, found))

    async def _bytes(self, wanted: _Wanted, partial: content.Partial) -> None:
        if schema.remote(wanted.file.sources[0]):
            log.info("downloading", file=wanted.shown)
            await self._downloader.download(str(wanted.file.sources[0]), partial)
        else:
            await self._copy(await self._local(wanted), partial)

    async def _copy(self, source: Path, partial: content.Partial) -> None:
        """In pieces, so that it can be cancelled between two of them."""
        partial.restart()
        async with await anyio.open_file(source, "rb") as file:
            while chunk := await file.read(content.CHUNK):
                await anyio.to_thread.run_sync(partial.write, chunk)

    async def _local(self, wanted: _Wanted) -> Path:
        """The file that a location names on this host, where it is one that the location may name."""
        path = await anyio.Path(_path(wanted, self._root)).resolve()
        allowed = [await anyio.Path(place).resolve() for place in (wanted.source.parent, self._root) if place]
        if not any(path.is_relative_to(place) for place in allowed):
            message = f"{wanted.shown} leaves the directory of its specification; move it there, or below models.root"
            raise errors.ModelFileError(message)
        if not await path.is_file():
            raise errors.ModelFileError(f"{wanted.shown}: {path} is not a file that is there")
        if (await path.stat()).st_size > self._max_size:
            message = f"{wanted.shown} is larger than {self._max_size} bytes; raise models.max_file_size to allow it"
            raise errors.ModelFileError(message)
        return Path(path)


def _path(wanted: _Wanted, root: Path | None) -> Path:
    location = str(wanted.file.sources[0])
    if location.startswith("file://"):
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(location).path))
    if not location.startswith("//"):
        return wanted.source.parent / location
    if root is None:
        raise errors.ModelFileError(f"{wanted.shown} is relative to models.root, which the configuration does not set")
    return root / location.lstrip("/")


def _mismatch(wanted: _Wanted, found: Mapping[str, str]) -> str:
    name, digest = next((name, digest) for name, digest in wanted.expected.items() if found[name] != digest)
    return (
        f"{wanted.shown} has {name} {found[name]}, and the specification says {digest}; it was fetched {FETCHES} times."
        f" If these bytes are meant, write sha256: {found['sha256']} into the specification; else mend what lies there"
    )
