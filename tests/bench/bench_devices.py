"""A thousand simulated devices in one daemon: its memory, and its CPU time when they have nothing to do; and a day of them.

The yardstick is a process with as many tasks that do nothing but sleep as long as a worker does between two looks at its
device. The day is simulated, and nothing is waited for in it: what grows in it would grow in a lab.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import lab

from aibenchd.measure import worker
from tests.bench import figures

DEVICES = 1_000
MEMORY_DESIGNED, CPU_DESIGNED = 300.0, 5.0  # MB; percent of a core
SETTLE_SECONDS, IDLE_SECONDS = 5.0, worker.IDLE_SECONDS  # each device is looked at once meanwhile
PATIENCE = 600.0  # seconds, of a busy machine

PUSHES, SETTLED = 96, 72  # in the simulated day; and after how many the caches, SQLite's before all, are full
DAY_DEVICES, DAY_TESTS, DAY_BLOCKS = 10, 2, 4  # of each test on each device for each push
DAY_SECONDS = 24 * 3600 / (PUSHES * DAY_TESTS * DAY_BLOCKS * 2)  # simulated, of a trial

BUILD = """#!/bin/sh
set -e
: > "$2"
cp "$1/subject" "$(dirname "$2")/simulated.json"
"""
SLEEPING = """
import asyncio, random

async def wait(seconds):
    await asyncio.sleep(random.uniform(0, seconds))
    while True:
        await asyncio.sleep(seconds)

async def main():
    async with asyncio.TaskGroup() as tasks:
        for _ in range({tasks}):
            tasks.create_task(wait({seconds}))

asyncio.run(main())
"""
DECIDED = "SELECT count(*) FROM experiments WHERE verdict IS NOT NULL"


async def measured(directory: Path) -> list[figures.Figure]:
    return [*await idle(directory / "idle"), *await day(directory / "day")]


def make(directory: Path, devices: int, seconds: float) -> lab.Lab:
    """A lab of simulated devices, whose engine has two revisions that are as quick as each other."""
    directory.mkdir()
    made = lab.make(directory)
    program = {"seconds": seconds}
    made.configure(devices=[{"name": f"dream-{seed}", "kind": "simulated", "program": program} for seed in range(devices)])
    (repository,) = made.configuration["repositories"]
    made.configure(repositories=[repository | {"poll_interval": "1h"}])
    return made


async def idle(directory: Path) -> list[figures.Figure]:
    made = make(directory, DEVICES, 1.0)
    made.commit(json.dumps({"latency": 100}), build=BUILD)
    sleeping = SLEEPING.format(tasks=DEVICES, seconds=worker.IDLE_SECONDS)
    yardstick = await anyio.open_process([sys.executable, "-c", sleeping], stdin=subprocess.DEVNULL)
    try:
        async with made.daemon() as process:
            await made.until(DECIDED, [(DEVICES,)], PATIENCE)
            await anyio.sleep(SETTLE_SECONDS)
            pids = (process.pid, yardstick.pid)
            before = [figures.cpu_seconds(pid) for pid in pids]
            await anyio.sleep(IDLE_SECONDS)
            after = [figures.cpu_seconds(pid) for pid in pids]
            spent = [(late - early) / IDLE_SECONDS * 100 for late, early in zip(after, before, strict=True)]
            memory = [resident(pid) for pid in pids]
    finally:
        yardstick.kill()
        await yardstick.wait()
    devices, beside = f"{DEVICES:,} simulated devices", "as many sleeping tasks"
    return [
        figures.Figure(f"memory with {devices}", *memory, "MB", beside, MEMORY_DESIGNED),
        figures.Figure(f"CPU with {devices} that are idle, of a core", *spent, "%", beside, CPU_DESIGNED),
    ]


async def day(directory: Path) -> list[figures.Figure]:
    made = make(directory, DAY_DEVICES, DAY_SECONDS)
    (repository,) = made.configuration["repositories"]
    rule = {"alpha": 1e-9, "beta": 1e-9, "min_effect": 0.0001, "max_blocks": DAY_BLOCKS, "disturb_caches": False}
    made.configure(experiment=rule, repositories=[repository | {"poll_interval": "200ms"}])
    made.write_specification("net.json", lab.specification(*(f"net-{number}" for number in range(DAY_TESTS))))
    memory = []
    made.commit(json.dumps({"samples": 1, "seconds": DAY_SECONDS}), build=BUILD)
    async with made.daemon() as process:
        for number in range(1, PUSHES + 1):
            await made.until(DECIDED, [(DAY_DEVICES * DAY_TESTS * number,)], PATIENCE)
            made.commit(json.dumps({"samples": number + 1, "seconds": DAY_SECONDS}), build=BUILD)
            memory.append(resident(process.pid))
        await made.until(DECIDED, [(DAY_DEVICES * DAY_TESTS * (PUSHES + 1),)], PATIENCE)
        memory.append(resident(process.pid))
    blocks = made.rows("SELECT count(*) FROM blocks")[0][0]
    name = f"memory after 24 simulated hours, {blocks:,} blocks"
    return [figures.Figure(name, memory[-1], memory[SETTLED], "MB", "after the first 18 of them")]


def resident(pid: int) -> float:
    """MB of a process."""
    rows = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows["VmRSS"].split()[0]) * 1024 / 1e6
