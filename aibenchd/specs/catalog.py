"""All specifications that the configuration names, read and expanded. Blocking: files are small, but call it in a thread."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from aibenchd import errors, faults, model, settings, substitution, yamlfile
from aibenchd.specs import expand, schema

Judge = TypeVar("Judge", bound=schema.Open)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The benchmarks of a configuration.

    Attributes:
        entries: each selection with its benchmarks, in the order of the configuration.
        files: every specification that was read: what to watch for changes.
        warnings: what is odd in them but can be run: keys given twice (the last holds), names given twice.
    """

    entries: tuple[tuple[settings.BenchmarkSelection, tuple[model.Benchmark, ...]], ...]
    files: tuple[Path, ...]
    warnings: tuple[errors.Fault, ...]

    def benchmarks(self, selection: settings.BenchmarkSelection) -> tuple[model.Benchmark, ...]:
        """The benchmarks of one entry of ``settings.benchmarks``; empty where this catalog was not made for it."""
        same = (found for known, found in self.entries if known is selection)  # quicker by far than comparing settings
        equal = (found for known, found in self.entries if known == selection)
        return next(itertools.chain(same, equal), ())


def load(chosen: settings.Settings) -> Catalog:
    """Read all that ``settings.benchmarks`` names.

    Raises:
        InvalidFileError: with every fault of every file.
    """
    reader = _Reader()
    entries = tuple((selection, tuple(reader.specification(selection))) for selection in chosen.benchmarks)
    if reader.faults:
        raise errors.InvalidFileError(reader.faults)
    twice = _named_twice(itertools.chain.from_iterable(found for _, found in entries))
    return Catalog(entries, tuple(reader.documents), (*reader.warnings, *twice))


class _Reader:
    """Reads each file once, collects faults, and goes on."""

    def __init__(self) -> None:
        self.documents: dict[Path, yamlfile.Document | None] = {}
        self.faults: list[errors.Fault] = []
        self.warnings: list[errors.Fault] = []

    def specification(self, selection: settings.BenchmarkSelection) -> Iterator[model.Benchmark]:
        """The benchmarks of a model file, or of all model files that a benchmarks file lists."""
        path = selection.specification
        document = self._document(path)
        if document is None:
            return
        if not isinstance(document.value, dict) or not {"benchmarks", "tests", "model"} & document.value.keys():
            self.faults.append(document.fault((), "expected a model file (model, tests) or a benchmarks file (meta, benchmarks)"))
        elif "benchmarks" in document.value:
            yield from self._group(path, document, selection)
        else:
            yield from self._model_file(document, selection, {})

    def _group(
        self, path: Path, document: yamlfile.Document, selection: settings.BenchmarkSelection
    ) -> Iterator[model.Benchmark]:
        value = substitution.replaced(document.value, selection.string_map)
        if not self._judged(document, value, schema.BenchmarksFile):
            return
        for index, name in enumerate(value["benchmarks"]):
            member = Path(os.path.normpath(path.parent / name))
            if Path(name).is_absolute() or not member.is_file():
                message = f"there is no model file {name!r}; expected a path relative to this file"
                self.faults.append(document.fault(("benchmarks", index), message))
            elif (found := self._document(member)) is not None:
                yield from self._model_file(found, selection, value.get("meta", {}))

    def _model_file(
        self, document: yamlfile.Document, selection: settings.BenchmarkSelection, meta: model.JsonObject
    ) -> tuple[model.Benchmark, ...]:
        value = substitution.replaced(document.value, selection.string_map)
        if not self._judged(document, value, schema.ModelFile):
            return ()
        extra = selection.string_map.get("pep_extra_args", "")
        return expand.benchmarks(value, source=document.file, metas=(meta,), pep_extra_args=extra)

    def _document(self, path: Path) -> yamlfile.Document | None:
        """A file's content, read when it is first asked for; None where it cannot be read."""
        if path not in self.documents:
            self.documents[path] = None
            try:
                self.documents[path] = document = yamlfile.load(path)
                self.warnings.extend(document.duplicates)
            except errors.InvalidFileError as error:
                self.faults.extend(error.faults)
        return self.documents[path]

    def _judged(self, document: yamlfile.Document, value: Any, judge: type[Judge]) -> bool:
        try:
            judge.model_validate(value)
        except pydantic.ValidationError as error:
            found = faults.of(error, document, judge)
            known = {str(fault) for fault in self.faults}
            self.faults.extend(fault for fault in found if str(fault) not in known)
            return False
        return True


def _named_twice(benchmarks: Iterable[model.Benchmark]) -> Iterator[errors.Fault]:
    """Different benchmarks that reports could not tell apart, because model, metric and identifier are the same."""
    first: dict[tuple[str, str, str], model.Benchmark] = {}
    for benchmark in benchmarks:
        other = first.setdefault((benchmark.name, benchmark.metric, benchmark.identifier), benchmark)
        if other.source != benchmark.source:
            name = f"{benchmark.name} {benchmark.metric} {benchmark.identifier}"
            yield errors.Fault(
                benchmark.source, f"{name!r} is the name of a benchmark of {other.source} too; give one another name"
            )
