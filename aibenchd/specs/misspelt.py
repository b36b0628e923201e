"""Keys of a specification that were probably meant to be others. Pure.

Any key may be a placeholder that commands name, so an unknown one is no fault. One that nobody names, and that is next to a
known one, is told as a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from aibenchd import model
from aibenchd.specs import schema

Finding: TypeAlias = tuple[tuple[str | int, ...], str]

ALIKE = 0.8  # of 1: less, and words that have nothing to do with each other are taken for the same


def of(document: Mapping[str, Any]) -> Iterator[Finding]:
    """What is probably misspelt in a valid model file in plain form, by the path of its key."""
    text = model.canonical_json(document)
    for path, value, judge in _places(document):
        known = [field.alias or name for name, field in judge.model_fields.items()]
        for key in value:
            near = difflib.get_close_matches(key, known, 1, ALIKE) if key not in known else []
            if near and f"{{{key}}}" not in text:
                yield (*path, key), f"is no key that means anything here, and no command names it; did you mean {near[0]!r}?"


Place: TypeAlias = tuple[tuple[str | int, ...], Mapping[str, Any], type[schema.Open]]


def _places(document: Mapping[str, Any]) -> Iterator[Place]:
    yield ("model",), document["model"], schema.Model
    yield from _files(("model",), document["model"])
    for index, test in enumerate(document["tests"]):
        path = ("tests", index)
        yield path, test, schema.Test
        yield (*path, "platform_args"), test.get("platform_args") or {}, schema.PlatformArgs
        yield from _files(path, test)


def _files(path: tuple[str | int, ...], owner: Mapping[str, Any]) -> Iterator[Place]:
    for group, judge in (("files", schema.File), ("input_files", schema.File), ("output_files", schema.OutputFile)):
        for key, file in (owner.get(group) or {}).items():
            yield (*path, group, key), file, judge
