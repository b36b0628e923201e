"""What the harness adds to a trial, and what it does before one on purpose.

Counted: all that a block does with a trial but for its program: its files looked at, its directory emptied, the program
launched, its time and memory accounted, all that it started reaped, what it printed read. The program's own time is
the launcher's, from fork to exit. Not counted: journalling, which ``bench_cpu`` sees, and the caches disturbed, below.
"""

from __future__ import annotations

import time
from pathlib import Path

import lab

from aibenchd import digests, model
from aibenchd.devices import base as devices
from aibenchd.devices import local
from aibenchd.frameworks import generic
from aibenchd.measure import block, placing, trial
from aibenchd.specs import files
from tests.bench import bare, figures

SECONDS = 0.5  # that the program sleeps
PROGRAM = lab.BENCH.replace("exec awk", f"sleep {SECONDS}; exec awk")
DESIGNED = 10.0  # ms
SETTINGS = local.Settings.model_validate({"name": "host", "kind": "local"})


async def measured(directory: Path) -> list[figures.Figure]:
    async with local.Local(SETTINGS, directory / "device", devices.RunSettings()).session() as session:
        return [await _trial(session, directory), await _disturbance(session)]


async def _trial(session: devices.Session, directory: Path) -> figures.Figure:
    build = _build(directory / "build")
    specification = lab.specification("net")
    benchmark = model.Benchmark(specification["model"], specification["tests"][0], "net.json")
    design = model.Design(benchmark, "generic", model.Rule(), disturb_caches=False)
    no_files = files.BenchmarkFiles({}, {}, {})
    placed = {
        arm: await placing.lay_out(session, design, arm, build, no_files, directory / "host" / arm.value, "host")
        for arm in model.ArmName
    }
    bench = block.Bench(session, SETTINGS, generic.Generic())

    async def harness() -> float:
        began = time.perf_counter()
        done = await block.run(bench, design, 0, placed, _keep)
        return (time.perf_counter() - began - sum(map(_own_seconds, done.trials))) / len(done.trials)

    async def beyond_sleep() -> float:
        return await bare.seconds(f"{build.directory}/{build.program}") - SECONDS

    ours, yardstick = await figures.in_turn(harness, beyond_sleep)
    beside = "the program bare, past its sleep"
    return figures.Figure("harness time per trial, past the program's", ours * 1e3, yardstick * 1e3, "ms", beside, DESIGNED)


async def _disturbance(session: devices.Session) -> figures.Figure:
    async def disturbed() -> float:
        began = time.perf_counter()
        await session.disturb()
        return time.perf_counter() - began

    async def written() -> float:
        return figures.timed(lambda: bytearray(SETTINGS.disturb_size))

    ours, yardstick = await figures.in_turn(disturbed, written)
    return figures.Figure("caches disturbed before a trial", ours * 1e3, yardstick * 1e3, "ms", "as much memory made")


def _build(directory: Path) -> model.Build:
    directory.mkdir()
    program = directory / "bench"
    program.write_text(PROGRAM.format(latency=100))
    program.chmod(0o755)
    return model.Build("engine", "0" * 40, "generic", "host", str(directory), program.name, digests.of_tree(directory))


def _own_seconds(one: model.Trial) -> float:
    (series,) = (series for series in one.series if series.key == "PROCESS wall_time")
    return series.values[0]


async def _keep(finished: trial.Finished, number: int) -> str:
    assert finished.trial.outcome is model.Outcome.OK, finished.trial.reason
    return ""
