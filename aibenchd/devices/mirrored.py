"""Another machine's /proc and /sys, as far as they tell what it is, laid out below a directory of this host.

So what reads this host's (:mod:`aibenchd.devices.host`, :mod:`aibenchd.devices.cpufreq`) reads another's too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from aibenchd.devices import cpufreq

CPU = "/sys/devices/system/cpu"
OF_CPU = ("topology/*", "cpufreq/*_governor*", "cpufreq/*_freq*", "cpufreq/related_cpus", "thermal_throttle/*_throttle_count")
OF_MACHINE = (
    *(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "swaps", "loadavg", "device-tree/model")),
    "/etc/os-release",
    "/sys/class/dmi/id/product_name",
    *(f"{CPU}/{name}" for name in ("smt/active", "intel_pstate/no_turbo", "cpufreq/boost")),
    *(f"/sys/class/hwmon/hwmon*/{name}" for name in ("name", "temp*_input")),
    *(f"/sys/class/thermal/thermal_zone*/{name}" for name in ("type", "temp")),
    *(f"/sys/class/power_supply/*/{name}" for name in ("type", "scope", "capacity")),
)
# Read only before the frequency is set: there may be as many as CPUs.
COOLING = tuple(f"/{cpufreq.COOLING}/{name}" for name in ("type", "cur_state"))


def patterns(cpus: Sequence[int]) -> list[str]:
    """What is to be read there, as :mod:`glob` has it; ``cpus`` are those that count."""
    return [*OF_MACHINE, *(f"{CPU}/cpu{cpu}/{name}" for cpu in cpus for name in OF_CPU)]


def lay_out(root: Path, texts: Mapping[str, str]) -> None:
    """Have the texts at their paths below ``root``, and nothing else. Blocking."""
    shutil.rmtree(root, ignore_errors=True)
    for name, text in texts.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="surrogateescape")
