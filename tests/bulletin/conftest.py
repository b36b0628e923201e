"""What the tests of reports share: a lab whose journal some weeks have filled, and the real command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pastweeks
import pytest

from aibenchd import cli, events
from aibenchd.store import store


@dataclass
class Lab:
    """A configuration, and the journal of its daemon, which does not run."""

    directory: Path

    @property
    def journal(self) -> Path:
        return self.directory / "state" / "journal.db"

    @property
    def output(self) -> Path:
        return self.directory / "report.html"

    def configure(self, **more: Any) -> None:
        devices = [{"name": name, "kind": "simulated", "backends": list(backends)} for name, backends in pastweeks.PLACES.items()]
        (self.directory / "lab.yaml").write_text(json.dumps({"state_directory": "state", "devices": devices} | more))

    def report(self, *words: str) -> int:
        """Its exit code; what it wrote is at :attr:`output`."""
        return cli.main(["report", str(self.directory / "lab.yaml"), "-o", str(self.output), *words])

    def text(self, *words: str) -> str:
        """The report."""
        assert self.report(*words) == 0
        return self.output.read_text(encoding="utf-8")

    def write(self, work: Callable[[store.Transaction], object]) -> None:
        """Have something more in the journal."""

        async def written() -> None:
            async with store.opened(self.journal, events.Events()) as journal:
                await journal.write(work)

        anyio.run(written)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.journal.parent.mkdir()
    made.journal.write_bytes(anyio.run(pastweeks.written))
    made.configure()
    return made


@pytest.fixture
def new_lab(tmp_path: Path) -> Lab:
    """One whose journal has nothing in it yet."""
    made = Lab(tmp_path)
    made.configure()
    made.write(lambda tx: None)
    return made
