"""What the daemon takes while this host measures programs of half a second: its CPU time, and the time between trials.

The daemon's CPU time is its own, all threads, without its children; the launchers' is theirs, without the programs'.
Between trials lies all that the daemon does: conditions restored, the block journalled and judged, the next one chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio
import lab

from tests.bench import bench_trial, figures

SECONDS = 20.0
DESIGNED = 0.1  # percent of the trials' time
TRIALS = "SELECT count(*), sum(seconds), min(started_at), max(started_at + seconds) FROM trials"


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds so far."""

    daemon: float
    launchers: float


async def measured(directory: Path) -> list[figures.Figure]:
    made = lab.make(directory)
    # An effect so small that nothing is decided before the time is over; caches left alone, which is no work of the daemon's.
    rule = {"alpha": 0.001, "beta": 0.001, "min_effect": 0.0001, "max_blocks": 500, "disturb_caches": False}
    made.commit("first", bench=bench_trial.PROGRAM.format(latency=100))
    made.commit("second", bench=bench_trial.PROGRAM.format(latency=100.001))
    (repository,) = made.configuration["repositories"]
    made.configure(experiment=rule, repositories=[repository | {"start_at": made.commits[0], "poll_interval": "60s"}])
    async with made.daemon() as process:
        await made.until("SELECT count(*) > 2 FROM blocks")
        before, seen = spent(process.pid), made.rows("SELECT max(id) FROM trials")[0][0]
        await anyio.sleep(SECONDS)
        after = spent(process.pid)
        ((trials, seconds, began, ended),) = made.rows(f"{TRIALS} WHERE id > {seen}")
    daemon, launchers = after.daemon - before.daemon, after.launchers - before.launchers
    between = (ended - began - seconds) / (trials - 1) * 1e3
    beside = "the trials' time"
    return [
        figures.Figure("the daemon's CPU time, of the trials' time", daemon / seconds * 100, 100, "%", beside, DESIGNED),
        figures.Figure("the launchers' CPU time, of the same", launchers / seconds * 100, 100, "%", beside),
        figures.Figure("from a trial to the next, journal and all", between, seconds / trials * 1e3, "ms", "a trial"),
    ]


def spent(daemon: int) -> Spent:
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    return Spent(figures.cpu_seconds(daemon), sum(map(figures.cpu_seconds, map(int, children))))
