"""A machine's ``nvidia-smi`` that is none: a program of that name which prints as NVIDIA's does, of GPUs that a file tells of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FIRST, SECOND = "GPU-9b1f7c0a-58f2-4b0e-8f57-3c1f0c7d2e11", "GPU-22222222-58f2-4b0e-8f57-3c1f0c7d2e11"
CARD = {
    "uuid": FIRST,
    "name": "NVIDIA H100 80GB HBM3",
    "driver_version": "570.86.15",
    "vbios_version": "96.00.74.00.01",
    "ecc.mode.current": "Enabled",
    "power.limit": "700.00",
    "persistence_mode": "Enabled",
    "temperature.gpu": "41",
    "clocks_event_reasons.active": "0x0000000000000001",
    "clocks_throttle_reasons.active": "0x0000000000000001",
    "power.draw": "71.50",
    "clocks.sm": "1980",
    "clocks.mem": "2619",
    "memory.used": "4",
}
CLOCKS = "2619, 1980\n2619, 1965\n2619, 345\n1593, 345"

PROGRAM = """#!{python} -IS
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
told = json.load(open(os.path.join(here, "told.json")))
options = dict(one.split("=", 1) if "=" in one else (one, "") for one in sys.argv[1:])
verb = next(one for one in options if one.startswith(("--query", "-lgc", "-rgc")))
with open(os.path.join(here, "asked"), "a") as asked:
    print(*sys.argv[1:], file=asked)
time.sleep(told["hangs"].get(verb, 0))
status, text = told["says"].get(verb, (0, None))
if text is not None:
    sys.stdout.write(text)
    sys.exit(status)
name = sys.argv[sys.argv.index("-i") + 1]
cards = told["cards"]
card = next((one for index, one in enumerate(cards) if name in (str(index), one["uuid"])), None)
if card is None:
    print("No devices were found")
    sys.exit(6)
locked = os.path.join(here, "locked-" + card["uuid"])
if verb in ("-lgc", "-rgc"):
    if told["root"] and not os.environ.get("AS_ROOT"):
        print("The current user does not have permission to change clocks for GPU 00000000:1B:00.0.")
        print("Terminating early due to previous errors.")
        sys.exit(4)
    if verb == "-lgc":
        least, most = sys.argv[sys.argv.index("-lgc") + 1].split(",")
        open(locked, "w").write(most)
        print(f'GPU clocks set to "(gpuClkMin {{least}}, gpuClkMax {{most}})" for GPU 00000000:1B:00.0')
    elif os.path.exists(locked):
        os.unlink(locked)
    print("All done.")
elif verb == "--query-gpu":
    for field in options[verb].split(","):
        if field not in card:
            print(f'Field "{{field}}" is not a valid field to query.\\n')
            sys.exit(2)
    print(", ".join(card[field] for field in options[verb].split(",")))
    if told["inforom"]:
        print("WARNING: infoROM is corrupted at gpu 0000:1B:00.0")
        sys.exit(14)
elif verb == "--query-compute-apps":
    print(*told["processes"], sep="\\n", end="\\n" if told["processes"] else "")
else:
    print(told["clocks"])
"""
ID = "#!/bin/sh\necho 1000\n"
SUDO = '#!/bin/sh\n[ "$1" = -n ] || exit 2\nshift\n{may}\n[ "$1" = -l ] && echo "$2" && exit\nAS_ROOT=1 exec "$@"\n'
PASSWORD = 'echo "sudo: a password is required" >&2; exit 1'


class Machine:
    """Programs in a directory: ``env`` has them found by those that run on a device.

    Attributes:
        told: what it has: ``cards`` by their fields, ``processes`` and ``clocks`` as rows, ``root`` whether only root may
            lock, whether its ``inforom`` is corrupted, and for a verb such as ``--query-gpu`` how it ``hangs`` (seconds) or
            what it ``says`` (exit status, text).
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.told: dict[str, Any] = {
            "cards": [CARD, CARD | {"uuid": SECOND}],
            "processes": [],
            "clocks": CLOCKS,
            "root": False,
            "inforom": False,
            "hangs": {},
            "says": {},
        }
        self._write("nvidia-smi", PROGRAM.format(python=sys.executable))
        self.tell()

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.directory}:/usr/bin:/bin"}

    def tell(self, **changed: Any) -> None:
        """Have it another way from now on."""
        self.told |= changed
        (fresh := self.directory / "fresh").write_text(json.dumps(self.told))
        fresh.replace(self.directory / "told.json")

    def card(self, **values: str) -> None:
        """Have its first GPU tell other values, or not know a field (``None``)."""
        first = {name: value for name, value in (self.told["cards"][0] | values).items() if value is not None}
        self.tell(cards=[first, *self.told["cards"][1:]])

    def demote(self, *, sudo: bool) -> None:
        """Have its user be another than root, who may have sudo run it without a password."""
        self.tell(root=True)
        self._write("id", ID)
        self._write("sudo", SUDO.format(may="" if sudo else PASSWORD))

    def remove(self) -> None:
        (self.directory / "nvidia-smi").unlink()

    def locked(self, uuid: str) -> str:
        """MHz at which a GPU is held; empty where it is not."""
        place = self.directory / f"locked-{uuid}"
        return place.read_text() if place.exists() else ""

    def asked(self) -> list[str]:
        """The arguments of all that was asked of it."""
        return (self.directory / "asked").read_text().splitlines()

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o755)
