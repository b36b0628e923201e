"""Named points on the journal's way at which a test can kill the process, as a power cut would.

``AIBENCHD_CRASH_AT=block.before-commit:3`` kills it (SIGKILL) when that point is reached for the third time.
Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("AIBENCHD_CRASH_AT", "").partition(":")
_left = int(_count or 1)

POINTS = (
    "revision.before-commit",
    "revision.after-commit",
    "plan.before-commit",
    "plan.after-commit",
    "build.before-commit",
    "build.after-commit",
    "block.before-trial",
    "block.between-trials",
    "block.before-commit",
    "block.after-commit",
    "verify.before-commit",
    "confirm.before-commit",
    "delivery.before-send",
    "delivery.before-acknowledge",
    "delivery.after-acknowledge",
)


def reach(name: str) -> None:
    """Pass the point ``name``, or die here if a test asked for it."""
    if name != _name:
        return
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
