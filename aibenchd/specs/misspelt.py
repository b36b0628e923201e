"""What was probably meant to be something else in a specification: keys, and names in its commands. Pure.

Any key may be a placeholder that commands name, so an unknown one is no fault. One that nobody names, and that is next to a
known one, is told as a warning. Any name in braces may be a program of the build or awk's own, so one that nothing stands
for is no fault either; it is told where it is next to one that something stands for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from aibenchd import model
from aibenchd.frameworks import placeholders
from aibenchd.specs import contradictions, schema

Finding: TypeAlias = tuple[tuple[str | int, ...], str]

GIVEN = ("identifier", "iter", "warmup")  # keys that every test has once it is expanded
_NAME = re.compile(rf"(?<!\$){placeholders.PATTERN.pattern}")  # the shell's ${name} is its own


def keys(document: Mapping[str, Any]) -> Iterator[Finding]:
    """What is probably misspelt in a valid model file in plain form, by the path of its key."""
    text = model.canonical_json(document)
    for path, value, judge in _places(document):
        known = [field.alias or name for name, field in judge.model_fields.items()]
        for key in value:
            near = difflib.get_close_matches(key, known, 1, schema.ALIKE) if key not in known else []
            if near and f"{{{key}}}" not in text:
                yield (*path, key), f"is no key that means anything here, and no command names it; did you mean {near[0]!r}?"


Place: TypeAlias = tuple[tuple[str | int, ...], Mapping[str, Any], type[schema.Open]]


def _places(document: Mapping[str, Any]) -> Iterator[Place]:
    yield ("model",), document["model"], schema.Model
    yield from _below(("model",), document["model"])
    for index, test in enumerate(document["tests"]):
        path = ("tests", index)
        yield path, test, schema.Test
        yield from _below(path, test)


def _below(path: tuple[str | int, ...], owner: Mapping[str, Any]) -> Iterator[Place]:
    yield (*path, "platform_args"), owner.get("platform_args") or {}, schema.PlatformArgs
    yield from _files(path, owner)
    for key in ("preprocess", "postprocess"):
        process = owner.get(key) or {}
        yield (*path, key), process, schema.Process
        yield from _files((*path, key), process)


def _files(path: tuple[str | int, ...], owner: Mapping[str, Any]) -> Iterator[Place]:
    for group, judge in (("files", schema.File), ("input_files", schema.File), ("output_files", schema.OutputFile)):
        for key, file in (owner.get(group) or {}).items():
            yield (*path, group, key), file, judge
            if judge is schema.OutputFile:
                yield (*path, group, key, "golden"), file.get("golden") or {}, schema.File


def names(document: Mapping[str, Any]) -> Iterator[Finding]:
    """What is probably misspelt in the commands of a valid model file in plain form, by the path of the command.

    Args:
        document: with all that is merged into its model, whose keys its commands may name.
    """
    tests, whole = document["tests"], document["model"]
    for index, test in enumerate(tests):
        known = _known(test, whole)
        for key in contradictions.WHAT_RUNS:
            yield from _unknown(("tests", index, key), test.get(key, ()), known)
        yield from _around(("tests", index), test, known)
    every = {name for test in tests for name in _known(test, whole)}
    yield from _unknown(("model", "command_args"), whole.get("command_args", ()), every)
    yield from _around(("model",), whole, every)


def _around(path: tuple[str | int, ...], owner: Mapping[str, Any], known: set[str]) -> Iterator[Finding]:
    for key in ("preprocess", "postprocess"):
        for inner in ("commands", "command"):
            yield from _unknown((*path, key, inner), (owner.get(key) or {}).get(inner, ()), known)


def _known(test: Mapping[str, Any], whole: Mapping[str, Any]) -> set[str]:
    """Names that something stands for in a test's commands; those of files by their group and key."""
    around = {f"{key}.{name}" for key in ("preprocess", "postprocess") for name in _files_in(test.get(key) or {})}
    return {*placeholders.ALWAYS, *GIVEN, *_texts(test), *_texts(whole), *_files_in(test), *_files_in(whole), *around}


def _texts(owner: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """All keys with one value, those further down as paths."""
    for key, value in owner.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{above}{key}.")
        elif not isinstance(value, list):
            yield f"{above}{key}"


def _files_in(owner: Mapping[str, Any]) -> Iterator[str]:
    return (f"{group}.{key}" for group in ("files", "input_files", "output_files") for key in owner.get(group) or {})


def _unknown(path: tuple[str | int, ...], commands: str | Sequence[str], known: set[str]) -> Iterator[Finding]:
    plain = {name.casefold(): name for name in sorted(known)}
    listed = [commands] if isinstance(commands, str) else commands
    for index, command in enumerate(listed):
        for name in dict.fromkeys(_NAME.findall(command)):
            near = difflib.get_close_matches(name.casefold(), plain, 1, schema.ALIKE) if name not in known else []
            if near and not contradictions.FILE_NAME.fullmatch(name):
                message = f"names {{{name}}}, which stands for nothing but a program of the build that is called so"
                where = (*path, index) if len(listed) > 1 else path
                yield where, f"{message}; did you mean {{{plain[near[0]]}}}?"
