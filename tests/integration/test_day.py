"""A day of a lab in seconds: what is kept at its end is what was kept in its first hours."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import lab
import pytest
import structlog

from aibenchd import daemon, loading

PUSHES, TRACED = 28, 4  # in a day; after how many memory is counted
SETTLED = 8  # more, until what is in hand is counted whole: caches that fill, the ten newest experiments of each series
FEW = 3  # pushes after which the least is taken: what happens to be in hand differs
QUIET_SECONDS, LOOKS = 1.0, 4
DEVICES, TESTS, BLOCKS = 3, 2, 6  # of each test on each device, for each push
SECONDS = 24 * 3600 / (PUSHES * TESTS * BLOCKS * 2)  # simulated, of a trial
KEPT_OF_A_BLOCK = 200.0  # bytes at most; what is kept for every block is more, be it one small object
BUILD = '#!/bin/sh\nset -e\n: > "$2"\ncp "$1/bench" "$(dirname "$2")/simulated.json"\n'


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[lab.Lab]:
    """A lab whose daemon runs in this process, where its memory can be counted."""
    made = lab.make(tmp_path)
    rule = {"alpha": 1e-9, "beta": 1e-9, "min_effect": 1e-4, "max_blocks": BLOCKS, "blocks": BLOCKS, "disturb_caches": False}
    devices = [{"name": f"dream-{seed}", "kind": "simulated"} for seed in range(DEVICES)]
    made.configure(experiment=rule, devices=devices)
    made.write_specification("net.json", lab.specification(*(f"net-{number}" for number in range(TESTS))))
    push(made, 0)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), logger_factory=structlog.ReturnLoggerFactory())
    try:
        one = daemon.Daemon(made.config, loading.load_what_is_good(made.config), tmp_path / "state")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run)
            yield made
            one.stop()
    finally:
        structlog.reset_defaults()


def push(made: lab.Lab, number: int) -> None:
    made.commit(f"{number}", bench=json.dumps({"samples": number + 1, "seconds": SECONDS}), build=BUILD)


async def decided(made: lab.Lab, pushes: int) -> None:
    await made.until("SELECT count(*) FROM experiments WHERE verdict IS NOT NULL", [(DEVICES * TESTS * pushes,)], 120)


async def memory() -> int:
    """In bytes: the least of some looks, for what is in hand passes."""
    looks = []
    for _ in range(LOOKS):
        await anyio.sleep(QUIET_SECONDS / LOOKS)
        gc.collect()
        looks.append(tracemalloc.get_traced_memory()[0])
    return min(looks)


# In a process of its own: what threads of tests before it keep is no matter of the daemon's.
@pytest.mark.alone
async def test_a_day_keeps_nothing_of_what_it_did(made: lab.Lab) -> None:
    kept: list[int] = []
    for number in range(1, PUSHES + 1):
        await decided(made, number)
        if number == TRACED:
            tracemalloc.start()
        if number > TRACED:
            kept.append(await memory())
        push(made, number)
    tracemalloc.stop()
    settled = kept[SETTLED:]
    blocks = DEVICES * TESTS * BLOCKS * (len(settled) - FEW)
    assert (min(settled[-FEW:]) - min(settled[:FEW])) / blocks < KEPT_OF_A_BLOCK, kept
