"""One trial of an arm under a profiler: that which the program brings, else the kernel's.

A program that can profile itself is told by :data:`VARIABLE` where to write Chrome's trace format; ours do. Where one leaves
nothing there, it is run once more under ``perf record``, if the device has that, and stacks are written as ``perf script`` does.
What such a trial takes is no measurement: a profiler has its price, and not the same for each arm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath

from aibenchd import errors, model
from aibenchd.devices import base as devices
from aibenchd.measure import placing, trial

VARIABLE = "AIBENCHD_PROFILE"
FILE, RECORDED = "aibenchd-profile", "aibenchd-perf.data"  # in the directory of the arm
HERTZ = 499  # not a divisor of anything's period
RECORD = ("perf", "record", "--quiet", "--freq", str(HERTZ), "--call-graph", "fp", "--output")
SCRIPT = "perf script --input {recorded} --fields comm,ip,sym,dso > {file}"
PROBE_SECONDS, SCRIPT_SECONDS = 10.0, 120.0
NONE = f"the program writes no profile where {VARIABLE} names a file, and there is no perf on the device"


@dataclasses.dataclass(frozen=True, slots=True)
class Profiled:
    """A trial, and the profile that it left on this host; ``kind`` is None where it left none, and ``reason`` says why."""

    finished: trial.Finished
    kind: model.Profiler | None = None
    reason: str = ""


async def run(
    sides: placing.Sides,
    device: devices.DeviceSettings,
    placed: placing.Placed,
    condition: Callable[[], Awaitable[None]],
    target: Path,
) -> Profiled:
    """Run an arm under a profiler, twice where it needs another one.

    Args:
        condition: brings the device into the state in which trials begin.
        target: where the profile is written on this host.

    Raises:
        LostRunningError, DeviceLostError, HarnessError, CommandError: as :func:`aibenchd.measure.trial.run`.
    """
    file = PurePosixPath(placed.place.target_directory) / FILE
    await sides.device.remove(file)  # all arms run in one directory: it may be another one's
    await condition()
    finished = await trial.run(sides, device, dataclasses.replace(placed, watch=placing.Watch(env={VARIABLE: str(file)})))
    if finished.trial.outcome is not model.Outcome.OK:
        return Profiled(finished, reason=finished.trial.reason)
    if await _pulled(sides.device, file, target):
        return Profiled(finished, model.Profiler.OWN)
    if not await _has_perf(sides.device, file.parent):
        return Profiled(finished, reason=NONE)
    await condition()
    recorded = file.with_name(RECORDED)
    finished = await trial.run(
        sides, device, dataclasses.replace(placed, watch=placing.Watch(prefix=(*RECORD, str(recorded), "--")))
    )
    if finished.trial.outcome is not model.Outcome.OK:
        return Profiled(finished, reason=f"under perf: {finished.trial.reason}")
    written = await sides.device.run(_script(recorded, file))
    if written.failure or not await _pulled(sides.device, file, target):
        return Profiled(finished, reason=f"perf script: {written.failure or 'left no file'}")
    return Profiled(finished, model.Profiler.PERF)


async def _pulled(session: devices.Session, file: PurePosixPath, target: Path) -> bool:
    """Whether a profile was there, and is on this host now."""
    try:
        await session.pull(file, target)
    except errors.CommandError:
        return False
    return True


async def _has_perf(session: devices.Session, directory: PurePosixPath) -> bool:
    try:
        probed = await session.run(devices.Command(("perf", "--version"), cwd=directory, timeout=PROBE_SECONDS))
    except errors.CommandError:
        return False
    return not probed.failure


def _script(recorded: PurePosixPath, file: PurePosixPath) -> devices.Command:
    text = SCRIPT.format(recorded=recorded.name, file=file.name)
    return devices.Command(("/bin/sh", "-c", text), cwd=file.parent, timeout=SCRIPT_SECONDS)
