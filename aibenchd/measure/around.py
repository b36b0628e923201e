"""What is done on this host around a program: pre- and postprocess commands, files that they make, outputs that come back."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from aibenchd import digests, errors, model
from aibenchd.devices import base as devices
from aibenchd.frameworks import base as frameworks
from aibenchd.frameworks import observer, placeholders
from aibenchd.measure import outputs, placing
from aibenchd.specs import schema

# The scripts below {FAIPEPROOT} are Python's, and want the interpreter that aibenchd has.
SEARCH_PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
LARGEST_CONVERTED = 16 << 20  # bytes of an output file that is read for metrics
LARGEST_SAID = 1 << 20  # bytes that are kept of what one command prints
READ_ONLY_DIRECTORY, READ_ONLY_FILE = 0o2750, 0o640  # for programs, by their group


class FailedError(Exception):
    """Something around the program failed as the benchmark asked for it; the message says what. The trial failed."""


class Around:
    """The host's side of one trial; ``placed`` has one."""

    def __init__(self, sides: placing.Sides, placed: placing.Placed, place: frameworks.Place) -> None:
        self._sides, self._placed, self._place = sides, placed, place
        self._pulled = Path(place.host_directory).with_name(placing.PULLED)
        self._seconds_left = placed.conditions.timeout  # of all commands on this host together
        self.printed: list[str] = []

    async def begin(self) -> None:
        """Empty what the trial before left."""
        host = await self._sides.host()
        await host.directory(placing.HOST_WORK)
        # What came here is read by us, who may be root: programs cannot put a link in its place.
        await anyio.Path(await host.directory(placing.PULLED)).chmod(READ_ONLY_DIRECTORY)

    async def before(self, index: int) -> None:
        """What precedes a repeat's commands on the device."""
        if index == 0:
            await self._run("the model's preprocess", self._placed.whole.preprocess, index)
        await self._run("preprocess", self._placed.test.preprocess, index)

    async def made(self) -> dict[str, str]:
        """Push the input files that were made; their paths on the device by key."""
        return {
            key: await self._push(key, self._place.input_files[key], file.filename)
            for key, file in self._placed.test.input_files.items()
            if file.made_at_run_time
        }

    async def after(self, index: int) -> None:
        """What follows a repeat's commands: outputs come back, and are worked on."""
        for key, source in self._placed.place.output_files.items():
            try:
                await self._sides.device.pull(PurePosixPath(source), self.output(key))
            except errors.CommandError as error:
                raise FailedError(f"output {key}: {error}") from error
            await anyio.Path(self.output(key)).chmod(READ_ONLY_FILE)
        await self._run("postprocess", self._placed.test.postprocess, index)

    async def last(self, index: int) -> None:
        """What follows the last repeat."""
        await self._run("the model's postprocess", self._placed.whole.postprocess, index)

    async def converted(self) -> list[model.Series]:
        """What converters read in output files, as series."""
        wanted = {key: file for key, file in self._placed.test.output_files.items() if file.converter}
        found = [await anyio.to_thread.run_sync(self._convert, key, file) for key, file in wanted.items()]
        return [series for one in found for series in one]

    def output(self, key: str) -> Path:
        """Where an output file is on this host."""
        return Path(self._place.output_files[key])

    async def compared(self) -> dict[str, outputs.Compared]:
        """Each output that has a golden one, laid beside it."""
        wanted = {key: file for key, file in self._placed.test.output_files.items() if file.golden}
        return {key: await anyio.to_thread.run_sync(self._compare, key, file) for key, file in wanted.items()}

    def _compare(self, key: str, file: schema.OutputFile) -> outputs.Compared:
        golden = self._placed.files.golden[key]
        described = file.model_copy(update={"format": None, "filename": golden.name}) if golden.name.endswith(".npy") else file
        reference = outputs.read(golden.path, described, f"{self._placed.benchmark.source}: the golden output {key}")
        return outputs.compare(self.array(key, file), reference)

    def array(self, key: str, file: schema.OutputFile) -> outputs.Array:
        """The numbers in an output file. Blocking.

        Raises:
            FailedError: there are none to be read.
        """
        try:
            return outputs.read(self.output(key), file, f"output {key}")
        except errors.CommandError as error:
            raise FailedError(str(error)) from error

    async def _push(self, key: str, path: str, name: str) -> str:
        copy = self._pulled / "made"
        try:
            await (await self._sides.host()).pull(PurePosixPath(path), copy)
        except errors.CommandError as error:
            raise FailedError(f"input_files.{key}: {error}; a preprocess command is to make it") from error
        digest = await anyio.to_thread.run_sync(digests.of_file, copy)
        return str(await self._sides.device.push(devices.Push(copy, digest, PurePosixPath(name).name)))

    async def _run(self, what: str, process: schema.Process | None, index: int) -> None:
        if process is None:
            return
        host, place = await self._sides.host(), dataclasses.replace(self._place, index=index)
        for command in placeholders.compose(process.texts, self._placed.variant.benchmark, place):
            async with self._sides.beside():
                completed = await host.run(self._process(command, place))
            self._seconds_left -= completed.seconds
            self.printed += [completed.stdout, completed.stderr]
            if completed.failure:
                raise FailedError(f"{what}: {command[:200]}: {completed.failure}")

    def _process(self, command: str, place: frameworks.Place) -> devices.Command:
        return devices.Command(  # noqa: S604  FAI-PEP's are a shell's
            argv=(command,),
            shell=True,
            cwd=PurePosixPath(place.host_directory),
            env={"PATH": SEARCH_PATH, **self._placed.conditions.env},
            timeout=max(self._seconds_left, 0.001),
            output_limit=LARGEST_SAID,
        )

    def _convert(self, key: str, file: schema.OutputFile) -> tuple[model.Series, ...]:
        assert file.converter is not None  # noqa: S101
        with self.output(key).open(errors="replace") as opened:
            text = opened.read(LARGEST_CONVERTED)
        converter: model.Json = {"name": file.converter.name, "args": file.converter.args}
        return observer.parse(text, model.Benchmark({"converter": converter}, {}), ()).series


def error_series(compared: dict[str, outputs.Compared]) -> Iterator[model.Series]:
    """The measures of each output as series."""
    for key, one in compared.items():
        for measure, value in one.measures.items():
            yield model.Series(f"ERROR {key}", measure, "", (value,))
