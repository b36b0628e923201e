"""How a run ends, as its process tells it."""

from __future__ import annotations

import enum
import signal
from collections.abc import Collection


class Exit(enum.IntEnum):
    """Exit codes; beside them there are those of signals. :data:`MEANINGS` says which holds where several do."""

    SUCCESS = 0
    USER_ERROR = 1
    USAGE = 2  # as argparse has it
    HARNESS_ERROR = 3
    TIMED_OUT = 4
    REGRESSED = 5
    INCONCLUSIVE = 6


# As the help shows them; argparse ends with 2 by itself.
MEANINGS = {
    0: "success: measured; of two arms, nothing regressed",
    1: "user error: an option, a file or a program is wrong, does not build or fails",
    3: "harness error: a device is lost, a server is away, the disk is full",
    4: "timed out: a program took longer than --timeout",
    5: "regressed: the treatment is slower, its outputs are wrong, or it fails and the control does not",
    6: "inconclusive: the blocks or the time ran out",
    130: "killed by SIGINT (Ctrl-C); nothing is left on the devices",
    143: "killed by SIGTERM, as well. Where several hold: killed first, then 3, 1, 4, 5, 6",
}

_ORDER = (Exit.HARNESS_ERROR, Exit.USER_ERROR, Exit.TIMED_OUT, Exit.REGRESSED, Exit.INCONCLUSIVE)


def worst(exits: Collection[Exit]) -> Exit:
    """The one that the process ends with, of those of its experiments."""
    return next((one for one in _ORDER if one in exits), Exit.SUCCESS)


def of_signal(number: int) -> int:
    """As a shell tells that a signal ended a process."""
    return 128 + signal.Signals(number)
