"""What a person waits for: ``aibenchctl status`` of a daemon that runs."""

from __future__ import annotations

import compileall
import sys
from pathlib import Path

import lab

from aibenchd import api
from tests.bench import bare, figures


async def measured(directory: Path) -> list[figures.Figure]:
    # As an installed client is; an environment that forbids to write compiled files would have it compiled each time.
    compileall.compile_dir(Path(api.__file__).parent, quiet=1)
    made = lab.make(directory)
    made.commit("first")
    command = (str(Path(sys.executable).with_name("aibenchctl")), "--socket", str(made.socket), "status")
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'")
        ours, yardstick = await figures.in_turn(lambda: bare.seconds(*command), bare.seconds)
    return [figures.Figure("aibenchctl status", ours * 1e3, yardstick * 1e3, "ms", bare.NAME)]
