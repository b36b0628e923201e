"""A device's state and health on the board, as people see it."""

from __future__ import annotations

from aibenchd import board
from aibenchd.measure import health

DRAINED = "drained"  # the state of a device of which nothing is asked any more
ENDS_DRAINED = ("ready", "busy", "paused")  # states that a device which is drained leaves soon
UNITS = ("", "/blocks", "/hazards", "/health")  # below that of the device


class Shown:
    """What is shown of one device, and what draining makes of it."""

    def __init__(self, name: str, house_board: board.Board, trust: health.Health) -> None:
        self.unit = f"device/{name}"
        self.draining = False
        self._name, self._board, self._health = name, house_board, trust
        self._last = ("", "", False)  # state, reason and whether it is a fault, as they are but for the draining

    @property
    def fault(self) -> bool:
        """Whether its state is a fault."""
        return self._last[2]

    def put(self, state: str, reason: str = "", *, fault: bool = False) -> None:
        """Show a state."""
        self._last = (state, reason, fault)
        self._put_again()

    def drain(self, draining: bool) -> None:
        """Show the same state otherwise."""
        self.draining = draining
        if self._last[0]:
            self._put_again()

    def health(self) -> None:
        """Show how often in a row it let us down, while it does."""
        if self._health.failures:
            self._board.put(f"{self.unit}/health", self._health.text, self._health.reason)
        else:
            self._board.take_down(f"{self.unit}/health")

    def blocks(self, reason: str) -> None:
        """Show why a block could not be run."""
        self._board.put(f"{self.unit}/blocks", "harness at fault", reason, fault=True)

    def no_blocks(self) -> None:
        """All blocks can be run again."""
        self._board.take_down(f"{self.unit}/blocks")

    def take_down(self) -> None:
        """Show nothing of it any more."""
        for unit in UNITS:
            self._board.take_down(f"{self.unit}{unit}")

    def _put_again(self) -> None:
        state, reason, fault = self._last
        if self.draining and state in ENDS_DRAINED:
            state = "draining"
        elif self.draining and state != DRAINED:
            reason = f"{reason or state}; drained until 'aibenchctl undrain {self._name}'"
        elif state == DRAINED and not self.draining:
            state = "ready"
        self._board.put(self.unit, state, reason, fault=fault)
