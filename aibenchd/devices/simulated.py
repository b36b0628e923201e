"""A device that is none: what a program would have measured is drawn from a model of noise, drift, heat and failures.

For trying a configuration out, and for tests of scale: nothing is run. A build says what its program is like in a file
``simulated.json`` beside it, whose keys are those of :class:`Program`; where there is none, the device's settings say, and
the build's digest moves the latency by as much each time.

Everything is drawn from the seed, the device's name, the number of the session and the number of the run in it, so that the
same configuration sees the same figures, and an experiment that is resumed sees new ones.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import math
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Self, cast

import anyio
import anyio.to_thread
import pydantic

from aibenchd import errors, quantities
from aibenchd.devices import base

TRUTH = "simulated.json"  # in a build
ROOT = PurePosixPath("/simulated")  # what is pushed, as its paths read; nothing is there
MEMORY = "memory.json"  # what outlives a session, in the device's directory on this host
BUILDS = 1024  # whose words are remembered, of all devices together
PROGRAMS = 16  # read from their words at a time
TRUTH_BOUND = 64 << 10  # bytes
LOAD_SECONDS = 60.0  # over which the load is averaged
LOOK_SECONDS = 10.0  # that pass between two looks at the state where nothing is waited for, lest a gate waits for ever
REBOOT_SECONDS = 30.0
HANG_SECONDS = 30.0  # beyond a program's own timeout, after which a device that does not answer is given up
GOVERNORS = {"performance": max, "powersave": min}  # which frequency each holds

Share = Annotated[float, pydantic.Field(ge=0, le=1)]

_said: collections.OrderedDict[str, str] = collections.OrderedDict()  # by builds, as JSON; by digest as paths have it

_PUSHED = re.compile(rf"{ROOT}/([0-9a-f]{{32}})/")
_BACKEND = re.compile(r"--backend[= ](\w+)")


class Program(pydantic.BaseModel):
    """What programs are like."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    latency: Annotated[float, pydantic.Field(gt=0, description="µs, at rest and at the highest frequency")] = 1000.0
    noise: Annotated[float, pydantic.Field(ge=0, lt=1, description="of one process to the next: relative standard deviation")] = (
        0.01
    )
    jitter: Annotated[float, pydantic.Field(ge=0, lt=1, description="of one sample to the next within a process: the same")] = (
        0.01
    )
    samples: Annotated[int, pydantic.Field(ge=1, le=100_000, description="that a process prints")] = 8
    seconds: Annotated[float, pydantic.Field(gt=0, description="simulated, that a process takes")] = 1.0
    fails: Annotated[Share, pydantic.Field(description="of its runs: with exit code 1")] = 0.0
    times_out: Annotated[Share, pydantic.Field(description="of its runs: never ends by itself")] = 0.0
    loses: Annotated[Share, pydantic.Field(description="of its runs: the device is lost meanwhile")] = 0.0
    hangs: Annotated[Share, pydantic.Field(description="of its runs: the device stops answering, and is then lost")] = 0.0

    @pydantic.model_validator(mode="after")
    def _one_ending(self) -> Self:
        if self.fails + self.times_out + self.loses + self.hangs > 1:
            raise ValueError("fails, times_out, loses and hangs are shares of the same runs: together at most 1")
        return self


class Heat(pydantic.BaseModel):
    """How a device warms up, and what it does about it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    ambient: Annotated[float, pydantic.Field(description="°C")] = 25.0
    rise: Annotated[float, pydantic.Field(ge=0, description="°C above ambient, of a device that is always busy")] = 30.0
    time_constant: Annotated[quantities.Interval, pydantic.Field(description="simulated, of warming up and cooling down")] = 120.0
    throttles_at: Annotated[float | None, pydantic.Field(description="°C from which on it is slower; null: never")] = None
    slowdown: Annotated[float, pydantic.Field(ge=1, description="by which latencies are then multiplied")] = 1.5


class Settings(base.DeviceSettings):
    """Keys of a device of the kind ``simulated``."""

    seed: Annotated[int, pydantic.Field(description="of all that is drawn; the device's name is part of it")] = 0
    pace: Annotated[float, pydantic.Field(ge=0, description="real seconds for each simulated one; 0: nothing is waited for")] = (
        0.0
    )
    program: Annotated[Program, pydantic.Field(description="what programs are like whose builds do not say it")] = Program()
    spread: Annotated[
        float, pydantic.Field(ge=0, lt=1, description="relative standard deviation of the latencies of builds that do not say it")
    ] = 0.0
    drift: Annotated[
        float,
        pydantic.Field(gt=-0.01, lt=10, description="of all latencies, per simulated hour since it was started: 0.01 is 1 %"),
    ] = 0.0
    heat: Annotated[Heat, pydantic.Field(description="how it warms up, and what it does about it")] = Heat()
    frequencies: Annotated[
        tuple[Annotated[int, pydantic.Field(gt=0)], ...], pydantic.Field(min_length=1, description="Hz that it can run at")
    ] = (1_000_000_000, 1_500_000_000, 2_000_000_000)
    away: Annotated[quantities.Duration, pydantic.Field(description="simulated, for which a lost device cannot be reached")] = 0.0


class Simulated(base.Device):
    """What of it outlives a session lies in its directory, as a device keeps its frequency when we are gone."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings

    def __init__(self, settings: base.DeviceSettings, state_directory: Path, run: base.RunSettings) -> None:
        super().__init__(settings, state_directory, run)
        chosen = cast("Settings", settings)
        self._body = Body(chosen, Clock(chosen.pace))

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._session()

    async def reach(self) -> None:
        """Only whether it is away, and what it can be had as: a session would count."""
        found = errors.Gathering()
        with found.look():
            self._body.look()
        with found.look():
            await self.agree(SimulatedSession(self._body, Memory(), self.state_directory / MEMORY))
        found.tell()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[base.Session]:
        self._body.look()
        file = self.state_directory / MEMORY
        try:
            memory = await anyio.to_thread.run_sync(_recall, file)
            memory.sessions += 1
            await anyio.to_thread.run_sync(_keep, file, memory)
        except (OSError, ValueError, TypeError) as error:
            raise errors.DeviceLostError(f"{self.settings.name}: {file}: {error}; remove it") from error
        yield SimulatedSession(self._body, memory, file)


@dataclass(slots=True)
class Memory:
    """What a device remembers without power.

    Attributes:
        sessions: how many there were, this one among them.
        frequency: Hz that it is held at; 0: as the governor has it.
    """

    sessions: int = 0
    frequency: int = 0
    governor: str = "performance"


class Clock:
    """Simulated seconds: real ones by the pace; where nothing is waited for, those that were spent."""

    def __init__(self, pace: float) -> None:
        self._pace, self._spent, self._began = pace, 0.0, time.monotonic()

    @property
    def waits(self) -> bool:
        """Whether simulated seconds take real ones."""
        return self._pace > 0

    def now(self) -> float:
        """Simulated seconds since it was made."""
        return (time.monotonic() - self._began) / self._pace if self.waits else self._spent

    async def spend(self, seconds: float) -> None:
        """Let so many simulated seconds pass."""
        self._spent += seconds
        await anyio.sleep(seconds * self._pace)


@dataclass(slots=True)
class Body:
    """The physics of a device, which goes on between its sessions.

    Attributes:
        temperature: °C, when it was last ``seen``.
        load: share of the last minute in which it was busy, then.
        started: when drift began.
        back: when it can be reached again.
    """

    settings: Settings
    clock: Clock
    temperature: float = math.nan
    load: float = 0.0
    seen: float = 0.0
    started: float = 0.0
    back: float = 0.0

    def __post_init__(self) -> None:
        self.temperature = self.settings.heat.ambient

    @property
    def throttled(self) -> bool:
        """Whether it was too hot for its full speed when it was last seen."""
        limit = self.settings.heat.throttles_at
        return limit is not None and self.temperature >= limit

    @property
    def slowness(self) -> float:
        """By which a latency at rest is multiplied now, at the highest frequency."""
        drifted = 1 + self.settings.drift * (self.clock.now() - self.started) / 3600
        return max(drifted, 0.01) * (self.settings.heat.slowdown if self.throttled else 1.0)

    def idle(self) -> None:
        """It has done nothing since it was last seen."""
        self._pass(self.clock.now() - self.seen, busy=0.0)

    async def busy(self, seconds: float, effort: float = 1.0) -> None:
        """It works for so long; ``effort`` is what share of the full heat that gives."""
        self.idle()
        await self.clock.spend(seconds)
        self._pass(seconds, busy=1.0, effort=effort)

    def look(self) -> None:
        """Raises DeviceLostError where it is away."""
        if self.clock.waits and self.clock.now() < self.back:
            raise errors.DeviceLostError(
                f"{self.settings.name}: simulated: away for {self.back - self.clock.now():.0f} simulated seconds more"
            )

    def lose(self, why: str) -> errors.DeviceLostError:
        """It is away from now on, for as long as configured; what to raise."""
        self.back = self.clock.now() + self.settings.away
        return errors.DeviceLostError(f"{self.settings.name}: simulated: {why}")

    def _pass(self, seconds: float, *, busy: float, effort: float = 1.0) -> None:
        heat = self.settings.heat
        self.temperature = _nearer(self.temperature, heat.ambient + heat.rise * busy * effort, seconds, heat.time_constant)
        self.load = _nearer(self.load, busy, seconds, LOAD_SECONDS)
        self.seen = max(self.clock.now(), self.seen + seconds)


class SimulatedSession(base.Session):
    """See :class:`aibenchd.devices.base.Session`."""

    unprofiled = "the device is simulated: no program runs on it that could be profiled"

    def __init__(self, body: Body, memory: Memory, file: Path) -> None:
        self._body, self._memory, self._file = body, memory, file
        self._settings = body.settings
        self._runs = 0

    async def push(self, push: base.Push) -> PurePosixPath:
        digest = push.digest[:32]
        if digest not in _said and await anyio.to_thread.run_sync(push.source.is_dir):
            said = await anyio.to_thread.run_sync(_truth, push.source / TRUTH)
            self._like(digest, said)  # it must be good
            _said[digest] = said
            while len(_said) > BUILDS:
                _said.popitem(last=False)
        return ROOT / digest / base.file_name(push.name)

    async def directory(self, name: str) -> PurePosixPath:
        return ROOT / base.file_name(name)

    async def run(self, command: base.Command) -> base.Completed:
        text = " ".join(command.argv)
        program = self._named(text)
        self._runs += 1
        draw = self._rng(f"{self._memory.sessions}:{self._runs}")
        ways = {
            self._fails: program.fails,
            self._times_out: program.times_out,
            self._loses: program.loses,
            self._hangs: program.hangs,
        }
        ways[self._measures] = max(1 - sum(ways.values()), 0.0)
        (way,) = draw.choices(list(ways), list(ways.values()))
        return await way(_Run(command, text, program, draw))

    async def pull(self, source: PurePosixPath, target: Path) -> None:  # noqa: ARG002
        raise errors.CommandError(f"{source}: a simulated device writes no file; leave output_files out on it")

    async def remove(self, path: PurePosixPath) -> None:
        pass

    async def health(self) -> None:
        self._body.look()

    async def fingerprint(self) -> Mapping[str, str]:
        return {
            "model": "simulated",
            "hash": self._settings.name,
            "abi": "none",
            "os": "none",
            "cpu": f"seed {self._settings.seed}",
            "governor": self._memory.governor,
            **({"frequency": f"{self._memory.frequency} Hz"} if self._memory.frequency else {}),  # that it is held at
        }

    async def state(self) -> Mapping[str, str]:
        if not self._body.clock.waits:
            await self._body.clock.spend(LOOK_SECONDS)
        self._body.idle()
        limit = self._settings.heat.throttles_at
        return {
            "temperature": f"{self._body.temperature:.1f}",
            "load": f"{self._body.load:.2f}",
            "throttled": f"{self._body.temperature:.1f} °C are above {limit:g}" if self._body.throttled else "",
            "frequency": f"{self._frequency} Hz",
        }

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        found = []
        if wanted.frequency:
            found.append(_change("frequency", self._memory.frequency, self._chosen(wanted.frequency)))
        if wanted.governor:
            if wanted.governor not in GOVERNORS:
                raise errors.CommandError(
                    f"{self._settings.name}: no governor {wanted.governor!r}; a simulated device has {', '.join(GOVERNORS)}"
                )
            found.append(_change("governor", self._memory.governor, wanted.governor))
        return [change for change in found if change.do != change.undo]

    async def apply(self, action: base.Action) -> None:
        if action.get("verb") != "set" or action.get("key") not in ("frequency", "governor"):
            await super().apply(action)
        self._body.look()
        setattr(self._memory, action["key"], action["value"])
        await self._remember()

    async def reboot(self) -> None:
        await self._body.clock.spend(REBOOT_SECONDS)
        self._body.idle()
        self._body.started = self._body.clock.now()
        self._memory.frequency, self._memory.governor = Memory().frequency, Memory().governor
        await self._remember()

    @property
    def _frequency(self) -> int:
        return self._memory.frequency or GOVERNORS[self._memory.governor](self._settings.frequencies)

    def _chosen(self, frequency: str) -> int:
        """Hz of max, min, mid or a number."""
        offered = sorted(self._settings.frequencies)
        named = {"max": offered[-1], "min": offered[0], "mid": offered[len(offered) // 2]}
        hertz = named.get(frequency) or int(frequency)
        if hertz not in offered:
            raise errors.CommandError(
                f"{self._settings.name}: cannot run at {hertz} Hz; it has {', '.join(map(str, offered))}: see its frequencies"
            )
        return hertz

    def _rng(self, what: str) -> random.Random:
        return random.Random(f"{self._settings.seed}:{self._settings.name}:{what}")  # noqa: S311  the same on every run is the point

    async def _remember(self) -> None:
        await anyio.to_thread.run_sync(_keep, self._file, self._memory)

    def _like(self, digest: str, said: str) -> Program:
        """What a build's program is like."""
        return _program(self._settings.program, self._settings.spread, digest, said)

    def _named(self, text: str) -> Program:
        """What the program is like of the build that a command names."""
        digests = _PUSHED.findall(text)
        for digest in digests:
            if digest in _said:
                _said.move_to_end(digest)
                return self._like(digest, _said[digest])
        if digests:
            raise errors.HarnessError(f"{self._settings.name}: {text[:200]!r} names no build that is remembered; push it again")
        return self._settings.program

    # ---- how runs end

    async def _measures(self, run: _Run) -> base.Completed:
        slow = self._body.slowness * max(self._settings.frequencies) / self._frequency
        if run.program.seconds * slow > run.command.timeout:
            return await self._times_out(run)
        level = run.program.latency * slow * _factor(run.draw, run.program.noise)
        values = [level * _factor(run.draw, run.program.jitter) for _ in range(run.program.samples)]
        await self._work(run.program.seconds * slow)
        return _completed(base.Ending.EXITED, 0, run.program.seconds * slow, stdout=_printed(values, run.text))

    async def _fails(self, run: _Run) -> base.Completed:
        seconds = run.program.seconds * run.draw.random()
        await self._work(seconds)
        return _completed(base.Ending.EXITED, 1, seconds, stderr="simulated: this run fails\n")

    async def _times_out(self, run: _Run) -> base.Completed:
        await self._work(run.command.timeout)
        return _completed(base.Ending.TIMED_OUT, 9, run.command.timeout)

    async def _loses(self, run: _Run) -> base.Completed:
        await self._work(run.program.seconds * run.draw.random())
        raise self._body.lose("lost during a run")

    async def _hangs(self, run: _Run) -> base.Completed:
        await self._work(run.command.timeout + HANG_SECONDS)
        raise self._body.lose("does not answer any more")

    async def _work(self, seconds: float) -> None:
        await self._body.busy(seconds, effort=self._frequency / max(self._settings.frequencies))


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: its command, also as one text, what its program is like, and what it draws from."""

    command: base.Command
    text: str
    program: Program
    draw: random.Random


def _factor(draw: random.Random, deviation: float) -> float:
    """Around 1, and never 0."""
    return math.exp(deviation * draw.gauss(0, 1))


def _nearer(value: float, target: float, seconds: float, time_constant: float) -> float:
    return target + (value - target) * math.exp(-seconds / time_constant)


def _printed(values: Sequence[float], text: str) -> str:
    """Observer lines. It has no backends, and states the one that it was asked for."""
    records: list[dict[str, Any]] = [{"type": "NET", "metric": "latency", "unit": "us", "values": values}]
    if asked := _BACKEND.search(text):
        records.append({"type": "NET", "metric": "backend", "unit": "", "info_string": asked[1]})
    return "".join(f"PyTorchObserver {json.dumps(record)}\n" for record in records)


def _completed(ending: base.Ending, code: int, seconds: float, stdout: str = "", stderr: str = "") -> base.Completed:
    return base.Completed(ending, code, stdout, stderr, seconds, cpu_seconds=seconds)


def _change(key: str, before: int | str, after: int | str) -> base.Change:
    return base.Change({"verb": "set", "key": key, "value": after}, {"verb": "set", "key": key, "value": before})


@functools.lru_cache(PROGRAMS)
def _program(usual: Program, spread: float, digest: str, said: str) -> Program:
    """What a build's program is like: as it says, else as its digest has it."""
    moved = usual.latency * math.exp(spread * random.Random(digest).gauss(0, 1))  # noqa: S311
    try:
        return Program.model_validate({**usual.model_dump(), "latency": moved, **json.loads(said)}, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        known = ", ".join(Program.model_fields)
        raise errors.CommandError(f"the {TRUTH} of build {digest}: {key}: {first['msg']}; its keys are {known}") from error


def _truth(file: Path) -> str:
    """What a build says, an object in JSON; an empty one where it has no such file. Blocking."""
    try:
        with file.open("rb") as opened:
            said = json.loads(opened.read(TRUTH_BOUND))
    except FileNotFoundError:
        return "{}"
    except (OSError, ValueError) as error:
        raise errors.CommandError(f"{file}: cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise errors.CommandError(f"{file}: expected an object with keys such as latency")
    return json.dumps(said)


def _recall(file: Path) -> Memory:
    """Blocking."""
    return Memory(**json.loads(file.read_bytes())) if file.exists() else Memory()


def _keep(file: Path, memory: Memory) -> None:
    """Blocking."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(memory)))
    partial.replace(file)
