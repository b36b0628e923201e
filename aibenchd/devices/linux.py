"""What a Linux machine is, how it is and how its frequency is set, from texts of its /proc and /sys. Pure: others read and write.

Patterns are those of :mod:`glob`; texts are by their paths, and what cannot be read is not among them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from aibenchd import errors
from aibenchd.devices import base

Texts = Mapping[str, str]

CPU = "/sys/devices/system/cpu"
HASH_LENGTH = 16  # hexadecimal digits of a serial number's hash: the number itself is nobody's business
SERIALS = ("/sys/class/dmi/id/product_uuid", "/proc/device-tree/serial-number", "/etc/machine-id")
MODELS = ("/sys/class/dmi/id/product_name", "/proc/device-tree/model")
FACTS = (
    *SERIALS,
    *MODELS,
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/swaps",
    "/etc/os-release",
    f"{CPU}/smt/active",
    f"{CPU}/intel_pstate/no_turbo",
    f"{CPU}/cpufreq/boost",
    f"{CPU}/cpu[0-9]*/topology/thread_siblings_list",
    f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor",
    f"{CPU}/cpu[0-9]*/cpufreq/scaling_m[ia][nx]_freq",
)
FREQUENCY = (
    f"{CPU}/cpu[0-9]*/cpufreq/scaling_governor",
    f"{CPU}/cpu[0-9]*/cpufreq/scaling_available_*",
    f"{CPU}/cpu[0-9]*/cpufreq/scaling_m[ia][nx]_freq",
    f"{CPU}/cpu[0-9]*/cpufreq/cpuinfo_m[ia][nx]_freq",
)
THROTTLES = f"{CPU}/cpu[0-9]*/thermal_throttle/*_throttle_count"
BOARD_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
STATE = (
    "/proc/loadavg",
    "/sys/class/thermal/thermal_zone*/temp",
    "/sys/class/hwmon/hwmon*/name",
    "/sys/class/hwmon/hwmon*/temp*_input",
    "/sys/class/power_supply/*/type",
    "/sys/class/power_supply/*/capacity",
    THROTTLES,
    BOARD_THROTTLED,
)
PROCESSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal")  # drivers of hwmon whose heat counts
BOARD_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}  # of a Raspberry Pi, now


def facts(texts: Texts, cpus: Sequence[int], kernel: str, abi: str) -> dict[str, str]:
    """Names and values, as :meth:`base.Session.fingerprint` has them; ``cpus`` are those that trials run on."""
    processor = _table(texts.get("/proc/cpuinfo", ""), ":")
    found = {
        "hash": _hash(_first(texts, SERIALS)),
        "model": _first(texts, MODELS),
        "cpu": processor.get("model name", "") or processor.get("Hardware", ""),
        "microcode": processor.get("microcode", ""),
        "smt": _switch(_text(texts, f"{CPU}/smt/active"), on="1"),
        "siblings": _siblings(texts, cpus),
        "turbo": _switch(_text(texts, f"{CPU}/intel_pstate/no_turbo"), on="0")
        or _switch(_text(texts, f"{CPU}/cpufreq/boost"), on="1"),
        "governor": ", ".join(sorted({_cpufreq(texts, cpu, "scaling_governor") for cpu in cpus} - {""})),
        "frequency": _held(texts, cpus),
        "memory": _table(texts.get("/proc/meminfo", ""), ":").get("MemTotal", ""),
        "swap": ", ".join(line.split()[0] for line in texts.get("/proc/swaps", "").splitlines()[1:] if line.strip()),
        "os": _table(texts.get("/etc/os-release", ""), "=").get("PRETTY_NAME", "").strip('"'),
        "kernel": kernel,
        "abi": abi,
    }
    return {name: value for name, value in found.items() if value}


def state(texts: Texts, throttles: Mapping[str, int]) -> dict[str, str]:
    """As :meth:`base.Session.state` has it; ``throttles`` are the :func:`throttles` that were last seen."""
    found = {
        "temperature": _temperature(texts),
        "load": texts.get("/proc/loadavg", "").partition(" ")[0],
        "battery": _battery(texts),
        "throttled": _throttled(texts, throttles),
    }
    return {name: value for name, value in found.items() if value or name == "throttled"}


def throttles(texts: Texts) -> dict[str, int]:
    """How often each part was slowed down by heat since the machine was started."""
    return {path: int(text) for path, text in _matching(texts, THROTTLES) if text.isdecimal()}


def changes(texts: Texts, cpus: Sequence[int], wanted: base.Conditioning) -> list[base.Change]:
    """How to have the CPUs as ``wanted``: ``{"verb": "write", "writes": [[path, text], …]}``.

    Raises:
        CommandError: they cannot be had so.
    """
    found = []
    for cpu in cpus:
        if not _cpufreq(texts, cpu, "scaling_governor"):
            raise errors.CommandError(f"CPU {cpu} lets nobody set its frequency; remove it from conditioning")
        if wanted.governor:
            found.append(_governor(texts, cpu, wanted.governor))
        if wanted.frequency:
            found.append(_frequency(texts, cpu, wanted.frequency))
    return found


def _governor(texts: Texts, cpu: int, wanted: str) -> base.Change:
    offered = _cpufreq(texts, cpu, "scaling_available_governors").split()
    if wanted not in offered:
        raise errors.CommandError(f"CPU {cpu} has no governor {wanted}; it has {', '.join(offered)}")
    path = f"{CPU}/cpu{cpu}/cpufreq/scaling_governor"
    return base.Change(do=_write([path, wanted]), undo=_write([path, _text(texts, path)]))


def _frequency(texts: Texts, cpu: int, wanted: str) -> base.Change:
    try:
        least, most = (int(_cpufreq(texts, cpu, f"cpuinfo_{end}_freq")) for end in ("min", "max"))
    except ValueError:
        raise errors.CommandError(
            f"CPU {cpu} does not tell what frequencies it has; remove frequency from conditioning"
        ) from None
    steps = [int(text) for text in _cpufreq(texts, cpu, "scaling_available_frequencies").split()] or [least, most]
    middle = min(steps, key=lambda step: abs(step - (least + most) / 2)) if len(steps) > 2 else (least + most) // 2
    kilohertz = {"max": most, "min": least, "mid": middle}.get(wanted) or int(wanted) // 1000
    if not least <= kilohertz <= most:
        raise errors.CommandError(f"CPU {cpu} runs at {least}000 to {most}000 Hz, not at {wanted}")
    place = f"{CPU}/cpu{cpu}/cpufreq"
    before = [_cpufreq(texts, cpu, f"scaling_{end}_freq") for end in ("min", "max")]

    def held(low: str, high: str) -> base.Action:
        # The kernel wants the minimum below the maximum after each write: first make room, then close in.
        return _write(
            [f"{place}/scaling_max_freq", str(most)], [f"{place}/scaling_min_freq", low], [f"{place}/scaling_max_freq", high]
        )

    return base.Change(do=held(str(kilohertz), str(kilohertz)), undo=held(*before))


def _write(*writes: list[str]) -> base.Action:
    return {"verb": "write", "writes": list(writes)}


def _temperature(texts: Texts) -> str:
    """Of the hottest part of the processor; of the hottest of all where none says that it is one."""
    names = {path.rpartition("/")[0]: text for path, text in _matching(texts, "/sys/class/hwmon/hwmon*/name")}
    heats = list(_matching(texts, "/sys/class/hwmon/hwmon*/temp*_input"))
    found = [text for path, text in heats if names.get(path.rpartition("/")[0]) in PROCESSORS]
    found = found or [text for _, text in _matching(texts, "/sys/class/thermal/thermal_zone*/temp")]
    degrees = [int(text) / 1000 for text in found if re.fullmatch(r"-?[0-9]+", text)]
    return f"{max(degrees):.1f}" if degrees else ""


def _battery(texts: Texts) -> str:
    kinds = _matching(texts, "/sys/class/power_supply/*/type")
    found = [_text(texts, f"{path.rpartition('/')[0]}/capacity") for path, text in kinds if text == "Battery"]
    return min((text for text in found if text.isdecimal()), key=int, default="")


def _throttled(texts: Texts, before: Mapping[str, int]) -> str:
    reasons = []
    if any(count > before.get(path, count) for path, count in throttles(texts).items()):
        reasons.append("heat")
    try:
        bits = int(_text(texts, BOARD_THROTTLED) or "0", 16)
    except ValueError:
        bits = 0
    return ", ".join([*reasons, *(word for bit, word in BOARD_BITS.items() if bits >> bit & 1)])


def _siblings(texts: Texts, cpus: Sequence[int]) -> str:
    shared = {}
    for cpu in cpus:
        others = _numbers(_text(texts, f"{CPU}/cpu{cpu}/topology/thread_siblings_list")) - {cpu}
        if others:
            shared[cpu] = others
    return "; ".join(f"CPU {cpu} shares its core with {', '.join(map(str, sorted(shared[cpu])))}" for cpu in sorted(shared))


def _numbers(text: str) -> set[int]:
    """Of a list of the kernel's, such as ``0,4-7``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.update(range(int(first), int(last or first) + 1))
    return found


def _held(texts: Texts, cpus: Iterable[int]) -> str:
    """The one frequency that the CPUs can run at, as they are set now; empty where there are several."""
    found = {_cpufreq(texts, cpu, f"scaling_{end}_freq") for cpu in cpus for end in ("min", "max")}
    (held,) = found if len(found) == 1 else ("",)
    return f"{held} kHz" if held else ""


def _hash(serial: str) -> str:
    return hashlib.sha256(serial.encode(errors="replace")).hexdigest()[:HASH_LENGTH] if serial else ""


def _first(texts: Texts, paths: Iterable[str]) -> str:
    return next(filter(None, (_text(texts, path) for path in paths)), "")


def _cpufreq(texts: Texts, cpu: int, name: str) -> str:
    return _text(texts, f"{CPU}/cpu{cpu}/cpufreq/{name}")


def _text(texts: Texts, path: str) -> str:
    return texts.get(path, "").strip(" \t\n\0")


def _matching(texts: Texts, pattern: str) -> Iterator[tuple[str, str]]:
    return ((path, _text(texts, path)) for path in sorted(texts) if fnmatch.fnmatchcase(path, pattern))


def _table(text: str, separator: str) -> dict[str, str]:
    """The first value of each name."""
    table: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(separator)
        table.setdefault(name.strip(), value.strip())
    return table


def _switch(text: str, on: str) -> str:
    return ("on" if text == on else "off") if text else ""
