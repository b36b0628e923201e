"""An NVIDIA GPU of this host, as a device of its own: programs run here, and see no GPU but this one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar, cast

import pydantic

from aibenchd import errors
from aibenchd.devices import base, gpus, launching, local, nvml, sharing

T = TypeVar("T")


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
        return gpus.seeing(command, self._uuid)

    def served(self, launcher: launching.Launcher) -> local.LocalSession:
        settings = cast("Settings", self.settings)
        return GpuSession(settings, settings.directory or self.state_directory, launcher, self.started, Card(self._card))

    @classmethod
    async def discover(cls) -> Sequence[base.Found]:
        """All of this host, where NVIDIA's library can be asked."""
        try:
            return [await _found(uuid) for uuid in await nvml.uuids()]
        except errors.HarnessError as error:
            raise errors.DeviceLostError(f"gpu: {error}") from error

    async def reach(self) -> None:
        found = errors.Gathering()
        with found.look(), errors.about("uuid" if cast("Settings", self.settings).uuid else "index"):
            await _asked(self._card, nvml.facts)
        with found.look():
            await super().reach()
        found.tell()

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._in_hand()

    @contextlib.asynccontextmanager
    async def _in_hand(self) -> AsyncIterator[base.Session]:
        self._uuid = await _asked(self._card, nvml.uuid)
        with sharing.sole(self._uuid, self.settings.name):
            async with self._card.held(), super().session() as session:
                yield session


class GpuSession(gpus.Session, local.LocalSession):
    """A session on this host whose frequency, temperature and power are the GPU's."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        launcher: launching.Launcher,
        started: Callable[[base.Command], base.Command],
        card: gpus.Card,
    ) -> None:
        super().__init__(settings, directory, launcher, started)
        self.card = card


class Card(gpus.Card):
    """A GPU of this host, asked through NVIDIA's library."""

    def __init__(self, card: nvml.Card) -> None:
        super().__init__(card.name)
        self._card = card

    async def uuid(self) -> str:
        return await _asked(self._card, nvml.uuid)

    async def facts(self) -> Mapping[str, str]:
        return await _asked(self._card, nvml.facts)

    async def state(self) -> Mapping[str, str]:
        return await _asked(self._card, nvml.state)

    async def clocks(self) -> list[int]:
        return await _asked(self._card, nvml.clocks)

    async def check_lockable(self, megahertz: int) -> None:
        if not nvml.may_lock():
            raise errors.CommandError(f"GPU {self.name}: only root may lock its clocks: {gpus.by_hand(self.name, megahertz)}")

    async def lock(self, megahertz: int) -> None:
        with self._refused(f"locked: {{}}; {gpus.by_hand(self.name, megahertz)}"):
            await _asked(self._card, functools.partial(nvml.lock, megahertz))

    async def unlock(self) -> None:
        with self._refused(f"let go: {{}}; run nvidia-smi -i {self.name} -rgc as root"):
            await _asked(self._card, nvml.unlock)

    @contextlib.contextmanager
    def _refused(self, said: str) -> Iterator[None]:
        try:
            yield
        except errors.CommandError as error:
            raise errors.CommandError(f"GPU {self.name}: its clocks cannot be {said.format(error)}") from error


async def _found(uuid: str) -> base.Found:
    """A GPU, with what it is or what has to be done first."""
    facts: Mapping[str, str] = {}
    try:
        facts = await nvml.Card(uuid).ask(nvml.facts)
        about = " ".join((facts.get("gpu", "NVIDIA GPU"), "driver", facts.get("driver", "unknown")))
    except errors.HarnessError as error:
        about = str(error)
    return base.Found({"name": base.found_name(facts.get("gpu", "gpu"), uuid), "kind": "gpu", "uuid": uuid}, about)


async def _asked(card: nvml.Card, what: Callable[[nvml.Library, nvml.Handle], T]) -> T:
    try:
        return await card.ask(what)
    except errors.HarnessError as error:
        raise errors.DeviceLostError(str(error)) from error
