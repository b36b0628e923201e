"""What a phone is changed to while experiments run on it, and how that is undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import anyio

from aibenchd import errors
from aibenchd.devices import adbphone, adbreading, base, heat
from aibenchd.devices.adbphone import quoted

SETTLE_SECONDS = 60.0  # that a phone has to be back after its adbd was started anew
POLL_SECONDS = 0.5
HARDENED = "security.perf_harden"  # by which Android keeps perf events from adb's user, where it is 1; until it is started anew
STAY_ON = "stay_on_while_plugged_in"
ALWAYS = "15"  # on every kind of supply
SLEEP, WAKE = "223", "224"  # key codes
# Ways to be root, by which a text for the shell is run; the first where adbd itself is.
WAYS = ((), ("su", "0", "sh", "-c"), ("su", "-c"))
NO_ROOT = (
    "the frequency and governor can only be set by root, and it has neither su nor an adbd that may become root;"
    " remove frequency and governor from its conditioning, or root it"
)


class Wishes(Protocol):
    """What a phone's settings ask for."""

    @property
    def screen_off(self) -> bool: ...
    @property
    def stay_awake(self) -> bool: ...
    @property
    def airplane_mode(self) -> bool: ...


class Changes:
    """Changes of one phone."""

    def __init__(self, phone: adbphone.Phone, wishes: Wishes) -> None:
        self._phone, self._wishes = phone, wishes
        self._root: tuple[str, ...] | None = None
        self._held: dict[str, int] = {}  # policies whose frequency is held, in kHz
        self._limits = heat.Limits()
        self._verbs: dict[str, Callable[[base.Action], Awaitable[None]]] = {
            "adbd": self._adbd,
            "cpus": self._cpus,
            "setting": self._setting,
            "property": self._property,
            "airplane mode": self._airplane_mode,
            "screen": self._screen,
        }

    async def wanted(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        """As :meth:`base.Session.changes`."""
        found = [*await self._of_cpus(wanted)] if wanted.frequency or wanted.governor else []
        if self._wishes.stay_awake:
            before = await self._phone.do(f"settings get global {STAY_ON}", "its settings cannot be read")
            found += _setting_change(STAY_ON, before.strip(), ALWAYS)
        if self._wishes.airplane_mode:
            before = await self._phone.do("settings get global airplane_mode_on", "its settings cannot be read")
            found += _switch("airplane mode", on=before.strip() == "1", wanted=True)
        if self._wishes.screen_off:
            awake = "mWakefulness=Awake" in await self._phone.do("dumpsys power", "its power manager does not answer")
            found += _switch("screen", on=awake, wanted=False)
        return found

    async def to_profile(self) -> Sequence[base.Change]:
        """As :meth:`base.Session.changes_to_profile`."""
        before = (await self._phone.ask(f"getprop {HARDENED}")).text.strip()
        if before != "1":
            return ()
        return (base.Change(*({"verb": "property", "name": HARDENED, "value": value} for value in ("0", before))),)

    async def apply(self, action: base.Action) -> None:
        """As :meth:`base.Session.apply`."""
        verb = self._verbs.get(str(action.get("verb")))
        if verb is None:
            raise errors.HarnessError(f"{self._phone.name}: a phone knows no action {action.get('verb')!r}")
        await verb(action)

    def forget(self) -> None:
        """It was started anew: what was found out of it, or done to it, need not hold."""
        self._root = None
        self._held.clear()

    def frequency(self, now: Sequence[adbreading.Policy]) -> str:
        """Where it was set to be held, of all policies, and which are not held; empty where none was.

        Not what the kernel says: that lowers it when the phone gets hot. One that was switched off when the others were set
        is not held once it is on.
        """
        if not self._held:
            return ""
        free = [one.cpu for one in now if one.path not in self._held and one.low < one.high]
        held = adbreading.each(_megahertz(khz) for khz in self._held.values())
        return held + "".join(f", not held: the cluster of CPU {cpu}" for cpu in free)

    def lowered(self, now: Sequence[adbreading.Policy]) -> Iterator[str]:
        """Where it is held lower than it was set to be."""
        for one in now:
            if one.high < (khz := self._held.get(one.path, 0)):
                yield f"the cluster of CPU {one.cpu} is held at {_megahertz(one.high)}, no longer at {_megahertz(khz)}"

    async def _of_cpus(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        found: list[base.Change] = []
        if await self._way() is None:
            if not await self._can_be_root():
                raise errors.CommandError(f"{self._phone.name}: {NO_ROOT}")
            found.append(base.Change({"verb": "adbd", "root": True}, {"verb": "adbd", "root": False}))
        told = await self._told()
        policies = adbreading.policies(told["policies"])
        if not policies:
            raise errors.CommandError(f"{self._phone.name}: its kernel has no cpufreq, so frequency and governor cannot be set")
        for one in policies:
            khz = one.frequency(wanted.frequency) if wanted.frequency else 0
            high = self._limits.own(one.path, one.high, one.most, lowered=adbreading.lowered(told, one))
            now = {"verb": "cpus", "policy": one.path, "governor": one.governor, "low": one.low, "high": high}
            then = {**now, "governor": wanted.governor or one.governor, "low": khz or one.low, "high": khz or high}
            if now != then:
                found.append(base.Change(then, now))
        return found

    async def _told(self) -> Mapping[str, str]:
        """Of its limits; root is told more of what heat does to them."""
        way, text = await self._way(), adbreading.questions(adbreading.LIMITS)
        answer = await self._phone.ask(quoted(*way, text) if way else text)
        return adbreading.answers(adbreading.LIMITS, answer.text)

    async def _way(self) -> tuple[str, ...] | None:
        """How a command is run as root; None where none can be."""
        if self._root is None:
            for way in WAYS:
                answer = await self._phone.ask(quoted(*way, "id -u") if way else "id -u")
                if answer.code == 0 and answer.text.strip() == "0":
                    self._root = way
                    break
        return self._root

    async def _can_be_root(self) -> bool:
        return (await self._phone.ask("getprop ro.debuggable")).text.strip() == "1"

    async def _as_root(self, text: str, what: str) -> str:
        way = await self._way()
        if way is None:
            raise errors.HarnessError(f"{self._phone.name}: {what}: it is not root any more")
        return await self._phone.do(quoted(*way, text) if way else f"({text})", what)

    async def _adbd(self, action: base.Action) -> None:
        """Start its adbd anew, as root or as it was."""
        root = bool(action["root"])
        if await self._adbd_is_root() == root:
            return
        await self._phone.service("root:" if root else "unroot:")
        self._root = None
        with anyio.move_on_after(SETTLE_SECONDS):
            while True:
                if await self._adbd_became(root):
                    return
                await anyio.sleep(POLL_SECONDS)
        raise errors.HarnessError(f"{self._phone.name}: its adbd did not start anew {'as root' if root else 'without root'}")

    async def _adbd_became(self, root: bool) -> bool:
        """Whether the new one answers: for a moment the old one still does."""
        try:
            await self._phone.reconnect(SETTLE_SECONDS)
            return await self._adbd_is_root() == root
        except errors.DeviceLostError:
            return False

    async def _adbd_is_root(self) -> bool:
        return (await self._phone.ask("id -u")).text.strip() == "0"

    async def _cpus(self, action: base.Action) -> None:
        """Set a policy: its limits in an order in which low is never above high. That heat lowers them is no fault."""
        path, governor, low, high = str(action["policy"]), str(action["governor"]), int(action["low"]), int(action["high"])
        self._held.pop(path, None)
        if low == high:
            self._held[path] = low
        before, hot = await self._policy(path)
        if before is None:
            raise errors.HarnessError(f"{self._phone.name}: {path} is not there any more, or its CPUs are switched off")
        if not hot and (before.governor, before.low, before.high) == (governor, low, high):
            return
        writes = (("scaling_governor", governor), ("scaling_min_freq", before.least), ("scaling_max_freq", high))
        text = "".join(f"echo {value} >{quoted(f'{path}/{file}')} && " for file, value in (*writes, ("scaling_min_freq", low)))
        await self._as_root(f"{text}true", f"{path} cannot be set{' while heat lowers its limit' if hot else ''}")
        after, hot = await self._policy(path)
        reached = min(high, after.high) if after and hot else high
        if after is None or (after.governor, after.low, after.high) != (governor, min(low, reached), reached):
            raise errors.HarnessError(
                f"{self._phone.name}: {path} was set to {governor}, {low} to {high} kHz, and is {after}: something on the phone"
                " sets it too, such as its vendor's performance service; stop that, or leave the frequency alone"
            )

    async def _policy(self, path: str) -> tuple[adbreading.Policy | None, bool]:
        """One policy, where it is on, and whether heat lowers it."""
        told = await self._told()
        found = next((one for one in adbreading.policies(told["policies"]) if one.path == path), None)
        return found, found is not None and adbreading.lowered(told, found)

    async def _setting(self, action: base.Action) -> None:
        name, value = str(action["name"]), str(action["value"])
        text = f"settings put global {quoted(name, value)}" if value else f"settings delete global {quoted(name)}"
        await self._phone.do(text, f"its setting {name} cannot be changed")

    async def _property(self, action: base.Action) -> None:
        """Set a property; what Android does not let adb's user set stays as it is, on old ones without a word."""
        name, value = str(action["name"]), str(action["value"])
        text = (
            f'setprop {quoted(name, value)}; now=$(getprop {quoted(name)}); echo "it is \'$now\'"; [ "$now" = {quoted(value)} ]'
        )
        answer = await self._phone.ask(text)
        if answer.code:
            raise errors.CommandError(f"{self._phone.name}: its property {name} cannot be set to {value}: {answer.complaint}")

    async def _airplane_mode(self, action: base.Action) -> None:
        on = bool(action["on"])
        text = f"cmd connectivity airplane-mode {'enable' if on else 'disable'}"
        await self._phone.do(text, "its airplane mode cannot be changed; Android 11 or later can")

    async def _screen(self, action: base.Action) -> None:
        await self._phone.do(f"input keyevent {WAKE if action['on'] else SLEEP}", "its screen cannot be switched")


def _megahertz(khz: int) -> str:
    return f"{khz // adbreading.KHZ_OF_MHZ} MHz"


def _setting_change(name: str, before: str, wanted: str) -> Iterator[base.Change]:
    if before != wanted:
        old = "" if before == "null" else before
        yield base.Change(*({"verb": "setting", "name": name, "value": value} for value in (wanted, old)))


def _switch(verb: str, *, on: bool, wanted: bool) -> Iterator[base.Change]:
    if on != wanted:
        actions: list[dict[str, Any]] = [{"verb": verb, "on": state} for state in (wanted, on)]
        yield base.Change(*actions)
