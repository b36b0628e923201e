"""Pauses between tries: each twice the last, up to a limit, with jitter so that many who wait do not come back together."""

from __future__ import annotations

import random


class Backoff:
    """Seconds to wait before the next try.

    Full jitter over the upper half: between half of the nominal pause and all of it.
    """

    def __init__(self, first: float, longest: float, rng: random.Random) -> None:
        self._first, self._longest, self._rng = first, longest, rng
        self._nominal = first

    def next(self) -> float:
        """The pause after one more failure."""
        pause = self._nominal * self._rng.uniform(0.5, 1.0)
        self._nominal = min(self._nominal * 2, self._longest)
        return pause

    def reset(self) -> None:
        """Begin again: a try succeeded."""
        self._nominal = self._first
