"""What a device is to the rest of the house, and what a kind of device must provide.

A kind is one file with one class derived from :class:`Device`, and one line under ``aibenchd.devices`` in its
package's entry points.
"""

from __future__ import annotations

import abc
import contextlib
import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Self, TypeAlias

import pydantic

from aibenchd import errors, plugins, quantities

SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
LAST_WORDS = 500  # characters of what a failed process printed
LIMITS = {"max_temperature": "temperature", "max_load": "load", "min_battery": "battery"}  # of conditioning, on what of a state
TAIL = 4  # of a serial number, in the name of what was found
UNTOLD = "the device does not tell its {}; remove conditioning.{}{}"


class RunSettings(pydantic.BaseModel):
    """Who programs run as on this host, builds and trials alike."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    user: Annotated[str, pydantic.Field(description="needs a daemon that is root; empty: the daemon's own user")] = ""
    launcher: Annotated[
        Path | None, pydantic.Field(description="socket of a launcher that runs as another user, as systemd starts it")
    ] = None

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.user and self.launcher:
            raise ValueError("user and launcher exclude each other: a launcher behind a socket runs as its own user; remove one")
        return self


class MeterSettings(pydantic.BaseModel):
    """How a device's energy is measured."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: Annotated[
        str,
        pydantic.Field(
            description="rapl: this host's processor; nvml: an NVIDIA GPU; battery: the device's own; program: it prints watts"
        ),
    ]
    command: Annotated[
        tuple[str, ...], pydantic.Field(description="of the kind program: what prints watts, one number a row, until SIGTERM")
    ] = ()
    gpu: Annotated[str, pydantic.Field(description="of the kind nvml: the GPU's index or UUID")] = ""
    helper: Annotated[
        Path | None, pydantic.Field(description="of the kind rapl: socket of aibenchd-helper, where only root may read counters")
    ] = None

    @pydantic.model_validator(mode="after")
    def _something_to_meter(self) -> Self:
        if self.kind == "program" and not self.command:
            raise ValueError("a meter of the kind program needs its command, a list")
        if self.kind == "nvml" and not self.gpu:
            raise ValueError("a meter of the kind nvml needs its gpu, an index or UUID as nvidia-smi -L shows them")
        return self


def _hertz(value: Any) -> Any:
    """A number of Hz as the text that it may be given as; one with another unit is refused with what it comes to."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not float(value).is_integer():
            raise ValueError("expected max, min, mid or a number of Hz")
        return str(int(value))
    if isinstance(value, str) and (match := _WITH_UNIT.fullmatch(value)):
        hertz = round(float(match[1]) * _PREFIXES[match[2].lower()])
        raise ValueError(f"expected max, min, mid or a number of Hz, not {value!r}; write it as {hertz}")
    return value


_WITH_UNIT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kmg]?)hz", re.IGNORECASE)
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_FREQUENCY = r"^$|^(max|min|mid|[1-9][0-9]*)$"
_NumberOrText = Annotated[int, pydantic.Field(ge=1)] | Annotated[str, pydantic.Field(pattern=_FREQUENCY)]


class Conditioning(pydantic.BaseModel):
    """What is seen to before blocks, and what a device is changed to while experiments run on it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    frequency: Annotated[
        str,
        pydantic.BeforeValidator(_hertz, json_schema_input_type=_NumberOrText),
        pydantic.Field(pattern=_FREQUENCY, description="of the CPUs: max, min, mid or Hz; empty: left alone"),
    ] = ""
    governor: Annotated[
        str, pydantic.Field(pattern=r"^[a-z_]*$", description="of the CPUs, such as performance; empty: left alone")
    ] = ""
    max_temperature: Annotated[
        float | None, pydantic.Field(gt=0, description="°C above which no block begins; null: whatever it is")
    ] = None
    max_load: Annotated[
        float | None, pydantic.Field(ge=0, description="of the last minute, above which no block begins; null: whatever it is")
    ] = None
    min_battery: Annotated[float | None, pydantic.Field(ge=0, le=100, description="percent below which no block begins")] = None
    max_wait: Annotated[quantities.Interval, pydantic.Field(description="for these, before it is shown as a fault")] = 600.0
    reboot: Annotated[bool, pydantic.Field(description="before each experiment's first block")] = False
    warm_up: Annotated[
        int, pydantic.Field(ge=0, le=100, description="trials of each arm before an experiment's first block, thrown away")
    ] = 0


class DeviceSettings(pydantic.BaseModel):
    """What every kind of device has in the YAML file; a kind adds its own keys by deriving from it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: Annotated[
        str,
        pydantic.Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64, description="what benchmarks, status and records call it"
        ),
    ]
    kind: Annotated[str, pydantic.Field(description="how it is reached; decides which other keys there are")]
    platform: Annotated[str, pydantic.Field(description="picks specifications/frameworks/<framework>/<platform>/build.sh")] = (
        "host"
    )
    tags: Annotated[tuple[str, ...], pydantic.Field(description="words of your own that benchmarks may choose it by")] = ()
    backends: Annotated[
        tuple[str, ...],
        pydantic.Field(
            description="what it can run; each is measured where a benchmark names none; empty: whatever a benchmark asks for"
        ),
    ] = ()
    cpus: Annotated[
        tuple[Annotated[int, pydantic.Field(ge=0, le=8191)], ...],
        pydantic.Field(description="CPUs that trials run on; empty: all"),
    ] = ()
    env: Annotated[dict[str, str], pydantic.Field(description="environment of every program on this device")] = {}
    cooldown: Annotated[quantities.Duration, pydantic.Field(description="pause before each trial")] = 0.0
    conditioning: Annotated[Conditioning, pydantic.Field(description="what is seen to before blocks")] = Conditioning()
    quarantine_after: Annotated[
        int,
        pydantic.Field(
            ge=1,
            le=1_000_000,
            description="failures in a row that are not a program's, nor of connecting again to what is lost; then it is only"
            " probed."
            " An experiment whose programs lose it as often in a row ends",
        ),
    ] = 5
    meter: Annotated[
        MeterSettings | None,
        pydantic.Field(description="of its energy; default: the kernel's counters, on this host, where all may read"),
    ] = None

    @pydantic.field_validator("cpus")
    @classmethod
    def _each_once(cls, cpus: tuple[int, ...]) -> tuple[int, ...]:
        twice = next((cpu for place, cpu in enumerate(cpus) if cpu in cpus[:place]), None)
        if twice is not None:
            raise ValueError(f"CPU {twice} is named twice; name each once")
        return cpus


class FiledSettings(DeviceSettings):
    """Of a device whose files we keep: what is pushed stays there, and so does what programs leave, within bounds."""

    store_size: Annotated[quantities.Size, pydantic.Field(description="of what is pushed; the least recently used goes")] = (
        10 << 30
    )
    pull_limit: Annotated[quantities.Size, pydantic.Field(description="of one file that a program wrote")] = 1 << 30
    minimum_free: Annotated[quantities.Size, pydantic.Field(description="disk space without which no block is run")] = 1 << 30
    disturb_size: Annotated[
        quantities.Size,
        pydantic.Field(ge=1 << 20, description="memory written before each trial; more than the last cache holds"),
    ] = 64 << 20


Action: TypeAlias = Mapping[str, Any]  # JSON, with a ``verb`` that the device's kind knows; kept in the journal


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is changed on a device, and how it is undone; ``undo`` is journalled before ``do`` is done."""

    do: Action
    undo: Action


@dataclass(frozen=True, slots=True)
class Push:
    """One file or directory to be on the device.

    Attributes:
        source: on this host. A directory is pushed with all that is in it.
        digest: of its bytes (a directory's: :func:`aibenchd.digests.of_tree`); what is there under it already is not sent again.
        name: the file name it must have on the device.
    """

    source: Path
    digest: str
    name: str


@dataclass(frozen=True, slots=True)
class Command:
    """One process to run on a device.

    Attributes:
        argv: the argument list; or, where ``shell``, one text in the device's shell language.
        cwd: an absolute path on the device.
        env: added to the device's own small environment.
        cpus: CPUs it may run on; empty: all.
        timeout: seconds, after which it is killed with all its children.
        output_limit: bytes kept of each of stdout and stderr: the first half and the last half; what is cut is said.
    """

    argv: tuple[str, ...]
    cwd: PurePosixPath
    shell: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    timeout: float = 3600.0
    output_limit: int = 16 << 20


@dataclass(frozen=True, slots=True)
class App:
    """An Android app that is a benchmark: its package, and the activity of it that is started."""

    package: str
    activity: str


class Ending(enum.StrEnum):
    """How a process ended, as its device saw it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Completed:
    """A process that has ended.

    Attributes:
        code: exit status, or the signal's number where it was signalled; the status is 0 for success.
        stdout, stderr: decoded, undecodable bytes replaced, bounded by the command's ``output_limit``.
        seconds: wall time on the device.
        cpu_seconds: user and system time of all its processes, from the kernel; NaN where it is not known.
        peak_bytes: the most memory its processes held at once; NaN where the kernel cannot tell.
        instructions: that all its processes retired outside the kernel; NaN where the kernel does not count them.
        notes: what the device itself has to say of what was printed, for a person.
    """

    ending: Ending
    code: int
    stdout: str
    stderr: str
    seconds: float
    cpu_seconds: float = float("nan")
    peak_bytes: float = float("nan")
    instructions: float = float("nan")
    notes: tuple[str, ...] = ()

    @property
    def failure(self) -> str:
        """Why it counts as failed, with its last words; empty where it does not."""
        if self.ending is Ending.TIMED_OUT:
            return f"timed out after {self.seconds:.0f} s"
        if self.ending is Ending.EXITED and self.code == 0:
            return ""
        how = f"exit code {self.code}" if self.ending is Ending.EXITED else f"killed by signal {self.code}"
        said = last_words(self.stderr) or last_words(self.stdout)
        return f"{how}: {said}" if said else how


def last_words(text: str) -> str:
    """The last rows of what a process printed, whole ones where they fit in :data:`LAST_WORDS` characters.

    Not how it is used, where it says more than that: the reason comes last, and would be lost behind it.
    """
    end = text.rstrip()[-_END:] + "\n"
    told = _USAGE.sub("", end)
    rows = [" ".join(row.split()) for row in (told if told.strip() else end).splitlines() if row.strip()]
    kept = rows[-1:]
    for row in reversed(rows[:-1]):
        if sum(map(len, kept)) + len(kept) + len(row) > LAST_WORDS:
            break
        kept.insert(0, row)
    return "\n".join(kept)[-LAST_WORDS:]


_END = 16 << 10  # characters that are looked at: the event loop has no time for all
_USAGE = re.compile(r"^usage: .*\n(?:[ \t].*\n)*", re.MULTILINE | re.IGNORECASE)  # as argparse prints it before what is wrong


class Session(abc.ABC):
    """A device in hand. One caller at a time, one program at a time.

    Every method may raise :class:`~aibenchd.errors.DeviceLostError` (the session is then of no more use) and
    :class:`~aibenchd.errors.HarnessError`. A program that fails raises nothing: its :class:`Completed` says so.
    Cancelling a method leaves no process of it on the device. Nothing is guaranteed of what lies on the device
    between two sessions: push again, it costs little where the bytes are still there.

    Attributes:
        unprofiled: why no program can be profiled here; empty where one may be.
        more_state: how the device can be had to tell more of its :meth:`state`, as the end of a sentence; empty where it cannot.
    """

    unprofiled = ""
    more_state = ""

    @abc.abstractmethod
    async def push(self, push: Push) -> PurePosixPath:
        """Have a file or directory on the device; its path there: as long for every digest, ending in ``push.name``.

        Raises:
            CommandError: it cannot be pushed, such as a directory with a link that leads out of it.
        """

    @abc.abstractmethod
    async def directory(self, name: str) -> PurePosixPath:
        """An empty directory of that name, writable by programs; emptied if it was there."""

    @abc.abstractmethod
    async def run(self, command: Command) -> Completed:
        """Run one process to its end, or kill it and its children at its timeout."""

    def app_command(self, app: App, command: Command) -> Command:  # noqa: ARG002
        """What is run in place of ``command``, whose program is an app's package file, and whose options the app is handed.

        Raises:
            CommandError: this kind runs programs only, or the command is a shell's.
        """
        raise errors.CommandError(f"{app.package} is an Android app; this device runs programs")

    @abc.abstractmethod
    async def pull(self, source: PurePosixPath, target: Path) -> None:
        """Copy one file from the device to this host.

        Raises:
            CommandError: there is no such file, or it lies outside the device's directory.
        """

    @abc.abstractmethod
    async def remove(self, path: PurePosixPath) -> None:
        """Delete what a program left, if it is there."""

    @abc.abstractmethod
    async def health(self) -> None:
        """Look at the device now; returns where it can take a block, else raises DeviceLostError saying why."""

    @abc.abstractmethod
    async def fingerprint(self) -> Mapping[str, str]:
        """What it is, read now; quick, for it is asked before and after each block: what cannot change may be remembered.

        Names and values for a person. Those that the house knows: ``hash`` (what tells it from others of its sort), ``serial``,
        ``abi``, ``model``, ``release`` and ``sdk`` (of Android) are what benchmarks choose devices by; ``os`` is shown beside
        them; ``governor``, ``frequency`` (where it is held), ``turbo`` (on or off), ``siblings`` (CPUs of its trials that share
        a core with others) and ``swap`` tell of hazards. A block during which any of it changes does not count, so nothing may
        be in it that a program could bring about, such as heat or throttling: that is its :meth:`state`.
        """

    async def disturb(self) -> None:  # noqa: B027  a device without caches has nothing to do
        """Push the last trial out of the device's caches, the same for both arms."""

    async def state(self) -> Mapping[str, str]:
        """What of the device may be another from block to block, read now; quick, for it is asked before and after each block.

        Names that gates and reports know: ``temperature`` (°C, of the hottest part that counts), ``load`` (of the last minute),
        ``throttled`` (why it runs slower than it could; empty where it does not), ``battery`` (percent), and ``charge`` and
        ``voltage`` of the battery (coulombs left, volts), which a meter of its kind reads; others are shown.
        """
        return {}

    async def changes(self, wanted: Conditioning) -> Sequence[Change]:
        """What has to be changed to have the device as ``wanted``, with how to undo each; nothing is changed yet.

        Raises:
            CommandError: the device cannot be had so; the message says why.
        """
        if wanted.frequency or wanted.governor:
            raise errors.CommandError("the frequency of this kind of device cannot be set; remove it from its conditioning")
        return ()

    async def changes_to_profile(self) -> Sequence[Change]:
        """What has to be changed while profilers sample what runs on it, with how to undo each; nothing is changed yet."""
        return ()

    async def agree(self, wanted: Conditioning) -> None:
        """See that the device can be had as ``wanted``, for a person who asks before the daemon does; nothing is changed.

        Of the other methods only :meth:`changes` and :meth:`state` are called; a session need not be in hand for that, where
        its kind can do these without.

        Raises:
            CommandError: it cannot; the message says why.
            SeveralError: so more than once.
        """
        found = errors.Gathering()
        with found.look():
            if wanted.reboot and type(self).reboot is Session.reboot:
                await self.reboot()
        with found.look():
            await self.changes(wanted)
        with found.look():
            await self._agree_on_limits(wanted)
        found.tell()

    async def _agree_on_limits(self, wanted: Conditioning) -> None:
        limits = {limit: name for limit, name in LIMITS.items() if getattr(wanted, limit) is not None}
        state = await self.state() if limits else {}
        found = errors.Gathering()
        for limit, name in limits.items():
            with found.look():
                if not state.get(name):
                    raise errors.CommandError(UNTOLD.format(name, limit, self.more_state))
        found.tell()

    async def apply(self, action: Action) -> None:
        """Do what a :class:`Change` says, or undo it; after a crash also what an earlier session's said. Twice does no harm.

        Raises:
            CommandError: it is refused, and nothing was changed.
            HarnessError, DeviceLostError: it is not done, or not all of it, or nobody knows.
        """
        raise errors.HarnessError(f"this kind of device knows no action {action.get('verb')!r}")

    async def reboot(self) -> None:
        """Start the device anew; returns when it can be used again, and nothing that was pushed or changed need be there.

        Raises:
            CommandError: this kind cannot be rebooted.
        """
        raise errors.CommandError("this kind of device cannot be rebooted; remove reboot from its conditioning")


@dataclass(frozen=True, slots=True)
class Found:
    """What could be a device of this lab.

    Attributes:
        entry: its keys in the YAML file, ``name`` and ``kind`` first.
        about: what it is, or what has to be done before it can be used.
    """

    entry: Mapping[str, Any]
    about: str


def found_name(model: str, serial: str) -> str:
    """A name for what was found: what it is, and the end of its serial number, which tells those of one model apart."""
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {re.sub(r'[^A-Za-z0-9]', '', serial)[-TAIL:]}".lower()).strip("-")


class Device(abc.ABC):
    """One thing that runs exactly one program at a time.

    ``__init__`` takes its settings, a directory of its own on this host, and who programs run as on this host; it
    does no I/O. :meth:`session` is entered by one worker at a time, and entered again after a loss.
    """

    Settings: ClassVar[type[DeviceSettings]]
    on_this_host: bool = False  # whether its programs run on this host, where a build would disturb them
    on_another_host: ClassVar[bool] = False  # whether they surely run on another machine, whose energy nothing here can tell

    def __init__(self, settings: DeviceSettings, state_directory: Path, run: RunSettings) -> None:
        self.settings = settings
        self.state_directory = state_directory
        self.run = run

    @abc.abstractmethod
    def session(self) -> AbstractAsyncContextManager[Session]:
        """Connect to it.

        Raises:
            DeviceLostError: it cannot be reached; the message says what to do.
        """

    @classmethod
    async def discover(cls) -> Sequence[Found]:
        """What of this kind is within reach and needs no address to be found; for a person who writes a configuration.

        Raises:
            DeviceLostError: nobody can tell; the message says what to do.
        """
        return ()

    async def look_at_room(self) -> None:  # noqa: B027  a kind that keeps nothing on this host needs none
        """See that what is kept on this host has the space that is asked for; ``state_directory`` may not be there yet.

        Raises:
            HarnessError: it has not; the message says what to do.
        """

    async def agree(self, session: Session) -> None:
        """See that the device in hand can be had, and tells its energy, as its settings ask; a part of :meth:`reach`.

        Raises:
            CommandError: it cannot be had so (:meth:`Session.agree`).
            HarnessError: it is asked for its energy, and tells nothing.
            SeveralError: more than one of these.
        """
        found = errors.Gathering()
        with found.look():
            await session.agree(self.settings.conditioning)
        with found.look():
            await self._agree_on_meter(session)
        found.tell()

    async def _agree_on_meter(self, session: Session) -> None:
        meter = self.settings.meter
        if meter is not None:
            made: Any = plugins.load("meters", meter.kind)(meter)  # whose base class knows what a session is
            of_device = made.of(session)
            if of_device is not made:  # else it needs no device in hand, and is looked at by itself
                await of_device.look()

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Held for the length of one block; a kind whose devices share something waits here until the others are done with it."""
        return contextlib.nullcontext()

    async def reach(self) -> None:
        """Look whether a session could be had, for a person who asks before the daemon does.

        Another process may be at work on the device: a kind whose sessions change anything there must look otherwise.

        Raises:
            DeviceLostError: as :meth:`session` would.
            CommandError, HarnessError: it can be reached, and not be had as its settings ask (:meth:`agree`).
            SeveralError: more than one of these, so that a person mends all of them at once.
        """
        found = errors.Gathering()
        async with self.session() as session:
            with found.look():
                await session.health()
            with found.look():
                await self.agree(session)
        found.tell()


@contextlib.contextmanager
def about_words(*otherwise: str) -> Iterator[None]:
    """What a launcher or supervisor refuses is about the key that its advice ends with: it says so in words alone."""
    try:
        yield
    except errors.HarnessError as error:
        error.keys = error.keys or (("cpus",) if str(error).endswith("mend cpus") else otherwise)
        raise


def small_environment(cwd: PurePosixPath) -> dict[str, str]:
    """What every program gets: little, and the same for each arm of an experiment.

    PYTHONHASHSEED is not set, so each process draws its own: a fixed one would hold each arm to one order of its
    dictionaries for ever, which is an effect of the order and not of the arm.
    """
    return {
        "PATH": SEARCH_PATH,
        "HOME": str(cwd),
        "TMPDIR": str(cwd),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # else the first trial writes what later ones read
    }


def file_name(name: str) -> str:
    """``name``, where it names one entry of a directory.

    Raises:
        HarnessError: it would lead elsewhere.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise errors.HarnessError(f"{name!r} is no name of a file or directory: it must be one, without a slash")
    return name


def model_of(facts: Mapping[str, str]) -> str:
    """``<model>-<release>-<sdk>`` of a fingerprint, which FAI-PEP calls the kind of a phone; empty where it does not tell."""
    parts = [facts.get(name, "") for name in ("model", "release", "sdk")]
    return "-".join(parts) if all(parts) else ""


def platforms(devices: Sequence[DeviceSettings]) -> tuple[str, ...]:
    """The platforms that builds are needed for; sorted."""
    return tuple(sorted({device.platform for device in devices}))
