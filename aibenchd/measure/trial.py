"""One run of one arm's program, in a fresh process, read and judged."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

import anyio
import anyio.to_thread

from aibenchd import model
from aibenchd.devices import base as devices
from aibenchd.frameworks import base as frameworks
from aibenchd.measure import placing

RERUNS = 1_000  # processes of one trial at most, where a program prints one record per run
PARSED_AT_ONCE = 64 << 10  # characters; more would hold up the event loop
SHELL_WORDS = re.compile(r"[^\w@%+=:,./~\"' -]")  # a command without any of these needs no shell
REASON_LENGTH = 500  # characters of a program's last words


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """A trial, and all that its processes printed, for the log."""

    trial: model.Trial
    output: str


async def run(
    session: devices.Session,
    device: devices.DeviceSettings,
    design: model.Design,
    framework: frameworks.Framework,
    placed: placing.Placed,
) -> Finished:
    """Run one trial to its end.

    Raises:
        DeviceLostError, HarnessError: it could not be run; nothing is known of the program.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    how = placed.conditions
    completed: list[devices.Completed] = []
    series: dict[str, model.Series] = {}
    backend = ""
    for index in range(RERUNS):
        place = dataclasses.replace(placed.place, index=index)
        ended = await _repeat(session, device, design, framework, placed, place, how.timeout - _spent(completed))
        completed += ended
        if _failure(ended):
            break
        output = await _parsed(framework, _printed(ended), design.benchmark)
        gained = _gather(series, output.series)
        backend = output.backend or backend
        if index + 1 >= how.repeat and (not gained or _count(series) >= how.iterations):
            break
    reason = _failure(completed) or _mismatch(design, framework, backend) or _emptiness(series, design.benchmark)
    trial = model.Trial(
        arm=placed.arm,
        outcome=_outcome(completed, reason),
        started=started,
        seconds=time.monotonic() - clock,
        series=() if reason else (*series.values(), *_accounts(completed)),
        backend=backend,
        reason=reason,
    )
    return Finished(trial, _printed(completed))


def with_log(trial: model.Trial, log: str) -> model.Trial:
    """The same trial, knowing where its output is kept."""
    return dataclasses.replace(trial, log=log)


def words(command: str) -> tuple[tuple[str, ...], bool]:
    """A command's argument list; or the command itself and True, where only a shell can run it."""
    if SHELL_WORDS.search(command) or "~" in command:
        return (command,), True
    try:
        arguments = tuple(shlex.split(command))
    except ValueError:
        return (command,), True
    assigns = bool(arguments) and "=" in arguments[0]  # NAME=value program …
    return ((command,), True) if assigns or not arguments else (arguments, False)


async def _repeat(
    session: devices.Session,
    device: devices.DeviceSettings,
    design: model.Design,
    framework: frameworks.Framework,
    placed: placing.Placed,
    place: frameworks.Place,
    seconds: float,
) -> list[devices.Completed]:
    how = placed.conditions
    completed: list[devices.Completed] = []
    for command in framework.commands(design.benchmark, place):
        argv, shell = words(command)
        await anyio.sleep(how.sleep_before_run)
        completed.append(
            await session.run(
                devices.Command(
                    argv=argv,
                    shell=shell,
                    cwd=PurePosixPath(place.target_directory),
                    env={**how.threads, **device.env, **how.env, "AIBENCH_TREATMENT_GROUP": _group(placed.arm)},
                    cpus=how.cpus or device.cpus,
                    timeout=max(seconds - _spent(completed), 0.001),
                )
            )
        )
        if _failure(completed):
            break
    return completed


async def _parsed(framework: frameworks.Framework, printed: str, benchmark: model.Benchmark) -> frameworks.Output:
    if len(printed) <= PARSED_AT_ONCE:
        return framework.parse(printed, benchmark)
    return await anyio.to_thread.run_sync(framework.parse, printed, benchmark)


def _group(arm: model.ArmName) -> str:
    return "1" if arm is model.ArmName.TREATMENT else "0"


def _spent(completed: Iterable[devices.Completed]) -> float:
    return sum(one.seconds for one in completed)


def _printed(completed: Iterable[devices.Completed]) -> str:
    # Caffe2's observer writes to stderr and PyTorch's to stdout: FAI-PEP reads both, and so do we.
    return "\n".join(text for one in completed for text in (one.stdout, one.stderr) if text)


def _gather(gathered: dict[str, model.Series], more: Sequence[model.Series]) -> bool:
    """Add the series of one more repeat; whether any sample came with it."""
    for series in more:
        before = gathered.get(series.key)
        if before is not None:
            series = dataclasses.replace(series, values=before.values + series.values)
        gathered[series.key] = series
    return any(series.values for series in more)


def _count(gathered: Mapping[str, model.Series]) -> int:
    """How many samples there are of the series that is decided on; of another only where the network has none."""
    if model.NETWORK in gathered:
        return len(gathered[model.NETWORK].values)
    return max(len(series.values) for series in gathered.values())


def _failure(completed: Sequence[devices.Completed]) -> str:
    """Why the last process counts as failed; empty where it does not."""
    if not completed:
        return ""
    last = completed[-1]
    if last.ending is devices.Ending.TIMED_OUT:
        return f"timed out after {last.seconds:.0f} s"
    if last.ending is devices.Ending.EXITED and last.code == 0:
        return ""
    how = f"exit code {last.code}" if last.ending is devices.Ending.EXITED else f"killed by signal {last.code}"
    said = (last.stderr.strip() or last.stdout.strip())[-REASON_LENGTH:]
    return f"{how}: {said}" if said else how


def _mismatch(design: model.Design, framework: frameworks.Framework, backend: str) -> str:
    if not design.backend or backend == design.backend:
        return ""
    if backend:
        return f"asked for the backend {design.backend}, but {backend} executed"
    if design.backend in framework.backends:
        return f"asked for the backend {design.backend}; the program does not say which one executed"
    return ""


def _emptiness(series: Mapping[str, model.Series], benchmark: model.Benchmark) -> str:
    if not any(one.values for one in series.values()):
        return "the program printed no sample that could be read; see its protocol in the README"
    if benchmark.metric == "delay" and not series.get(model.NETWORK, model.Series("", "")).values:
        return f"the program printed no {model.NETWORK!r}, which the metric 'delay' is decided on"
    bad = next((one for one in series.values() if not all(map(math.isfinite, one.values))), None)
    if bad:
        return f"{bad.key} holds a value that is not finite"
    decisive = model.decisive(list(series.values()))
    if decisive and min(decisive.values) <= 0:
        return f"{decisive.key} holds {min(decisive.values):g}; what is decided on is compared as a ratio, and must be positive"
    return ""


def _outcome(completed: Sequence[devices.Completed], reason: str) -> model.Outcome:
    if not reason:
        return model.Outcome.OK
    timed_out = bool(completed) and completed[-1].ending is devices.Ending.TIMED_OUT
    return model.Outcome.TIMED_OUT if timed_out else model.Outcome.FAILED


def _accounts(completed: Sequence[devices.Completed]) -> list[model.Series]:
    """What the kernel says of the trial's processes, as series of their own."""
    cpu = sum(one.cpu_seconds for one in completed)
    peak = max((one.peak_bytes for one in completed if math.isfinite(one.peak_bytes)), default=math.nan)
    accounts = (
        model.Series("PROCESS", "wall_time", "s", (_spent(completed),)),
        model.Series("PROCESS", "cpu_time", "s", (cpu,)),
        model.Series("PROCESS", "peak_memory", "B", (peak,)),
    )
    return [series for series in accounts if math.isfinite(series.values[0])]
