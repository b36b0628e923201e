"""Files of blocks: one JSON object a line, ``{"block", "order": "CT" | "TC", "control": […], "treatment": […]}``.

The lists are the iterations of one process each, in any unit. Blocks are in the order in which they ran. A number may be
missing, of a block that failed; one that is left out for its result makes the verdict a choice. A tape has no history: the
number of a process is the mean of its fastest eighth, and where all have eight iterations, the slow ones are judged beside
it (:mod:`aibenchd.decide.guard`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aibenchd import errors
from aibenchd.decide import guard, summary

LINE_BOUND = 64 << 20  # bytes
LISTED = 10  # faults of one tape; the rest is counted
KEYS = ("block", "order", "control", "treatment")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Tape:
    """Its blocks in order: one number per process, and which arm ran first.

    Attributes:
        file: its name, for messages.
        tails: of the treatment's and of the control's processes; None where one of them has too few iterations for it.
    """

    file: str
    treatment: Sequence[float]
    control: Sequence[float]
    orders: Sequence[str]
    numbers: Sequence[int]
    tails: guard.Tails | None = None

    def up_to(self, blocks: int) -> Tape:
        """Its first ``blocks``."""
        tails = self.tails and (self.tails[0][:blocks], self.tails[1][:blocks])
        return Tape(self.file, self.treatment[:blocks], self.control[:blocks], self.orders[:blocks], self.numbers[:blocks], tails)


@dataclass(frozen=True, slots=True)
class _Process:
    """What is made of the iterations of one; ``tail`` is None where they are too few."""

    number: float
    tail: float | None


class _BadLine(ValueError):  # noqa: N818  it says what is wrong with one
    """What is wrong with a line, at which column of it."""

    def __init__(self, message: str, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


def read(path: str) -> Tape:
    """Read a tape; ``-`` is standard input.

    Raises:
        InvalidFileError: with the first lines that are wrong and what was expected there, and how many more are.
    """
    faults: list[errors.Fault] = []
    blocks: list[tuple[_Process, _Process, str]] = []
    seen: dict[int, int] = {}
    try:
        with _opened(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_BOUND), b""), start=1):
                try:
                    if text := line.decode("utf-8-sig").rstrip():
                        blocks.append(_block(text, number, seen))
                except UnicodeDecodeError:
                    faults.append(errors.Fault(path, "is no text in UTF-8; expected a JSON object a line", line=number, column=1))
                    break
                except _BadLine as error:
                    faults.append(errors.Fault(path, str(error), line=number, column=error.column))
    except OSError as error:
        faults.append(errors.Fault(path, f"cannot be read: {error.strerror}"))
    if not blocks and not faults:
        faults.append(errors.Fault(path, "holds no block; expected one JSON object a line"))
    faults += _unsorted(path, seen)
    if faults:
        raise errors.InvalidFileError(_first(faults))
    treatment, control, orders = zip(*blocks, strict=True)
    tails = _tails(treatment, control)
    return Tape(path, [one.number for one in treatment], [one.number for one in control], orders, tuple(seen), tails)


def _tails(treatment: Sequence[_Process], control: Sequence[_Process]) -> guard.Tails | None:
    known = [[one.tail for one in arm if one.tail is not None] for arm in (treatment, control)]
    return (known[0], known[1]) if sum(map(len, known)) == len(treatment) + len(control) else None


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb")


def _first(faults: Sequence[errors.Fault]) -> list[errors.Fault]:
    """Some of them, and how many more there are: a file of another kind is wrong in each of its lines."""
    more = len(faults) - LISTED
    if more <= 0:
        return list(faults)
    begin, said = faults[LISTED], f"from here on, {more} more {'fault is' if more == 1 else 'faults are'} not listed"
    return [*faults[:LISTED], errors.Fault(begin.file, said, line=begin.line, column=begin.column)]


def _unsorted(path: str, seen: Mapping[int, int]) -> list[errors.Fault]:
    """The first block that is not after the one before it, and no other: a tape may be in no order at all."""
    turned = next(((before, name) for before, name in itertools.pairwise(seen) if name < before), None)
    if turned is None:
        return []
    before, name = (str(one)[:40] for one in turned)
    advice = 'sort the lines by "block", which is the order in which they ran'
    return [errors.Fault(path, f'"block": expected one after {before}, not {name}; {advice}', line=seen[turned[1]], column=1)]


def _block(text: str, number: int, seen: dict[int, int]) -> tuple[_Process, _Process, str]:
    found = _object(text)
    name = found.get("block")
    if not isinstance(name, int) or isinstance(name, bool) or name < 0:
        raise _BadLine(f'"block": expected its number, from 0, not {repr(name)[:40]}')
    if name in seen:
        raise _BadLine(f'"block": {name} was on line {seen[name]} already')
    seen[name] = number
    if found.get("order") not in ("CT", "TC"):
        raise _BadLine(f'"order": expected "CT" or "TC", not {repr(found.get("order"))[:40]}')
    return _process(found, "treatment"), _process(found, "control"), found["order"]


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise _BadLine(f"expected a JSON object: {error.msg}", error.colno) from None
    except (ValueError, RecursionError):
        raise _BadLine("expected a JSON object; a number in it is too long, or it is nested too deeply") from None
    if not isinstance(found, dict) or not found.keys() & set(KEYS):
        had = f", not {', '.join(map(repr, found))[:60] or 'an empty one'}" if isinstance(found, dict) else ""
        raise _BadLine(f'expected an object with "block", "order", "control" and "treatment"{had}')
    return found


def _process(block: dict[str, Any], arm: str) -> _Process:
    values = block.get(arm)
    if not isinstance(values, list) or not values:
        raise _BadLine(f'"{arm}": expected a list of times of at least one iteration')
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not _positive(value):
            raise _BadLine(f'"{arm}"[{index}]: expected a positive, finite time, not {str(value)[:40]}')
    return _Process(summary.of_process(values), summary.of_tail(values))


def _positive(value: float) -> bool:
    try:
        return math.isfinite(float(value)) and value > 0
    except OverflowError:
        return False
