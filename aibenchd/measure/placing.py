"""An arm laid out on a device, and beside it on this host: its build and files pushed, its placeholders known."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread
import pydantic

from aibenchd import digests, errors, model, plugins
from aibenchd.devices import base as devices
from aibenchd.devices import metering
from aibenchd.frameworks import base as frameworks
from aibenchd.frameworks import placeholders
from aibenchd.specs import conditions, content, files, schema

WORK = "work"  # of both arms: a path that differs would be a difference between them
HOST_WORK = "host"  # {HOSTDIR}
OUTPUTS = "outputs"  # below the state directory
PULLED = "pulled"  # where output files come to on this host, beside HOST_WORK
ANDROID = "android"  # how the platforms begin whose builds may be apps
INTENT = "intent.txt"  # in a build, as FAI-PEP has it: the app that its program is the package of, as a model would name it


class Sides:
    """Where trials take place: a device and its meter, and beside it this host, opened when a benchmark first needs it."""

    def __init__(
        self,
        device: devices.Session,
        meter: metering.Meter,
        open_host: Callable[[], Awaitable[devices.Session]],
        beside: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.device, self.meter = device, meter
        self.beside = beside  # held by each command on this host: it must not run while another device's block does here
        self._open_host = open_host
        self._host: devices.Session | None = None

    async def host(self) -> devices.Session:
        """This host, for what is done around the program.

        Raises:
            HarnessError: nothing can be done there now.
        """
        if self._host is None:
            try:
                self._host = await self._open_host()
            except errors.DeviceLostError as error:  # what needs no host goes on
                raise errors.HarnessError(f"this host, for what is done around programs: {error}") from error
        return self._host


@dataclass(frozen=True, slots=True)
class Watch:
    """What watches an arm's program while it runs: a variable that tells it to watch itself, or what it runs under."""

    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def over(self, command: devices.Command) -> devices.Command:
        """The command, watched."""
        argv = ("sh", "-c", *command.argv) if self.prefix and command.shell else command.argv
        shell = command.shell and not self.prefix
        return dataclasses.replace(command, argv=(*self.prefix, *argv), shell=shell, env={**command.env, **self.env})


@dataclass(frozen=True, slots=True)
class Placed:
    """An arm that is ready to run.

    Attributes:
        benchmark: with the names of places replaced in all its texts.
        test, whole: the benchmark's test and model, typed.
        app: that the program is the package of, by the model or else by the build; None where it is a program.
        place: what its placeholders are replaced by on the device.
        host: what they are replaced by in commands on this host; None where nothing is to be done there.
        files: to be compared with what they were before each trial.
        libraries: directories on the device that its shared libraries lie in.
        sizes: bytes of the program with all that its build left, and of the model's files.
        watch: how its program is watched; not at all where it is measured.
    """

    arm: model.ArmName
    variant: model.Variant
    framework: frameworks.Framework
    benchmark: model.Benchmark
    test: schema.Test
    whole: schema.Model
    app: devices.App | None
    place: frameworks.Place
    host: frameworks.Place | None
    files: files.BenchmarkFiles
    conditions: conditions.Conditions
    libraries: tuple[str, ...]
    sizes: Mapping[str, float]
    watch: Watch = Watch()

    @property
    def metering(self) -> dict[str, str]:
        """What the test says of metering, for the meter."""
        given = {
            "AIBENCHD_METHOD": self.test.method,
            "AIBENCHD_VOLTAGE": self.test.voltage,
            "AIBENCHD_COLLECTION_TIME": self.test.collection_time,
        }
        return {name: str(value) for name, value in given.items() if value}


def needs_host(benchmark: model.Benchmark) -> bool:
    """Whether something is to be done on this host around the program.

    Raises:
        CommandError: the benchmark is not valid.
    """
    test, whole = schema.typed(benchmark)
    around = (test.preprocess, test.postprocess, whole.preprocess, whole.postprocess)
    return any(around) or bool(test.output_files) or any(file.made_at_run_time for file in test.input_files.values())


async def lay_out(
    sides: Sides,
    design: model.Design,
    arm: model.ArmName,
    build: model.Build,
    verified: files.BenchmarkFiles,
    device_hash: str,
) -> Placed:
    """Push what an arm needs.

    Raises:
        CommandError: the benchmark is not valid, or asks for what no trial can give.
        UnknownKindError: its framework is not installed.
        DeviceLostError, HarnessError: as :meth:`Session.push`.
    """
    variant = design.of(arm)
    test, whole = schema.typed(variant.benchmark)
    _refuse(variant.benchmark, test)
    host = None
    if needs_host(variant.benchmark):
        host = await _on_host(await sides.host(), variant, build, verified, device_hash)
    place = await _on_device(sides.device, variant, build, verified, device_hash, host)
    benchmark = placeholders.settled(variant.benchmark, place)
    return Placed(
        arm=arm,
        variant=variant,
        framework=plugins.load("frameworks", variant.framework)(),
        benchmark=benchmark,
        test=test,
        whole=whole,
        app=await anyio.to_thread.run_sync(_app, whole, build),
        place=place,
        host=host,
        files=verified,
        conditions=conditions.of(variant.benchmark, timeout=design.timeout, env=variant.env),
        libraries=await _libraries(sides.device, benchmark),
        sizes={
            "program_size": await anyio.to_thread.run_sync(_tree_size, Path(build.directory)),
            "model_size": float(sum(file.size for file in verified.files.values())),
        },
    )


def _refuse(benchmark: model.Benchmark, test: schema.Test) -> None:
    shown = f"{benchmark.source}: {benchmark.identifier}"
    if test.metric == "error" and not any(file.limits for file in test.output_files.values()):
        raise errors.CommandError(f"{shown}: 'error' compares outputs; give an output file its golden one, or a tolerance")


async def _on_device(
    session: devices.Session,
    variant: model.Variant,
    build: model.Build,
    verified: files.BenchmarkFiles,
    device_hash: str,
    host: frameworks.Place | None,
) -> frameworks.Place:
    work = str(await session.directory(WORK))
    place = await _place(session, variant, build, verified, device_hash, work, host.host_directory if host else work)
    test, _ = schema.typed(placeholders.settled(variant.benchmark, place))
    outputs = {key: file.location or f"{work}/{PurePosixPath(file.filename).name}" for key, file in test.output_files.items()}
    if shared := [path for path, count in collections.Counter(outputs.values()).items() if count > 1]:
        raise errors.CommandError(
            f"{variant.benchmark.source}: {variant.benchmark.identifier}: output_files: several lie at {shared[0]};"
            " give each a location of its own"
        )
    return dataclasses.replace(place, output_files=outputs)


async def _on_host(
    session: devices.Session, variant: model.Variant, build: model.Build, verified: files.BenchmarkFiles, device_hash: str
) -> frameworks.Place:
    """What commands on this host see: the same files, where the user that programs run as can read them."""
    work, pulled = str(await session.directory(HOST_WORK)), await session.directory(PULLED)
    place = await _place(session, variant, build, verified, device_hash, work, work)
    test, _ = schema.typed(placeholders.settled(variant.benchmark, place))
    made = {key: _made(variant.benchmark, key, file, work) for key, file in _made_files(variant.benchmark, test).items()}
    return dataclasses.replace(
        place,
        input_files={**place.input_files, **made},
        output_files={
            key: str(pulled / f"{number}-{PurePosixPath(file.filename).name}")  # files of two directories may have one name
            for number, (key, file) in enumerate(test.output_files.items())
        },
        host_files=await _push(session, verified.host_files),
    )


async def _place(
    session: devices.Session,
    variant: model.Variant,
    build: model.Build,
    verified: files.BenchmarkFiles,
    device_hash: str,
    work: str,
    host_directory: str,
) -> frameworks.Place:
    directory = await session.push(devices.Push(Path(build.directory), build.digest, "build"))
    names = await anyio.to_thread.run_sync(_file_names, Path(build.directory))
    return frameworks.Place(
        target_directory=f"{work}/",
        host_directory=host_directory,
        build_directory=str(directory),
        programs={name: str(directory / name) for name in names} | {"program": str(directory / build.program)},
        files=await _push(session, verified.files),
        input_files=await _push(session, verified.input_files),
        device_hash=device_hash,
        backend=variant.backend,
        extra_arguments=variant.command_args,
    )


async def _push(session: devices.Session, verified: Mapping[str, content.VerifiedFile]) -> dict[str, str]:
    return {
        key: str(await session.push(devices.Push(file.path, file.digest, PurePosixPath(file.name).name)))
        for key, file in sorted(verified.items())
    }


def _made_files(benchmark: model.Benchmark, settled: schema.Test) -> dict[str, schema.File]:
    """The input files that commands on this host make, their locations settled."""
    as_written, _ = schema.typed(benchmark)
    return {key: settled.input_files[key] for key, file in as_written.input_files.items() if file.made_at_run_time}


def _made(benchmark: model.Benchmark, key: str, file: schema.File, work: str) -> str:
    path = os.path.normpath(str(file.sources[0]))
    if not PurePosixPath(path).is_relative_to(work):
        raise errors.CommandError(
            f"{benchmark.source}: {benchmark.identifier}: input_files.{key}: {path} is not below {{HOSTDIR}}; files that are made"
            " at run time lie there"
        )
    return path


async def _libraries(session: devices.Session, benchmark: model.Benchmark) -> tuple[str, ...]:
    """Push the model's shared libraries; the directories on the device that they lie in, for LD_LIBRARY_PATH.

    Raises:
        CommandError: one is not there, or lies outside the directory of the specification.
    """
    _, whole = schema.typed(benchmark)
    found: dict[str, None] = {}
    for library in whole.libraries:
        path = await anyio.to_thread.run_sync(_library, Path(benchmark.source).parent, library.location)
        digest = await anyio.to_thread.run_sync(digests.of_file, path)
        pushed = await session.push(devices.Push(path, digest, path.name))
        found[str(pushed.parent)] = None
    return tuple(found)


def _library(directory: Path, location: str) -> Path:
    path = (directory / location).resolve()
    if not path.is_relative_to(directory.resolve()) or not path.is_file():
        raise errors.CommandError(f"library {location}: expected a file below {directory}, the directory of its specification")
    return path


def same_files(state_directory: Path, experiment: int, verified: Mapping[model.ArmName, files.BenchmarkFiles]) -> None:
    """See that an experiment's files are those of its first block, also after a restart. Blocking.

    Raises:
        CommandError: they are not; blocks of both would be figures of two models.
    """
    now = model.digest_of({arm.value: found.digests for arm, found in verified.items()})
    mark = outputs_directory(state_directory, experiment, model.ArmName.TREATMENT) / "files"
    try:
        before = mark.read_text()
    except FileNotFoundError:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(now)
        return
    if before != now:
        raise errors.CommandError("a model file was replaced while it was measured; ask for it anew with 'aibenchctl ab'")


def outputs_directory(state_directory: Path, experiment: int, arm: model.ArmName) -> Path:
    """Where the outputs of an arm are kept, to be laid beside the other arm's and those of later blocks."""
    return state_directory / OUTPUTS / f"{experiment:012d}-{arm.value[0]}"


def remembered(state_directory: Path, limit: int) -> list[int]:
    """Experiments that have outputs on this host, oldest first. Blocking."""
    root = state_directory / OUTPUTS
    numbers = {entry.name.partition("-")[0] for entry in root.iterdir()} if root.is_dir() else set()
    return sorted(int(number) for number in numbers if number.isdecimal())[:limit]


async def forget(state_directory: Path, experiment: int) -> None:
    """Remove what an experiment left on this host."""
    for arm in model.ArmName:
        await anyio.to_thread.run_sync(shutil.rmtree, outputs_directory(state_directory, experiment, arm), True)


def _app(whole: schema.Model, build: model.Build) -> devices.App | None:
    """Blocking."""
    app, file = whole.app, Path(build.directory) / INTENT
    if app is None and build.platform.startswith(ANDROID) and file.is_file():
        try:
            app = schema.App.model_validate_json(file.read_bytes())
        except pydantic.ValidationError as error:
            found = error.errors()[0]["msg"]
            raise errors.CommandError(f'{file}: expected {{"package": "…", "activity": "…"}}: {found}') from error
    return devices.App(app.package, app.activity) if app else None


def _file_names(build: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(build) if entry.is_file())


def _tree_size(directory: Path) -> float:
    return float(sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()))
