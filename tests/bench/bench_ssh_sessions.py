"""As many real SSH sessions in one daemon as this host carries, a thousand at most: how soon they are ready, and what they cost.

All devices are this host, behind one real server on loopback: its processes and the devices' supervisors start on the same
processors as the daemon, so how soon all are ready is mostly theirs. The yardstick is a process that keeps as many bare
connections of asyncssh, with the same sign of life and made as many at once; it starts nothing at the other end.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
import lab
import sshd

from aibenchd.devices import ssh, ssh_access
from aibenchd.measure import worker
from tests.bench import bench_devices, figures

WANTED = 1_000
THEIR_MEMORY = 16 << 20  # bytes that a session takes at the other end: its sshd, its supervisor and the guard of that
SPARE_MEMORY = 2 << 30  # bytes that are left to all else
SPARE_FILES = 200  # that a process has open besides its connections
SETTLE_SECONDS, IDLE_SECONDS = 5.0, worker.IDLE_SECONDS  # each device is looked at once meanwhile
PATIENCE = 1200.0  # seconds, of a busy machine

# A bash that sshd starts reads ~/.bashrc unless it takes itself for another shell's; what is in there is this host's own.
SERVER = ("PasswordAuthentication no", "SetEnv SHLVL=1")
KEEPALIVE = ssh.Settings.model_fields["keepalive"].default
CONNECTIONS = """
import asyncio, sys, time
import asyncssh

async def main(port, key, hosts, count):
    began, limit = time.perf_counter(), asyncio.Semaphore({at_once})

    async def connect():
        async with limit:
            return await asyncssh.connect(
                "127.0.0.1", port, client_keys=[key], known_hosts=hosts, config=None, keepalive_interval={keepalive}
            )

    kept = await asyncio.gather(*(connect() for _ in range(count)))
    print(time.perf_counter() - began, flush=True)
    await asyncio.gather(*(connection.wait_closed() for connection in kept))

asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a process took to have all its connections, and takes to keep them.

    Attributes:
        seconds: until all were there.
        memory: MB.
        cpu: percent of a core, while nothing was asked of them.
    """

    seconds: float
    memory: float
    cpu: float


async def measured(directory: Path) -> list[figures.Figure]:
    return await sessions(directory, carried())


def carried() -> int:
    """How many sessions this host has the memory and the files for."""
    rows = dict(row.split(":", 1) for row in Path("/proc/meminfo").read_text().splitlines())
    memory = (int(rows["MemAvailable"].split()[0]) * 1024 - SPARE_MEMORY) // THEIR_MEMORY
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES
    return max(1, min(WANTED, memory, files))


async def sessions(directory: Path, count: int) -> list[figures.Figure]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count + SPARE_FILES, hard)), hard))  # of what is started here
    with sshd.running(directory / "ssh", *SERVER) as server:
        ours = await _ours(directory / "lab", server, count)
        bare = await _bare(server, count)
    devices, beside = f"{count:,} SSH sessions", "as many bare connections"
    memory, cpu = bench_devices.MEMORY_DESIGNED, bench_devices.CPU_DESIGNED
    return [
        figures.Figure(f"until {devices} are ready", ours.seconds, bare.seconds, "s", beside),
        figures.Figure(f"memory with {devices}", ours.memory, bare.memory, "MB", beside, memory),
        figures.Figure(f"CPU with {devices} that are idle, of a core", ours.cpu, bare.cpu, "%", beside, cpu),
    ]


async def _ours(directory: Path, server: sshd.Sshd, count: int) -> Kept:
    directory.mkdir()
    made = lab.make(directory)
    made.configure(repositories=[], benchmarks=[], devices=[_settings(server, f"box-{number}") for number in range(count)])
    began = time.perf_counter()
    async with made.daemon() as process:
        with anyio.fail_after(PATIENCE):
            while ready(made.log()) < count:
                await anyio.sleep(0.2)
        return await _kept(process.pid, time.perf_counter() - began)


def _settings(server: sshd.Sshd, name: str) -> dict[str, object]:
    """Of a device that is as patient as one is by default, with our own Python."""
    return {key: value for key, value in server.settings(name, python=sys.executable).items() if key != "connect_timeout"}


async def _bare(server: sshd.Sshd, count: int) -> Kept:
    program = CONNECTIONS.format(at_once=ssh_access.AT_ONCE, keepalive=KEEPALIVE)
    argv = [sys.executable, "-c", program, str(server.port), str(server.key), str(server.known_hosts), str(count)]
    process = await anyio.open_process(argv, stdin=subprocess.DEVNULL, stderr=None)
    try:
        assert process.stdout is not None
        with anyio.fail_after(PATIENCE):
            seconds = float(await process.stdout.receive())
        return await _kept(process.pid, seconds)
    finally:
        process.kill()
        await process.wait()


async def _kept(pid: int, seconds: float) -> Kept:
    await anyio.sleep(SETTLE_SECONDS)
    before = figures.cpu_seconds(pid)
    await anyio.sleep(IDLE_SECONDS)
    spent = max(figures.cpu_seconds(pid) - before, 1 / figures.TICKS)
    return Kept(seconds, bench_devices.resident(pid), spent / IDLE_SECONDS * 100)


def ready(log: str) -> int:
    """Devices that a daemon's log says are ready now."""
    states = {}
    for row in filter(lambda row: '"device/' in row, log.splitlines()):
        said = json.loads(row)
        states[said["unit"]] = said.get("state")
    return sum(state == "ready" for state in states.values())
