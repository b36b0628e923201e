"""A builder in a process of its own, for tests that kill it: the layout below its one argument is that of test_builder.py."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import anyio

from aibenchd import board, events, hostgate, settings
from aibenchd.build import builder
from aibenchd.devices import base as devices
from aibenchd.devices import launching
from aibenchd.store import store
from aibenchd.watch import git

DEADLINE = 60  # seconds


async def main(root: Path) -> None:
    told, state = events.Events(), root / "state"
    chosen = settings.RepositorySettings(name="engine", url=str(root / "engine"), framework="generic")
    repositories = {"engine": git.Git(chosen, state / "repositories/engine")}
    async with store.opened(state / "journal.sqlite", told) as journal, launching.Launcher(devices.RunSettings()) as launcher:
        house = builder.House(journal, board.Board(told), hostgate.OpenGate(), launcher, state, lambda: False)
        with anyio.move_on_after(DEADLINE):
            builds = settings.BuildSettings(frameworks_directory=root / "frameworks")
            await builder.Builder(builds, repositories, house, random.Random()).run()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
