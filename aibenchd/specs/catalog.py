"""All specifications that the configuration names, read and expanded. Blocking: files are small, but call it in a thread."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pydantic

from aibenchd import errors, faults, model, settings, substitution, yamlfile
from aibenchd.specs import contradictions, defaults, expand, forms, marks, misspelt, schema

SUFFIXES = (".json", ".yaml", ".yml")  # of what may be a model file, where a directory is named
FILES_BELOW = 10_000  # of those, below one directory

Judge = TypeVar("Judge", bound=schema.Open)
AtPlace: TypeAlias = Callable[[yamlfile.KeyPath, str], errors.Fault]  # gives what is said of a key its place in a file


@dataclass(frozen=True, slots=True)
class Catalog:
    """The benchmarks of a configuration.

    Attributes:
        entries: each selection with its benchmarks, in the order of the configuration.
        seen: every file that was read, and every directory that was looked through, as it was just before.
        warnings: what is odd in them but can be run: keys given twice (the last holds), names given twice, and all that
            :mod:`aibenchd.specs.contradictions` finds.
    """

    entries: tuple[tuple[settings.BenchmarkSelection, tuple[model.Benchmark, ...]], ...]
    seen: marks.Marks
    warnings: tuple[errors.Fault, ...]

    def benchmarks(self, selection: settings.BenchmarkSelection) -> tuple[model.Benchmark, ...]:
        """The benchmarks of one entry of ``settings.benchmarks``; empty where this catalog was not made for it."""
        same = (found for known, found in self.entries if known is selection)  # quicker by far than comparing settings
        equal = (found for known, found in self.entries if known == selection)
        return next(itertools.chain(same, equal), ())


class BadSpecificationsError(errors.InvalidFileError):
    """Specifications with faults, of a configuration that has none."""


def load(chosen: settings.Settings, context: str | None = None) -> Catalog:
    """Read all that ``settings.benchmarks`` names.

    Args:
        context: ``schema.UNPINNED`` for who does not need the digests of files.

    Raises:
        BadSpecificationsError: with every fault of every file.
    """
    found, faults = read(chosen, context)
    if faults:
        raise BadSpecificationsError(faults)
    return found


def read(chosen: settings.Settings, context: str | None = None) -> tuple[Catalog, list[errors.Fault]]:
    """As :func:`load`, with the faults beside what is good, for who must know also then which files were read."""
    reader = _Reader(context)
    entries = tuple((selection, tuple(reader.specification(selection))) for selection in chosen.benchmarks)
    twice = _named_twice(itertools.chain.from_iterable(found for _, found in entries))
    return Catalog(entries, reader.seen, (*reader.warnings.values(), *twice)), list(reader.faults.values())


def as_named(faults: Sequence[errors.Fault], fault: AtPlace, chosen: settings.Settings) -> list[errors.Fault]:
    """Faults of specifications, with what is wrong with a whole file or directory told where the configuration names it.

    Args:
        fault: gives what is said of a key of ``chosen`` its place in the configuration's file.
    """
    places = {str(one.specification): index for index, one in reversed([*enumerate(chosen.benchmarks)])}
    return [one if one.line or one.file not in places else _as_named(one, fault, places[one.file]) for one in faults]


def _as_named(found: errors.Fault, fault: AtPlace, place: int) -> errors.Fault:
    missing = marks.of(Path(found.file)) is None
    message = (
        "is not there; put a model file, a benchmarks file or a directory there, or mend the path" if missing else found.message
    )
    return fault(("benchmarks", place, "specification"), f"{found.file} {message}")


class _Reader:
    """Reads each file once, collects what there is to say of it by its text, and goes on."""

    def __init__(self, context: str | None) -> None:
        self.documents: dict[Path, yamlfile.Document | None] = {}
        self.seen: dict[Path, marks.Mark | None] = {}
        self.faults: dict[str, errors.Fault] = {}
        self.warnings: dict[str, errors.Fault] = {}
        self._context = context

    def specification(self, selection: settings.BenchmarkSelection) -> Iterator[model.Benchmark]:
        """The benchmarks of a model file, of all model files that a benchmarks file lists, or of those below a directory."""
        path = selection.specification
        found = marks.of(path)
        if found is not None and found.is_directory:
            yield from self._directory(path, selection)
            return
        document = self._document(path)
        if document is None:
            return
        if not isinstance(document.value, dict) or not {"benchmarks", "tests", "model"} & document.value.keys():
            self._fault(document.fault((), "expected a model file (model, tests) or a benchmarks file (meta, benchmarks)"))
        elif "benchmarks" in document.value:
            yield from self._group(path, document, selection)
        else:
            yield from self._model_file(document, selection, _NOTHING)

    def _directory(self, path: Path, selection: settings.BenchmarkSelection) -> Iterator[model.Benchmark]:
        """Of all model files; other files, benchmarks files among them, are passed over."""
        files = list(itertools.islice(self._below(path), FILES_BELOW + 1))
        if len(files) > FILES_BELOW:
            self._fault(errors.Fault(str(path), f"more than {FILES_BELOW} files lie below it; name a directory of models alone"))
            return
        for file in files:
            document = self._document(file)
            if document is not None and isinstance(document.value, dict) and "model" in document.value:
                yield from self._model_file(document, selection, _NOTHING)

    def _below(self, directory: Path) -> Iterator[Path]:
        """All files that may be model files, sorted; hidden ones and links to directories are not followed."""
        self.seen[directory] = marks.of(directory)
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError as error:
            self._fault(errors.Fault(str(directory), f"cannot be read: {error.strerror}"))
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            elif path.suffix in SUFFIXES and _may_be_read(marks.of(path)):
                yield path

    def _group(
        self, path: Path, document: yamlfile.Document, selection: settings.BenchmarkSelection
    ) -> Iterator[model.Benchmark]:
        flags = self._flags(document)
        value = forms.benchmarks_file(substitution.replaced(document.value, {**flags.string_map, **selection.string_map}))
        if not self._judged(document, value, schema.BenchmarksFile):
            return
        group = _Group(value.get("meta", {}), flags)
        for index, name in enumerate(value["benchmarks"]):
            member = Path(os.path.normpath(path.parent / name))
            mark = marks.of(member)
            if Path(name).is_absolute() or mark is None or not mark.is_file:
                self.seen[member] = mark
                message = f"there is no model file {name!r}; expected a path relative to this file"
                self._fault(document.fault(("benchmarks", index), message))
            elif (found := self._document(member)) is not None:
                if isinstance(found.value, dict) and "benchmarks" in found.value:
                    message = f"{name!r} is a benchmarks file too, and they go one level deep: name its model files here"
                    self._fault(document.fault(("benchmarks", index), message))
                else:
                    yield from self._model_file(found, selection, group)

    def _model_file(
        self, document: yamlfile.Document, selection: settings.BenchmarkSelection, group: _Group
    ) -> tuple[model.Benchmark, ...]:
        flags = self._flags(document)
        string_map = {**group.flags.string_map, **flags.string_map, **selection.string_map}
        earlier = {key_path: substitution.replaced(one, string_map) for key_path, one in document.earlier.items()}
        value = forms.model_file(substitution.replaced(document.value, string_map), earlier)
        run = forms.meta(selection.meta)
        if not self._judged(document, value, schema.ModelFile) or not self._merges(document, (), "the selection's meta", run):
            return ()
        metas = (value.get("meta", {}), group.meta, run, *(_left(one, selection) for one in (flags, group.flags)))
        extra = string_map.get("pep_extra_args", "")
        found = expand.benchmarks(value, source=document.file, metas=metas, pep_extra_args=extra)
        whole = {**value, "model": found[0].model}
        odd = (*contradictions.of(whole), *misspelt.keys(value), *misspelt.names(whole))
        for key_path, message in odd:
            self._warning(document.fault(forms.as_written(key_path, document.value), message))
        return found

    def _flags(self, document: yamlfile.Document) -> defaults.Defaults:
        """A file's ``default_args``; none of them where they do not fit."""
        found = defaults.of(document.value.get("default_args") if isinstance(document.value, dict) else None)
        for name, message in found.unknown.items():
            self._warning(document.fault(("default_args", name), f"{message}; it is left out"))
        return found if self._merges(document, ("default_args",), "a default", found.meta) else defaults.Defaults()

    def _merges(self, document: yamlfile.Document, key_path: yamlfile.KeyPath, what: str, meta: model.JsonObject) -> bool:
        """Whether something can be merged into a model."""
        try:
            schema.Meta.model_validate(meta, context=self._context)
        except pydantic.ValidationError as error:
            for problem in error.errors(include_url=False):
                key = yamlfile.key_text(problem["loc"])
                self._fault(document.fault(key_path, f"{what} cannot be merged into the model: {key}: {problem['msg']}"))
            return False
        return True

    def _document(self, path: Path) -> yamlfile.Document | None:
        """A file's content, read when it is first asked for; None where it cannot be read."""
        if path not in self.documents:
            self.documents[path] = None
            self.seen[path] = marks.of(path)
            try:
                self.documents[path] = document = yamlfile.load(path)
            except errors.InvalidFileError as error:
                self._fault(*error.faults)
            else:
                self._warning(*document.duplicates)
        return self.documents[path]

    def _judged(self, document: yamlfile.Document, value: Any, judge: type[Judge]) -> bool:
        try:
            judge.model_validate(value, context=self._context)
        except pydantic.ValidationError as error:
            self._fault(*faults.of(error, document, judge))
            return False
        return True

    def _fault(self, *found: errors.Fault) -> None:
        self.faults.update((str(fault), fault) for fault in found)

    def _warning(self, *found: errors.Fault) -> None:
        self.warnings.update((str(fault), fault) for fault in found)


def _may_be_read(mark: marks.Mark | None) -> bool:
    """Whether something that lies in a directory may be a specification; a larger file is data of one."""
    return mark is not None and mark.is_file and mark.size <= yamlfile.MAX_BYTES


@dataclass(frozen=True, slots=True)
class _Group:
    """What a benchmarks file adds to each of its model files."""

    meta: model.JsonObject
    flags: defaults.Defaults


_NOTHING = _Group({}, defaults.Defaults())


def _left(flags: defaults.Defaults, selection: settings.BenchmarkSelection) -> model.JsonObject:
    """What is merged of a file's defaults where the selection says some things of its own."""
    chosen = {"timeout": selection.experiment.timeout, "command_args": selection.command_args, "env": selection.env}
    return flags.beside(chosen)


def _named_twice(benchmarks: Iterable[model.Benchmark]) -> Iterator[errors.Fault]:
    """Different benchmarks that reports could not tell apart: framework, model, metric and identifier are the same."""
    first: dict[tuple[str, ...], model.Benchmark] = {}
    for benchmark in benchmarks:
        key = (benchmark.framework, benchmark.name, benchmark.metric, benchmark.identifier)
        other = first.setdefault(key, benchmark)
        if other.source != benchmark.source:
            name = f"{benchmark.name} {benchmark.metric} {benchmark.identifier}"
            yield errors.Fault(
                benchmark.source, f"{name!r} is the name of a benchmark of {other.source} too; give one another name"
            )
