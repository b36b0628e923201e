"""What FAI-PEP was told, by argument; and values on their way into the configuration, with where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aibenchd import errors, quantities
from aibenchd.migrate import arguments

Tree: TypeAlias = Any  # nested dicts and lists, with a Value wherever an argument decided


@dataclass(frozen=True, slots=True)
class Value:
    """A value, the arguments that it comes from, and what else the file says of it."""

    value: Any
    origin: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What has no key, or is otherwise here: ``subject`` is an argument, or what was not given."""

    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


@dataclass(slots=True)
class Old:
    """All arguments of a run, the command line's before the saved answers; and the notes that were made on the way."""

    script: str
    given: Mapping[str, arguments.Given]
    notes: list[Note] = field(default_factory=list)

    def note(self, subject: str, text: str) -> None:
        self.notes.append(Note(subject, text))

    def get(self, *names: str) -> arguments.Given | None:
        """The first of these that says something; one of the command line before one of the answers."""
        found = [self.given[name] for name in names if name in self.given and self.given[name].words not in ((), ("",))]
        return min(found, key=lambda given: bool(given.source), default=None)

    def text(self, name: str, default: str = "") -> str:
        """Its first word; ``default`` where it was not given, or is empty."""
        given = self.get(name)
        return given.words[0] if given else default

    def flag(self, name: str) -> bool:
        """Whether it was given, with whatever value."""
        return name in self.given

    def value(self, name: str) -> Value | None:
        """Its text, with its name."""
        given = self.get(name)
        return Value(given.words[0], name) if given else None

    def listed(self, *names: str) -> list[str]:
        """The parts of a text with commas."""
        given = self.get(*names)
        return [part for part in map(str.strip, given.words[0].split(",")) if part] if given else []

    def duration(self, name: str) -> Value | None:
        """A number of seconds as a duration.

        Raises:
            ArgumentError: it is none.
        """
        seconds = self.number(name)
        return Value(quantities.duration_text(seconds), name) if seconds is not None else None

    def number(self, name: str) -> float | None:
        """A number that is not negative, and not beyond a hundred years of seconds.

        Raises:
            ArgumentError: it is none.
        """
        given = self.get(name)
        try:
            number = float(given.words[0]) if given else 0.0
        except ValueError:
            number = -1.0
        if given and not 0 <= number <= quantities.LONGEST:
            raise given.wrong("a number from 0, in seconds where it is a time")
        return number if given else None


def known(**items: Any) -> dict[str, Any]:
    """Those that are not None, in their order."""
    return {name: item for name, item in items.items() if item is not None}


def pure(tree: Tree) -> Any:
    """What a tree holds."""
    if isinstance(tree, Value):
        return pure(tree.value)
    if isinstance(tree, dict):
        return {name: pure(item) for name, item in tree.items()}
    return [pure(item) for item in tree] if isinstance(tree, list) else tree


def origins(tree: Tree) -> Iterator[str]:
    """The arguments that something in a tree comes from."""
    if isinstance(tree, Value):
        yield from (name for name in tree.origin.split(", ") if name)
        tree = tree.value
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from origins(item)


def name_of(text: str, default: str) -> str:
    """A text as a name that the configuration takes: letters, digits, ``.``, ``_`` and ``-``."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
    return kept.strip("._-")[:64].rstrip("._-") or default


def merged(line: arguments.Line, saved: Mapping[str, arguments.Given]) -> Old:
    """The arguments of a run.

    Raises:
        ArgumentError: one without which FAI-PEP does not run is missing.
    """
    old = Old(line.script.name, {**saved, **line.given})
    for name in ("--benchmark_file", "--framework"):
        if old.get(name) is None:
            raise errors.ArgumentError(f"{name}: expected it, on the command line or among the answers of run_bench.py")
    return old
