"""A device behind a vendor's command line tool, which is run on this host: DSPs, simulators, boards with a loader.

The YAML entry says what to run for each verb, as argument lists; nothing goes through a shell. Where it has ``push``,
``pull`` and ``remove``, the device has files of its own. Where it has not, it shares this host's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Self, cast

import anyio
import anyio.to_thread
import pydantic
import structlog

from aibenchd import errors, quantities
from aibenchd.devices import base, launching, local, pushed, sharing, vendoroutput, vendortool

VERBS = ("run", "push", "pull", "remove", "make", "stop", "health", "reset", "fingerprint", "state")
TOOL, PULLED = "tool", "pulled"  # directories on this host: where tools run, and what they bring
PROGRAMS, WORK = "programs", "work"  # below the device's directory, where it has files of its own
PARSED_AT_ONCE = 64 << 10  # characters; more would hold up the event loop
REMARKS = 100  # of one session that are logged, each once
PROBE_SECONDS = 2.0  # between two looks at a device that was reset

log = structlog.get_logger()

Verb = Annotated[tuple[Annotated[str, pydantic.AfterValidator(vendortool.template())], ...], pydantic.Field()]
To = Annotated[str, pydantic.AfterValidator(vendortool.template("target"))]
FromTo = Annotated[str, pydantic.AfterValidator(vendortool.template("source", "target"))]
OfRun = Annotated[str, pydantic.AfterValidator(vendortool.template("program", "arguments", "command", "directory", "env"))]


class Timeouts(pydantic.BaseModel):
    """After which a tool that still runs is killed with its children. A program's is its benchmark's."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    push: Annotated[quantities.Interval, pydantic.Field(description="of one file or directory")] = 600.0
    pull: Annotated[quantities.Interval, pydantic.Field(description="of one file")] = 600.0
    remove: Annotated[quantities.Interval, pydantic.Field(description="of a file or directory; that of make too")] = 60.0
    health: Annotated[quantities.Interval, pydantic.Field(description="that of fingerprint, state and stop too")] = 30.0
    reset: Annotated[quantities.Interval, pydantic.Field(description="until the device is healthy again")] = 600.0

    def of(self, verb: str) -> float:
        """Seconds that a verb has."""
        like = {"make": "remove", "fingerprint": "health", "state": "health", "stop": "health"}
        return float(getattr(self, like.get(verb, verb)))


class Settings(base.DeviceSettings):
    """Keys of a device of the kind ``vendor``."""

    run: Annotated[
        tuple[OfRun, ...],
        pydantic.Field(
            min_length=1,
            description="runs a program: {program} and {arguments}, or {command} as one text; {directory} to run it in; {env}, "
            "else the tool has the program's environment",
        ),
    ]
    push: Annotated[
        tuple[FromTo, ...],
        pydantic.Field(description="copies {source}, a file or directory of this host, to {target}; empty: files are shared"),
    ] = ()
    pull: Annotated[tuple[FromTo, ...], pydantic.Field(description="copies a file {source} of the device to {target}")] = ()
    remove: Annotated[tuple[To, ...], pydantic.Field(description="deletes {target} with all in it, if it is there")] = ()
    make: Annotated[
        tuple[To, ...], pydantic.Field(description="makes the directory {target} and those above it; empty: push does")
    ] = ()
    stop: Annotated[Verb, pydantic.Field(description="ends a program whose tool was killed; empty: it ends with the tool")] = ()
    health: Annotated[Verb, pydantic.Field(description="exit code 0 says that the device can be used")] = ()
    reset: Annotated[Verb, pydantic.Field(description="starts the device anew")] = ()
    fingerprint: Annotated[Verb, pydantic.Field(description="prints what the device is: rows 'name: value', or JSON")] = ()
    state: Annotated[
        Verb, pydantic.Field(description="prints its temperature, load, throttled, battery, as fingerprint does; quick")
    ] = ()
    directory: Annotated[
        Path | None,
        pydantic.Field(
            description="holds what is pushed and what programs write: of the device where it has files of its own, else of this "
            "host, and then by default below the state directory"
        ),
    ] = None
    exit_codes: Annotated[
        vendortool.ExitCodes, pydantic.Field(description="what they mean; of run, others are taken for the program's own")
    ] = vendortool.ExitCodes()
    metrics: Annotated[
        tuple[vendoroutput.Metric, ...],
        pydantic.Field(
            description="what samples look like in the tool's own text; a program that prints observer lines needs none"
        ),
    ] = ()
    timeouts: Annotated[Timeouts, pydantic.Field(description="of the verbs other than run")] = Timeouts()
    tool_env: Annotated[
        dict[str, str], pydantic.Field(default_factory=dict, description="environment of the tool itself, such as a licence's")
    ]
    lock: Annotated[
        str,
        pydantic.Field(
            description="devices that name the same lock, as those of one accelerator do, never work at the same time"
        ),
    ] = ""
    store_size: Annotated[
        quantities.Size, pydantic.Field(description="of what is pushed; the least recently used goes, or all at once on a device")
    ] = 10 << 30
    pull_limit: Annotated[quantities.Size, pydantic.Field(description="of one file that a program wrote")] = 1 << 30
    minimum_free: Annotated[
        quantities.Size, pydantic.Field(description="space on this host's disk without which nothing is run")
    ] = 1 << 30

    helper: Annotated[
        Path | None,
        pydantic.Field(description="of conditioning where files are shared: socket of aibenchd-helper, as of the kind local"),
    ] = None

    @property
    def has_files(self) -> bool:
        """Whether the device has files of its own."""
        return bool(self.push)

    @property
    def tools(self) -> dict[str, str]:
        """The programs of this host that it needs, each with the first verb that is done by it."""
        first = {verb: argv[0] for verb in VERBS if (argv := getattr(self, verb))}
        return {tool: verb for verb, tool in reversed(first.items()) if not vendortool.names(tool)}

    @pydantic.field_validator("run")
    @classmethod
    def _runs_something(cls, run: tuple[str, ...]) -> tuple[str, ...]:
        named = {name for argument in run for name in vendortool.names(argument)}
        if "command" not in named and not {"program", "arguments"} <= named:
            raise ValueError("must name {program} and {arguments}, or {command}, which is both as one text")
        if {"command", "arguments"} <= named:
            raise ValueError("names {command}, which is program and arguments as one text, beside {arguments}; remove one")
        return run

    @pydantic.field_validator("push", "pull", "remove", "make")
    @classmethod
    def _says_what(cls, verb: tuple[str, ...], info: pydantic.ValidationInfo) -> tuple[str, ...]:
        wanted = ("source", "target") if info.field_name in ("push", "pull") else ("target",)
        named = {name for argument in verb for name in vendortool.names(argument)}
        missing = [f"{{{name}}}" for name in wanted if name not in named]
        if verb and missing:
            raise ValueError(f"must name {' and '.join(missing)}, so that the tool is told which file; add it")
        return verb

    @pydantic.model_validator(mode="after")
    def _files_are_here_or_there(self) -> Self:
        given = [name for name in ("push", "pull", "remove") if getattr(self, name)]
        if given and len(given) < 3:
            raise ValueError(f"push, pull and remove go together, but only {' and '.join(given)} is given")
        if self.push and (self.directory is None or not self.directory.is_absolute()):
            raise ValueError("a device with push has files of its own: the key 'directory' must be an absolute path there")
        if self.conditioning.reboot and not self.reset:
            raise ValueError("conditioning.reboot needs the verb reset, which starts the device anew; add it, or remove reboot")
        if self.make and not self.push:
            raise ValueError("make is of a device with files of its own; remove it, or add push, pull and remove")
        return self


class Vendor(base.Device):
    """A device that is used by running a tool on this host, one at a time."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings

    def __init__(self, settings: base.DeviceSettings, state_directory: Path, run: base.RunSettings) -> None:
        super().__init__(settings, state_directory, run)
        self.chosen = cast("Settings", settings)
        self.on_this_host = not self.chosen.has_files

    def turn(self) -> AbstractAsyncContextManager[None]:
        return sharing.alone(self.chosen.lock)

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._session()

    async def reach(self) -> None:
        """Look whether the tools are there, and ask for the device's health; its files are left alone."""
        name, found = self.chosen.name, errors.Gathering()
        here = local.Local(self._host_settings(), self.state_directory, self.run)
        with found.look():
            await here.reach()
        with found.look(), local.lost(name):
            async with launching.Launcher(self.run) as launcher:
                tool = Tool(self.chosen, launcher.run, PurePosixPath("/"))
                with found.look(), local.lost(name):
                    await tool.try_out()
                with found.look(), local.lost(name):
                    await self.agree(self._served(here.served(launcher), tool))
        found.tell()

    async def look_at_room(self) -> None:
        await local.Local(self._host_settings(), self.state_directory, self.run).look_at_room()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[base.Session]:
        async with local.Local(self._host_settings(), self.state_directory, self.run).session() as host:
            tool = Tool(self.chosen, host.run, await host.directory(TOOL))
            session = self._served(host, tool)
            await session.open()
            yield session

    def _served(self, host: base.Session, tool: Tool) -> VendorSession:
        return (_There if self.chosen.has_files else _Here)(self.chosen, host, tool)

    def _host_settings(self) -> local.Settings:
        """This host, as the tools and the files that they take see it."""
        chosen = self.chosen
        same = ("cpus", "store_size", "pull_limit", "minimum_free", "helper")
        directory = None if chosen.has_files else chosen.directory
        shared = {"directory": directory, **{key: getattr(chosen, key) for key in same}}
        return local.Settings(name=chosen.name, kind="local").model_copy(update=shared)


class Tool:
    """The tool of one device. ``execute`` runs a process on this host; ``cwd`` is where tools run."""

    def __init__(
        self, settings: Settings, execute: Callable[[base.Command], Awaitable[base.Completed]], cwd: PurePosixPath
    ) -> None:
        self._settings, self._execute, self._cwd = settings, execute, cwd
        self._env = {"PATH": base.SEARCH_PATH, **settings.tool_env}
        self._remarked: set[str] = set()

    async def look(self) -> None:
        """See that all that is needed is on this host, and that the device says that it is healthy.

        Where another device is at work on what they share, it must be: nothing is asked then.

        Raises:
            DeviceLostError: it is not.
        """
        settings = self._settings
        if missing := await self._missing():
            raise errors.DeviceLostError(f"{settings.name}: {'; '.join(missing.values())}").at(next(iter(missing)))
        if settings.health and not sharing.taken(settings.lock):
            with errors.about("health"):
                await self.ask("health", errors.DeviceLostError)

    async def try_out(self) -> None:
        """As :meth:`look`, and see that what the device says of itself is understood.

        Raises:
            DeviceLostError, HarnessError: it is not, or a verb fails.
            SeveralError: so more than once, or more than one tool is missing.
        """
        found = errors.Gathering()
        missing = await self._missing()
        for verb, said in missing.items():
            with found.look():
                raise errors.DeviceLostError(f"{self._settings.name}: {said}").at(verb)
        if not missing:
            with found.look():
                await self.look()
            for verb in () if sharing.taken(self._settings.lock) else ("fingerprint", "state"):
                with found.look(), errors.about(verb):
                    await self._understood(verb)
        found.tell()

    async def _understood(self, verb: str) -> None:
        said = await self.facts(verb)
        for name in vendoroutput.no_numbers(said):
            reason = f"expected {name} to be a number, found {said[name][: vendoroutput.SHOWN]!r}"
            raise errors.DeviceLostError(f"{self._settings.name}: {verb}: {reason}")

    async def ask(self, verb: str, failed: type[errors.AibenchdError], **values: str) -> str:
        """Run what a verb names; what it printed.

        Raises:
            DeviceLostError: the exit code says so, or the tool does not end.
            HarnessError: the exit code says so.
            AibenchdError: of the type ``failed``: any other exit code but those that say success.
        """
        timeout = self._settings.timeouts.of(verb)
        argv = self._filled(verb, {**values, "timeout": vendortool.seconds(timeout)})
        what = f"{self._settings.name}: {verb}: {shlex.join(argv)[: base.LAST_WORDS]}"
        command = base.Command(argv, self._cwd, env=self._env, timeout=timeout, output_limit=vendortool.LONGEST_ANSWER)
        async with sharing.alone(self._settings.lock):
            completed = await self._execute(command)
        if completed.ending is base.Ending.TIMED_OUT:
            raise errors.DeviceLostError(f"{what}: it hangs: killed after {timeout:g} s (timeouts)")
        meaning = self._settings.exit_codes.meaning(completed.code) if completed.ending is base.Ending.EXITED else None
        vendortool.raise_for(meaning, what, completed)
        if meaning is not vendortool.Meaning.OK:
            raise failed(f"{what}: {completed.failure}")
        return completed.stdout

    async def facts(self, verb: str) -> dict[str, str]:
        """What a verb says of the device; nothing where it is not given.

        Raises:
            DeviceLostError: it fails, or prints something else.
            HarnessError: the exit code says so.
        """
        if not getattr(self._settings, verb):
            return {}
        try:
            return vendoroutput.facts(await self.ask(verb, errors.DeviceLostError))
        except ValueError as error:
            raise errors.DeviceLostError(f"{self._settings.name}: {verb}: {error}") from error

    async def run(self, command: base.Command) -> base.Completed:
        """Run a program through the tool; its end as the exit code tells it, and its samples as observer lines.

        Raises:
            CommandError: the program cannot be run through this tool.
            DeviceLostError, HarnessError: the exit code says so.
        """
        async with sharing.alone(self._settings.lock):
            completed = await self._run_or_stop(self._composed(command))
        what = f"{self._settings.name}: run"
        judged = vendortool.judged(completed, self._settings.exit_codes, what)
        if judged.failure:
            await self._blame_what_is_missing(what)
            return judged
        return await self._observed(judged)

    def _composed(self, command: base.Command) -> base.Command:
        env = {**self._settings.env, **command.env}
        values = vendortool.program_values(command, env)
        named = {name for argument in self._settings.run for name in vendortool.names(argument)}
        if command.shell and "command" not in named:
            raise errors.CommandError(
                f"{self._settings.name}: {command.argv[0][:100]!r} needs a shell, for which run has no place; write a program "
                "and plain arguments, or a run with {command} where the device has a shell"
            )
        return dataclasses.replace(
            command,
            argv=self._filled("run", values),
            shell=False,
            cwd=self._cwd if self._settings.has_files else command.cwd,
            env=self._env if "env" in named else {**env, **self._env},
        )

    def _filled(self, verb: str, values: vendortool.Values) -> tuple[str, ...]:
        return vendortool.filled(getattr(self._settings, verb), {**values, "device": self._settings.name})

    async def _run_or_stop(self, command: base.Command) -> base.Completed:
        """Run it; where its tool was killed, end the program too, also when we are cancelled: what is shared is ours yet."""
        killed = True
        try:
            completed = await self._execute(command)
            killed = completed.ending is base.Ending.TIMED_OUT
            return completed
        finally:
            if killed:
                with anyio.CancelScope(shield=True):
                    await self.stop()

    async def stop(self) -> None:
        """End what a killed tool may have left on the device. What goes wrong with it is told in the log alone."""
        if not self._settings.stop:
            return
        try:
            await self.ask("stop", errors.HarnessError)
        except (errors.HarnessError, errors.DeviceLostError) as error:
            log.warning("a program may be left on the device", device=self._settings.name, reason=str(error))

    async def _blame_what_is_missing(self, what: str) -> None:
        if missing := await self._missing():
            raise errors.DeviceLostError(f"{what}: {'; '.join(missing.values())}")

    async def _missing(self) -> dict[str, str]:
        return await anyio.to_thread.run_sync(vendortool.missing, self._settings.tools, self._env["PATH"])

    async def _observed(self, completed: base.Completed) -> base.Completed:
        metrics = self._settings.metrics
        if not metrics:
            return completed
        if len(completed.stdout) <= PARSED_AT_ONCE:
            lines, notes = vendoroutput.observed(completed.stdout, metrics)
        else:
            lines, notes = await anyio.to_thread.run_sync(vendoroutput.observed, completed.stdout, metrics)
        self._remark(notes)
        return dataclasses.replace(
            completed,
            stdout="\n".join([completed.stdout.rstrip("\n"), *lines]) + "\n",
            stderr="\n".join(filter(None, [completed.stderr.rstrip("\n"), *(f"[{note}]" for note in notes)])),
            notes=tuple(notes),
        )

    def _remark(self, notes: Sequence[str]) -> None:
        """Log what is new: no output is kept of a trial that goes well, as one does that prints observer lines as well."""
        for note in notes:
            if note not in self._remarked and len(self._remarked) < REMARKS:
                self._remarked.add(note)
                log.warning("a program's output is not as configured", device=self._settings.name, reason=note)


class VendorSession(base.Session):
    """What is the same wherever the device's files are. See :class:`aibenchd.devices.base.Session`."""

    def __init__(self, settings: Settings, host: base.Session, tool: Tool) -> None:
        self._settings, self._host, self._tool = settings, host, tool
        self.more_state = ", or have state print it" if settings.state else ", or add state, which prints it"

    async def open(self) -> None:
        """End what an earlier session left, and see that the device can be used.

        Raises:
            DeviceLostError: it cannot.
        """
        await self._tool.stop()
        await self._tool.look()

    async def run(self, command: base.Command) -> base.Completed:
        return await self._tool.run(command)

    async def health(self) -> None:
        await self._host.health()
        await self._tool.look()

    async def fingerprint(self) -> Mapping[str, str]:
        return await self._tool.facts("fingerprint")

    async def state(self) -> Mapping[str, str]:
        return await self._tool.facts("state")

    async def reboot(self) -> None:
        if not self._settings.reset:
            await super().reboot()
        with anyio.move_on_after(self._settings.timeouts.reset) as waiting:
            await self._tool.ask("reset", errors.DeviceLostError)
            await self._until_healthy()
        if waiting.cancelled_caught:
            raise errors.DeviceLostError(f"{self._settings.name}: not healthy {self._settings.timeouts.reset:g} s after reset")

    async def _until_healthy(self) -> None:
        while True:
            try:
                return await self._tool.look()
            except errors.DeviceLostError:
                await anyio.sleep(PROBE_SECONDS)


class _Here(VendorSession):
    """A device that shares this host's files. What is true of the host is true of it, where the tool does not say otherwise."""

    async def push(self, push: base.Push) -> PurePosixPath:
        return await self._host.push(push)

    async def directory(self, name: str) -> PurePosixPath:
        return await self._host.directory(name)

    async def pull(self, source: PurePosixPath, target: Path) -> None:
        await self._host.pull(source, target)

    async def remove(self, path: PurePosixPath) -> None:
        await self._host.remove(path)

    async def fingerprint(self) -> Mapping[str, str]:
        return {**await self._host.fingerprint(), **await super().fingerprint()}

    async def state(self) -> Mapping[str, str]:
        return {**await self._host.state(), **await super().state()}

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        return await self._host.changes(wanted)

    async def apply(self, action: base.Action) -> None:
        await self._host.apply(action)

    async def disturb(self) -> None:
        await self._host.disturb()


class _There(VendorSession):
    """A device with files of its own, below ``settings.directory`` there. What goes there lies on this host first."""

    def __init__(self, settings: Settings, host: base.Session, tool: Tool) -> None:
        super().__init__(settings, host, tool)
        self._root = PurePosixPath(settings.directory or "/")
        self._there: dict[PurePosixPath, int] = {}  # what was pushed in this session, with its bytes

    async def open(self) -> None:
        await super().open()
        await self._empty()

    async def push(self, push: base.Push) -> PurePosixPath:
        target = self._root / PROGRAMS / push.digest[: pushed.DIGEST_LENGTH] / base.file_name(push.name)
        if target not in self._there:
            source = await self._host.push(push)
            size = await anyio.to_thread.run_sync(_size, Path(source))
            self._look_at_room(size)
            await self._make(target.parent)
            await self._tool.ask("push", errors.HarnessError, source=str(source), target=str(target))
            self._there[target] = size
        return target

    async def directory(self, name: str) -> PurePosixPath:
        path = self._root / WORK / base.file_name(name)
        await self.remove(path)
        await self._make(path)
        return path

    async def pull(self, source: PurePosixPath, target: Path) -> None:
        self._inside(source)
        here = await self._host.directory(PULLED) / "file"
        await self._tool.ask("pull", errors.CommandError, source=str(source), target=str(here))
        await self._host.pull(here, target)

    async def remove(self, path: PurePosixPath) -> None:
        self._inside(path)
        await self._tool.ask("remove", errors.HarnessError, target=str(path))

    async def reboot(self) -> None:
        await super().reboot()
        await self._empty()

    async def _empty(self) -> None:
        """Nothing that lies there is known to be what was pushed."""
        self._there.clear()
        for name in (PROGRAMS, WORK):
            await self._tool.ask("remove", errors.DeviceLostError, target=str(self._root / name))
            await self._make(self._root / name)

    async def _make(self, path: PurePosixPath) -> None:
        if self._settings.make:
            await self._tool.ask("make", errors.HarnessError, target=str(path))

    def _look_at_room(self, size: int) -> None:
        """What an experiment has had pushed may be in use; only a new session can let go of it."""
        if self._there and sum(self._there.values()) + size > self._settings.store_size:
            raise errors.DeviceLostError(
                f"{self._settings.name}: what was pushed has reached store_size ({self._settings.store_size} bytes); "
                "the device is emptied, and what is needed pushed again"
            )

    def _inside(self, path: PurePosixPath) -> None:
        if ".." in path.parts or self._root not in path.parents:
            raise errors.CommandError(f"{path}: not inside {self._root}")


def _size(path: Path) -> int:
    return sum(entry.lstat().st_size for entry in (path, *path.rglob("*")))
