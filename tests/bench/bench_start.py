"""From exec of ``aibenchd serve`` to READY=1, as a service manager sees it, with a journal of some age."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio.to_thread
import lab

from aibenchd import events
from aibenchd.store import store
from tests.bench import bare, bench_status, figures

STORED = 10_000  # experiments, nearly all of them decided
DESIGNED = 500.0  # ms


async def measured(directory: Path) -> list[figures.Figure]:
    made = lab.make(directory)
    made.commit("first")
    async with store.opened(made.journal, events.Events()) as journal:
        await journal.write(lambda tx: bench_status.fill(tx, STORED))

    async def to_ready() -> float:
        return await anyio.to_thread.run_sync(seconds_to_ready, made)

    await to_ready()  # makes what later ones find: the clone, the directories
    ours, yardstick = await figures.in_turn(to_ready, bare.seconds)
    name = f"start to READY=1, {STORED:,} experiments stored"
    return [figures.Figure(name, ours * 1e3, yardstick * 1e3, "ms", bare.NAME, DESIGNED)]


def seconds_to_ready(made: lab.Lab) -> float:
    """Start a daemon, end it once it has said that it is ready. Blocking."""
    address = made.directory / "notify"
    address.unlink(missing_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(address))
        manager.settimeout(lab.WAIT)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "aibenchd", "serve", str(made.config)],
            env=os.environ | {"NOTIFY_SOCKET": str(address)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()
