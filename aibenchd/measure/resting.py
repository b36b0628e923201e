"""Experiments that rest: a block of each failed by our fault, and is tried again later, so that others go on meanwhile."""

from __future__ import annotations

import collections
import math
import random
from dataclasses import dataclass, field

import anyio

from aibenchd import backoff, model

PAUSE_SECONDS = (1.0, 300.0)  # first and longest rest
LEAST_LOSSES = 2  # of a device in a row before a program is blamed for them, however soon it is in quarantine: one is chance


@dataclass(slots=True)
class Rest:
    """An experiment whose block failed by our fault; ``since`` and ``until`` are by the event loop's clock.

    Attributes:
        losses: how often the device was lost while a program of it ran, by arm; in a row, for a block that is run ends the rest.
        lost: what was said of the last time.
    """

    pauses: backoff.Backoff
    since: float
    until: float = 0.0
    losses: collections.Counter[model.ArmName] = field(default_factory=collections.Counter)
    lost: str = ""


class Rests:
    """Those of one device, by their numbers."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._rests: dict[int, Rest] = {}

    def __len__(self) -> int:
        return len(self._rests)

    def begin(self, experiment: int) -> Rest:
        """Let it rest, longer each time."""
        now = anyio.current_time()
        rest = self._rests.setdefault(experiment, Rest(backoff.Backoff(*PAUSE_SECONDS, self._rng), now))
        rest.until = now + rest.pauses.next()
        return rest

    def end(self, experiment: int) -> bool:
        """A block of it was run, or it has ended; whether none rests any more, of which one did."""
        return self._rests.pop(experiment, None) is not None and not self._rests

    def first(self, count: int) -> list[int]:
        """So many of them at most, whether their rest is over or not."""
        return list(self._rests)[:count]

    def now(self) -> list[int]:
        """Those that are not to be tried yet."""
        now = anyio.current_time()
        return [experiment for experiment, rest in self._rests.items() if rest.until > now]

    def next_in(self) -> float:
        """Seconds until the next has rested; less than 0 where one has, infinite where there is none."""
        return min((rest.until for rest in self._rests.values()), default=math.inf) - anyio.current_time()

    def since(self, experiment: int) -> float:
        """Seconds since a block of it first failed by our fault."""
        rest = self._rests.get(experiment)
        return anyio.current_time() - rest.since if rest else 0.0

    def loses(self, experiment: int, most: int) -> Rest | None:
        """Its rest, where its programs have taken the device with them ``most`` times; None where they have not."""
        rest = self._rests.get(experiment)
        return rest if rest is not None and rest.losses.total() >= max(most, LEAST_LOSSES) else None
