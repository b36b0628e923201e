"""An NVIDIA GPU of this host, as a device of its own: programs run here, and see no GPU but this one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar, cast

import pydantic

from aibenchd import errors
from aibenchd.devices import base, launching, local, nvml, sharing

T = TypeVar("T")

_held: dict[str, str] = {}  # UUID -> the device that has it in hand


class Settings(local.Settings):
    """Keys of a device of the kind ``gpu``."""

    index: Annotated[int | None, pydantic.Field(ge=0, description="as nvidia-smi -L counts, by PCI bus; null: see uuid")] = None
    uuid: Annotated[
        str, pydantic.Field(pattern=r"^$|^(GPU|MIG)-[0-9A-Za-z/-]+$", description="as nvidia-smi -L shows it; empty: see index")
    ] = ""
    lock: Annotated[
        str, pydantic.Field(description="devices that name the same lock, such as GPUs of one board, never work at the same time")
    ] = ""

    @property
    def gpu(self) -> str:
        """Its UUID or index."""
        return self.uuid or str(self.index)

    @pydantic.model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.index is None) == (not self.uuid):
            raise ValueError("a GPU is named by its index or by its uuid, one of them; nvidia-smi -L lists both")
        return self


class Gpu(local.Local):
    """Its energy is by its own counter, unless it is given another meter."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings

    def __init__(self, settings: base.DeviceSettings, state_directory: Path, run: base.RunSettings) -> None:
        gpu = cast("Settings", settings).gpu
        meter = settings.meter or base.MeterSettings(kind="nvml", gpu=gpu)
        super().__init__(settings.model_copy(update={"meter": meter}), state_directory, run)
        self._card = nvml.Card(gpu)
        self._uuid = ""  # of the session that there is

    def turn(self) -> AbstractAsyncContextManager[None]:
        return sharing.alone(cast("Settings", self.settings).lock)

    def started(self, command: base.Command) -> base.Command:
        """By its UUID, so that no order matters; a benchmark cannot choose another."""
        env = {**command.env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": self._uuid}
        return dataclasses.replace(command, env=env)

    def served(self, launcher: launching.Launcher) -> local.LocalSession:
        settings = cast("Settings", self.settings)
        return GpuSession(settings, settings.directory or self.state_directory, launcher, self.started, self._card)

    async def reach(self) -> None:
        await super().reach()
        await _asked(self._card, nvml.facts)

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._in_hand()

    @contextlib.asynccontextmanager
    async def _in_hand(self) -> AsyncIterator[base.Session]:
        self._uuid = await _asked(self._card, nvml.uuid)
        with _alone(self._uuid, self.settings.name):
            async with self._card.held(), super().session() as session:
                yield session


class GpuSession(local.LocalSession):
    """A session on this host whose frequency, temperature and power are the GPU's."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        launcher: launching.Launcher,
        started: Callable[[base.Command], base.Command],
        card: nvml.Card,
    ) -> None:
        super().__init__(settings, directory, launcher, started)
        self._card = card
        self._locked = ""  # by us; the library cannot be asked

    async def health(self) -> None:
        await super().health()
        await _asked(self._card, nvml.uuid)

    async def fingerprint(self) -> Mapping[str, str]:
        locked = {"gpu_frequency": self._locked} if self._locked else {}
        return {**await super().fingerprint(), **await _asked(self._card, nvml.facts), **locked}

    async def state(self) -> Mapping[str, str]:
        """The temperature is the GPU's; what throttles this host's CPUs counts too, for they feed it."""
        host, card = await super().state(), await _asked(self._card, nvml.state)
        held_back = [one["throttled"] for one in (host, card) if one.get("throttled")]
        return {**host, **card, "throttled": "; ".join(held_back)}

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        """The frequency is the GPU's; the governor is that of this host's CPUs."""
        others = await super().changes(wanted.model_copy(update={"frequency": ""}))
        if not wanted.frequency:
            return others
        offered = await _asked(self._card, nvml.clocks)
        return [*others, *nvml.changes(self._card.name, wanted.frequency, offered)]

    async def apply(self, action: base.Action) -> None:
        if action.get("verb") == nvml.LOCK:
            await _asked(self._card, functools.partial(nvml.lock, action["megahertz"]))
            self._locked = f"{action['megahertz']} MHz"
        elif action.get("verb") == nvml.UNLOCK:
            await _asked(self._card, nvml.unlock)
            self._locked = ""
        else:
            await super().apply(action)


async def _asked(card: nvml.Card, what: Callable[[nvml.Library, nvml.Handle], T]) -> T:
    try:
        return await card.ask(what)
    except errors.HarnessError as error:
        raise errors.DeviceLostError(str(error)) from error


@contextlib.contextmanager
def _alone(uuid: str, name: str) -> Iterator[None]:
    """Two devices may have named one GPU, by its index and by its UUID."""
    if (other := _held.setdefault(uuid, name)) != name:
        raise errors.DeviceLostError(f"{name}: GPU {uuid} is the device {other} already; name another GPU, or remove one of them")
    try:
        yield
    finally:
        del _held[uuid]
