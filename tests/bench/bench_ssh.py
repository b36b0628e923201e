"""What a trial over SSH costs, beside ``ssh`` and ``scp`` run by hand over a connection of theirs that is kept (ControlMaster).

The server is a real one on loopback, so that a round trip is next to nothing and what is seen is our own work and theirs.
Both sides empty a directory and run ``true`` in it; both send a file of the same size that is not there yet.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sshd

from aibenchd.devices import base as devices
from tests.bench import bare, figures

MODEL_SIZE = 16 << 20  # bytes


async def measured(directory: Path) -> list[figures.Figure]:
    with sshd.running(directory / "ssh") as server, _kept(server, directory) as options:
        began = time.perf_counter()
        async with server.device(disturb_size="64MiB").session() as session:
            opened = time.perf_counter() - began
            fresh = [option for option in options if not option.startswith("-oControl")]
            by_hand = await bare.seconds("ssh", *fresh, "127.0.0.1", "true")
            return [
                figures.Figure(
                    "an SSH device connected, its supervisor begun", opened * 1e3, by_hand * 1e3, "ms", "ssh host true"
                ),
                await _trial(session, options, server),
                await _push(session, options, server, directory),
                await _push_again(session, options, directory),
            ]


async def _trial(session: devices.Session, options: Sequence[str], server: sshd.Sshd) -> figures.Figure:
    work = f"{server.home}/by-hand"

    async def ours() -> float:
        began = time.perf_counter()
        completed = await session.run(devices.Command(("true",), await session.directory("trial")))
        took = time.perf_counter() - began
        assert completed.code == 0, completed.stderr
        return took

    async def by_hand() -> float:
        command = f"rm -rf {work}; mkdir {work}; cd {work}; exec true"
        return await bare.seconds("ssh", *options, "127.0.0.1", command)

    mine, other = await figures.in_turn(ours, by_hand)
    return figures.Figure("a trial over SSH that runs true", mine * 1e3, other * 1e3, "ms", "ssh, its connection kept")


async def _push(session: devices.Session, options: Sequence[str], server: sshd.Sshd, directory: Path) -> figures.Figure:
    async def ours() -> float:
        push = sshd.file(directory / "model", os.urandom(MODEL_SIZE))
        began = time.perf_counter()
        await session.push(push)
        return time.perf_counter() - began

    async def by_hand() -> float:
        return await bare.seconds("scp", "-q", *options, str(directory / "model"), f"127.0.0.1:{server.home}/model")

    mine, other = await figures.in_turn(ours, by_hand, 5)
    return figures.Figure(
        "16 MiB pushed over SSH and verified there", mine * 1e3, other * 1e3, "ms", "scp, which does not verify"
    )


async def _push_again(session: devices.Session, options: Sequence[str], directory: Path) -> figures.Figure:
    push = sshd.file(directory / "model", os.urandom(MODEL_SIZE))
    await session.push(push)

    async def ours() -> float:
        began = time.perf_counter()
        await session.push(push)
        return time.perf_counter() - began

    async def by_hand() -> float:
        return await bare.seconds("ssh", *options, "127.0.0.1", "true")

    mine, other = await figures.in_turn(ours, by_hand)
    return figures.Figure("the same 16 MiB pushed again", mine * 1e3, other * 1e3, "ms", "ssh that runs true, likewise")


@contextlib.contextmanager
def _kept(server: sshd.Sshd, directory: Path) -> Iterator[list[str]]:
    """Options of ssh and scp for a connection that is kept within."""
    hosts = directory / "hosts"
    hosts.write_text(server.known_hosts.read_text())
    key = directory / "key"
    key.write_bytes(server.key.read_bytes())  # ssh cuts options at white space
    key.chmod(0o600)
    options = [
        *(f"-o{option}" for option in (f"Port={server.port}", f"IdentityFile={key}", f"UserKnownHostsFile={hosts}")),
        *(f"-o{option}" for option in (f"ControlPath={directory}/s", "ControlMaster=auto", "ControlPersist=60")),
    ]
    subprocess.run(["ssh", *options, "127.0.0.1", "true"], check=True)
    try:
        yield options
    finally:
        subprocess.run(["ssh", *options, "-O", "exit", "127.0.0.1"], check=True, capture_output=True)
