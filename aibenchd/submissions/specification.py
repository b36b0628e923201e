"""The specification of a submission: laid out from what was sent, read, and what of its files is still to be sent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from aibenchd import errors, model, settings, yamlfile
from aibenchd.plan import coverage
from aibenchd.specs import catalog, files, schema, sources
from aibenchd.submissions import kept

_WAY_OUT = "name one that holds all files of the specification (aibenchctl submit --directory), or move them"


@dataclass(frozen=True, slots=True)
class Sent:
    """A specification that somebody sends.

    Attributes:
        name: its path, below the directory that its files are sent from.
        files: digests by such paths, its own among them.
        string_map: replaced in every value of it.
    """

    name: str
    files: Mapping[str, str]
    string_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """What is known of a specification.

    Attributes:
        directory: that it is laid out in.
        selected: its benchmarks; empty while ``lacking`` is not.
        lacking: paths of what it names and is not among what was sent.
        warnings: what is odd in it but can be run, for who sent it.
    """

    directory: Path
    selected: Sequence[coverage.Selected] = ()
    lacking: Sequence[str] = ()
    warnings: Sequence[str] = ()


async def read(
    sent: Sent, sender: int, selection: settings.BenchmarkSelection, store: kept.Kept, models: files.ModelCache
) -> Read:
    """Lay out a specification, all of whose ``files`` are here, and read it.

    Args:
        sender: the user that sent it.
        selection: but for the specification, and what is replaced in it.

    Raises:
        CommandError: it is not valid, or names what nobody may send; the message says it to who sent it.
        UploadError: it cannot be laid out.
    """
    directory = await anyio.to_thread.run_sync(store.lay_out, sent.files, sender)
    try:
        return await _read(directory, sent, selection, models)
    except (errors.CommandError, errors.InvalidFileError, errors.ModelFileError) as error:
        raise errors.CommandError(_as_sent(str(error), directory)) from error


def _as_sent(text: str, directory: Path) -> str:
    """With paths as who sent it knows them."""
    return text.replace(f"{directory}/", "").replace(str(directory), "its directory")


async def _read(directory: Path, sent: Sent, selection: settings.BenchmarkSelection, models: files.ModelCache) -> Read:
    lacking = await anyio.to_thread.run_sync(_members_lacking, directory, sent.name)
    if lacking:
        return Read(directory, lacking=lacking)
    chosen = selection.model_copy(update={"specification": directory / sent.name, "string_map": dict(sent.string_map)})
    found = await anyio.to_thread.run_sync(catalog.load, settings.Settings(benchmarks=(chosen,)))
    benchmarks = found.benchmarks(chosen)
    if not benchmarks:
        raise errors.CommandError(f"{sent.name}: has no tests; there is nothing to measure")
    needed: set[str] = set()
    for benchmark in benchmarks:
        needed.update(await _lacking(directory, benchmark, models))
    if needed:
        return Read(directory, lacking=sorted(needed))
    warnings = [_as_sent(str(warning), directory) for warning in found.warnings]
    return Read(directory, [coverage.Selected(benchmark, chosen) for benchmark in benchmarks], warnings=warnings)


def _members_lacking(directory: Path, name: str) -> list[str]:
    """The model files that a benchmarks file names and that are not there; what else is wrong is told by who reads it."""
    value = yamlfile.load(directory / name).value
    listed = value.get("benchmarks") if isinstance(value, dict) else None
    named = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    paths = [_below(directory, (directory / name).parent, one) for one in named]
    return [path for path in paths if not (directory / path).exists()]


async def _lacking(directory: Path, benchmark: model.Benchmark, models: files.ModelCache) -> list[str]:
    """What a benchmark names and is neither here, in the model cache nor on the network."""
    lacking: list[str] = []
    for wanted in models.wanted(benchmark):
        reason = await models.lacks(wanted)
        paths = list(_sendable(directory, wanted)) if reason else []
        unsent = [path for path in paths if not (directory / path).exists()]
        if reason and not unsent:
            raise errors.CommandError(f"{wanted.shown}: {reason}")
        lacking += unsent[:1]
    for library in schema.typed(benchmark)[1].libraries:
        path = _below(directory, Path(benchmark.source).parent, library.location)
        lacking += [] if (directory / path).exists() else [path]
    return lacking


def _sendable(directory: Path, wanted: sources.Wanted) -> Iterator[str]:
    """The paths, below the directory, by which a file may be sent."""
    for source in wanted.file.sources:
        if isinstance(source, str) and "://" not in source and not source.startswith("//"):
            yield _below(directory, wanted.specification.parent, source)


def _below(directory: Path, base: Path, name: str) -> str:
    """A path as seen from the directory, which it must not leave."""
    path = Path(os.path.normpath(base / name))
    if "\0" in name or not path.is_relative_to(directory) or path == directory:
        raise errors.CommandError(f"{name!r} leaves the directory that is sent from: {_WAY_OUT}")
    return path.relative_to(directory).as_posix()
