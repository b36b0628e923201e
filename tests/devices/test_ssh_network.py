"""An SSH device at the end of a long and lossy way.

It is made of two tunnels, one in a network namespace with the server, and of what carries packets between them: kernels
without ``netem`` have those too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import sshd

from aibenchd import digests
from aibenchd.devices import base

DELAY, LOSS = 0.05, 0.05  # seconds, and share of the packets, each way
NEAR, FAR = "198.51.100.5", "198.51.100.6"
PACKET = 1 << 16  # bytes
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Way:
    """Carries packets between two tunnels while the event loop runs, and drops some.

    Attributes:
        lost: packets that it dropped.
    """

    def __init__(self, *ends: int) -> None:
        self.lost = 0
        self._rng = random.Random(5)
        self._loop = asyncio.get_running_loop()
        for end, other in (ends, ends[::-1]):
            self._loop.add_reader(end, self._carry, end, other)

    def _carry(self, end: int, other: int) -> None:
        packet = os.read(end, PACKET)
        if self._rng.random() < LOSS:
            self.lost += 1
        else:
            self._loop.call_later(DELAY, os.write, other, packet)


def tunnel(name: str) -> int:
    try:
        file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"needs root and a kernel with tunnels: /dev/net/tun: {error.strerror}")
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode().strip()
        pytest.skip(f"needs root, iproute2 and a kernel with network namespaces: ip {' '.join(arguments)}: {said}")


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"aibn{os.getpid() % 100000}"
    ip("netns", "add", name)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
async def way(namespace: str) -> AsyncIterator[Way]:
    near, far = f"{namespace}n", f"{namespace}f"
    with contextlib.ExitStack() as stack:
        ends = [tunnel(name) for name in (near, far)]
        for end in ends:
            stack.callback(os.close, end)
        ip("link", "set", far, "netns", namespace)
        for within, name, address, peer in (([], near, NEAR, FAR), (["-n", namespace], far, FAR, NEAR)):
            ip(*within, "addr", "add", address, "peer", peer, "dev", name)
            ip(*within, "link", "set", name, "up")
        yield Way(*ends)
        for end in ends:
            asyncio.get_running_loop().remove_reader(end)
        await asyncio.sleep(2 * DELAY)  # until what is on its way has come


@pytest.fixture
async def server(way: Way, namespace: str, tmp_path: Path) -> AsyncIterator[sshd.Sshd]:
    made = sshd.Sshd(tmp_path / "ssh")
    made.configuration.write_text(made.configuration.read_text().replace("ListenAddress 127.0.0.1", f"ListenAddress {FAR}"))
    made.around, made.address = ["ip", "netns", "exec", namespace], FAR
    try:
        await anyio.to_thread.run_sync(made.start)
        yield made
    finally:
        made.stop()


@pytest.mark.alone  # the addresses
async def test_what_is_pushed_run_and_pulled_over_it_is_right(server: sshd.Sshd, way: Way, tmp_path: Path) -> None:
    push = sshd.file(tmp_path / "model", os.urandom(1 << 18))
    async with server.device(host=FAR, host_key=server.fingerprint()).session() as session:
        copy = await session.push(push)
        work = await session.directory("trial")
        completed = await session.run(base.Command((f"sha256sum < '{copy}'; cp '{copy}' out",), work, shell=True))
        await session.pull(work / "out", tmp_path / "pulled")

    assert (completed.code, completed.stdout.split()[0]) == (0, push.digest)
    assert digests.of_file(tmp_path / "pulled") == push.digest
    assert way.lost
