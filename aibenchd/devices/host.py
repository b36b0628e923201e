"""What this host is, for a person to read, from /proc and /sys. What cannot be read is left out."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def facts(cpus: Iterable[int], root: Path = Path("/")) -> Mapping[str, str]:
    """Names and values; ``cpus`` are those whose governors count. Blocking, some milliseconds."""
    system = root / "sys/devices/system/cpu"
    processor = _table(root / "proc/cpuinfo", ":")
    found = {
        "model": _text(root / "sys/class/dmi/id/product_name") or _text(root / "proc/device-tree/model"),
        "cpu": processor.get("model name", "") or processor.get("Hardware", ""),
        "microcode": processor.get("microcode", ""),
        "cores": _cores(system),
        "smt": _switch(_text(system / "smt/active"), on="1"),
        "turbo": _switch(_text(system / "intel_pstate/no_turbo"), on="0") or _switch(_text(system / "cpufreq/boost"), on="1"),
        "governor": _each(_text(system / f"cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus),
        "memory": _table(root / "proc/meminfo", ":").get("MemTotal", ""),
        "os": _table(root / "etc/os-release", "=").get("PRETTY_NAME", "").strip('"'),
        "kernel": platform.release(),
        "abi": platform.machine(),
    }
    return {name: value for name, value in found.items() if value}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip(" \t\n\0")
    except OSError:
        return ""


def _table(path: Path, separator: str) -> dict[str, str]:
    """The first value of each name."""
    table: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(separator)
        table.setdefault(name.strip(), value.strip())
    return table


def _switch(text: str, on: str) -> str:
    return ("on" if text == on else "off") if text else ""


def _each(texts: Iterable[str]) -> str:
    return ", ".join(sorted(set(filter(None, texts))))


def _cores(system: Path) -> str:
    cores = set(_topology(system))
    return f"{len(cores)} ({os.cpu_count()} threads)" if cores else ""


def _topology(system: Path) -> Iterator[tuple[str, str]]:
    for topology in system.glob("cpu[0-9]*/topology"):
        yield _text(topology / "physical_package_id"), _text(topology / "core_id")
