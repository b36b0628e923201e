"""Trials of an arm under profilers: that which the program brings, else what samples on the device; and Perfetto on phones.

A program that can profile itself is told by :data:`VARIABLE` where to write Chrome's trace format; ours do. Where one leaves
nothing there, it is run once more under the first of :data:`SAMPLERS` that the device has. They say in which function the time
goes. A phone's Perfetto says what they cannot, how its threads were scheduled and how fast the CPUs ran, so it has a run of its
own, in which it samples too where nothing else did.
What such trials take is no measurement: a profiler has its price, and not the same for each arm.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path, PurePosixPath

import anyio.to_thread

from aibenchd import errors, model
from aibenchd.devices import adbreading
from aibenchd.devices import base as devices
from aibenchd.measure import perfetto, placing, profiles, trial

VARIABLE = "AIBENCHD_PROFILE"
FILE, RECORDED = "aibenchd-profile", "aibenchd-recorded"  # in the directory of the arm
PROBE_SECONDS, REPORT_SECONDS = 10.0, 120.0
CPU_SECONDS = 4.0  # of an arm that are sampled, where it can be run so often: some 2,000 samples, which tell 5 % of its time
LONGEST_SECONDS = 30.0  # that the processes of one arm take for that, one after another
MOST_PROCESSES = 200
PROCESS_SECONDS = 0.005  # that one takes at least, with its start
MOST_SAMPLES = 50_000  # of one arm: some 50 MB on the device, at a kilobyte each
TELL = f'echo "{profiles.TAKEN.format("$processes", "$hertz")}"'
NONE = (
    f"the program writes no profile where {VARIABLE} names a file, and there is no perf on the device, nor, as phones have them"
    " from Android 9 on, simpleperf or Perfetto; install linux-perf, or have the program write one"
)
APP = "an Android app runs under no profiler here; have a program of the same network measured beside it"


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """A profiler of the device's, as texts for its shell, which all run in the arm's directory.

    Attributes:
        there: succeeds where the device has it.
        over: runs ``"$@"`` under it: its first word says how many samples to take a second, its second one how many times to run
            what follows.
        recorded: the file that this leaves.
        report: makes :data:`FILE` of it; ``$hertz`` and ``$processes`` are what those words said.
    """

    kind: model.Profiler
    there: str
    over: str
    report: str
    recorded: str = RECORDED


# Runs what follows its first word so often, each time anew: a short program gives as many samples as a long one.
AGAIN = 'left=$1; shift; while [ $left -gt 0 ]; do left=$((left - 1)); "$@" </dev/null || exit; done'
REPEATED = f"sh -c '{AGAIN}' sh \"$@\""
PERF = Tool(
    model.Profiler.PERF,
    there="perf --version",
    over=f"hertz=$1; shift; exec perf record --quiet --freq $hertz --call-graph fp --output {RECORDED} -- {REPEATED}",
    report=f"{{ perf script --input {RECORDED} --fields comm,pid,tid,time,event,ip,sym,dso && {TELL}; }} >{FILE}",
)
# Time, not cycles: that is what differs between arms where a slow core runs one of them.
SIMPLEPERF = Tool(
    model.Profiler.SIMPLEPERF,
    there="command -v simpleperf",
    over=f"hertz=$1; shift; exec simpleperf record -e cpu-clock -f $hertz --call-graph fp -o {RECORDED} -- {REPEATED}",
    report=f"{{ simpleperf report-sample --show-callchain -i {RECORDED} && {TELL}; }} >{FILE}",
)
SAMPLERS = (PERF, SIMPLEPERF)

TRACE_LIMIT = perfetto.LARGEST // 2  # bytes of a trace, at which it ends: a minute or more of a busy phone
SCHEDULING = """
buffers { size_kb: 32768 }
data_sources { config { name: "linux.ftrace" ftrace_config { %s
    buffer_size_kb: 4096
    ftrace_events: "sched/sched_switch"
    ftrace_events: "sched/sched_waking"
    ftrace_events: "task/task_newtask"
    ftrace_events: "power/cpu_frequency"
} } }
data_sources { config { name: "linux.process_stats" process_stats_config { scan_all_processes_on_start: true } } }
write_into_file: true
file_write_period_ms: 1000
"""
# A data source that a Perfetto does not know is left out, but a field that it does not know is an error.
FROM_ANDROID_11 = "compact_sched { enabled: true }"
FROM_ANDROID_13 = 'data_sources { config { name: "linux.sys_stats" sys_stats_config { cpufreq_period_ms: 500 } } }\n'
SAMPLING = """
data_sources { config { name: "linux.perf" perf_event_config {
    timebase { counter: SW_CPU_CLOCK frequency: %d }
    callstack_sampling { scope { target_cmdline: %s } kernel_frames: true }
} } }
"""
# The program waits behind the pipe until it is being traced. Its shell is there before, so that it is among the processes that
# are told at the start, and by the name that it is given here what runs below it is known for the arm's.
_TRACED = """
shift # it takes samples as often as it can unwind them
sdk=$(getprop ro.build.version.sdk)
compact=
[ "$sdk" -lt 30 ] || compact='{compact}'
config='{always}'
[ "$sdk" -lt 33 ] || config="$config"'{newer}'
begin=-d
! perfetto --help 2>&1 | grep -q -e --background-wait || begin=-D
{{
    if tracer=$(echo "$config" | perfetto --txt -c - -o {trace} $begin); then
        echo "$tracer" >{recorded}
        [ $begin = -D ] || sleep 1
        echo begin
    elif [ "$sdk" -lt 30 ]; then
        echo 'before Android 11 its services are started by: adb shell setprop persist.traced.enable 1' >&2
    fi
}} | sh -c 'read begin || exit 126; {again}' {mark} "$@"
code=$?
tracer=$(cat {recorded}) || exit $code
kill -TERM $tracer
tries=0
while kill -0 $tracer 2>/dev/null && [ $tries -lt 150 ]; do tries=$((tries + 1)); sleep 0.1; done
exit $code
"""


def tracing(program: str, seconds: float, *, sampling: bool) -> Tool:
    """Perfetto, for at most so many seconds; with the stacks of processes by the name of ``program``, where it may sample."""
    limits = f"duration_ms: {math.ceil(seconds * 1000)}\nmax_file_size_bytes: {TRACE_LIMIT}\n"
    name = json.dumps(program, ensure_ascii=False).replace("'", "?")
    always = SCHEDULING % """'"$compact"'""" + limits
    newer = FROM_ANDROID_13 + (SAMPLING % (perfetto.HERTZ, name) if sampling else "")
    return Tool(
        model.Profiler.PERFETTO,
        there=f"command -v perfetto && [ -d {adbreading.TRACES} ]",
        over=_TRACED.format(
            compact=FROM_ANDROID_11,
            always=always,
            newer=newer,
            trace=adbreading.TRACE,
            recorded=RECORDED,
            again=AGAIN,
            mark=perfetto.MARK,
        ),
        report=f"cat {adbreading.TRACE} >{FILE}",
        recorded=adbreading.TRACE,
    )


def processes(accounts: Iterable[model.Series], timeout: float) -> int:
    """How many times a program is run for enough samples, by what one process of it took; ``timeout`` is for all of them."""
    wall, cpu = _seconds(accounts)
    wanted = math.ceil(CPU_SECONDS / max(cpu, CPU_SECONDS / MOST_PROCESSES))
    return max(1, min(wanted, int(min(LONGEST_SECONDS, timeout / 2) / max(wall, PROCESS_SECONDS))))


def hertz(accounts: Iterable[model.Series]) -> int:
    """How many samples a second are taken of a program: fewer of a long one, so that what it leaves has a bound."""
    _, cpu = _seconds(accounts)
    return max(1, min(profiles.HERTZ, int(MOST_SAMPLES / cpu))) if cpu and math.isfinite(cpu) else profiles.HERTZ


def _seconds(accounts: Iterable[model.Series]) -> tuple[float, float]:
    """What one process took, on the wall and of CPUs; infinite where nobody knows."""
    seconds = {one.key: one.values[0] for one in accounts if one.type == "PROCESS" and one.values}
    wall = seconds.get("PROCESS wall_time", math.inf)
    return wall, seconds.get("PROCESS cpu_time", wall)


@dataclasses.dataclass(frozen=True, slots=True)
class Profiled:
    """The last trial that was run, and the kinds of the profiles that are kept; ``reason`` says why there is none."""

    finished: trial.Finished
    kinds: tuple[model.Profiler, ...] = ()
    reason: str = ""


async def run(
    sides: placing.Sides,
    device: devices.DeviceSettings,
    placed: placing.Placed,
    condition: Callable[[], Awaitable[None]],
    target: Path,
) -> Profiled:
    """Run an arm under each profiler that has something to say of it.

    Args:
        condition: brings the device into the state in which trials begin.
        target: where profiles are kept on this host, each with the suffix of its kind.

    Raises:
        LostRunningError, DeviceLostError, HarnessError, CommandError: as :func:`aibenchd.measure.trial.run`.
        CommandError: nothing can be profiled on this device.
    """
    if sides.device.unprofiled:
        raise errors.CommandError(sides.device.unprofiled)
    running = _Running(sides, device, placed, condition, target)
    await sides.device.remove(running.file)  # all arms run in one directory: it may be another one's
    await running.watched(placing.Watch(env={VARIABLE: str(running.file)}))
    if running.finished.trial.outcome is not model.Outcome.OK:
        return Profiled(running.finished, reason=running.finished.trial.reason)
    sampled = await running.taken(model.Profiler.OWN)
    if placed.app:
        return running.profiled(APP)
    accounts = running.finished.trial.series
    running.processes, running.hertz = processes(accounts, placed.conditions.timeout), hertz(accounts)
    sampler = None if sampled else await running.first(SAMPLERS)
    if sampler is not None:
        sampled = await running.under(sampler)
    program = PurePosixPath(placed.place.programs["program"]).name
    await running.under_any(tracing(program, placed.conditions.timeout, sampling=not sampled))
    return running.profiled(NONE)


class _Running:
    """An arm's trials under profilers, and what they left so far.

    Attributes:
        file: where each leaves its profile on the device.
        processes: of its program that run under a profiler, one after another.
        hertz: of the samples that are taken of them.
    """

    finished: trial.Finished
    processes, hertz = 1, profiles.HERTZ

    def __init__(
        self,
        sides: placing.Sides,
        device: devices.DeviceSettings,
        placed: placing.Placed,
        condition: Callable[[], Awaitable[None]],
        target: Path,
    ) -> None:
        self._sides, self._device = sides, device
        once = dataclasses.replace(placed.conditions, iterations=-1, repeat=1)  # each process would write over the last one's
        self._placed = dataclasses.replace(placed, conditions=once)
        self._condition, self._target = condition, target
        self._directory = PurePosixPath(placed.place.target_directory)
        self.file = self._directory / FILE
        self._kinds: list[model.Profiler] = []
        self._reasons: list[str] = []

    def profiled(self, otherwise: str) -> Profiled:
        """What came of it; ``otherwise`` is why nothing did, where no profiler says so."""
        reason = "" if self._kinds else "; ".join(self._reasons) or otherwise
        return Profiled(self.finished, tuple(self._kinds), reason)

    async def watched(self, watch: placing.Watch) -> None:
        """Run one trial."""
        await self._condition()
        self.finished = await trial.run(self._sides, self._device, dataclasses.replace(self._placed, watch=watch))

    async def taken(self, kind: model.Profiler) -> bool:
        """Keep the profile that a trial left, if it did."""
        try:
            await self._sides.device.pull(self.file, self._target)
        except errors.CommandError:
            return False
        await anyio.to_thread.run_sync(profiles.keep, self._target, kind)
        self._kinds.append(kind)
        return True

    async def first(self, tools: tuple[Tool, ...]) -> Tool | None:
        """The first of them that the device has."""
        for tool in tools:
            if not await self._shell(tool.there, PROBE_SECONDS):
                return tool
        return None

    async def under_any(self, tool: Tool) -> None:
        """Run one trial under a profiler, if the device has it."""
        if await self.first((tool,)):
            await self.under(tool)

    async def under(self, tool: Tool) -> bool:
        """Run one trial under a profiler; whether it left a profile, which is on this host now, and no longer there."""
        why = await self._under(tool, self.processes)
        if why and self.processes > 1:  # it may be one that does not run twice where it has left something
            why = await self._under(tool, 1)
        self._reasons += [f"under {tool.kind.value}: {why}"] if why else []
        return not why

    async def _under(self, tool: Tool, processes: int) -> str:
        """Why it left none; empty where it did."""
        await self.watched(placing.Watch(prefix=("sh", "-c", tool.over, "sh", str(self.hertz), str(processes))))
        why = self.finished.trial.reason if self.finished.trial.outcome is not model.Outcome.OK else ""
        why = why or await self._shell(f"hertz={self.hertz} processes={processes}; {tool.report}", REPORT_SECONDS)
        if not why and not await self.taken(tool.kind):
            why = "it left no file"
        await self._shell(f"rm -f {tool.recorded} {RECORDED} {FILE}", PROBE_SECONDS)
        return why

    async def _shell(self, text: str, seconds: float) -> str:
        """Run a text of ours; why it failed, empty where it did not."""
        command = devices.Command(("sh", "-c", text), cwd=self._directory, timeout=seconds)
        try:
            return (await self._sides.device.run(command)).failure
        except errors.CommandError as error:
            return str(error)
