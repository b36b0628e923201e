import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import launchers
import pytest

from aibenchd.devices import base, launching


@pytest.fixture
def place() -> Iterator[Path]:
    with launchers.reachable_directory() as directory:
        yield directory


@pytest.fixture(params=["started by the daemon", "behind a socket"])
async def launcher(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[launching.Launcher]:
    """As root the first has control groups, where they are mounted, and the second, another user's, has none."""
    if request.param == "started by the daemon":
        async with launching.Launcher(base.RunSettings()) as launcher:
            yield launcher
        return
    with launchers.listening(place / "socket", **(launchers.OTHER if os.geteuid() == 0 else {})):
        async with launching.Launcher(base.RunSettings(launcher=place / "socket")) as launcher:
            yield launcher
