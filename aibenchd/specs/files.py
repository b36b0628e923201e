"""The model cache: files that specifications name, fetched once, verified when an experiment starts, never run unverified.

People find them under ``<directory>/<format>/<name>/<filename>``, links to bytes that are kept by digest.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import structlog

from aibenchd import board, errors, events, hostgate, model, redaction, settings
from aibenchd.devices import base as devices
from aibenchd.specs import content, download, eviction, generate, progress, schema, sources, trees

Given = TypeVar("Given")

GROUPS = ("files", "input_files", "host_files", "golden")

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

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each, by group and key."""
        groups = {name: getattr(self, name) for name in GROUPS}
        return {f"{name}.{key}": file.digest for name, group in groups.items() for key, file in sorted(group.items())}

    def unchanged(self) -> bool:
        """Whether each has the size, inode and time of when it was verified; else call :meth:`ModelCache.ensure` again."""
        groups = (self.files, self.input_files, self.host_files, self.golden)
        return all(file.unchanged() for group in groups for file in group.values())


@dataclass(frozen=True, slots=True)
class House:
    """What the cache shares with the rest of the process; by itself it has its own.

    Attributes:
        gate: passed by each generator, so that none runs while the local host measures.
        run: as whom generators run, now.
    """

    events: events.Events
    board: board.Board
    gate: hostgate.Gate
    run: Callable[[], devices.RunSettings]

    @classmethod
    def alone(cls, run: Callable[[], devices.RunSettings] = devices.RunSettings) -> House:
        """Of a process that does nothing else."""
        told = events.Events()
        return cls(told, board.Board(told), hostgate.OpenGate(), run)


class ModelCache:
    """The files of all benchmarks. Safe to use from any task of one event loop.

    Args:
        chosen: sizes, times, and where files and generators are looked for.
        directory: where it lies, unless ``chosen`` says; made when it is needed. Generators work beside it.
        first_pause: seconds after the first try of a download that failed.
    """

    def __init__(
        self,
        chosen: settings.ModelCacheSettings,
        directory: Path,
        house: House | None = None,
        *,
        first_pause: float = download.FIRST_PAUSE,
    ) -> None:
        house = house or House.alone()
        self._settings = chosen
        self._directory = chosen.directory or directory
        self._content = content.Content(self._directory / content.DIRECTORY)
        self._told = progress.Progress(house.board, house.events)
        limits = generate.Limits(chosen.generator_timeout, chosen.max_file_size)
        work = directory.with_name("generate")
        self._generators = generate.Generators(work, chosen.generators_directory, limits, house.run, house.gate)
        downloader = download.Downloader(chosen.max_file_size, chosen.timeout, first_pause)
        self._sources = sources.Sources(
            self._content, downloader, self._generators, self._told, chosen.root, chosen.max_file_size
        )
        self._limiter = anyio.CapacityLimiter(chosen.parallel)
        self._locks: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()
        # All that somebody has in hand: what is run, or waits for its turn, is held by its worker.
        self._held: weakref.WeakValueDictionary[int, content.VerifiedFile] = weakref.WeakValueDictionary()
        self._count = itertools.count()

    async def ensure(self, benchmark: model.Benchmark) -> BenchmarkFiles:
        """Have all files of a benchmark here, read and found right. Call it when an experiment starts.

        Raises:
            ModelFileError: some cannot be had, or their bytes are not those of their digests also when fetched anew.
            SourceAwayError: a server that may have some of them does not answer.
            HarnessError: generators cannot be run here.
            CommandError: the benchmark is not valid.
        """
        groups: dict[str, dict[str, content.VerifiedFile]] = {name: {} for name in GROUPS}
        failures: list[errors.AibenchdError] = []

        async def ensure(group: str, key: str, wanted: sources.Wanted, view: Path) -> None:
            try:
                groups[group][key] = await self._file(wanted)
                await anyio.to_thread.run_sync(content.show, self._directory, view, groups[group][key].path)
            except errors.AibenchdError as error:
                failures.append(error)
            except OSError as error:
                failures.append(self._unusable(wanted, error))

        every = list(self._wanted(benchmark))
        async with anyio.create_task_group() as tasks:
            for group, key, wanted, view in every:
                tasks.start_soon(ensure, group, key, wanted, view)
        if failures:
            raise _as_one(failures)
        return BenchmarkFiles(**{name: dict(sorted(group.items())) for name, group in groups.items()})

    async def fetch(self, wanted: sources.Wanted) -> content.VerifiedFile:
        """Have one file here, whatever its digest is where none is expected.

        Raises:
            ModelFileError, HarnessError: as :meth:`ensure`.
        """
        try:
            return await self._fetched(wanted)
        except OSError as error:
            raise self._unusable(wanted, error) from error

    def wanted(self, benchmark: model.Benchmark) -> list[sources.Wanted]:
        """All files of a benchmark that are fetched.

        Raises:
            CommandError: the benchmark is not valid.
        """
        return [wanted for _, _, wanted, _ in self._wanted(benchmark)]

    async def lacks(self, wanted: sources.Wanted) -> str:
        """Why a file cannot be had, as far as this host can tell without fetching or running; empty where it may be.

        One that is kept already needs no source; one on the network may have it; large files are not read.
        """
        if await anyio.to_thread.run_sync(self._content.has, wanted.expected) or any(
            schema.remote(source) for source in wanted.file.sources
        ):
            return ""
        try:
            await _first(wanted, functools.partial(self._sources.look, wanted))
        except (errors.ModelFileError, errors.SourceAwayError) as error:
            return str(error).removeprefix(f"{wanted.shown}: ")
        return ""

    async def excess(self) -> int:
        """The bytes by which all files take more than configured."""
        size = await anyio.to_thread.run_sync(lambda: eviction.Store(self._directory).size())
        return max(0, size - self._settings.cache_size)

    async def trim(self, needed: Iterable[model.Benchmark]) -> int:
        """Let go of the least recently used files, until all take no more than configured.

        Those of ``needed`` stay, and so does what somebody has in hand or was asked for within the last hour.

        Returns:
            the bytes by which they are still too many.
        """
        return await anyio.to_thread.run_sync(self._trim, self._in_hand(), list(needed))

    def _trim(self, held: set[str], needed: Sequence[model.Benchmark]) -> int:
        self._generators.sweep()
        store = eviction.Store(self._directory)
        left = store.size() - self._settings.cache_size
        if left > 0:
            left -= store.evict(left, held | {digest for benchmark in needed for digest in self._digests(benchmark)})
        store.tidy()
        return max(left, 0)

    def _digests(self, benchmark: model.Benchmark) -> Iterator[str]:
        """The files of a benchmark by the SHA-256 of what they are here now; none of one that is not valid (any more)."""
        with contextlib.suppress(errors.CommandError):
            for _, _, wanted, _ in self._wanted(benchmark):
                if wanted.expected:
                    yield self._content.path(wanted.expected).name
                for source in () if wanted.expected else wanted.file.sources:
                    with contextlib.suppress(errors.ModelFileError):
                        yield self._content.last_seen(self._sources.place(wanted, str(source)))

    def _wanted(self, benchmark: model.Benchmark) -> Iterator[tuple[str, str, sources.Wanted, Path]]:
        """Each file with its group, its key there, and where people find it."""
        test, whole = schema.typed(benchmark)
        around = {
            name: file for process in (test.preprocess, test.postprocess) if process for name, file in process.files.items()
        }
        golden = {name: output.golden for name, output in test.output_files.items() if output.golden}
        groups = zip(GROUPS, (whole.files, test.input_files, {**around, **test.files}, golden), strict=True)
        directory = self._directory / (whole.format or "any") / whole.name
        for group, files in groups:
            for key, file in files.items():
                if not file.made_at_run_time:
                    name = f"{whole.name}/{file.filename}"
                    wanted = sources.Wanted(f"{group}.{key}", name, file, Path(benchmark.source), file.digests)
                    yield group, key, wanted, directory / file.filename

    async def _file(self, wanted: sources.Wanted) -> content.VerifiedFile:
        if not wanted.expected:
            wanted = await self._as_it_is(wanted)
        async with self._lock(str(sorted(wanted.expected.items()))):
            found = await anyio.to_thread.run_sync(self._found, self._in_hand(), wanted)
            if found is None:
                found = await self._fetched(wanted)
                log.info("a model file has come", file=wanted.name, sha256=found.digest, bytes=found.size)
                self._told.fetched(wanted.name, found.digest, found.size)
        self._held[next(self._count)] = found
        return found

    def _found(self, held: Collection[str], wanted: sources.Wanted) -> content.VerifiedFile | None:
        """What is kept of it. A file that lists a directory has the digest of that directory: where it is in the way, it goes.

        Raises:
            SourceAwayError: that file is one of those that are ``held``, by their digests.
        """
        found = self._content.find(wanted.expected, wanted.file.filename)
        if found is None or found.path.is_dir() or not wanted.file.is_directory:
            return found
        if found.digest in held:
            raise errors.SourceAwayError(
                f"{wanted.shown}: a file with the digest of this directory is in use; it comes after that"
            )
        log.warning("a file lay where a directory is wanted", file=wanted.name, sha256=found.digest)
        trees.delete(found.path)
        return None

    def _in_hand(self) -> set[str]:
        """The digests of all that somebody holds."""
        return {file.digest for file in list(self._held.values())}

    async def _as_it_is(self, wanted: sources.Wanted) -> sources.Wanted:
        """A file of this host without a digest is taken for what it is now."""

        async def seen(source: schema.Source) -> str:
            local = await self._sources.local(wanted, str(source))
            try:
                return await anyio.to_thread.run_sync(self._content.seen, local)
            except PermissionError as error:
                raise errors.ModelFileError(f"cannot be read: {error.filename}: {error.strerror}") from error

        return replace(wanted, expected={"sha256": await _first(wanted, seen)})

    @contextlib.asynccontextmanager
    async def _lock(self, bytes_: str) -> AsyncIterator[None]:
        """One task at a time for the same bytes; the others then find them here."""
        lock = self._locks.setdefault(bytes_, anyio.Lock())
        async with lock:
            yield

    async def _fetched(self, wanted: sources.Wanted) -> content.VerifiedFile:
        """From the first source that has it."""

        async def fetched(source: schema.Source) -> content.VerifiedFile:
            try:
                return await self._sources.fetch(wanted, source)
            except (errors.ModelFileError, errors.SourceAwayError) as error:
                reason = f"{redaction.text(str(source))} {error}"
                log.warning("a source does not have a model file", file=wanted.shown, reason=reason)
                raise

        async with self._limiter:
            return await _first(wanted, fetched)

    def _unusable(self, wanted: sources.Wanted, error: OSError) -> errors.ModelFileError:
        return errors.ModelFileError(f"{wanted.shown}: the model cache {self._directory} cannot be used: {error.strerror}")


async def _first(wanted: sources.Wanted, attempt: Callable[[schema.Source], Awaitable[Given]]) -> Given:
    """What the first source that has a file gives.

    Raises:
        ModelFileError: no source has it.
        SourceAwayError: nor has any, and one of them may have it later.
    """
    reasons: list[str] = []
    kind: type[errors.AibenchdError] = errors.ModelFileError
    for source in wanted.file.sources:
        try:
            return await attempt(source)
        except (errors.ModelFileError, errors.SourceAwayError) as error:
            kind = errors.SourceAwayError if isinstance(error, errors.SourceAwayError) else kind
            reasons.append(f"{redaction.text(str(source))} {error}")
    if len(reasons) == 1:
        raise kind(f"{wanted.shown}: {reasons[0]}")
    raise kind("\n  ".join((f"{wanted.shown}: none of its {len(reasons)} sources has it:", *reasons)))


def _as_one(failures: Sequence[errors.AibenchdError]) -> errors.AibenchdError:
    """All of them; one that may not be there the next time counts for all."""
    kind = next((type(one) for one in failures if not isinstance(one, errors.ModelFileError)), errors.ModelFileError)
    return kind("\n".join(sorted(map(str, failures))))
