"""What a phone says of itself, read: texts for its shell, and what their answers mean. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aibenchd.devices import heat

CPUS = "/sys/devices/system/cpu"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
POLICIES = (f"{CPUS}/cpufreq/policy*", f"{CPUS}/cpu[0-9]*/cpufreq")  # the latter on old kernels, else as links to the former
KHZ_OF_MHZ = 1000
TRACES = "/data/misc/perfetto-traces"  # where SELinux lets Android's Perfetto write, and adb's user read
TRACE = f"{TRACES}/aibenchd-trace"  # the only one of ours

LIST_POLICIES = f"""\
for one in {" ".join(POLICIES)}; do
    [ -f $one/scaling_governor ] && [ ! -L $one ] || continue
    echo $one $(cat $one/scaling_governor $one/scaling_min_freq $one/scaling_max_freq $one/cpuinfo_min_freq \\
        $one/cpuinfo_max_freq $one/scaling_available_frequencies 2>/dev/null)
done"""
LIST_COOLING = """\
for one in /sys/class/thermal/cooling_device*; do
    echo $(cat $one/type $one/cur_state)
done"""
FACTS = {
    "properties": "getprop",
    "kernel": "uname -r",
    "governor": f"cat {POLICIES[0]}/scaling_governor {POLICIES[1]}/scaling_governor",
    "cpu": "cat /proc/cpuinfo",
    "memory": "grep MemTotal /proc/meminfo",
    "policies": LIST_POLICIES,
}
STATE = {
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "load": "cat /proc/loadavg",
    "governor": FACTS["governor"],
    "frequency": f"cat {POLICIES[0]}/scaling_cur_freq {POLICIES[1]}/scaling_cur_freq",
    "policies": LIST_POLICIES,
}
LIMITS = {"policies": LIST_POLICIES, "cooling": LIST_COOLING, "thermal": STATE["thermal"]}
PROPERTIES = {
    "model": ("ro.product.model",),
    "release": ("ro.build.version.release",),
    "sdk": ("ro.build.version.sdk",),
    "abi": ("ro.product.cpu.abi",),
    "build": ("ro.build.fingerprint",),
    "soc": ("ro.soc.model", "ro.board.platform"),
}
HASH_LENGTH = 16  # hexadecimal digits of a serial number's hash: the number itself is nobody's business
SEVERITIES = ("", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # of Android's thermal service
HOT_PARTS = ("0", "1", "2", "3", "9")  # its types of sensors: CPU, GPU, battery, skin, NPU

_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
COULOMBS_OF_MICROAMPERE_HOUR = 3.6e-3
_FIELD = re.compile(r"^\s*([\w ]+): (\S+)", re.MULTILINE)
_SENSOR = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+),")
_SEVERITY = re.compile(r"Thermal Status: (\d)")
_CPU = re.compile(r"[0-9]+")
_SECTION = re.compile(r"^=== (\w+)$", re.MULTILINE)


def questions(asked: Mapping[str, str]) -> str:
    """One text for the shell that asks all of them."""
    return "\n".join(f"echo; echo '=== {name}'; {text} 2>/dev/null" for name, text in asked.items())


def answers(asked: Mapping[str, str], told: str) -> dict[str, str]:
    """What :func:`questions` got, by the names; empty where there was no answer."""
    parts = _SECTION.split(told)
    return dict.fromkeys(asked, "") | {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def facts(told: Mapping[str, str], serial: str) -> dict[str, str]:
    """A fingerprint, of the answers to :data:`FACTS`; what is not known is left out.

    Args:
        serial: that adb calls it by, in place of its own where it does not tell.
    """
    properties = dict(_PROPERTY.findall(told["properties"]))
    found = {key: next((properties[name] for name in names if properties.get(name)), "") for key, names in PROPERTIES.items()}
    own = properties.get("ro.serialno") or serial
    found |= {
        "os": f"Android {found['release']}" if found["release"] else "",
        "kernel": told["kernel"],
        "cpu": _hardware(told["cpu"]),
        "governor": each(told["governor"]),
        "memory": told["memory"].partition(":")[2].strip(),
        "hash": hashlib.sha256(own.encode()).hexdigest()[:HASH_LENGTH],
    }
    return {name: value for name, value in found.items() if value}


def state(told: Mapping[str, str]) -> dict[str, str]:
    """What changes, of the answers to :data:`STATE`; what is not known is left out, but for ``throttled``."""
    battery = dict(_FIELD.findall(told["battery"]))
    found = {
        "temperature": _hottest(told["thermal"], battery.get("temperature", "")),
        "load": told["load"].partition(" ")[0],
        "battery": battery.get("level", ""),
        "charge": _scaled(battery.get("Charge counter", ""), COULOMBS_OF_MICROAMPERE_HOUR),
        "voltage": _scaled(battery.get("voltage", ""), 1e-3),
        "governor": each(told["governor"]),
        "frequency": each(f"{int(khz) // KHZ_OF_MHZ} MHz" for khz in told["frequency"].split() if khz.isdecimal()),
    }
    return {name: value for name, value in found.items() if value} | {"throttled": _throttled(told["thermal"])}


def _scaled(number: str, unit: float) -> str:
    return f"{int(number) * unit:g}" if number.isdecimal() else ""


def each(texts: str | Iterable[str]) -> str:
    """Words, each once."""
    words = texts.split() if isinstance(texts, str) else texts
    return ", ".join(sorted(set(words)))


def _hardware(cpuinfo: str) -> str:
    found = re.findall(r"^(?:Hardware|model name)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[0] if found else ""


def _hottest(thermal: str, battery: str) -> str:
    """In °C; the battery's own is told in tenths."""
    _, _, current = thermal.partition("Current temperatures from HAL")
    sensed = [float(value) for value, kind in _SENSOR.findall(current) if kind in HOT_PARTS]
    sensed += [int(battery) / 10] if battery.lstrip("-").isdecimal() else []
    return f"{max(sensed):.1f}" if sensed else ""


def _severity(thermal: str) -> int:
    found = _SEVERITY.search(thermal)
    return int(found[1]) if found else 0


def _throttled(thermal: str) -> str:
    severity = _severity(thermal)
    return f"Android's thermal status is {SEVERITIES[severity]}" if 0 < severity < len(SEVERITIES) else ""


@dataclass(frozen=True, slots=True)
class Policy:
    """CPUs whose frequency is set together; frequencies in kHz.

    Attributes:
        path: its directory on the phone.
        low, high: within which the governor may choose now.
        least, most: that the hardware can.
        steps: that it can be set to, rising; empty where the kernel does not tell.
    """

    path: str
    governor: str
    low: int
    high: int
    least: int
    most: int
    steps: tuple[int, ...]

    @property
    def cpu(self) -> int:
        """The first of them."""
        return int(_CPU.findall(self.path)[-1])

    def frequency(self, wanted: str) -> int:
        """What ``max``, ``min``, ``mid`` or so many Hz come to, in kHz: of the steps, the nearest that is no higher."""
        steps = self.steps or (self.least, (self.least + self.most) // 2, self.most)
        named = {"max": self.most, "min": self.least, "mid": steps[len(steps) // 2]}
        if wanted in named:
            return named[wanted]
        khz = min(max(int(wanted) // 1000, self.least), self.most)
        return max((step for step in self.steps if step <= khz), default=khz)


def policies(told: str) -> list[Policy]:
    """Of the answer to :data:`LIST_POLICIES`; what cannot be read is left out."""
    found = []
    for row in told.splitlines():
        path, governor, *numbers = (*row.split(), "", "")  # a cluster that is switched off tells nothing but its path
        values = [int(number) for number in numbers if number.isdecimal()]
        if len(values) >= 4:
            low, high, least, most, *steps = values
            found.append(Policy(path, governor, low, high, least, most, tuple(sorted(steps))))
    return found


def lowered(told: Mapping[str, str], policy: Policy) -> bool:
    """Whether heat lowers a policy now, by the answers to :data:`LIMITS`: by a cooling device, or as Android says."""
    rows = (row.rpartition(" ") for row in told["cooling"].splitlines())
    return policy.high < policy.most and (
        heat.lowers(((kind, state) for kind, _, state in rows), policy.cpu) or _severity(told["thermal"]) > 0
    )
