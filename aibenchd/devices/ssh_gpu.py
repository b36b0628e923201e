"""An NVIDIA GPU of a Linux machine that is reached over SSH, as a device of its own: its programs see no GPU but this one.

It takes what the kind ``ssh`` takes, and ``nvidia-smi`` there, which comes with the driver.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, cast

import pydantic

from aibenchd import errors
from aibenchd.devices import base, gpus, nvidia_smi, sharing, ssh, ssh_link


class Settings(ssh.Settings):
    """Keys of a device of the kind ``ssh-gpu``."""

    gpu: Annotated[str, pydantic.Field(description="its index or UUID, as nvidia-smi -L shows them there")]
    lock: Annotated[
        str, pydantic.Field(description="devices that name the same lock, such as GPUs of one board, never work at the same time")
    ] = ""

    @pydantic.field_validator("gpu")
    @classmethod
    def _one_gpu(cls, gpu: str) -> str:
        if not re.fullmatch(rf"0|[1-9][0-9]*|{nvidia_smi.UUID}", gpu):
            raise ValueError('expected an index such as "0" or a UUID such as GPU-9b1f7c0a-…, as nvidia-smi -L shows them')
        return gpu


class SshGpu(ssh.Ssh):
    """See :class:`aibenchd.devices.ssh.Ssh`."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings

    def turn(self) -> AbstractAsyncContextManager[None]:
        return sharing.alone(cast("Settings", self.settings).lock)

    def served(self) -> GpuSession:
        return GpuSession(cast("Settings", self.settings), self.state_directory, self.started)

    async def look(self, link: ssh_link.Link) -> None:
        settings = cast("Settings", self.settings)
        await super().look(link)
        with errors.about("gpu"):
            await nvidia_smi.Card(settings.gpu, lambda argv: ssh.ran(link, settings, _command(argv))).uuid()

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._in_hand()

    @contextlib.asynccontextmanager
    async def _in_hand(self) -> AsyncIterator[base.Session]:
        async with super().session() as session:
            with sharing.sole(cast("GpuSession", session).uuid, self.settings.name):
                yield session


class GpuSession(gpus.Session, ssh.SshSession):
    """A session on the machine whose frequency, temperature and power are the GPU's.

    Attributes:
        uuid: the GPU's; known from :meth:`open` on.
    """

    def __init__(self, settings: Settings, state_directory: Path, started: Callable[[base.Command], base.Command]) -> None:
        super().__init__(settings, state_directory, started)
        self.uuid = ""
        self.card = nvidia_smi.Card(settings.gpu, self._ask)

    async def open(self) -> None:
        await super().open()
        self.uuid = await self.card.uuid()

    async def run(self, command: base.Command) -> base.Completed:
        return await super().run(gpus.seeing(command, self.uuid))

    async def _ask(self, argv: tuple[str, ...]) -> base.Completed:
        with self._alone("a question to its GPU"):
            return await self._run(_command(argv))


def _command(argv: tuple[str, ...]) -> base.Command:
    return base.Command(argv, PurePosixPath("/"), timeout=nvidia_smi.DEADLINE, output_limit=ssh.OUTPUT_BOUND)
