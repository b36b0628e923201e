"""A Linux machine that is reached over SSH.

One connection is kept for the length of a session. One channel of it is a supervisor's, a small program that is sent there
and does all that is done there but for the bytes of files, which go over SFTP. It takes Linux, an SSH server with SFTP, and
Python 3.6 on the device, and nothing of ours.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

import anyio
import anyio.to_thread
import asyncssh
import pydantic

from aibenchd import errors, quantities
from aibenchd.devices import base, cpufreq, heat, host, mirrored, ssh_access, ssh_link, ssh_upload

T = TypeVar("T")

DIGEST_LENGTH = 32  # hexadecimal digits in a path: the same for every digest, so that the arms' paths are of equal length
OWN_DEADLINE = 600.0  # seconds, of what takes as long as there are bytes
SMALL_DEADLINE = 60.0  # seconds, of what takes none
STALL_SECONDS = 120.0  # in which a device must have taken or given some of a file: a connection may live whose disk hangs
RUN_MARGIN = 60.0  # seconds beyond a program's own timeout: caches disturbed before it, killing, and its output on its way
INLINE_BOUND = 64 << 10  # bytes; more is decoded in a worker thread
REBOOT_PAUSE = 2.0  # seconds between two looks whether it is back
TERMINATED = 128  # a shell's status of what a signal ended is this and the signal's number
OUTPUT_BOUND = 64 << 10  # bytes kept of what a command of our own prints


class Settings(base.FiledSettings, ssh_access.Endpoint):
    """Keys of a device of the kind ``ssh``."""

    jump: Annotated[
        tuple[ssh_access.Endpoint, ...], pydantic.Field(description="servers that the way there leads through, in order")
    ] = ()
    connect_timeout: Annotated[quantities.Interval, pydantic.Field(description="to be connected, through all of jump")] = 15.0
    keepalive: Annotated[
        quantities.Interval, pydantic.Field(description="of silence, after which a sign of life is asked for")
    ] = 15.0
    lost_after: Annotated[
        quantities.Interval, pydantic.Field(description="of silence, after which each side takes the other for dead")
    ] = 60.0
    directory: Annotated[
        str, pydantic.Field(description="on the device, of this device alone; empty: .aibenchd/<name> of its user's home")
    ] = ""
    python: Annotated[str, pydantic.Field(min_length=1, description="of the device, 3.6 or later")] = "python3"
    reboot_command: Annotated[
        tuple[str, ...], pydantic.Field(min_length=1, description="what starts the device anew, as its user may run it")
    ] = ("systemctl", "reboot")
    reboot_timeout: Annotated[quantities.Interval, pydantic.Field(description="for the device to come back")] = 600.0

    @pydantic.model_validator(mode="after")
    def _patient(self) -> Self:
        if self.lost_after < 2 * self.keepalive:
            raise ValueError("lost_after must be twice keepalive at least: one sign of life may be late")
        return self

    @property
    def place(self) -> str:
        """The directory on the device, as its shell's user would write it."""
        return self.directory or f"~/.aibenchd/{self.name}"


class Ssh(base.Device):
    """A kind that starts programs in a way of its own derives from it."""

    Settings: ClassVar[type[base.DeviceSettings]] = Settings
    on_another_host = True

    def started(self, command: base.Command) -> base.Command:
        """What is run in place of a command. Pure; called for each process of a trial, and for nothing of our own."""
        return command

    def session(self) -> AbstractAsyncContextManager[base.Session]:
        return self._session()

    async def reach(self) -> None:
        """Connect, and look without touching its directory, because a session may be in it."""
        session, found = self.served(), errors.Gathering()
        try:
            with _named(self.settings.name):
                link = await session.glance()
            with found.look(), _named(self.settings.name):
                await self.look(link)
            with found.look(), _named(self.settings.name):
                await self.agree(session)
            found.tell()
        finally:
            with anyio.CancelScope(shield=True):
                await session.close()

    async def look(self, link: ssh_link.Link) -> None:
        """Raises DeviceLostError where programs could not run there; a kind whose programs need more looks for that too."""
        await _look(link, cast("Settings", self.settings))

    def served(self) -> SshSession:
        """A session that is not open yet; a kind whose sessions can do more makes one of its own."""
        return SshSession(cast("Settings", self.settings), self.state_directory, self.started)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[base.Session]:
        session = self.served()
        try:
            with _named(self.settings.name):
                await session.open()
            yield session
        finally:
            with anyio.CancelScope(shield=True):
                await session.close()


class SshSession(base.Session):
    """See :class:`aibenchd.devices.base.Session`. ``state_directory`` is the device's own on this host."""

    def __init__(self, settings: Settings, state_directory: Path, started: Callable[[base.Command], base.Command]) -> None:
        self._settings, self._started = settings, started
        self._stack = contextlib.AsyncExitStack()
        self._link: ssh_link.Link
        self._sftp: asyncssh.SFTPClient | None = None
        self._directory = PurePosixPath()
        self._root = state_directory / "told"  # of what the device's kernel tells, on this host; what was there before goes
        self._host = host.Host(())
        self._limits = heat.Limits()
        self._busy = "its opening"

    async def open(self) -> None:
        """Connect, and lay out the directory; what an earlier session left in ``work`` is removed.

        Raises:
            DeviceLostError: it cannot be reached.
            HarnessError: programs could not run there.
        """
        settings = self._settings
        await _look(await self.glance(), settings)
        opened = await self._link.ask(
            "open",
            OWN_DEADLINE,
            directory=settings.place,
            silence=settings.lost_after,
            store_size=settings.store_size,
        )
        self._directory = PurePosixPath(opened.facts["directory"])

    async def glance(self) -> ssh_link.Link:
        """Connect, and read what its kernel tells; without :meth:`open`, what it is and can be had as can be asked for alone.

        Raises:
            DeviceLostError, HarnessError: as :meth:`open`.
        """
        self._link = await _linked(self._settings, self._stack)
        self._host = host.Host(self._cpus, self._root)
        await self._told(self._host.state)
        self._busy = ""
        return self._link

    async def close(self) -> None:
        """Disconnect; whatever is asked of it now is an error."""
        self._busy = "the session's end"
        self._sftp = None
        await self._stack.aclose()
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._root, ignore_errors=True))

    async def push(self, push: base.Push) -> PurePosixPath:
        named = {"place": push.digest[:DIGEST_LENGTH], "name": base.file_name(push.name), "digest": push.digest}
        with self._alone("push"):
            there = (await self._link.ask("have", OWN_DEADLINE, **named)).facts
            if "incoming" in there:
                await self._send(push, PurePosixPath(there["incoming"]))
                found = (await self._link.ask("keep", OWN_DEADLINE, **named)).facts.get("found", push.digest)
                if found != push.digest:
                    raise errors.HarnessError(
                        f"{push.source}: its digest on the device is {found}, not {push.digest}: it has changed since it was made"
                    )
            return PurePosixPath(there["path"])

    async def directory(self, name: str) -> PurePosixPath:
        with self._alone("directory"):
            self._link.check()
            self._link.before("make", name=base.file_name(name))
            return self._directory / "work" / name

    async def run(self, command: base.Command) -> base.Completed:
        with self._alone("run"):
            return await self._run(self._started(command))

    async def pull(self, source: PurePosixPath, target: Path) -> None:
        with self._alone("pull"):
            found = (await self._link.ask("find", SMALL_DEADLINE, path=str(source))).facts
            if found["size"] > self._settings.pull_limit:
                raise errors.CommandError(
                    f"{source}: {found['size']} bytes are more than the {self._settings.pull_limit} that pull_limit lets through"
                )
            with self._transferring() as alive:
                await ssh_upload.get(await self._transfer(), found["path"], target, found["size"], alive)

    async def remove(self, path: PurePosixPath) -> None:
        with self._alone("remove"):
            await self._link.ask("remove", OWN_DEADLINE, path=str(path))

    async def health(self) -> None:
        with self._alone("health"):
            await _look(self._link, self._settings)

    async def fingerprint(self) -> Mapping[str, str]:
        with self._alone("fingerprint"):
            told = await self._told(self._host.facts)
            return {**told, **{name: self._link.greeting[name] for name in ("kernel", "abi", "cores")}}

    async def disturb(self) -> None:
        with self._alone("disturb"):
            self._link.check()
            self._link.before("disturb", size=self._settings.disturb_size, cpus=list(self._settings.cpus))

    async def state(self) -> Mapping[str, str]:
        with self._alone("state"):
            return await self._told(self._host.state)

    async def changes(self, wanted: base.Conditioning) -> Sequence[base.Change]:
        if not wanted.frequency and not wanted.governor:
            return ()
        with self._alone("changes"):
            try:
                found = await self._told(lambda: cpufreq.changes(self._cpus, wanted, self._limits, self._root), *mirrored.COOLING)
            except errors.CommandError as error:
                raise errors.CommandError(str(error).replace(str(self._root), "")) from error
            paths = sorted({path for change in found for path, _ in _writes(change.do)})
            closed = (await self._link.ask("closed", SMALL_DEADLINE, paths=paths)).facts["paths"]
            if closed:
                user = self._link.greeting["user"]
                raise errors.CommandError(
                    f"{user} may not set the frequency there; log in as root, or have this run there at each start:"
                    f" chown {user} {' '.join(closed)}"
                )
            return found

    async def apply(self, action: base.Action) -> None:
        with self._alone("apply"):
            await self._link.ask("write", SMALL_DEADLINE, writes=_writes(action))

    async def reboot(self) -> None:
        with self._alone("reboot"):
            before = self._link.greeting["boot"]
            ordered = await self._order_reboot()
            await self.close()
            try:
                with anyio.fail_after(self._settings.reboot_timeout):
                    await self._come_back(before)
            except TimeoutError:
                raise errors.DeviceLostError(
                    f"it has not come back within {self._settings.reboot_timeout:g} s since it was rebooted{ordered}"
                ) from None

    # ---- what these are made of

    @property
    def _cpus(self) -> Sequence[int]:
        return self._settings.cpus or self._link.greeting["cpus"]

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if self._busy:
            raise errors.HarnessError(f"{self._settings.name}: {what} during {self._busy}; a session serves one caller at a time")
        self._busy = what
        try:
            yield
        except errors.DeviceLostError as error:
            raise errors.DeviceLostError(f"{self._settings.name}: {error}") from error
        except errors.HarnessError as error:
            raise errors.HarnessError(f"{self._settings.name}: {what}: {error}") from error
        finally:
            if self._busy == what:
                self._busy = ""

    async def _run(self, command: base.Command) -> base.Completed:
        return await ran(self._link, self._settings, command)

    async def _told(self, look: Callable[[], T], *more: str) -> T:
        """What is to be seen in what the device's kernel tells now, ``more`` files than usual too."""
        texts = (await self._link.ask("read", SMALL_DEADLINE, patterns=[*mirrored.patterns(self._cpus), *more])).facts["texts"]

        def lay_out_and_look() -> T:
            mirrored.lay_out(self._root, texts)
            return look()

        return await anyio.to_thread.run_sync(lay_out_and_look)

    async def _send(self, push: base.Push, incoming: PurePosixPath) -> None:
        with self._transferring() as alive:
            await ssh_upload.put(await self._transfer(), push.source, incoming, alive)

    async def _transfer(self) -> asyncssh.SFTPClient:
        if self._sftp is None:
            try:
                self._sftp = await self._link.connection.start_sftp_client()
            except asyncssh.ChannelOpenError as error:
                raise errors.HarnessError(
                    f"its SSH server has no SFTP ({error.reason}); add 'Subsystem sftp internal-sftp' to its sshd_config"
                ) from error
        return self._sftp

    @contextlib.contextmanager
    def _transferring(self) -> Iterator[Callable[[], None]]:
        """What a transfer fails with, as what it means; a connection that broke is lost. It is told that it goes on."""
        try:
            with anyio.fail_after(STALL_SECONDS) as scope:

                def alive() -> None:
                    scope.deadline = anyio.current_time() + STALL_SECONDS

                yield alive
        except TimeoutError:
            raise self._link.lose(
                f"its SFTP server has taken or given nothing for {STALL_SECONDS:g} s; does a disk hang there?"
            ) from None
        except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.DisconnectError, ConnectionError) as error:
            raise self._link.lose(f"the connection broke: {error}") from error
        except asyncssh.SFTPError as error:
            raise errors.HarnessError(f"the device cannot take or give a file: {error.reason}") from error
        except asyncssh.Error as error:
            raise self._link.lose(f"the connection broke: {error}") from error
        except OSError as error:
            raise errors.HarnessError(str(error)) from error

    async def _order_reboot(self) -> str:
        """Raises CommandError where it is refused. One that goes down may kill the command: that is not asked again.

        Returns:
            What there is to say of the order where nothing comes of it.
        """
        command = base.Command(self._settings.reboot_command, self._directory, timeout=SMALL_DEADLINE, output_limit=OUTPUT_BOUND)
        with contextlib.suppress(errors.DeviceLostError):  # it may be gone before it has answered
            completed = await self._run(command)
            said = f"{' '.join(self._settings.reboot_command)}: {completed.failure}"
            if completed.ending is base.Ending.EXITED and 0 < completed.code <= TERMINATED:
                user = self._link.greeting["user"]
                raise errors.CommandError(
                    f"{said}; let {user} do that, such as with a rule of sudo and reboot_command: [sudo, -n, systemctl, reboot]"
                )
            return f" ({said})" if completed.failure else ""
        return ""

    async def _come_back(self, before: str) -> None:
        """Connect again and again until another boot than ``before`` answers."""
        while True:
            await anyio.sleep(REBOOT_PAUSE)
            self._stack = contextlib.AsyncExitStack()
            with contextlib.suppress(errors.DeviceLostError, errors.HarnessError):
                await self.open()
                if self._link.greeting["boot"] != before:
                    return
            await self.close()


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Whatever keeps a session from being had is a lost device, and says which."""
    try:
        yield
    except (errors.HarnessError, errors.DeviceLostError, errors.CredentialError) as error:
        raise errors.DeviceLostError(f"{name}: {error}") from error


async def _linked(settings: Settings, stack: contextlib.AsyncExitStack) -> ssh_link.Link:
    """A supervisor on the device, until ``stack`` is closed."""
    program = await anyio.to_thread.run_sync(ssh_link.PROGRAM.read_bytes)
    way = [*settings.jump, settings]
    async with ssh_access.turn():
        connection = await stack.enter_async_context(
            ssh_access.connected(way, settings.connect_timeout, settings.keepalive, settings.lost_after)
        )
        link = ssh_link.Link(connection, settings.keepalive, settings.lost_after)
        await link.start(settings.python, program, settings.connect_timeout)
    stack.push_async_callback(link.close)
    return link


async def ran(link: ssh_link.Link, settings: Settings, command: base.Command) -> base.Completed:
    """A command that has been run there, in the environment of the device's programs."""
    answer = await link.ask(
        "run",
        command.timeout + RUN_MARGIN,
        argv=["/bin/sh", "-c", *command.argv] if command.shell else list(command.argv),
        cwd=str(command.cwd),
        env={**base.small_environment(command.cwd), **settings.env, **command.env},
        cpus=list(command.cpus or settings.cpus),
        timeout=command.timeout,
        limit=command.output_limit,
    )
    stdout, stderr = [await _text(payload) for payload in answer.payloads]
    return _completed(answer.facts, stdout, stderr)


async def _look(link: ssh_link.Link, settings: Settings) -> None:
    try:
        with base.about_words("directory"):
            found = (await link.ask("look", SMALL_DEADLINE, directory=settings.place, cpus=list(settings.cpus))).facts
    except errors.HarnessError as error:
        raise errors.DeviceLostError(str(error)) from error
    if found["free"] < settings.minimum_free:
        raise errors.DeviceLostError(
            f"{found['free']} bytes are free at {found['place']}, fewer than minimum_free ({settings.minimum_free});"
            " free some, lower store_size, or name another directory"
        ).at("minimum_free")


def _writes(action: base.Action) -> list[list[str]]:
    """What is written to which files there for an action of :mod:`aibenchd.devices.cpufreq`, in order."""
    if action.get("verb") not in cpufreq.VERBS:
        raise errors.HarnessError(f"an SSH device knows no action {action.get('verb')!r}")
    found = []
    for cpu in action["cpus"]:
        place = f"{mirrored.CPU}/cpu{cpu}/cpufreq"
        if action["verb"] == "set-governor":
            found.append([f"{place}/scaling_governor", action["governor"]])
        else:
            # The kernel may refuse a maximum below the minimum that is yet to be lowered.
            limits = {"max": str(action["most"]), "min": str(action["least"])}
            found += [[f"{place}/scaling_{end}_freq", limits[end]] for end in ("max", "min", "max")]
    return found


async def _text(data: bytes) -> str:
    if len(data) <= INLINE_BOUND:
        return data.decode(errors="replace")
    return await anyio.to_thread.run_sync(lambda: data.decode(errors="replace"))


def _completed(facts: Mapping[str, Any], stdout: str, stderr: str) -> base.Completed:
    code = facts["code"]
    if facts["ending"] == "timed out":
        ending, code = base.Ending.TIMED_OUT, int(signal.SIGKILL)
    else:
        ending, code = (base.Ending.SIGNALLED, -code) if code < 0 else (base.Ending.EXITED, code)
    usage = {name: facts.get(name, math.nan) for name in ("seconds", "cpu_seconds", "peak_bytes", "instructions")}
    return base.Completed(ending, code, stdout, stderr, **usage)
