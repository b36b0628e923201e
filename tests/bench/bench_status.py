"""``aibenchctl status`` beside a bare interpreter, and the daemon's own part of it with many experiments stored.

Run it as ``PYTHONPATH=tests/support python -m tests.bench.bench_status [EXPERIMENTS]``.
"""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import sqlalchemy as sa
import statusd
import structlog

from aibenchd import api
from aibenchd.store import schema, store

EXPERIMENTS = 100_000
RUNS = 20
BENCHMARKS, DEVICES = 20, 5
DESIGNED_RATIO = 2.5
DESIGNED_SECONDS = 0.02
QUESTIONS = (
    "/v1/status",
    "/v1/experiments?limit=100",
    "/v1/experiments?verdict=regressed",
    "/v1/experiments?device=device-1&state=open",
    "/v1/findings",
    "/v1/coverage",
    "/v1/history?benchmark=net-3&device=device-1",
    "/metrics",
)


def fill(tx: store.Transaction, experiments: int) -> None:
    """Nearly all are decided, one of a hundred as a regression."""
    build = statusd.build(tx, "c")
    cells = BENCHMARKS * DEVICES
    pairs = [
        {"id": number, "repository": "engine", "treatment": f"{number:040}", "run_type": "benchmark", "created_at": statusd.NOW}
        for number in range(1, experiments // cells + 2)
    ]
    tx.connection.execute(schema.pairs.insert(), pairs)
    for first in range(0, experiments, 10_000):
        tx.connection.execute(sa.insert(schema.experiments), list(_rows(build, first, min(first + 10_000, experiments))))


def _rows(build: int, first: int, last: int) -> Iterator[dict[str, object]]:
    for number in range(first, last):
        pair, cell = divmod(number, BENCHMARKS * DEVICES)
        benchmark, device = divmod(cell, DEVICES)
        is_open = number % 10 == 0
        yield {
            "pair": pair + 1,
            "benchmark": f"{benchmark:064}",
            "identifier": f"net-{benchmark}",
            "model": "net",
            "device": f"device-{device}",
            "backend": "",
            "treatment_build": build,
            "design": {},
            "state": "open" if is_open else "decided",
            "verdict": None if is_open else "regressed" if number % 100 == 1 else "unchanged",
            "created_at": statusd.NOW,
            "decided_at": None if is_open else statusd.NOW,
        }


def run(*argv: str) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def beside(measured: Callable[[], float], yardstick: Callable[[], float]) -> tuple[float, float]:
    """The medians of both in seconds, taken in turn."""
    pairs = [(measured(), yardstick()) for _ in range(RUNS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


async def asked(daemon: statusd.Daemon, target: str) -> float:
    """Median of the seconds from question to answer, on a connection that is open."""
    taken = []
    async with daemon.client() as client:
        for _ in range(RUNS):
            started = time.perf_counter()
            async with client.get(f"http://aibenchd{target}") as reply:
                await reply.read()
                assert reply.status == 200
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def main(experiments: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    # As an installed client is; an environment that forbids to write compiled files would have it compiled each time.
    compileall.compile_dir(Path(api.__file__).parent, quiet=1)
    client = str(Path(sys.executable).with_name("aibenchctl"))
    with tempfile.TemporaryDirectory() as directory:
        async with statusd.serving(Path(directory)) as daemon:
            await daemon.house.store.write(lambda tx: fill(tx, experiments))
            status = (client, "--socket", os.fspath(daemon.path), "status")
            took, bare = await anyio.to_thread.run_sync(beside, lambda: run(*status), lambda: run(sys.executable, "-c", ""))
            print(f"{experiments:,} experiments stored")
            ratio = f"{took / bare:5.2f} x python -c ''  (designed: {DESIGNED_RATIO})"
            print(f"{'aibenchctl status':46} {took * 1e3:8.1f} ms  {ratio}")
            for target in QUESTIONS:
                seconds = await asked(daemon, target)
                print(f"GET {target:42} {seconds * 1e3:8.1f} ms  (designed: {DESIGNED_SECONDS * 1e3:.0f})")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else EXPERIMENTS)
