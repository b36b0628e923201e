"""``make bench``: what aibenchd costs, beside yardsticks measured in the same run. Figures of a busy machine are worth little.

Run it as ``PYTHONPATH=tests/support python -m tests.bench [PART …]``, such as ``delivery cpu``; all without one. Nothing is
asserted; what misses the design's figure says so, and so does a part that could not be measured, after which the others go on.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

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


async def main(names: Sequence[str]) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), logger_factory=structlog.ReturnLoggerFactory())
    parts = {part.__name__.partition("bench_")[2]: part for part in PARTS}
    if unknown := [name for name in names if name not in parts]:
        print(f"there is no part {', '.join(unknown)}; there are {', '.join(parts)}", file=sys.stderr)
        return 2
    print(figures.HEAD)
    failed = [name for name in names or parts if not await shown(name, parts[name])]
    return 1 if failed else 0


async def shown(name: str, part: ModuleType) -> bool:
    """Print the rows of one part, and how busy the machine was meanwhile; whether there were any."""
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as directory:
            rows = list(map(str, await part.measured(Path(directory))))
        measured = True
    except Exception as error:  # noqa: BLE001  whatever it is, the other parts are worth having
        rows, measured = [f"not measured: {type(error).__name__}: {error}"[:1_000]], False
    load = os.getloadavg()[0]
    print(f"\n{name}, in {time.perf_counter() - began:.0f} s, load average {load:.1f} on {os.cpu_count()} CPUs")
    print(*rows, sep="\n", flush=True)
    return measured


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1:]))
