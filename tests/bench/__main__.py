"""``make bench``: what aibenchd costs, beside yardsticks measured in the same run. Figures of a busy machine are worth little.

Run it as ``PYTHONPATH=tests/support python -m tests.bench``. Nothing is asserted; what misses the design's figure says so.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import structlog

from tests.bench import (
    bench_client,
    bench_cpu,
    bench_delivery,
    bench_devices,
    bench_planner,
    bench_queue,
    bench_ssh,
    bench_ssh_sessions,
    bench_start,
    bench_trial,
    figures,
)

PARTS = (
    bench_client,
    bench_start,
    bench_trial,
    bench_planner,
    bench_queue,
    bench_cpu,
    bench_delivery,
    bench_ssh,
    bench_ssh_sessions,
    bench_devices,
)


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), logger_factory=structlog.ReturnLoggerFactory())
    print(figures.HEAD)
    for part in PARTS:
        with tempfile.TemporaryDirectory() as directory:
            for figure in await part.measured(Path(directory)):
                print(figure, flush=True)


if __name__ == "__main__":
    anyio.run(main)
