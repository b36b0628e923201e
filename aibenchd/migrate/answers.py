"""The files that a command line of FAI-PEP's names or implies: saved answers, the commit it came to, JSON. Blocking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aibenchd
from aibenchd import errors, faults, yamlfile
from aibenchd.migrate import arguments

USUAL = Path("~/.aibench/git")
FILES = ("config.txt", "config_overrides.txt")  # the later one wins
SIZE_LIMIT = 64 << 10  # bytes


def directory(line: arguments.Line) -> Path:
    """Where the saved answers are."""
    named = line.given.get("--config_dir")
    return absolute(named.words[0]) if named else USUAL.expanduser()


def saved(line: arguments.Line) -> Mapping[str, arguments.Given]:
    """The answers that ``run_bench.py`` asked for once; none of another script, nor before it asked.

    Raises:
        ArgumentError: ``--config_dir`` names a directory without any, or they hold what no script knows.
        InvalidFileError: they cannot be read.
    """
    if line.script.name != "run_bench.py":
        return {}
    here = directory(line)
    there = [here / name for name in FILES if (here / name).exists()]
    if "--config_dir" in line.given and not there:
        raise errors.ArgumentError(f"--config_dir: expected {FILES[0]} with the saved answers in {here}; there is none")
    return {name: given for path in there for name, given in _of(path).items()}


def _of(path: Path) -> dict[str, arguments.Given]:
    document = yamlfile.load(path)  # as which JSON reads too
    if not isinstance(document.value, dict):
        raise errors.InvalidFileError([document.fault((), "expected an object, argument: value, as run_bench.py writes it")])
    return {given.argument.name: given for given in _answered(document)}


def _answered(document: yamlfile.Document) -> Iterator[arguments.Given]:
    found: list[errors.Fault] = []
    for name, value in document.value.items():
        try:
            argument = arguments.known(name)
        except errors.ArgumentError as error:
            found.append(document.fault((), f"{error}"))
            continue
        words = _words(argument, value)
        if words is not None:
            yield arguments.Given(argument, words, document.file)
    if found:
        raise errors.InvalidFileError(found)


def _words(argument: arguments.Argument, value: Any) -> tuple[str, ...] | None:
    """An answer as the words that ``run_bench.py`` makes of it; None where there is nothing to say."""
    if argument.takes is arguments.Takes.NOTHING:
        return None if value is False else ()
    if value is None or value == "":
        return None
    if argument.takes is arguments.Takes.MANY and isinstance(value, list):
        return tuple(map(str, value))
    return (value if isinstance(value, str) else json.dumps(value),)


def absolute(text: str) -> Path:
    """A path as the command line meant it: from the current directory; ``~`` is the home directory."""
    return Path(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111  links are kept


def shipped(name: str) -> Path | None:
    """What comes with aibenchd: beside the package in its source, below ``share`` where it is installed."""
    source, installed = Path(aibenchd.__file__).parents[1], Path(sys.prefix) / "share"
    return next((path for path in (source / name, installed / name) if path.exists()), None)


def schema() -> str:
    """Where editors find the JSON Schema; beside the file, where it is not found here."""
    found = shipped("config/aibenchd.schema.json") or shipped("aibenchd.schema.json")
    return str(found or "aibenchd.schema.json")


def existing(given: arguments.Given, kind: str = "a file") -> Path:
    """The file, or directory, that an argument names.

    Raises:
        ArgumentError: there is none that can be read.
    """
    path = absolute(given.words[0])
    right = os.path.isdir(path) if kind == "a directory" else os.path.exists(path)  # noqa: PTH110, PTH112  no name is too long
    if not right:
        raise errors.ArgumentError(f"{given}: expected {kind}: {path} is none; run this where the old command ran")
    if not os.access(path, os.R_OK):
        raise errors.ArgumentError(f"{given}: {path} cannot be read: Permission denied")
    return path


def line_in(given: arguments.Given) -> str:
    """The first line of a file that an argument names, without white space; empty where there is no such file.

    Raises:
        ArgumentError: it cannot be read, or is no text.
    """
    path = absolute(given.words[0])
    try:
        with path.open("rb") as file:
            text = file.read(SIZE_LIMIT).decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise errors.ArgumentError(f"{given}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise errors.ArgumentError(f"{given}: {path}: expected a line of text, found other bytes") from None
    return text.strip().partition("\n")[0].strip()


def mapping(given: arguments.Given) -> dict[str, Any]:
    """The JSON object that an argument is, or that is in the file it names.

    Raises:
        ArgumentError: it is none.
        InvalidFileError: the file is none.
    """
    text = given.words[0].strip()
    if not text.startswith("{"):
        document = yamlfile.load(existing(given))
        if not isinstance(document.value, dict):
            raise errors.InvalidFileError([document.fault((), f"{given}: expected a JSON object")])
        return dict(document.value)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.ArgumentError(f"{given}: expected a JSON object: {error}") from None
    return dict(value)


def texts(given: arguments.Given) -> dict[str, str]:
    """As :func:`mapping`, of names to texts; numbers become texts.

    Raises:
        ArgumentError: there is a list or an object in it.
    """
    found = mapping(given)
    for name, value in found.items():
        if isinstance(value, dict | list):
            raise errors.ArgumentError(f"{given}: {name}: expected a text, not {faults.found(value)}")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
