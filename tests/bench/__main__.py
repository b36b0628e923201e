"""``make bench``: what aibenchd costs, beside yardsticks measured in the same run. Figures of a busy machine are worth little.

Run it as ``PYTHONPATH=tests/support python -m tests.bench``.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio
import lab
import sqlalchemy as sa
import structlog

from aibenchd import events
from aibenchd.devices import base as devices
from aibenchd.devices import local
from aibenchd.store import experiments, schema, store
from tests.bench import bench_delivery, bench_status

RUNS = 11
STORED, QUEUED, DEVICES = 10_000, 1_000_000, 100
BENCH_SECONDS = 0.5
MEASURE_SECONDS = 20.0
BARE = (sys.executable, "-c", "")
PROGRAM = lab.BENCH.replace("exec awk", f"sleep {BENCH_SECONDS}; exec awk")


@dataclass(frozen=True)
class Figure:
    """One row: ours and the yardstick's in ``unit``; what the design asks for, in words."""

    name: str
    ours: float
    yardstick: float
    unit: str
    beside: str
    designed: str

    def __str__(self) -> str:
        ratio = self.ours / self.yardstick if self.yardstick else float("nan")
        figures = f"{self.ours:10.2f} {self.yardstick:10.2f} {self.unit:5} {ratio:8.2f}"
        return f"{self.name:44} {figures} x {self.beside:34} {self.designed}"


async def client(directory: Path) -> Figure:
    made = lab.make(directory)
    made.commit("first")
    command = (sys.executable, "-m", "aibenchd.api.client", "-s", str(made.socket), "status")
    async with made.daemon():
        await made.ready()
        await made.until("SELECT count(*) FROM experiments WHERE state = 'decided'")
        ours, bare = await anyio.to_thread.run_sync(
            bench_status.beside, lambda: bench_status.run(*command), lambda: bench_status.run(*BARE)
        )
    return Figure("aibenchctl status", ours * 1e3, bare * 1e3, "ms", "python -c ''", "")


async def start(directory: Path) -> Figure:
    made = lab.make(directory)
    made.commit("first")
    made.journal.parent.mkdir()
    async with store.opened(made.journal, events.Events()) as journal:
        await journal.write(lambda tx: bench_status.fill(tx, STORED))
    ours = [await anyio.to_thread.run_sync(seconds_to_ready, made) for _ in range(RUNS)]
    bare = [bench_status.run(*BARE) for _ in range(RUNS)]
    name = f"start to READY, {STORED:,} experiments stored"
    return Figure(name, statistics.median(ours) * 1e3, statistics.median(bare) * 1e3, "ms", "python -c ''", "500 ms")


def seconds_to_ready(made: lab.Lab) -> float:
    """From exec to READY=1, as a service manager sees it."""
    address = f"{made.directory}/notify"
    Path(address).unlink(missing_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(address)
        manager.settimeout(lab.WAIT)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "aibenchd", "serve", str(made.config)],
            env=os.environ | {"NOTIFY_SOCKET": address}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


async def trial(directory: Path) -> Figure:
    """A program of half a second through the local device: directory emptied, launched, accounted, reaped."""
    settings = local.Settings.model_validate({"name": "host", "kind": "local"})
    program = directory / "program"
    program.write_text(PROGRAM.format(latency=100))
    program.chmod(0o755)
    harness, bare = [], []
    async with local.Local(settings, directory / "device", devices.RunSettings()).session() as session:
        for _ in range(RUNS):
            began = time.perf_counter()
            work = await session.directory("work")
            done = await session.run(devices.Command((str(program),), PurePosixPath(work)))
            harness.append(time.perf_counter() - began - done.seconds)
            began = time.perf_counter()
            subprocess.run([program], check=True, stdout=subprocess.DEVNULL)
            bare.append(time.perf_counter() - began - BENCH_SECONDS)
    name, beside = "harness time per trial, beyond the program's", "the program bare, beyond its sleep"
    return Figure(name, statistics.median(harness) * 1e3, statistics.median(bare) * 1e3, "ms", beside, "10 ms")


async def disturbance(directory: Path) -> Figure:
    """What is done before each trial on purpose, unless ``disturb_caches`` is off; not counted above."""
    settings = local.Settings.model_validate({"name": "host", "kind": "local"})
    ours, bare = [], []
    async with local.Local(settings, directory / "device", devices.RunSettings()).session() as session:
        for _ in range(RUNS):
            began = time.perf_counter()
            await session.disturb()
            ours.append(time.perf_counter() - began)
            bare.append(timed(lambda: bytearray(settings.disturb_size)))
    name, beside = "caches disturbed before a trial", "as much memory made and freed"
    return Figure(name, statistics.median(ours) * 1e3, statistics.median(bare) * 1e3, "ms", beside, "")


async def queue(directory: Path) -> Figure:
    async with store.opened(directory / "journal.db", events.Events()) as journal:
        await journal.write(fill_queue)

        def next_of(connection: sa.Connection) -> float:
            return timed(lambda: experiments.next_of(connection, f"device-{random.randrange(DEVICES)}"))

        def by_key(connection: sa.Connection) -> float:
            number = random.randrange(1, QUEUED)
            return timed(lambda: connection.execute(sa.select(schema.experiments).where(schema.experiments.c.id == number)).one())

        ours = [await journal.read(next_of) for _ in range(RUNS * 10)]
        bare = [await journal.read(by_key) for _ in range(RUNS * 10)]
    name = f"next block chosen out of {QUEUED:,} queued"
    return Figure(name, statistics.median(ours) * 1e3, statistics.median(bare) * 1e3, "ms", "a row read by its key", "5 ms")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fill_queue(tx: store.Transaction) -> None:
    """Copies of one real experiment, over devices and pairs."""
    bench_status.fill(tx, 1)
    now = time.time()
    revision = {
        "repository": "engine",
        "parents": [],
        "author": "",
        "subject": "",
        "position": 1,
        "relevant": True,
        "state": "planned",
    }
    known = tx.connection.scalars(sa.select(schema.pairs.c.treatment)).all()
    for commit in known:
        tx.connection.execute(
            schema.revisions.insert().values(
                **revision, commit=commit, on_branch=True, time=bench_status.statusd.NOW, seen_at=bench_status.statusd.NOW
            )
        )
    design = '{"benchmark": {"model": {}, "test": {}}, "framework": "generic", "rule": {}}'
    build = tx.connection.scalars(sa.select(schema.builds.c.id)).first()
    tx.connection.exec_driver_sql(
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO experiments (pair, benchmark, identifier, model, device, backend, treatment_build, digests, design,"
        " state, reason, priority, round, turn, blocks, created_at)"
        f" SELECT 1, 'b' || i, 'net', 'net', 'device-' || (i % {DEVICES}), 'queue', ?, '', ?, 'open', '', 0, i % 7,"
        " abs(random()) / 9e18, 0, ? FROM n",
        (QUEUED - 1, build, design, now),
    )  # fmt: skip


async def cpu(directory: Path) -> Figure:
    """The daemon's CPU time while one device measures, as a share of the trials' own wall time."""
    made = lab.make(directory)
    made.configure(experiment={"alpha": 0.001, "beta": 0.001, "min_effect": 0.0001, "max_blocks": 500})
    made.commit("first", bench=PROGRAM.format(latency=100))
    made.commit("second", bench=PROGRAM.format(latency=100.001))
    (repository,) = made.configuration["repositories"]
    made.configure(repositories=[repository | {"start_at": made.commits[0], "poll_interval": "60s"}])
    async with made.daemon() as process:
        await made.until("SELECT count(*) > 2 FROM blocks")
        before, trials = cpu_seconds(process.pid), made.rows("SELECT sum(seconds) FROM trials")[0][0]
        await anyio.sleep(MEASURE_SECONDS)
        spent = cpu_seconds(process.pid) - before
        measured = made.rows("SELECT sum(seconds) FROM trials")[0][0] - trials
    return Figure("daemon's CPU time while measuring", spent * 1e3, measured * 1e3, "ms", "the trials' wall time", "0.001 x")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[str]:
    process = await anyio.open_process([sys.executable, bench_delivery.__file__, "receive"], stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        yield (await process.stdout.receive()).decode().strip()
    finally:
        process.kill()
        await process.aclose()


async def delivery(_: Path) -> Figure:
    async with receiving() as url:
        ours, yardstick = await bench_delivery.measured(url)
    return Figure("records delivered a second", ours, yardstick, "/s", "posting them with no journal", "20,000 /s")


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), logger_factory=structlog.ReturnLoggerFactory())
    print(f"{'figure':44} {'ours':>10} {'yardstick':>10} {'':5} {'ratio':>8}   {'yardstick is':34} designed for")
    for measure in (client, start, trial, disturbance, queue, cpu, delivery):
        with tempfile.TemporaryDirectory() as directory:
            print(await measure(Path(directory)), flush=True)


if __name__ == "__main__":
    anyio.run(main)
