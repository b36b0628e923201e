"""Whether a device is trusted with blocks, by how often in a row it let us down."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from aibenchd import backoff

PROBES = 3  # in a row that must succeed before a device leaves quarantine by itself
PAUSE_SECONDS = (1.0, 300.0)  # first and longest pause between two looks at a device in quarantine


@dataclass(slots=True)
class Health:
    """Failures that are no program's: the device was lost that had been reached, or the harness failed on it.

    That one which is away cannot be connected to is no failure more: a board that is started anew is lost once, not ten times.
    From ``limit`` failures in a row on it is in quarantine: looked at now and then, and given no block. It comes back when it
    was found well :data:`PROBES` times in a row. One that comes back and fails again is away for longer each time, until
    a block has succeeded.

    Attributes:
        reason: of the last failure.
    """

    limit: int
    rng: random.Random
    failures: int = 0
    reason: str = ""
    _well: int = 0
    _away: backoff.Backoff = field(init=False)  # between looks that fail
    _parole: backoff.Backoff = field(init=False)  # between looks that succeed

    def __post_init__(self) -> None:
        self._away, self._parole = (backoff.Backoff(*PAUSE_SECONDS, self.rng) for _ in range(2))

    @property
    def quarantined(self) -> bool:
        """Whether it has failed too often in a row to be trusted with a block."""
        return self.failures >= self.limit

    @property
    def text(self) -> str:
        """For a person."""
        if not self.failures:
            return "good"
        return f"{self.failures} failure{'s' if self.failures > 1 else ''} in a row"

    def failed(self, reason: str) -> None:
        """The device, and no program, was why a block was not run; ``reason`` is for a person."""
        self.failures += 1
        self.reason = reason

    def succeeded(self) -> None:
        """A block was run, or nothing is amiss where nothing was to be run."""
        self.release()
        self._away.reset()
        self._parole.reset()

    def release(self) -> None:
        """Trust it again, at once."""
        self.failures, self.reason, self._well = 0, "", 0

    def pause(self) -> float:
        """Seconds until the next look at a device in quarantine."""
        return (self._parole if self._well else self._away).next()

    def probed(self, trouble: str) -> None:
        """It was looked at in quarantine; ``trouble`` is empty where it was well."""
        if trouble:
            self._well, self.reason = 0, trouble
            return
        self._well += 1
        self._away.reset()
        if self._well >= PROBES:
            self.release()
