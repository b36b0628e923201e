"""Governor and frequency of this host's CPUs: what is to be changed, how that is undone, and both done.

Where only root may, a helper does it (:mod:`aibenchd.helper`), whose requests are what is kept in the journal.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from aibenchd import errors, helper
from aibenchd.devices import base, heat, helping

VERBS = ("set-governor", "set-frequency")
COOLING = "sys/class/thermal/cooling_device*"


def changes(cpus: Sequence[int], wanted: base.Conditioning, limits: heat.Limits, root: Path = Path("/")) -> list[base.Change]:
    """What has to be changed to have the CPUs as ``wanted``; ``limits`` are the same each time. Blocking.

    Raises:
        CommandError: the kernel offers no such thing.
    """
    found: list[base.Change] = []
    if wanted.governor:
        found += _grouped(cpus, lambda cpu: _governor(_place(cpu, root), wanted.governor))
    if wanted.frequency:
        cooling = [(_read(place / "type"), _read(place / "cur_state")) for place in root.glob(COOLING)]
        found += _grouped(cpus, lambda cpu: _frequency(_place(cpu, root), wanted.frequency, limits, cooling))
    return found


Request = dict[str, Any]


def _grouped(cpus: Sequence[int], change: Callable[[int], tuple[Request, Request]]) -> Iterator[base.Change]:
    """One change for all CPUs that are and become the same; none for those that are so already."""
    groups: dict[str, list[int]] = collections.defaultdict(list)
    for cpu in cpus:
        groups[json.dumps(change(cpu))].append(cpu)
    for text, members in groups.items():
        do, undo = json.loads(text)
        if do != undo:
            yield base.Change({**do, "cpus": members}, {**undo, "cpus": members})


def _governor(place: Path, wanted: str) -> tuple[Request, Request]:
    offered = _read(place / "scaling_available_governors").split()
    if wanted not in offered:
        raise errors.CommandError(f"{place.parent.name} has no governor {wanted!r}; it has {', '.join(offered) or 'none'}")
    now = _read(place / "scaling_governor")
    return {"verb": "set-governor", "governor": wanted}, {"verb": "set-governor", "governor": now}


def _frequency(place: Path, wanted: str, limits: heat.Limits, cooling: Sequence[tuple[str, str]]) -> tuple[Request, Request]:
    told = [_read(place / name) for name in ("cpuinfo_min_freq", "cpuinfo_max_freq", "scaling_min_freq", "scaling_max_freq")]
    if not all(map(str.isdecimal, told)):
        raise errors.CommandError(
            f"the kernel does not tell the frequencies of {place.parent.name}; remove frequency from its conditioning"
        )
    lowest, highest, least, most = map(int, told)
    first, *_ = (*_read(place / "related_cpus").split(), place.parent.name.removeprefix("cpu"))
    most = limits.own(place.parent.name, most, highest, lowered=heat.lowers(cooling, int(first)))
    offered = sorted(map(int, _read(place / "scaling_available_frequencies").split()))
    middle = (lowest + highest) / 2
    if offered:
        middle = min(offered, key=lambda one: abs(one - middle))
    kilohertz = int({"min": lowest, "mid": middle, "max": highest}.get(wanted) or int(wanted) / 1000)
    if not lowest <= kilohertz <= highest:
        raise errors.CommandError(f"{place.parent.name} runs at {lowest}000 to {highest}000 Hz, not at {wanted}")
    return (
        {"verb": "set-frequency", "least": kilohertz, "most": kilohertz},
        {"verb": "set-frequency", "least": least, "most": most},
    )


def _place(cpu: int, root: Path) -> Path:
    place = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
    if not place.is_dir():
        raise errors.CommandError(
            f"the frequency of cpu{cpu} cannot be set: {place} is not there, as in a virtual machine; remove frequency and"
            " governor from its conditioning"
        )
    return place


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


async def apply(request: base.Action, socket: Path | None, root: Path = Path("/")) -> None:
    """Do what a request says: by the helper behind ``socket``, or by this process where there is none.

    Raises:
        HarnessError: it is not done; the message says why.
    """
    line = json.dumps(dict(request)).encode()
    if socket is not None:
        said = await helping.ask(socket, line)
    else:
        said = await anyio.to_thread.run_sync(helper.answer, helper.Machine(root), line)
    if "error" in said:
        advice = "" if socket else "; only root may: start aibenchd-helper.socket, and name it as the device's helper"
        raise errors.HarnessError(f"{request['verb']}: {said['error']}{advice if 'denied' in said['error'] else ''}")
