"""How long each page of the dashboard takes with many experiments stored: the answer, and until a browser has drawn it.

Run it as ``PYTHONPATH=tests/support python -m tests.bench.bench_dashboard [EXPERIMENTS]``; without a Chromium, answers alone.
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import browser as browsers
import pastweeks
import statusd
import structlog

from aibenchd.api import server
from aibenchd.store import schema, store
from tests.bench import bench_status

EXPERIMENTS = 100_000
RUNS = 7
DESIGNED_SECONDS = 1.0
BLOCKS = 20  # of each of the newest experiments, which are those that the matrix shows
PAGES = (
    "/",
    "/findings",
    "/findings?state=open&device=device-1",
    "/findings/500",
    "/history",
    "/history?benchmark=net-3&device=device-1&limit=1000",
    "/coverage",
    "/comparison",
    "/experiments",
    "/experiments?verdict=regressed&device=device-1",
    "/experiments?repository=other",
    "/experiments/99999",
)


def fill(tx: store.Transaction, experiments: int) -> None:
    """As the status socket's benchmark does; with revisions, findings of what regressed, and blocks and results of the newest."""
    bench_status.fill(tx, experiments)
    pairs = experiments // (bench_status.BENCHMARKS * bench_status.DEVICES) + 1
    for number in range(1, pairs + 1):
        statusd.revision(tx, f"{number:040}", number)
    rows = schema.experiments
    bad = [row.id for row in tx.connection.execute(rows.select().where(rows.c.verdict == "regressed"))]
    found = {"search": "", "found_at": statusd.NOW, "state": "open"}
    tx.connection.execute(schema.findings.insert(), [found | {"suspect": suspect} for suspect in bad])
    newest = range(max(1, experiments - 200), experiments + 1)
    tx.connection.execute(rows.update().values(design={"rule": {"min_effect": 0.02}}))
    for experiment in newest:
        for number in range(BLOCKS):
            statusd.block(tx, experiment, number)
    series = {"metric": "latency", "unit": "us", "treatment": {"p50": 1.0}, "control": {"p50": 1.0}}
    kinds = ("NET", *(f"operator-{number}" for number in range(100)))
    tx.connection.execute(
        schema.results.insert(), [series | {"experiment": experiment, "type": kind} for experiment in newest for kind in kinds]
    )


class Controls(statusd.Controls):
    """Of a lab in which each benchmark is to be measured on each device."""

    def cells(self) -> Sequence[server.Cell]:
        return [
            statusd.cell(benchmark=f"net-{name}", benchmark_digest=f"{name:064}", row=f"net-{name}", device=f"device-{device}")
            for name in range(bench_status.BENCHMARKS)
            for device in range(bench_status.DEVICES)
        ]


async def answered(url: str) -> float:
    """Median of the seconds from question to answer."""
    taken = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        for _ in range(RUNS):
            began = time.perf_counter()
            async with client.get(url) as reply:
                await reply.read()
                assert reply.status == 200, await reply.text()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def drawn(browser: browsers.Browser, url: str) -> float:
    """Median of the seconds until a browser has loaded and run all of it."""
    taken = []
    for _ in range(RUNS):
        browser.open(url)
        entry = browser.until("performance.getEntriesByType('navigation')[0].loadEventEnd")
        taken.append(entry / 1e3)
    return statistics.median(taken)


async def main(experiments: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as directory:
        async with pastweeks.over(Path(directory), functools.partial(fill, experiments=experiments), Controls()) as dashboard:
            print(f"{experiments:,} experiments stored")
            answers = {path: await answered(dashboard.url + path) for path in PAGES}
            await anyio.to_thread.run_sync(show, dashboard.url, answers)


def show(url: str, answers: dict[str, float]) -> None:
    if not browsers.CHROMIUM:
        for path, seconds in answers.items():
            print(f"{path:60} {seconds * 1e3:7.0f} ms")
        return
    with browsers.opened() as browser:
        for path, seconds in answers.items():
            page = drawn(browser, url + path)
            missed = "" if page <= DESIGNED_SECONDS else "  MISSED"
            print(
                f"{path:60} {seconds * 1e3:7.0f} ms {page * 1e3:7.0f} ms drawn  (designed: {DESIGNED_SECONDS * 1e3:.0f}){missed}"
            )


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else EXPERIMENTS)
