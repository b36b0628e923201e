"""A kind of device for tests: this host, with kernel files of the test's own, that is lost or fails when a test says so.

What a test says are files in the directory that ``AIBENCHD_ODD`` names: ``lost`` (it cannot be reached; what is in the file is
said of that), ``fails`` (programs cannot be run on it), ``loses`` (a letter for each run to come, ``x`` where it is lost
meanwhile), ``slips`` (the same for each directory that is made, before a program runs), and ``sys`` and ``proc``, the kernel's.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import lab

from aibenchd import errors
from aibenchd.devices import base, launching, local

DIRECTORY = Path(os.environ.get("AIBENCHD_ODD", "/nowhere"))
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"
FILES = {
    f"{CPUFREQ}/scaling_available_governors": "performance powersave",
    f"{CPUFREQ}/scaling_governor": "powersave",
    f"{CPUFREQ}/cpuinfo_min_freq": "800000",
    f"{CPUFREQ}/cpuinfo_max_freq": "3000000",
    f"{CPUFREQ}/scaling_min_freq": "800000",
    f"{CPUFREQ}/scaling_max_freq": "3000000",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "0",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
    "sys/class/thermal/thermal_zone0/temp": "50000",
    "proc/loadavg": "0.10 0.10 0.10 1/1 1",
}


class OddSession(local.LocalSession):
    root = DIRECTORY

    async def health(self) -> None:
        if (DIRECTORY / "lost").exists():
            raise errors.DeviceLostError(f"odd: the test says that it is lost {(DIRECTORY / 'lost').read_text()}".rstrip())
        await super().health()

    async def run(self, command: base.Command) -> base.Completed:
        if (DIRECTORY / "fails").exists():
            raise errors.HarnessError("odd: the test says that it fails")
        _lose("loses")
        return await super().run(command)

    async def directory(self, name: str) -> PurePosixPath:
        _lose("slips")
        return await super().directory(name)


def _lose(name: str) -> None:
    file = DIRECTORY / name
    left = file.read_text() if file.exists() else ""
    if left:
        file.write_text(left[1:])
    if left.startswith("x"):
        raise errors.DeviceLostError(f"odd: the test {name} it")


class Odd(local.Local):
    def served(self, launcher: launching.Launcher) -> local.LocalSession:
        assert isinstance(self.settings, local.Settings)
        return OddSession(self.settings, self.settings.directory or self.state_directory, launcher, self.started)


class Machine:
    """The test's side: a lab whose only device is of this kind."""

    def __init__(self, directory: Path, **device: object) -> None:
        self.directory = directory / "odd"
        for name, text in FILES.items():
            self.write(name, text)
        metadata = directory / "plugins" / "oddhost-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: oddhost\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[aibenchd.devices]\nodd = oddhost:Odd\n")
        paths = (metadata.parent, Path(__file__).parent, os.environ.get("PYTHONPATH", ""))
        self.env = {"AIBENCHD_ODD": str(self.directory), "PYTHONPATH": os.pathsep.join(filter(None, map(str, paths)))}
        self.lab = lab.make(directory)
        self.configure(**device)

    def configure(self, **device: object) -> None:
        odd = {"name": "odd", "kind": "odd", "cpus": [0], "env": {"ODD": str(self.directory)}}
        self.lab.configure(devices=[odd | device])

    def write(self, name: str, text: str = "") -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    @property
    def governor(self) -> str:
        return self.read(f"{CPUFREQ}/scaling_governor")
