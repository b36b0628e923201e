"""What an NVIDIA GPU is to the session of a device that has it, however the GPU is asked: the same words, the same changes."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

from aibenchd import errors
from aibenchd.devices import base

MHZ = 1_000_000
MEBIBYTE = 1 << 20
LOCK, UNLOCK = "lock-clocks", "reset-clocks"  # verbs
MOST_PROCESSES = 4  # that are named

REASONS = {  # why a GPU runs slower than it could. That it is idle, or that somebody has set its clocks, is no such reason
    0x004: "power limit",
    0x008: "hardware slowdown",
    0x010: "held back by the GPUs that it is boosted together with",
    0x020: "too hot (driver)",
    0x040: "too hot (hardware)",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}

NO_PERMISSION = 4
ADVICES = {  # by the library's errors, which nvidia-smi ends with too
    NO_PERMISSION: "only root may do that",
    9: "load NVIDIA's driver: modprobe nvidia",
    12: "install NVIDIA's driver (libnvidia-ml.so.1)",
    15: "it has fallen off the bus: see dmesg, restart the host",
    16: "reset it: nvidia-smi --gpu-reset",
    18: "the driver was updated: restart the host",
}
OTHERWISE = "nvidia-smi -L lists the GPUs that there are"


class Card(abc.ABC):
    """One GPU, named by index or UUID. What it does not know is left out.

    Every method raises DeviceLostError where there is no such GPU or it does not answer; the message says what to do.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    async def uuid(self) -> str:
        """Its UUID."""

    @abc.abstractmethod
    async def facts(self) -> Mapping[str, str]:
        """What it is: ``gpu hash driver vbios ecc power_limit persistence`` and what else is known."""

    @abc.abstractmethod
    async def state(self) -> Mapping[str, str]:
        """How it fares: ``temperature throttled power clock memory_clock memory_used processes``."""

    @abc.abstractmethod
    async def clocks(self) -> list[int]:
        """MHz that its cores can be held at, with its memory as quick as it can be; ascending."""

    @abc.abstractmethod
    async def check_lockable(self, megahertz: int) -> None:
        """Raises CommandError where we may not lock its clocks, as far as can be told before it is tried."""

    @abc.abstractmethod
    async def lock(self, megahertz: int) -> None:
        """Hold its cores there; raises CommandError where that is refused, and then nothing has changed."""

    @abc.abstractmethod
    async def unlock(self) -> None:
        """Let its cores go; raises CommandError where that is refused. What cannot be locked is let go already."""


class Session(base.Session):
    """What of a session is its GPU's: frequency, temperature, power. The rest is that of the machine that the GPU is in,
    whose session comes next among the bases.

    Attributes:
        card: set before anything is asked.
    """

    card: Card
    _locked = ""  # by us; nobody can be asked

    async def health(self) -> None:
        await super().health()  # type: ignore[safe-super]  # the machine's
        await self.card.uuid()

    async def fingerprint(self) -> Mapping[str, str]:
        machine = await super().fingerprint()  # type: ignore[safe-super]  # the machine's
        locked = {"gpu_frequency": self._locked} if self._locked else {}
        return {**machine, **await self.card.facts(), **locked}

    async def state(self) -> Mapping[str, str]:
        """The temperature is the GPU's; what throttles the machine's CPUs counts too, for they feed it."""
        machine, card = await super().state(), await self.card.state()
        held_back = [one["throttled"] for one in (machine, card) if one.get("throttled")]
        return {**machine, **card, "throttled": "; ".join(held_back)}

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        """A governor is that of the machine's CPUs; the frequency is what the GPU's cores are held at."""
        found = [*await super().changes(wanted.model_copy(update={"frequency": ""}))]
        if wanted.frequency:
            megahertz = clock(self.card.name, wanted.frequency, await self.card.clocks())
            await self.card.check_lockable(megahertz)
            found.append(base.Change({"verb": LOCK, "megahertz": megahertz}, {"verb": UNLOCK}))
        return found

    async def apply(self, action: base.Action) -> None:
        if action.get("verb") == LOCK:
            await self.card.lock(action["megahertz"])
            self._locked = f"{action['megahertz']} MHz"
        elif action.get("verb") == UNLOCK:
            await self.card.unlock()
            self._locked = ""
        else:
            await super().apply(action)


def seeing(command: base.Command, uuid: str) -> base.Command:
    """The command, whose program sees that GPU alone: by UUID, so that no order matters; a benchmark cannot choose another."""
    env = {**command.env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid}
    return dataclasses.replace(command, env=env)


def throttled(active: int) -> str:
    """What holds a GPU back, of the library's bits, in words; empty where nothing does."""
    return ", ".join(words for bit, words in REASONS.items() if active & bit)


def listed(processes: Sequence[tuple[str, str]]) -> str:
    """Processes that compute on a GPU, each a number and a name; empty where there are none."""
    named = [f"{pid} {name}".strip() for pid, name in processes[:MOST_PROCESSES]]
    more = len(processes) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def clock(name: str, wanted: str, offered: Sequence[int]) -> int:
    """The MHz that max, min, mid or a number of Hz are, of those that a GPU can be held at; ascending.

    Raises:
        CommandError: it cannot be held there.
    """
    if not offered:
        raise errors.CommandError(f"GPU {name} does not say which clocks it has; remove frequency from its conditioning")
    named = {"max": offered[-1], "min": offered[0], "mid": offered[len(offered) // 2]}
    megahertz = named.get(wanted) or round(int(wanted) / MHZ)
    if megahertz not in offered:
        near = min(offered, key=lambda clock: abs(clock - megahertz))
        raise errors.CommandError(f"GPU {name} cannot run at {wanted} Hz; the nearest that it can is {near * MHZ}")
    return megahertz


def by_hand(name: str, megahertz: int) -> str:
    """What to do where we may not lock a GPU's clocks."""
    return (
        f"run nvidia-smi -i {name} -lgc {megahertz},{megahertz} as root once after each start of the host, and remove frequency"
        " from its conditioning"
    )
