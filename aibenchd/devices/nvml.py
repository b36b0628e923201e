"""NVIDIA's management library, through ``nvidia-ml-py``: what a GPU is and how it fares, and what it takes in energy.

The package is imported, and the driver asked, in worker threads: a driver that hangs holds up nobody else.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from aibenchd import errors
from aibenchd.devices import base, gpus, metering

T = TypeVar("T")

DEADLINE = 20.0  # seconds, of one question; a GPU that was asleep takes some
PACKAGE = "pynvml"  # the module that nvidia-ml-py installs

Library: TypeAlias = Any  # the module
Handle: TypeAlias = Any


def library() -> Library:
    """The module. Blocking.

    Raises:
        HarnessError: it is not installed.
    """
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise errors.HarnessError(f"GPUs need the package nvidia-ml-py ({error}): pip install 'aibenchd[nvidia]'") from error


class Card:
    """One GPU of this host, named by index or UUID. One caller at a time.

    A call that hangs is left alone in its thread; until it returns, what else is asked fails at once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._asked = False
        self._limiter = anyio.CapacityLimiter(1)

    async def ask(self, what: Callable[[Library, Handle], T]) -> T:
        """What ``what`` finds, which is called in a worker thread.

        Raises:
            HarnessError: there is no such GPU, or it does not answer; the message says what to do.
        """
        if self._asked:
            raise errors.HarnessError(f"GPU {self.name}: the driver still hangs in an earlier call; see dmesg, restart the host")
        try:
            with anyio.fail_after(DEADLINE):
                return await anyio.to_thread.run_sync(self._in_thread, what, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError:
            raise errors.HarnessError(f"GPU {self.name}: the driver does not answer within {DEADLINE:.0f} s; see dmesg") from None

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keeps the library initialised between what is asked inside: that takes long. Where it cannot, it takes long."""
        stack = contextlib.ExitStack()
        with contextlib.suppress(errors.HarnessError):
            await self.ask(lambda nvml, _: stack.enter_context(_initialised(nvml)))
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(errors.HarnessError):
                await self.ask(lambda _nvml, _: stack.close())

    def _in_thread(self, what: Callable[[Library, Handle], T]) -> T:
        self._asked = True
        try:
            return _told(f"GPU {self.name}", lambda nvml: what(nvml, handle(nvml, self.name)))
        finally:
            self._asked = False


async def uuids() -> list[str]:
    """UUIDs of all GPUs of this host, in the order of their indexes.

    Raises:
        HarnessError: the driver does not answer, or there is none; the message says what to do.
    """

    def listed(nvml: Library) -> list[str]:
        return [uuid(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]

    return await anyio.to_thread.run_sync(_told, "GPUs of this host", listed, abandon_on_cancel=True)


def _told(who: str, what: Callable[[Library], T]) -> T:
    """What ``what`` finds while the library is initialised. Blocking."""
    nvml = library()
    try:
        with _initialised(nvml):
            return what(nvml)
    except nvml.NVMLError as error:
        raise errors.HarnessError(f"{who}: {error}; {_advice(error)}") from error


@contextlib.contextmanager
def _initialised(nvml: Library) -> Iterator[None]:
    """The library counts: it is shut down when the last has left."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        nvml.nvmlShutdown()


def handle(nvml: Library, name: str) -> Handle:
    """Of the GPU with that index or UUID."""
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(name)


def _advice(error: Exception) -> str:
    return gpus.ADVICES.get(getattr(error, "value", 0), gpus.OTHERWISE)


# ---- what can be asked. Blocking; what a card does not know is left out


def uuid(nvml: Library, card: Handle) -> str:
    """What tells a card from all others, ``GPU-…``; it stays when cards change their places."""
    return str(nvml.nvmlDeviceGetUUID(card))


def facts(nvml: Library, card: Handle) -> Mapping[str, str]:
    """What it is."""
    version = _known(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    limit = _known(nvml, nvml.nvmlDeviceGetPowerManagementLimit, card)
    found = {
        "gpu": _known(nvml, nvml.nvmlDeviceGetName, card),
        "hash": uuid(nvml, card),
        "driver": _known(nvml, nvml.nvmlSystemGetDriverVersion),
        "cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
        "vbios": _known(nvml, nvml.nvmlDeviceGetVbiosVersion, card),
        "ecc": _switch(_known(nvml, lambda: nvml.nvmlDeviceGetEccMode(card)[0])),
        "power_limit": None if limit is None else f"{limit / 1000:g} W",
        "persistence": _switch(_known(nvml, nvml.nvmlDeviceGetPersistenceMode, card)),
    }
    return {name: value for name, value in found.items() if value is not None}


def state(nvml: Library, card: Handle) -> Mapping[str, str]:
    """How it fares."""
    temperature = _known(nvml, nvml.nvmlDeviceGetTemperature, card, nvml.NVML_TEMPERATURE_GPU)
    power = _known(nvml, nvml.nvmlDeviceGetPowerUsage, card)
    memory = _known(nvml, nvml.nvmlDeviceGetMemoryInfo, card)
    processes = _known(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, card)
    clocks = {
        name: _known(nvml, nvml.nvmlDeviceGetClockInfo, card, kind)
        for name, kind in (("clock", nvml.NVML_CLOCK_SM), ("memory_clock", nvml.NVML_CLOCK_MEM))
    }
    found = {
        "temperature": None if temperature is None else str(temperature),
        "throttled": None if (active := _reasons(nvml, card)) is None else gpus.throttled(active),
        "power": None if power is None else f"{power / 1000:g} W",
        "memory_used": None if memory is None else f"{memory.used // gpus.MEBIBYTE} MiB",
        "processes": None if processes is None else gpus.listed([(str(one.pid), _name(nvml, one.pid)) for one in processes]),
        **{name: None if clock is None else f"{clock} MHz" for name, clock in clocks.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def clocks(nvml: Library, card: Handle) -> list[int]:
    """MHz that its cores can be held at, with its memory as quick as it can be; ascending."""
    memory = _known(nvml, nvml.nvmlDeviceGetSupportedMemoryClocks, card)
    return sorted(_known(nvml, nvml.nvmlDeviceGetSupportedGraphicsClocks, card, max(memory)) or ()) if memory else []


def _name(nvml: Library, process: int) -> str:
    """Empty where it has gone, or is not ours to see."""
    with contextlib.suppress(nvml.NVMLError):
        return str(nvml.nvmlSystemGetProcessName(process))
    return ""


def _reasons(nvml: Library, card: Handle) -> int | None:
    """By its newer name, where the driver has it."""
    active = _known(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, card)
    return active if active is not None else _known(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, card)


def _known(nvml: Library, ask: Callable[..., T], *arguments: Any) -> T | None:
    try:
        return ask(*arguments)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise


def _switch(mode: int | None) -> str | None:
    return None if mode is None else "on" if mode else "off"


# ---- its clocks


def may_lock() -> bool:
    """Only root may; the driver has no other way."""
    return os.geteuid() == 0


def lock(megahertz: int, nvml: Library, card: Handle) -> None:
    """Hold its cores at one clock until :func:`unlock`, or until its driver is unloaded. For root alone. Blocking.

    Raises:
        CommandError: it is refused.
    """
    with _refusable(nvml):
        nvml.nvmlDeviceSetGpuLockedClocks(card, megahertz, megahertz)


def unlock(nvml: Library, card: Handle) -> None:
    """Its clocks are the driver's own affair again, also where they can be nothing else. For root alone. Blocking.

    Raises:
        CommandError: it is refused.
    """
    with _refusable(nvml):
        _known(nvml, nvml.nvmlDeviceResetGpuLockedClocks, card)


@contextlib.contextmanager
def _refusable(nvml: Library) -> Iterator[None]:
    """That we may not, as root of a container may not, or that the card cannot, is no fault of the card's."""
    try:
        yield
    except nvml.NVMLError as error:
        if error.value not in (nvml.NVML_ERROR_NO_PERMISSION, nvml.NVML_ERROR_NOT_SUPPORTED):
            raise
        raise errors.CommandError(str(error)) from error


# ---- its energy


class Nvml(metering.Meter):
    """The GPU's own counter of energy, which all NVIDIA GPUs from Volta on have."""

    on_this_host = True

    def __init__(self, settings: base.MeterSettings) -> None:
        super().__init__(settings)
        self._card = Card(settings.gpu)

    @contextlib.asynccontextmanager
    async def metering(self, env: Mapping[str, str]) -> AsyncIterator[metering.Energy]:  # noqa: ARG002
        energy = metering.Energy()
        before, began = await self._card.ask(_millijoules), time.monotonic()
        yield energy
        after, energy.seconds = await self._card.ask(_millijoules), time.monotonic() - began
        energy.joules = (after - before) / 1000

    async def look(self) -> None:
        try:
            await self._card.ask(_millijoules)
        except errors.HarnessError as error:
            raise errors.HarnessError(f"its energy cannot be metered: {error}").at("meter") from error


def _millijoules(nvml: Library, card: Handle) -> float:
    counted = _known(nvml, nvml.nvmlDeviceGetTotalEnergyConsumption, card)
    return math.nan if counted is None else float(counted)
