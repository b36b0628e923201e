"""A row of the table that ``make bench`` prints, and how its parts are taken."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

RUNS = 15  # of each side, in turn
TICKS = os.sysconf("SC_CLK_TCK")  # a second: 10 ms is the least that can be told


@dataclass(frozen=True, slots=True)
class Figure:
    """One row.

    Attributes:
        ours, yardstick: in ``unit``.
        beside: what the yardstick is.
        designed: the design's figure in ``unit``; None where it names none.
        at_least: whether more is better.
    """

    name: str
    ours: float
    yardstick: float
    unit: str
    beside: str
    designed: float | None = None
    at_least: bool = False

    @property
    def missed(self) -> bool:
        if self.designed is None:
            return False
        return self.ours < self.designed if self.at_least else self.ours > self.designed

    def __str__(self) -> str:
        designed = "-" if self.designed is None else f"{self.designed:,.3g}" if self.designed < 1e3 else f"{self.designed:,.0f}"
        numbers = f"{_shown(self.ours):>9} {_shown(self.yardstick):>9} {self.unit:3} {self.ours / self.yardstick:8.3f}"
        return f"{self.name:48} {numbers}  {self.beside:32} {designed:>7}{'  MISSED' if self.missed else ''}"


HEAD = f"{'figure':48} {'ours':>9} {'yardstick':>9} {'':3} {'ratio':>8}  {'the yardstick':32} {'design':>7}"


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def in_turn(
    ours: Callable[[], Awaitable[float]], yardstick: Callable[[], Awaitable[float]], runs: int = RUNS
) -> tuple[float, float]:
    """The medians of both, taken one after the other again and again, so that a busy moment meets both."""
    taken = [(await ours(), await yardstick()) for _ in range(runs)]
    return statistics.median(mine for mine, _ in taken), statistics.median(other for _, other in taken)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, without its children's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.2f}"
