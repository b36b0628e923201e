"""A GPU of another machine, asked by running its ``nvidia-smi`` there.

What a GPU is or how it fares is one process there, or two in one round trip, within a deadline. What is printed is taken
apart strictly: a reading that is not understood is none, and the device is lost rather than measured on.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from aibenchd import errors
from aibenchd.devices import base, gpus

DEADLINE = 30.0  # seconds, of one question; a driver that has let go of its GPUs starts them first
FORMAT = "--format=csv,noheader,nounits"
NOT_FOUND = 127  # exit status of what cannot be found
NOT_SUPPORTED, CORRUPTED_INFOROM = 3, 14  # exit statuses; with the second it has answered all the same
SAID_BOUND = 300  # characters of what it printed that are told

NUMBER, COUNT, SWITCH = r"[0-9]+(\.[0-9]+)?", r"[0-9]+", r"Enabled|Disabled"
UUID = r"GPU-[0-9A-Fa-f]+(-[0-9A-Fa-f]+)*"
FACTS = {  # fields of --query-gpu, and what their values look like
    "uuid": UUID,
    "name": r".+",
    "driver_version": r"[0-9]+(\.[0-9]+)+",
    "vbios_version": r"[0-9A-Za-z]+(\.[0-9A-Za-z]+)*",
    "ecc.mode.current": SWITCH,
    "power.limit": NUMBER,
    "persistence_mode": SWITCH,
}
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # the second is the older drivers'
STATE = {
    "temperature.gpu": COUNT,
    **dict.fromkeys(REASONS, r"0x[0-9A-Fa-f]+"),
    "power.draw": NUMBER,
    "clocks.sm": COUNT,
    "clocks.mem": COUNT,
    "memory.used": COUNT,
}
APPLICATIONS = "--query-compute-apps=pid,process_name"
UNTOLD = re.compile(r"\[?(N/A|Not Supported|Not Found|Insufficient Permissions)\]?", re.IGNORECASE)
ASIDE = ("WARNING:", "No running")  # how rows begin that are about no GPU and no program
UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')

BOTH = f'nvidia-smi "$1" "$3" -i "$4"; case $? in 0|{CORRUPTED_INFOROM}) exec nvidia-smi "$2" "$3" -i "$4";; *) exit $?;; esac'
AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec nvidia-smi "$@"; else exec sudo -n nvidia-smi "$@"; fi'
MAY = '[ "$(id -u)" = 0 ] || exec sudo -n -l nvidia-smi "$@"'  # sudo says it, and runs nothing

Run: TypeAlias = Callable[[tuple[str, ...]], Awaitable[base.Completed]]  # there, within DEADLINE


class Card(gpus.Card):
    """One GPU there, one caller at a time. Once its UUID is known it goes by that: after a restart indices may be others."""

    def __init__(self, name: str, run: Run) -> None:
        super().__init__(name)
        self._run, self._id = run, name
        self._unknown: set[str] = set()  # fields that its nvidia-smi does not have

    async def uuid(self) -> str:
        told = await self._told({"uuid": UUID})
        if "uuid" not in told:
            raise errors.DeviceLostError(f"GPU {self.name}: nvidia-smi does not tell its UUID; is its driver whole?")
        self._id = told["uuid"]
        return self._id

    async def facts(self) -> Mapping[str, str]:
        told = await self._told(FACTS)
        found = {
            "gpu": told.get("name"),
            "hash": told.get("uuid"),
            "driver": told.get("driver_version"),
            "vbios": told.get("vbios_version"),
            "ecc": _switch(told.get("ecc.mode.current")),
            "power_limit": _watts(told.get("power.limit")),
            "persistence": _switch(told.get("persistence_mode")),
        }
        return {name: value for name, value in found.items() if value is not None}

    async def state(self) -> Mapping[str, str]:
        (_, *rows), told = await self._asked(STATE, self._gpu_and_programs)
        active = next((told[field] for field in REASONS if field in told), None)
        found = {
            "temperature": told.get("temperature.gpu"),
            "throttled": None if active is None else gpus.throttled(int(active, 16)),
            "power": _watts(told.get("power.draw")),
            "clock": _of(told.get("clocks.sm"), "MHz"),
            "memory_clock": _of(told.get("clocks.mem"), "MHz"),
            "memory_used": _of(told.get("memory.used"), "MiB"),
            "processes": gpus.listed(list(self._processes(rows))),
        }
        return {name: value for name, value in found.items() if value is not None}

    async def clocks(self) -> list[int]:
        argv = ("nvidia-smi", "--query-supported-clocks=memory,graphics", FORMAT, "-i", self._id)
        rows = [row for row in _rows(self._checked(await self._run(argv))) if not UNTOLD.fullmatch(row.partition(",")[0])]
        pairs = [re.fullmatch(r"([0-9]+), ([0-9]+)", row) for row in rows]
        found = [(int(pair[1]), int(pair[2])) for pair in pairs if pair]
        if len(found) < len(rows):
            raise self._odd(rows[pairs.index(None)])
        most = max((memory for memory, _ in found), default=0)
        return sorted({graphics for memory, graphics in found if memory == most})

    async def check_lockable(self, megahertz: int) -> None:
        if (await self._told({"persistence_mode": SWITCH})).get("persistence_mode") == "Disabled":
            raise errors.CommandError(
                f"GPU {self.name}: its driver forgets locked clocks as soon as no program uses it; have it kept: run nvidia-smi"
                f" -i {self._id} -pm 1 as root after each start of the machine"
            )
        completed = await self._run(_shell(MAY, "-i", self._id, "-lgc", f"{megahertz},{megahertz}"))
        if completed.failure:
            raise self._refused(completed, megahertz)

    async def lock(self, megahertz: int) -> None:
        completed = await self._run(_shell(AS_ROOT, "-i", self._id, "-lgc", f"{megahertz},{megahertz}"))
        if completed.failure or _unsupported(completed):
            raise self._refused(completed, megahertz)

    async def unlock(self) -> None:
        completed = await self._run(_shell(AS_ROOT, "-i", self._id, "-rgc"))
        if completed.failure and not _unsupported(completed):  # what cannot be locked is not
            self._check_there(completed)
            raise errors.CommandError(
                f"GPU {self.name}: its clocks cannot be let go: {_said(completed)}; run nvidia-smi -i {self._id} -rgc as root"
            )

    # ---- what these are made of

    async def _told(self, forms: Mapping[str, str]) -> Mapping[str, str]:
        rows, told = await self._asked(forms, self._gpu_alone)
        if len(rows) != 1:
            raise self._odd(rows[1])
        return told

    def _gpu_alone(self, query: str) -> tuple[str, ...]:
        return ("nvidia-smi", query, FORMAT, "-i", self._id)

    def _gpu_and_programs(self, query: str) -> tuple[str, ...]:
        return _shell(BOTH, query, APPLICATIONS, FORMAT, self._id)

    async def _asked(
        self, forms: Mapping[str, str], asking: Callable[[str], tuple[str, ...]]
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        """Rows that it printed, and what the first of them tells of the fields; one that it lacks is not asked again."""
        while True:
            fields = [field for field in forms if field not in self._unknown]
            completed = await self._run(asking(f"--query-gpu={','.join(fields)}"))
            unknown = UNKNOWN_FIELD.search(completed.stdout + completed.stderr)
            if not (unknown and unknown[1] in fields):
                break
            self._unknown.add(unknown[1])
        rows = _rows(self._checked(completed))
        values = rows[0].split(", ") if rows else []
        if len(values) != len(fields):
            raise self._odd(rows[0] if rows else "")
        told = {field: value for field, value in zip(fields, values, strict=True) if not UNTOLD.fullmatch(value)}
        for field, value in told.items():
            if not re.fullmatch(forms[field], value):
                raise errors.DeviceLostError(
                    f"GPU {self.name}: nvidia-smi says {value[:SAID_BOUND]!r} of {field}; see dmesg there"
                )
        return rows, told

    def _processes(self, rows: Iterable[str]) -> Iterable[tuple[str, str]]:
        for row in rows:
            pid, _, name = row.partition(", ")
            if UNTOLD.fullmatch(pid):
                continue
            if not (pid.isdecimal() and name):
                raise self._odd(row)
            yield pid, "" if UNTOLD.fullmatch(name) else name

    def _checked(self, completed: base.Completed) -> str:
        self._check_there(completed)
        if completed.failure and completed.code != CORRUPTED_INFOROM:
            raise errors.DeviceLostError(
                f"GPU {self.name}: {_said(completed)}; {gpus.ADVICES.get(completed.code, gpus.OTHERWISE)}"
            )
        return completed.stdout

    def _check_there(self, completed: base.Completed) -> None:
        """Raises DeviceLostError where there is no such program, driver or GPU any more; that we may not do it, is none."""
        if completed.ending is base.Ending.TIMED_OUT:
            raise errors.DeviceLostError(
                f"GPU {self.name}: nvidia-smi does not answer within {completed.seconds:.0f} s; see dmesg there, restart it"
            )
        if completed.ending is base.Ending.SIGNALLED:  # perhaps it had done it already
            raise errors.DeviceLostError(f"GPU {self.name}: nvidia-smi was killed: {_said(completed)}; see dmesg there")
        if completed.code == NOT_FOUND and "nvidia-smi" in completed.stderr:
            raise errors.DeviceLostError(
                f"GPU {self.name}: {_said(completed)}; install NVIDIA's driver there with its nvidia-smi, or have the device's"
                " env name the directory of that in PATH"
            )
        if completed.code in gpus.ADVICES and completed.code != gpus.NO_PERMISSION:
            raise errors.DeviceLostError(f"GPU {self.name}: {_said(completed)}; {gpus.ADVICES[completed.code]}")

    def _refused(self, completed: base.Completed, megahertz: int) -> errors.CommandError:
        self._check_there(completed)
        return errors.CommandError(
            f"GPU {self.name}: its clocks cannot be locked: {_said(completed)}; log in as root, let the user run"
            f" sudo -n nvidia-smi -i {self._id} -lgc and -rgc, or {gpus.by_hand(self._id, megahertz)}"
        )

    def _odd(self, row: str) -> errors.DeviceLostError:
        return errors.DeviceLostError(f"GPU {self.name}: nvidia-smi answers in another way than expected: {row[:SAID_BOUND]!r}")


def _shell(text: str, *arguments: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text, "sh", *arguments)


def _rows(printed: str) -> list[str]:
    return [row for row in map(str.strip, printed.splitlines()) if row and not row.startswith(ASIDE)]


def _said(completed: base.Completed) -> str:
    """Its own words; it prints some errors on its standard output."""
    said = " ".join((completed.stderr.strip() or completed.stdout.strip()).split())[:SAID_BOUND]
    return said or completed.failure


def _unsupported(completed: base.Completed) -> bool:
    """Whether the GPU has no such thing; some versions warn of it, and call that a success."""
    return completed.code == NOT_SUPPORTED or "not supported" in completed.stdout.lower()


def _switch(mode: str | None) -> str | None:
    return None if mode is None else "on" if mode == "Enabled" else "off"


def _watts(number: str | None) -> str | None:
    return None if number is None else f"{float(number):g} W"


def _of(number: str | None, unit: str) -> str | None:
    return None if number is None else f"{number} {unit}"
