"""An arm laid out on a device: its build and model files pushed, its placeholders known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from aibenchd import model
from aibenchd.devices import base as devices
from aibenchd.frameworks import base as frameworks
from aibenchd.specs import conditions, content, files

WORK = "work"  # of both arms: a path that differs would be a difference between them


@dataclass(frozen=True, slots=True)
class Placed:
    """An arm that is ready to run.

    Attributes:
        place: what its placeholders are replaced by.
        files: to be compared with what they were before each trial.
    """

    arm: model.ArmName
    place: frameworks.Place
    files: files.BenchmarkFiles
    conditions: conditions.Conditions


async def lay_out(
    session: devices.Session,
    design: model.Design,
    arm: model.ArmName,
    build: model.Build,
    verified: files.BenchmarkFiles,
    host_directory: Path,
    device_hash: str,
) -> Placed:
    """Push what an arm needs.

    Raises:
        CommandError: the benchmark is not valid.
        DeviceLostError, HarnessError: as :meth:`Session.push`.
    """
    directory = await session.push(devices.Push(Path(build.directory), build.digest, "build"))
    names = await anyio.to_thread.run_sync(_programs, Path(build.directory))
    work = await session.directory(WORK)
    await anyio.to_thread.run_sync(_make, host_directory)
    place = frameworks.Place(
        target_directory=f"{work}/",
        host_directory=str(host_directory),
        build_directory=str(directory),
        programs={name: str(directory / name) for name in names} | {"program": str(directory / build.program)},
        files=await _push(session, verified.files),
        input_files=await _push(session, verified.input_files),
        host_files={key: str(file.path) for key, file in verified.host_files.items()},
        output_files=_output_files(design.benchmark, work),
        device_hash=device_hash,
        backend=design.backend,
        extra_arguments=design.command_args,
    )
    how = conditions.of(design.benchmark, timeout=design.timeout, env=design.env)
    return Placed(arm, place, verified, how)


def host_directory(state_directory: Path, experiment: int, arm: model.ArmName) -> Path:
    """``{HOSTDIR}``: one for all repeats of an arm, each arm its own, as long for both."""
    return state_directory / "host" / f"{experiment:012d}-{arm.value[0]}"


def remembered(state_directory: Path, limit: int) -> list[int]:
    """Experiments that have a directory on this host, oldest first. Blocking."""
    root = state_directory / "host"
    numbers = {entry.name.partition("-")[0] for entry in root.iterdir()} if root.is_dir() else set()
    return sorted(int(number) for number in numbers if number.isdecimal())[:limit]


async def forget(state_directory: Path, experiment: int) -> None:
    """Remove what an experiment left on this host."""
    for arm in model.ArmName:
        await anyio.to_thread.run_sync(shutil.rmtree, host_directory(state_directory, experiment, arm), True)


async def _push(session: devices.Session, verified: Mapping[str, content.VerifiedFile]) -> dict[str, str]:
    return {
        key: str(await session.push(devices.Push(file.path, file.digest, PurePosixPath(file.name).name)))
        for key, file in sorted(verified.items())
    }


def _programs(build: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(build) if entry.is_file())


def _make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _output_files(benchmark: model.Benchmark, work: PurePosixPath) -> dict[str, str]:
    wanted = benchmark.test.get("output_files", {})
    if not isinstance(wanted, Mapping):
        return {}
    return {
        key: str(work / PurePosixPath(str(one["filename"])).name)
        for key, one in wanted.items()
        if isinstance(one, Mapping) and "filename" in one
    }
