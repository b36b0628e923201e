"""What the harness adds to a trial, and what it does before one on purpose.

Counted: all that a block does with a trial but for its program: its files looked at, its directory emptied, the program
launched, its time and memory accounted, all that it started reaped, what it printed read. The program's own time is
the launcher's, from fork to exit. Not counted: journalling, which ``bench_cpu`` sees, and the caches disturbed, below.

Taken with a script that sleeps, whose bare cost is known but for a few ms, and with the PyTorch runner on a small network,
built and commanded as the daemon does it, beside the same command run bare.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
import lab

import aibenchd.runners
from aibenchd import digests, model
from aibenchd.devices import base as devices
from aibenchd.devices import local, metering
from aibenchd.measure import block, keeping, placing
from aibenchd.specs import files
from tests.bench import bare, figures

SECONDS = 0.5  # that the program sleeps
PROGRAM = lab.BENCH.replace("exec awk", f"sleep {SECONDS}; exec awk")
DESIGNED = 10.0  # ms
SETTINGS = local.Settings.model_validate({"name": "host", "kind": "local"})
ROOT = Path(__file__).parents[2]
NETWORK = {"name": "net", "format": "pytorch", "module": "engine:net"}
IMAGE = {"identifier": "net", "metric": "delay", "iter": 20, "inputs": {"image": {"shapes": [[1, 3, 96, 96]]}}}
RUNNER_RUNS = 5  # of each side, for each takes seconds
ENVIRONMENT = ("OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1")  # as a trial has it


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one trial: all of it, and what of that was not its program's."""

    whole: float
    harness: float


@dataclass(frozen=True, slots=True)
class Subject:
    """A program laid out on the device, and its command.

    Attributes:
        trials: runs a block of it, and says what one trial took.
    """

    argv: tuple[str, ...]
    trials: Callable[[], Awaitable[Took]]


async def measured(directory: Path) -> list[figures.Figure]:
    async with local.Local(SETTINGS, directory / "device", devices.RunSettings()).session() as session:
        found = [await _of_script(session, directory)]
        if importlib.util.find_spec("torch"):
            found += await _of_runner(session, directory)
        return [*found, await _disturbance(session)]


async def _of_script(session: devices.Session, directory: Path) -> figures.Figure:
    specification = lab.specification("net")
    benchmark = model.Benchmark(specification["model"], specification["tests"][0], "net.json")
    subject = await _laid_out(session, _script(directory / "script"), benchmark, "generic", directory)

    async def harness() -> float:
        return (await subject.trials()).harness

    async def beyond_sleep() -> float:
        return await bare.seconds(*subject.argv) - SECONDS

    ours, yardstick = await figures.in_turn(harness, beyond_sleep)
    beside = "the program bare, past its sleep"
    return figures.Figure("harness time per trial, past the program's", ours * 1e3, yardstick * 1e3, "ms", beside, DESIGNED)


async def _of_runner(session: devices.Session, directory: Path) -> list[figures.Figure]:
    build = await anyio.to_thread.run_sync(_runner, directory / "runner")
    subject = await _laid_out(session, build, model.Benchmark(NETWORK, IMAGE, "net.json"), "pytorch", directory)
    harnesses: list[float] = []

    async def whole() -> float:
        took = await subject.trials()
        harnesses.append(took.harness)
        return took.whole

    async def alone() -> float:
        return await bare.seconds("env", *ENVIRONMENT, *subject.argv)

    ours, yardstick = await figures.in_turn(whole, alone, RUNNER_RUNS)
    beside = "the same command bare"
    harness = statistics.median(harnesses)
    return [
        figures.Figure("harness time per trial of the PyTorch runner", harness * 1e3, yardstick * 1e3, "ms", beside, DESIGNED),
        figures.Figure("a whole trial of the PyTorch runner", ours * 1e3, yardstick * 1e3, "ms", beside),
    ]


async def _laid_out(
    session: devices.Session, build: model.Build, benchmark: model.Benchmark, framework: str, directory: Path
) -> Subject:
    design = model.Design(benchmark, framework, model.Rule(), disturb_caches=False)
    sides = placing.Sides(session, metering.make(None, on_this_host=True), _no_host, contextlib.nullcontext)
    no_files = files.BenchmarkFiles({}, {}, {})
    placed = {arm: await placing.lay_out(sides, design, arm, build, no_files, "host") for arm in model.ArmName}
    bench = block.Bench(sides, SETTINGS, keeping.Keeper(directory / "state", 1, "host"))

    async def trials() -> Took:
        began = time.perf_counter()
        done = await block.run(bench, design, 0, placed, [])
        took = time.perf_counter() - began
        return Took(took / len(done.trials), (took - sum(map(_own_seconds, done.trials))) / len(done.trials))

    one = placed[model.ArmName.TREATMENT]
    (command,) = one.framework.commands(benchmark, one.place)
    return Subject(tuple(shlex.split(command)), trials)


async def _disturbance(session: devices.Session) -> figures.Figure:
    async def disturbed() -> float:
        began = time.perf_counter()
        await session.disturb()
        return time.perf_counter() - began

    async def written() -> float:
        return figures.timed(lambda: bytearray(SETTINGS.disturb_size))

    ours, yardstick = await figures.in_turn(disturbed, written)
    return figures.Figure("caches disturbed before a trial", ours * 1e3, yardstick * 1e3, "ms", "as much memory made")


def _script(directory: Path) -> model.Build:
    directory.mkdir()
    program = directory / "bench"
    program.write_text(PROGRAM.format(latency=100))
    program.chmod(0o755)
    return _built(directory, "bench", "generic")


def _runner(directory: Path) -> model.Build:
    """Blocking."""
    (directory / "source").mkdir(parents=True)
    (directory / "build").mkdir()
    shutil.copy(ROOT / "tests/runners/engine.py", directory / "source")
    script = ROOT / "specifications/frameworks/pytorch/host/build.sh"
    given = {"AIBENCHD_RUNNERS": str(Path(aibenchd.runners.__file__).parent), "AIBENCHD_PYTHON": sys.executable}
    command = [script, directory / "source", directory / "build/bench"]
    subprocess.run(command, env=os.environ | given, check=True, stdout=subprocess.DEVNULL)
    return _built(directory / "build", "bench", "pytorch")


def _built(directory: Path, program: str, framework: str) -> model.Build:
    return model.Build("engine", "0" * 40, framework, "host", str(directory), program, digests.of_tree(directory))


async def _no_host() -> devices.Session:
    raise AssertionError("nothing is to be done on the host around these programs")


def _own_seconds(one: model.Trial) -> float:
    assert one.outcome is model.Outcome.OK, one.reason
    (series,) = (series for series in one.series if series.key == "PROCESS wall_time")
    return series.values[0]
