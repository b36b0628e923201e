"""One run of one arm's program, in a fresh process, read and judged."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread
import structlog

from aibenchd import errors, model
from aibenchd.devices import base as devices
from aibenchd.devices import metering
from aibenchd.frameworks import base as frameworks
from aibenchd.measure import around, outputs, placing
from aibenchd.specs import conditions

RERUNS = 1_000  # repeats of one trial at most, where a program prints one record per run and none is asked for
LOG_BOUND = 256 << 10  # characters kept of what a trial printed
PARSED_AT_ONCE = 64 << 10  # characters; more would hold up the event loop
SHELL_WORDS = re.compile(r"[^\w@%+=:,./~\"' -]")  # a command without any of these needs no shell
UNREAD = "the program printed no sample that could be read"
WRONG = "wrong output"  # how the reason of a trial begins whose outputs are not the golden ones

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """A trial, and what is kept beside it.

    Attributes:
        output: what its processes printed; empty where that need not be kept.
        files: output files that are to be kept, where they lie now; by key.
    """

    trial: model.Trial
    output: str
    files: Mapping[str, Path]


async def run(sides: placing.Sides, device: devices.DeviceSettings, placed: placing.Placed) -> Finished:
    """Run one trial to its end.

    Raises:
        LostRunningError: the device was lost while the arm's program ran.
        DeviceLostError, HarnessError: it could not be run; nothing is known of the program.
        CommandError: it cannot be run whatever the program does.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    running = _Running(sides, device, placed)
    reason = await running.to_the_end()
    energy = {one.key: one for one in _energy(running.energies)}
    decided_on = {**running.series, **(energy if placed.benchmark.metric == "power" else {})}
    unread = _mismatch(placed.variant, placed.framework, running.backend) or _emptiness(decided_on, placed.benchmark)
    line = "" if "converter" in placed.benchmark.model else placed.framework.line
    reason = reason or _explained(unread, running.completed, line)
    measured = {**running.series, **running.errors, **energy}
    wrong = "" if reason else running.wrong()
    trial = model.Trial(
        arm=placed.arm,
        outcome=_outcome(running.completed, reason),
        started=started,
        seconds=time.monotonic() - clock,
        series=() if reason else (*measured.values(), *_accounts(running.completed), *_sizes(placed.sizes)),
        backend=running.backend,
        agreement=model.Agreement.UNKNOWN if reason else running.agreement(wrong),
        reason=reason or (f"{WRONG}: {wrong}" if wrong else ""),
    )
    keep = placed.conditions.log_output or bool(trial.reason)
    return Finished(trial, running.printed() if keep else "", running.kept())


class _Running:
    """One trial on its way: its repeats, and what they gave so far.

    Attributes:
        completed: processes that count, without what they printed; where one was tried again, its last try.
        errors: measures of its outputs.
    """

    def __init__(self, sides: placing.Sides, device: devices.DeviceSettings, placed: placing.Placed) -> None:
        self._sides, self._device, self._placed = sides, device, placed
        self._around = around.Around(sides, placed, placed.host) if placed.host else None
        self.completed: list[devices.Completed] = []
        self.energies: list[metering.Energy] = []
        self.series: dict[str, model.Series] = {}
        self.errors: dict[str, model.Series] = {}
        self.backend = ""
        self._compared: dict[str, outputs.Compared] = {}
        self._spent, self._said = 0.0, ""

    async def to_the_end(self) -> str:
        """All repeats; why it failed, empty where it did not."""
        try:
            if self._around:
                await self._around.begin()
            last = await self._repeats()
            if self._around:
                await self._around.last(last)
                said = await _parsed(self._placed.framework, "\n".join(self._around.printed), self._placed.benchmark)
                _gather(self.series, [*said.series, *await self._around.converted()])
                self._compared = await self._around.compared()
                self.errors = {one.key: one for one in around.error_series(self._compared)}
        except around.FailedError as error:
            return str(error)
        return ""

    async def _repeats(self) -> int:
        """Repeat until there are enough samples; the index of the last."""
        how = self._placed.conditions
        for index in range(max(RERUNS, how.repeat)):
            output = await self._repeat(index)
            gained = _gather(self.series, output.series)
            self.backend = output.backend or self.backend
            if index + 1 >= how.repeat and (not gained or _count(self.series) >= how.iterations):
                break
        return index

    async def _repeat(self, index: int) -> frameworks.Output:
        place = dataclasses.replace(self._placed.place, index=index)
        if self._around:
            await self._around.before(index)
            place = dataclasses.replace(place, input_files={**place.input_files, **await self._around.made()})
        printed = [await self._command(command, place) for command in self._composed(place)]
        if self._around:
            await self._around.after(index)
        return await _parsed(self._placed.framework, "\n".join(filter(None, printed)), self._placed.benchmark)

    def _composed(self, place: frameworks.Place) -> tuple[str, ...]:
        if self._placed.app and not self._placed.test.says_what_to_run:
            return (place.programs["program"],)
        with _blamed(self._placed.framework):
            return self._placed.framework.commands(self._placed.variant.benchmark, place)

    async def _command(self, text: str, place: frameworks.Place) -> str:
        """Run one command; what it printed when it was last tried."""
        arguments = self._placed.conditions.platform_args
        for left in reversed(range(arguments.retry + 1)):
            await anyio.sleep(self._placed.conditions.sleep_before_run)
            async with self._sides.meter.metering(self._placed.metering) as energy:
                completed = await self._run(self._process(text, place))
            printed = _printed(completed)
            self._spent += completed.seconds
            self._said = f"{self._said}\n{printed}"[-LOG_BOUND:]
            exited = completed.ending is devices.Ending.EXITED
            failed = bool(completed.failure) and not (exited and arguments.ignore_status)
            if failed and left and exited:
                continue
            self.completed.append(dataclasses.replace(completed, stdout="", stderr=""))
            self.energies.append(energy)
            if failed:
                raise around.FailedError(completed.failure)
            break
        return printed

    async def _run(self, command: devices.Command) -> devices.Completed:
        try:
            return await self._sides.device.run(command)
        except errors.DeviceLostError as error:
            raise errors.LostRunningError(self._placed.arm, str(error)) from error

    def _process(self, text: str, place: frameworks.Place) -> devices.Command:
        how = self._placed.conditions
        app = self._placed.app
        argv, shell = ((text,), True) if how.platform_args.shell else app_words(text) if app else words(text)
        libraries = {"LD_LIBRARY_PATH": ":".join(self._placed.libraries)} if self._placed.libraries else {}
        threads = how.threads if self._device.platform in conditions.HOSTS else {}
        group = {"AIBENCH_TREATMENT_GROUP": "1" if self._placed.arm is model.ArmName.TREATMENT else "0"}
        command = devices.Command(
            argv=argv,
            shell=shell,
            cwd=PurePosixPath(place.target_directory),
            env={**libraries, **threads, **self._device.env, **how.env, **group},
            cpus=how.cpus or self._device.cpus,
            timeout=max(how.timeout - self._spent, 0.001),
        )
        command = self._placed.watch.over(command)
        return self._sides.device.app_command(app, command) if app else command

    def wrong(self) -> str:
        """What is wrong with the outputs that have golden ones; empty where nothing is."""
        limits = {key: file.limits for key, file in self._placed.test.output_files.items()}
        over = {key: one.beyond(limits[key]) for key, one in self._compared.items()}
        return "; ".join(f"{key}: {text}" for key, text in over.items() if text)

    def agreement(self, wrong: str) -> model.Agreement:
        if not self._compared:
            return model.Agreement.UNKNOWN
        return model.Agreement.WRONG if wrong else model.Agreement.RIGHT

    def printed(self) -> str:
        """The end of what its processes printed, then of those on this host."""
        around_it = self._around.printed if self._around else []
        return "\n".join(filter(None, [self._said.strip("\n"), *around_it]))[-LOG_BOUND:]

    def kept(self) -> dict[str, Path]:
        """Output files that are to be compared with others, or uploaded, where they lie now; by key."""
        if self._around is None:
            return {}
        wanted = (key for key, file in self._placed.test.output_files.items() if file.upload or (file.limits and not file.golden))
        return {key: path for key in wanted if (path := self._around.output(key)).is_file()}


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


def app_words(command: str) -> tuple[tuple[str, ...], bool]:
    """As :func:`words`, of a command whose options an app is handed: what a shell would read is no matter where it is quoted."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        arguments = tuple(lexer)
    except ValueError:
        return (command,), True
    operators = any(word and set(word) <= set(lexer.punctuation_chars) for word in arguments)
    return ((command,), True) if operators or not arguments or "=" in arguments[0] else (arguments, False)


async def _parsed(framework: frameworks.Framework, printed: str, benchmark: model.Benchmark) -> frameworks.Output:
    with _blamed(framework):
        if len(printed) <= PARSED_AT_ONCE:
            return framework.parse(printed, benchmark)
        return await anyio.to_thread.run_sync(framework.parse, printed, benchmark)


@contextlib.contextmanager
def _blamed(framework: frameworks.Framework) -> Iterator[None]:
    """What a plug-in raises that it should not is an error with its name, and takes nothing down."""
    try:
        yield
    except errors.AibenchdError:
        raise
    except Exception as error:
        log.exception("a framework failed", framework=framework.name)
        raise errors.CommandError(f"the framework {framework.name} failed: {type(error).__name__}: {error}") from error


def _spent(completed: Iterable[devices.Completed]) -> float:
    return sum(one.seconds for one in completed)


def _printed(completed: devices.Completed) -> str:
    # Caffe2's observer writes to stderr and PyTorch's to stdout: FAI-PEP reads both, and so do we.
    return "\n".join(filter(None, (completed.stdout, completed.stderr)))


def _gather(gathered: dict[str, model.Series], more: Sequence[model.Series]) -> bool:
    """Add the series of one more repeat; whether any sample came with it."""
    for series in more:
        before = gathered.get(series.key)
        if before is not None:
            series = dataclasses.replace(series, values=before.values + series.values)
        gathered[series.key] = series
    return any(series.values for series in more)


def _count(gathered: Mapping[str, model.Series]) -> float:
    """How many runs the samples are of, of the series that is decided on; of another only where the network has none.

    A program that sums its runs up in one sample says how many there were.
    """
    if model.NETWORK in gathered:
        runs = gathered.get("NET runs", model.Series("NET", "runs"))
        return max(float(len(gathered[model.NETWORK].values)), sum(runs.values))
    return max(len(series.values) for series in gathered.values())


def _mismatch(variant: model.Variant, framework: frameworks.Framework, backend: str) -> str:
    """Why it is not proven that the backend that was asked for executed; empty where it is, and where none was asked for."""
    if not variant.backend or backend == variant.backend:
        return ""
    if backend:
        return f"asked for the backend {variant.backend}, but {backend} executed"
    proof = framework.backends.get(variant.backend, frameworks.STATED)
    return f"asked for the backend {variant.backend}; the program does not say which one executed (expected: {proof})"


def _emptiness(series: Mapping[str, model.Series], benchmark: model.Benchmark) -> str:
    """Why the samples are of no use; empty where they are.

    Raises:
        CommandError: that is no program's fault. Were it an arm's, one that is over before the meter moves would be broken.
    """
    decisive = model.decisive(list(series.values()), benchmark.metric)
    if benchmark.metric == "power" and (decisive is None or not min(decisive.values) > 0):
        raise errors.CommandError(
            f"{benchmark.source}: {benchmark.identifier}: nothing measured the device's power; give the device a meter, or where"
            " it has one have the program run for longer"
        )
    outputs_alone = benchmark.metric == "error"  # which may have nothing to be laid beside before the other arm has run
    if not outputs_alone and not any(one.values for one in series.values()):
        return UNREAD
    if benchmark.metric == "delay" and (decisive is None or decisive.key != model.NETWORK):
        return f"the program printed no {model.NETWORK!r}, which the metric 'delay' is decided on"
    bad = next((one for one in series.values() if not all(map(math.isfinite, one.values))), None)
    if bad:
        return f"{bad.key} holds a value that is not finite"
    if decisive is None and not outputs_alone:
        return f"nothing that was printed is named {benchmark.metric!r}, which the test is decided on"
    if decisive and benchmark.metric == "accuracy" and min(decisive.values) < 0:
        return f"{decisive.key} holds {min(decisive.values):g}; an accuracy cannot be negative"
    if decisive and benchmark.metric in ("delay", "generic") and min(decisive.values) <= 0:
        return f"{decisive.key} holds {min(decisive.values):g}; what is decided on is compared as a ratio, and must be positive"
    return ""


def _explained(reason: str, completed: Sequence[devices.Completed], line: str) -> str:
    """Why what was printed is of no use, with what the device has to say of it, which is nearer than what we advise.

    Args:
        line: that could have been read; empty where none is known.
    """
    notes = dict.fromkeys(note for one in completed for note in one.notes)
    advice = [f"expected a line such as {line}"] if reason == UNREAD and line else []
    return "; ".join((reason, *(notes or advice))) if reason else ""


def _outcome(completed: Sequence[devices.Completed], reason: str) -> model.Outcome:
    if not reason:
        return model.Outcome.OK
    timed_out = bool(completed) and completed[-1].ending is devices.Ending.TIMED_OUT
    return model.Outcome.TIMED_OUT if timed_out else model.Outcome.FAILED


def _energy(energies: Sequence[metering.Energy]) -> list[model.Series]:
    """What the trial's processes took, where it was metered."""
    joules, seconds = sum(one.joules for one in energies), sum(one.seconds for one in energies)
    if not energies or not math.isfinite(joules) or seconds <= 0:
        return []
    return [model.Series("PROCESS", "energy", "J", (joules,)), model.Series("NET", "power", "W", (joules / seconds,))]


def _sizes(sizes: Mapping[str, float]) -> list[model.Series]:
    return [model.Series("PROCESS", name, "B", (size,)) for name, size in sizes.items()]


def _accounts(completed: Sequence[devices.Completed]) -> list[model.Series]:
    """What the kernel says of the trial's processes, as series of their own."""
    cpu = sum(one.cpu_seconds for one in completed)
    peak = max((one.peak_bytes for one in completed if math.isfinite(one.peak_bytes)), default=math.nan)
    accounts = (
        model.Series("PROCESS", "wall_time", "s", (_spent(completed),)),
        model.Series("PROCESS", "cpu_time", "s", (cpu,)),
        model.Series("PROCESS", "peak_memory", "B", (peak,)),
        model.Series("PROCESS", "instructions", "", (sum(one.instructions for one in completed),)),
    )
    return [series for series in accounts if math.isfinite(series.values[0])]
