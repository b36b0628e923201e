"""How long ``aibenchd report`` takes, how large its file becomes and how much memory it needs, with many experiments stored.

Run it as ``PYTHONPATH=tests/support python -m tests.bench.bench_report [EXPERIMENTS]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import sqlalchemy as sa

from aibenchd import events
from aibenchd.store import store
from tests.bench import bench_dashboard

EXPERIMENTS = 100_000
BLOCKS = 12  # of each experiment that is decided
DESIGNED_SECONDS = 30.0
DESIGNED_SIZE = 4 << 20
ONE_BENCHMARK = ("--benchmark", "net-3", "--device", "device-1")

SHAKEN = "((e.id * 2654435761 + n.number * 40503) % 1000 / 1000.0 - 0.5)"  # the same in each run
SAMPLED = "SELECT id, 'NET', 'latency', 'us', json_array(99, 100, 101, 100.5, 99.5, 100.2), '' FROM trials WHERE experiment > {0}"


def fill(tx: store.Transaction, experiments: int) -> None:
    """As the dashboard's benchmark does; with controls, blocks of all that is decided, and samples of the newest of them."""
    bench_dashboard.fill(tx, experiments)
    for statement in (
        "UPDATE pairs SET control = printf('%040d', id - 1) WHERE id > 1",
        "UPDATE experiments SET control_build = treatment_build, blocks = 12",
        "UPDATE experiments SET estimate = (id % 7 - 3) / 1000.0, low = -0.01, high = 0.01",
        "UPDATE experiments SET estimate = 0.05, low = 0.04, high = 0.06 WHERE verdict = 'regressed'",
        """UPDATE experiments SET design = '{"rule": {"alpha": 0.01, "min_effect": 0.02}}'""",
        "DELETE FROM trials",
        "DELETE FROM blocks",
        f"WITH RECURSIVE n(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM n WHERE number + 1 < {BLOCKS}) "
        "INSERT INTO blocks SELECT e.id, n.number, 'TC', 1, 100 * (1 + e.estimate + 0.01 * " + SHAKEN + "), 100, "
        "e.decided_at - 60, e.decided_at - 30, e.estimate, e.low, e.high, 0, NULL, NULL FROM experiments e, n "
        "WHERE e.verdict IS NOT NULL",
        *(
            "INSERT INTO trials (experiment, block, arm, outcome, reason, backend, seconds, log, started_at) "
            f"SELECT experiment, number, '{arm}', 'ok', '', '', 10.0, '', started_at FROM blocks"
            for arm in ("treatment", "control")
        ),
        "INSERT INTO samples " + SAMPLED.format(experiments - 20_000),
    ):
        tx.connection.execute(sa.text(statement.replace(":", r"\:")))


async def written(path: Path, experiments: int) -> None:
    async with store.opened(path, events.Events()) as journal:
        await journal.write(lambda tx: fill(tx, experiments))


def reported(directory: Path, *words: str) -> tuple[float, float, int, int]:
    """Seconds, those of a processor, bytes of the file, and of memory at most."""
    output = directory / "report.html"
    argv = [sys.executable, "-m", "aibenchd", "report", str(directory / "lab.yaml"), "--since", "2026-01-01", "-o", str(output)]
    began = time.perf_counter()
    process = subprocess.Popen([*argv, *words])
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    took = time.perf_counter() - began
    return took, used.ru_utime + used.ru_stime, output.stat().st_size, used.ru_maxrss << 10


def main(experiments: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        anyio.run(written, directory / "journal.db", experiments)
        (directory / "lab.yaml").write_text(json.dumps({"state_directory": "."}))
        size = (directory / "journal.db").stat().st_size
        print(f"{experiments:,} experiments stored, {BLOCKS} blocks each; {size / 2**20:.0f} MiB")
        for words in ((), ONE_BENCHMARK, ("--all",)):
            seconds, busy, size, memory = reported(directory, *words)
            missed = " MISSED" if not words and (busy > DESIGNED_SECONDS or size > DESIGNED_SIZE) else ""
            said = f"{seconds:7.1f} s ({busy:.1f} s of a processor), {size / 2**20:.2f} MiB, {memory / 2**20:6.0f} MiB of memory"
            designed = f"(designed: {DESIGNED_SECONDS:.0f} s of a processor, {DESIGNED_SIZE >> 20} MiB)"
            print(f"report {' '.join(words):40} {said}  {designed}{missed}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EXPERIMENTS)
