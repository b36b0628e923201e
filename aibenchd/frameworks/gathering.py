"""What readers of programs' output share: series gathered by key, with a bound on all that a program can make them hold.

A program may print anything, so nothing here raises: names become printable, numbers too large to square count as infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from aibenchd import model
from aibenchd.frameworks import base

LARGEST = 1e150  # of a sample; a larger one, whose square is no number any more, counts as infinite
MAX_VALUES = 1_000_000  # samples of one output; what comes after them is dropped
MAX_SERIES = 20_000  # of one output
MAX_BACKENDS = 16  # of one output; who states two is not believed anyway
MAX_NAME = 300  # characters of a type, a metric or a unit
MAX_TEXT = 64 << 10  # characters of an info_string
MAX_ROW = 16 << 10  # characters of a row that is no JSON; a longer one is no protocol's


def series(kind: str, metric: str, unit: str, values: Iterable[float] = (), text: str = "") -> model.Series:
    """A series whose names and text are fit to be stored and shown, whatever the program called it."""
    return model.Series(_name(kind), _name(metric), _name(unit), tuple(values), _text(text))


def number(value: Any) -> float | None:
    """A float, or a text that reads as one; None for all else. NaN and infinities pass: who judges must see them."""
    try:
        found = float(value) if isinstance(value, float | str) else None
    except ValueError:
        return None
    return math.copysign(math.inf, found) if found is not None and abs(found) > LARGEST else found


def _name(text: str) -> str:
    """As it may stand in a file name, a table or a log: bounded, in one line, encodable."""
    text = text[:MAX_NAME]
    return text if text.isprintable() else "".join(character if character.isprintable() else "?" for character in text)


def _text(text: str) -> str:
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


class Gathered:
    """Series by key, in the order in which keys first appear, and the backends that were stated."""

    def __init__(self) -> None:
        self._first: dict[str, model.Series] = {}
        self._values: dict[str, list[float]] = {}
        self._left = MAX_VALUES
        self._backends: dict[str, None] = {}

    def add(self, one: model.Series) -> None:
        """Samples of a key in another unit than its first are dropped: they cannot be laid beside the others."""
        if one.key not in self._first and len(self._first) < MAX_SERIES:
            self._first[one.key], self._values[one.key] = one, []
        if one.key in self._first and self._first[one.key].unit == one.unit:
            kept = one.values[: self._left]
            self._left -= len(kept)
            self._values[one.key].extend(kept)

    def state(self, backend: str) -> None:
        """The program says that this backend executed."""
        if len(self._backends) < MAX_BACKENDS:
            self._backends[_name(backend)] = None

    def output(self) -> base.Output:
        """Two backends that were stated are both given, so that neither passes for the one."""
        found = tuple(
            model.Series(first.type, first.metric, first.unit, tuple(self._values[key]), first.text)
            for key, first in self._first.items()
        )
        return base.Output(found, "+".join(sorted(filter(None, self._backends))))
