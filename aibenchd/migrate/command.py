"""``aibenchd migrate``: what FAI-PEP was told, as a configuration of ours."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aibenchd import errors, settings
from aibenchd.migrate import answers, arguments, old, sections, writing


def run(parsed: argparse.Namespace) -> int:
    """Print the configuration, and on standard error what has no key in it.

    Raises:
        ArgumentError: an argument is unknown, lacks its value, or is not what it should be.
        InvalidFileError: a file that one names or implies is not.
    """
    words = parsed.words[1:] if parsed.words[:1] == ["--"] else parsed.words
    text, notes = migrated(words)
    print(text, end="")  # noqa: T201
    for note in notes:
        print(f"note: {note}", file=sys.stderr)  # noqa: T201
    return 0


def migrated(words: Sequence[str]) -> tuple[str, list[old.Note]]:
    """The file, and what is said in it that has no key. It was read back, and is valid.

    Raises:
        ArgumentError, InvalidFileError: as :func:`run`.
    """
    line = arguments.read(words)
    found = old.merged(line, answers.saved(line))
    made = sections.of(found, line.script)
    _say_of_the_line(found, line)
    _say_what_is_left(found, made)
    text = writing.text(made, found.notes, line.script.name, answers.schema())
    _read_back(text)
    return text, found.notes


def _say_of_the_line(found: old.Old, line: arguments.Line) -> None:
    for word in line.before:
        place = f"stood before {line.script.name} and is not carried over"
        found.note(word.partition("=")[0], f"{place}; environments are set by builds.env and devices[].env")
    for name in line.twice:
        found.note(name, "was given more than once; the last one holds, as there")
    if line.script.name == "run_remote.py":
        found.note(
            line.script.name, "what it did does 'aibenchctl submit FILE --treatment PROGRAM --device NAME', from your desk"
        )
    if line.script.name == "run_bench.py" and not any(given.source for given in found.given.values()):
        found.note("--config_dir", f"there are no saved answers in {answers.directory(line)}: only the command line was read")


def _say_what_is_left(found: old.Old, made: Mapping[str, old.Tree]) -> None:
    """What went into no key and no note: it goes with something that is not there."""
    said = {name for note in found.notes for name in note.subject.split(", ")} | set(old.origins(made))
    for name, given in found.given.items():
        if name not in said and given.words != ("",):
            keys = ", ".join(given.argument.keys)
            found.note(
                name, " ".join((*given.words, f"would go into {keys}; nothing here takes it" if keys else "is not carried over"))
            )


def _read_back(text: str) -> None:
    """By the reader of the daemon's own configuration; a fault names the argument, which stands beside the value."""
    with tempfile.TemporaryDirectory(prefix="aibenchd-migrate-") as scratch:
        path = Path(scratch) / "aibenchd.yaml"
        path.write_text(text)
        try:
            settings.load(path)
        except errors.InvalidFileError as error:
            raise errors.ArgumentError("\n".join(_blamed(fault, text.splitlines()) for fault in error.faults)) from None


def _blamed(fault: errors.Fault, lines: Sequence[str]) -> str:
    written = lines[fault.line - 1] if fault.line else ""
    origin = written.rpartition("  # ")[2] if "  # --" in written else ""
    return f"{origin.partition(';')[0] or 'the configuration that this comes to'}: {fault.key}: {fault.message}"
