"""What this host is and what state it is in, for a person to read, from /proc and /sys. What cannot be read is left out."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")  # names of hwmon's drivers
PROCESSOR_ZONES = ("x86_pkg_temp", "cpu", "soc")  # how the types of thermal zones begin that are about the processor


class Host:
    """The kernel's files below ``root``; ``cpus`` are those that count. Blocking, about a millisecond a call."""

    def __init__(self, cpus: Sequence[int], root: Path = Path("/")) -> None:
        self._cpus, self._root = tuple(cpus), root
        self._system = root / "sys/devices/system/cpu"
        self._fixed: Mapping[str, str] = {}
        self._throttles: dict[str, int] = {}
        self._held: Mapping[int, int] = {}  # CPUs whose frequency is held, and where, in kHz

    def facts(self) -> dict[str, str]:
        """Names and values. What cannot change while a program runs here is read once."""
        self._fixed = self._fixed or self._lasting()
        cpufreq = [self._system / f"cpu{cpu}/cpufreq" for cpu in self._cpus]
        found = {
            **self._fixed,
            "smt": _switch(_text(self._system / "smt/active"), on="1"),
            "turbo": _switch(_text(self._system / "intel_pstate/no_turbo"), on="0")
            or _switch(_text(self._system / "cpufreq/boost"), on="1"),
            "governor": _each(_text(place / "scaling_governor") for place in cpufreq),
            "frequency": _each(f"{kilohertz / 1000:g} MHz" for kilohertz in self._holding().values()),
            "siblings": "; ".join(self._shared()),
            "swap": ", ".join(row.split()[0] for row in _text(self._root / "proc/swaps").splitlines()[1:]),
        }
        return {name: value for name, value in found.items() if value}

    def state(self) -> dict[str, str]:
        """Its temperature, load, throttling since the last call, and battery."""
        found = {
            "load": _text(self._root / "proc/loadavg").partition(" ")[0],
            "temperature": _hottest(self._temperatures()),
            "battery": next(self._batteries(), ""),
            "frequencies": _spread(_text(self._system / f"cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in self._cpus),
        }
        return {**{name: value for name, value in found.items() if value}, "throttled": ", ".join(self._throttled())}

    def _lasting(self) -> dict[str, str]:
        processor = _table(self._root / "proc/cpuinfo", ":")
        return {
            "model": _text(self._root / "sys/class/dmi/id/product_name") or _text(self._root / "proc/device-tree/model"),
            "cpu": processor.get("model name", "") or processor.get("Hardware", ""),
            "microcode": processor.get("microcode", ""),
            "cores": _cores(self._system),
            "memory": _table(self._root / "proc/meminfo", ":").get("MemTotal", ""),
            "os": _table(self._root / "etc/os-release", "=").get("PRETTY_NAME", "").strip('"'),
            "kernel": platform.release(),
            "abi": platform.machine(),
        }

    def _shared(self) -> Iterator[str]:
        """Where a CPU that trials do not have shares a core with one that they have."""
        for cpu in self._cpus:
            threads = set(_numbers(_text(self._system / f"cpu{cpu}/topology/thread_siblings_list")))
            for other in sorted(threads.difference(self._cpus)):
                yield f"CPU {other} shares the core of CPU {cpu} and is not among cpus"

    def _temperatures(self) -> Iterator[str]:
        """In m°C, of the processor; where nothing is said to be its, of all there is."""
        sensors = {place: _text(place / "name") for place in self._root.glob("sys/class/hwmon/hwmon*")}
        own = [place for place, name in sensors.items() if name in PROCESSOR_SENSORS]
        if own:
            for place in own:
                yield from map(_text, place.glob("temp*_input"))
            return
        zones = {place: _text(place / "type").lower() for place in self._root.glob("sys/class/thermal/thermal_zone*")}
        for place in [place for place, kind in zones.items() if kind.startswith(PROCESSOR_ZONES)] or zones:
            yield _text(place / "temp")

    def _batteries(self) -> Iterator[str]:
        """Percent; those of a mouse and the like do not count."""
        for place in sorted(self._root.glob("sys/class/power_supply/*")):
            if _text(place / "type") == "Battery" and _text(place / "scope") != "Device":
                yield _text(place / "capacity")

    def _holding(self) -> Mapping[int, int]:
        """Where CPUs are held, in kHz: the highest at which one was seen since, for where it gets hot the kernel lowers that."""
        now = _held(self._system, self._cpus)
        self._held = {cpu: max(kilohertz, self._held.get(cpu, 0)) for cpu, kilohertz in now.items()}
        return self._held

    def _throttled(self) -> Iterator[str]:
        """How often the processor was throttled since this was asked last, and where it is held lower than it was."""
        now = {}
        for cpu in self._cpus:
            for part in ("core", "package"):
                count = _text(self._system / f"cpu{cpu}/thermal_throttle/{part}_throttle_count")
                if count.isdecimal():
                    now[f"CPU {cpu} ({part})"] = int(count)
        risen = {name: count - self._throttles.get(name, count) for name, count in now.items()}
        self._throttles = now
        yield from (f"{name} was throttled {times} times" for name, times in risen.items() if times > 0)
        for cpu, kilohertz in _held(self._system, self._cpus).items():
            if kilohertz < self._held.get(cpu, 0):
                yield f"CPU {cpu} is held at {kilohertz / 1000:g} MHz, no longer at {self._held[cpu] / 1000:g} MHz"


def _text(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:  # hundreds are read for each block where there are many CPUs
            return file.readall().decode(errors="replace").strip(" \t\n\0")
    except OSError:
        return ""


def _table(path: Path, separator: str) -> dict[str, str]:
    """The first value of each name."""
    table: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(separator)
        table.setdefault(name.strip(), value.strip())
    return table


def _numbers(listed: str) -> Iterator[int]:
    """Those of the kernel's lists, such as ``0-1,4``."""
    for part in filter(None, listed.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _switch(text: str, on: str) -> str:
    return ("on" if text == on else "off") if text else ""


def _each(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(filter(None, texts))))


def _held(system: Path, cpus: Iterable[int]) -> dict[int, int]:
    """The CPUs whose frequency is held, and where, in kHz."""
    limits = {cpu: {_text(system / f"cpu{cpu}/cpufreq/scaling_{end}_freq") for end in ("min", "max")} for cpu in cpus}
    return {cpu: int(text) for cpu, found in limits.items() for text in found if len(found) == 1 and text.isdecimal()}


def _hottest(millidegrees: Iterable[str]) -> str:
    found = [int(text) for text in millidegrees if text.lstrip("-").isdecimal()]
    return f"{max(found) / 1000:g}" if found else ""


def _spread(kilohertz: Iterable[str]) -> str:
    found = sorted(int(text) // 1000 for text in kilohertz if text.isdecimal())
    if not found:
        return ""
    return f"{found[0]} MHz" if found[0] == found[-1] else f"{found[0]} to {found[-1]} MHz"


def _cores(system: Path) -> str:
    cores = set(_topology(system))
    return f"{len(cores)} ({os.cpu_count()} threads)" if cores else ""


def _topology(system: Path) -> Iterator[tuple[str, str]]:
    for topology in system.glob("cpu[0-9]*/topology"):
        yield _text(topology / "physical_package_id"), _text(topology / "core_id")
