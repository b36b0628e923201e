"""Files of blocks: one JSON object a line, ``{"block", "order": "CT" | "TC", "control": […], "treatment": […]}``.

The lists are the iterations of one process each, in any unit. Blocks are in the order in which they ran. A number may be
missing, of a block that failed; one that is left out for its result makes the verdict a choice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aibenchd import errors
from aibenchd.decide import summary

LINE_BOUND = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Tape:
    """Its blocks in order: one number per process, and which arm ran first. ``file`` is its name, for messages."""

    file: str
    treatment: Sequence[float]
    control: Sequence[float]
    orders: Sequence[str]
    numbers: Sequence[int]

    def up_to(self, blocks: int) -> Tape:
        """Its first ``blocks``."""
        return Tape(self.file, self.treatment[:blocks], self.control[:blocks], self.orders[:blocks], self.numbers[:blocks])


def read(path: str) -> Tape:
    """Read a tape.

    Raises:
        InvalidFileError: with every line that is wrong, and what was expected there.
    """
    faults: list[errors.Fault] = []
    blocks: list[tuple[float, float, str]] = []
    seen: dict[int, int] = {}
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_BOUND), b""), start=1):
                if line.strip():
                    try:
                        blocks.append(_block(line, number, seen))
                    except ValueError as error:
                        faults.append(errors.Fault(path, str(error), line=number, column=1))
    except OSError as error:
        faults.append(errors.Fault(path, f"cannot be read: {error.strerror}"))
    if not blocks and not faults:
        faults.append(errors.Fault(path, "holds no block; expected one JSON object a line"))
    if faults:
        raise errors.InvalidFileError(faults)
    treatment, control, orders = zip(*blocks, strict=True)
    return Tape(path, treatment, control, orders, tuple(seen))


def _block(line: bytes, number: int, seen: dict[int, int]) -> tuple[float, float, str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object: {error}") from None
    if not isinstance(found, dict):
        raise ValueError('expected an object with "block", "order", "control" and "treatment"')
    name = found.get("block")
    if not isinstance(name, int) or isinstance(name, bool) or name < 0:
        raise ValueError(f'"block": expected its number, from 0, not {repr(name)[:40]}')
    if name in seen:
        raise ValueError(f'"block": {name} was on line {seen[name]} already')
    if seen and name < next(reversed(seen)):
        raise ValueError(f'"block": expected one after {next(reversed(seen))}, not {str(name)[:40]}')
    seen[name] = number
    if found.get("order") not in ("CT", "TC"):
        raise ValueError(f'"order": expected "CT" or "TC", not {repr(found.get("order"))[:40]}')
    return _number(found, "treatment"), _number(found, "control"), found["order"]


def _number(block: dict[str, Any], arm: str) -> float:
    values = block.get(arm)
    if not isinstance(values, list) or not values:
        raise ValueError(f'"{arm}": expected a list of times of at least one iteration')
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not _positive(value):
            raise ValueError(f'"{arm}"[{index}]: expected a positive, finite time, not {str(value)[:40]}')
    return summary.of_process(values)


def _positive(value: float) -> bool:
    try:
        return math.isfinite(float(value)) and value > 0
    except OverflowError:
        return False
