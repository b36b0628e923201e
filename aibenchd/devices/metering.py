"""What a device takes in energy while a program runs.

A kind of meter is one class derived from :class:`Meter`, and one line under ``aibenchd.meters``.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import anyio
import anyio.abc
import anyio.to_thread

from aibenchd import errors, plugins
from aibenchd.devices import base, helping

ZONES = Path("/sys/class/powercap")
STOP_DEADLINE = 5.0  # seconds that a meter's program has to end once it is told to
GAUGE_STEP = 3.6  # coulombs, a mAh: by so much the gauge of a battery may go back and forth
NO_COUNTERS = f"this host's processor has no counters of energy (RAPL) that can be seen in {ZONES}, so none is recorded"
PROGRAM_ADVICE = "write the whole path of a program that is there (meter.command)"
MOST_ROWS = 10_000_000  # that are read of what a meter's program printed


@dataclass(slots=True)
class Energy:
    """Joules and seconds of what was metered; NaN until it is over, and where there is no meter."""

    joules: float = math.nan
    seconds: float = math.nan


class Meter(abc.ABC):
    """Made once for a device; used by one caller at a time."""

    on_this_host: ClassVar[bool] = False  # whether it can meter nothing but this host and what is in it

    def __init__(self, settings: base.MeterSettings) -> None:
        self.settings = settings

    def of(self, session: base.Session) -> Meter:  # noqa: ARG002
        """The meter of a device in hand; itself, where it does not ask the device."""
        return self

    async def look(self) -> None:  # noqa: B027  a kind that can only be tried by metering has nothing to look at
        """See that it would tell the energy, as far as that can be seen without metering, and with no device in hand; quick.

        Raises:
            HarnessError: it would not; the message says what to do.
        """

    @abc.abstractmethod
    def metering(self, env: Mapping[str, str]) -> AbstractAsyncContextManager[Energy]:
        """Meter what happens inside; the energy is known when it is left.

        Args:
            env: what the benchmark says of metering: ``AIBENCHD_VOLTAGE``, ``AIBENCHD_COLLECTION_TIME``, ``AIBENCHD_METHOD``.

        Raises:
            HarnessError: the meter does not work; the message says what to do.
        """


class NoMeter(Meter):
    """Of a device whose energy nobody can tell."""

    @contextlib.asynccontextmanager
    async def metering(self, env: Mapping[str, str]) -> AsyncIterator[Energy]:  # noqa: ARG002
        yield Energy()


class Rapl(Meter):
    """The processor's own counters of this host (running average power limit): whole packages, and memory beside them."""

    on_this_host = True

    @contextlib.asynccontextmanager
    async def metering(self, env: Mapping[str, str]) -> AsyncIterator[Energy]:  # noqa: ARG002
        energy = Energy()
        before, began = await self._zones(), time.monotonic()
        yield energy
        after, energy.seconds = await self._zones(), time.monotonic() - began
        energy.joules = spent(before, after)

    async def look(self) -> None:
        with errors.about("meter", "helper"):
            found = await self._zones()
        if not found:
            raise errors.HarnessError(f"{NO_COUNTERS}; remove meter, or give it another kind").at("meter", "kind")

    async def _zones(self) -> dict[str, Zone]:
        if self.settings.helper is None:
            return await anyio.to_thread.run_sync(lambda: {zone.name: zone for zone in counters(ZONES)})
        return {zone.name: zone for zone in await _of_helper(self.settings.helper)}


class Program(Meter):
    """A program that prints the watts that the device takes, one number a row, from its start until it is sent SIGTERM."""

    @contextlib.asynccontextmanager
    async def metering(self, env: Mapping[str, str]) -> AsyncIterator[Energy]:
        energy = Energy()
        with tempfile.TemporaryFile() as printed:
            async with self._started(env, printed) as process:
                began = time.monotonic()
                yield energy
                energy.seconds = time.monotonic() - began
                await _told_to_end(process)
            watts = await anyio.to_thread.run_sync(_watts, printed)
        if not watts:
            raise errors.HarnessError(f"the meter {self._shown} printed no number; expected watts, one number a row")
        energy.joules = math.fsum(watts) / len(watts) * energy.seconds

    async def look(self) -> None:
        """It is not started: where it is at work already, its second start might disturb the first."""
        program = self.settings.command[0]
        if await anyio.to_thread.run_sync(shutil.which, program) is None:
            raise errors.HarnessError(f"the meter's program {program} cannot be found, or not be executed; {PROGRAM_ADVICE}").at(
                "meter", "command"
            )

    @property
    def _shown(self) -> str:
        return " ".join(self.settings.command)

    @contextlib.asynccontextmanager
    async def _started(self, env: Mapping[str, str], printed: IO[bytes]) -> AsyncIterator[anyio.abc.Process]:
        try:
            process = await anyio.open_process(
                self.settings.command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **env},
                start_new_session=True,  # so that what it starts ends with it
            )
        except OSError as error:
            reason = f"the meter {self._shown} cannot be started: {error.strerror or error}; {PROGRAM_ADVICE}"
            raise errors.HarnessError(reason) from error
        try:
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                _signal(process, signal.SIGKILL)
                await process.wait()


async def _told_to_end(process: anyio.abc.Process) -> None:
    _signal(process, signal.SIGTERM)
    with anyio.move_on_after(STOP_DEADLINE):
        await process.wait()


def _signal(process: anyio.abc.Process, number: int) -> None:
    """To a meter's program and all that it started, such as the other end of its pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _watts(printed: IO[bytes]) -> list[float]:
    printed.seek(0)
    numbers = map(_number, itertools.islice(printed, MOST_ROWS))
    return [number for number in numbers if math.isfinite(number) and number >= 0]


class Battery(Meter):
    """The device's own battery, by what its gauge says before and after: charge that went, times voltage.

    Gauges count in steps of up to a mAh (15 J), so a program should run for minutes; where the gauge did not move nothing is
    claimed.
    """

    def __init__(self, settings: base.MeterSettings, session: base.Session | None = None) -> None:
        super().__init__(settings)
        self._session = session

    def of(self, session: base.Session) -> Meter:
        return Battery(self.settings, session)

    @contextlib.asynccontextmanager
    async def metering(self, env: Mapping[str, str]) -> AsyncIterator[Energy]:  # noqa: ARG002
        energy = Energy()
        before, began = await self._gauge(), time.monotonic()
        yield energy
        after, energy.seconds = await self._gauge(), time.monotonic() - began
        coulombs = before[0] - after[0]
        if coulombs < -GAUGE_STEP:
            raise errors.HarnessError("the battery is being charged: unplug it (adb over the network), or switch charging off")
        if coulombs > 0:  # else it was too short for the gauge to tell
            energy.joules = coulombs * (before[1] + after[1]) / 2

    async def look(self) -> None:
        if self._session is not None:
            await self._gauge()

    async def _gauge(self) -> tuple[float, float]:
        """Coulombs that are left, and volts."""
        told = await self._session.state() if self._session else {}
        try:
            return float(told["charge"]), float(told["voltage"])
        except (KeyError, ValueError):
            raise errors.HarnessError(
                "the device does not tell its battery's charge and voltage; give it another meter, or remove meter"
            ).at("meter", "kind") from None


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter of energy in microjoules, that begins again after ``range``."""

    name: str
    microjoules: int
    range: int


def counters(root: Path) -> Iterator[Zone]:
    """The counters of packages and memory below /sys/class/powercap; those within a package are counted in it. Blocking.

    Raises:
        HarnessError: they may not be read.
    """
    for place in sorted(root.glob("*-rapl:*")):
        try:
            name = (place / "name").read_text().strip()
            if name.startswith(("package", "psys", "dram")):
                yield Zone(
                    f"{place.name} {name}", *(int((place / key).read_text()) for key in ("energy_uj", "max_energy_range_uj"))
                )
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise errors.HarnessError(
                f"{place}: {error}; only root may read it: start aibenchd-helper.socket, and name it as the meter's helper"
            ) from error


def spent(before: Mapping[str, Zone], after: Mapping[str, Zone]) -> float:
    """Joules between two readings; NaN where no counter is in both. Where the whole platform is counted, that alone."""
    common = [name for name in before if name in after]
    platform = [name for name in common if "psys" in name]
    microjoules = 0
    for name in platform or common:
        passed = after[name].microjoules - before[name].microjoules
        microjoules += passed if passed >= 0 else passed + after[name].range
    return microjoules / 1e6 if common else math.nan


async def _of_helper(path: Path) -> list[Zone]:
    said = await helping.ask(path, b'{"verb": "read-energy"}')
    if "error" in said:
        raise errors.HarnessError(f"the helper {path} does not read energy: {said['error']}")
    wanted = ("package", "psys", "dram")
    try:
        found = [Zone(one["name"], one["microjoules"], one["range"]) for one in said["zones"]]
    except (KeyError, TypeError) as error:
        raise errors.HarnessError(f"the helper {path} answers in another way than expected; is it of this version?") from error
    return [zone for zone in found if zone.name.startswith(wanted)]


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def make(settings: base.MeterSettings | None, *, on_this_host: bool) -> Meter:
    """A device's meter: the one that is configured; else, for programs of this host, the kernel's where all may read it.

    Raises:
        UnknownKindError: no installed package offers the kind.
    """
    if settings is not None:
        made: Meter = plugins.load("meters", settings.kind)(settings)
        return made
    own = base.MeterSettings(kind="rapl")
    if on_this_host:
        with contextlib.suppress(errors.HarnessError):
            if list(counters(ZONES)):
                return Rapl(own)
    return NoMeter(own)
