"""The yardstick of what starts an interpreter: the same one, told to do nothing."""

from __future__ import annotations

import subprocess
import sys

import anyio.to_thread

from tests.bench import figures

NAME = "python -c ''"


async def seconds(*argv: str) -> float:
    """From exec to exit of a program; of a bare interpreter where none is named."""
    command = argv or (sys.executable, "-c", "")
    return await anyio.to_thread.run_sync(figures.timed, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
