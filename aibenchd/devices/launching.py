"""Runs programs on this host through ``launcher.py``, as whom the configuration says.

The launcher is a process of its own, so that a program's use of memory is not counted from the daemon's, and so that
a daemon that is not root can have its programs run as another user. A connection to it is one program: closing it, as
the kernel does when the daemon is killed, kills the program and all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import anyio.abc
import anyio.to_thread

from aibenchd import errors
from aibenchd.devices import base

PROGRAM = Path(__file__).with_name("launcher.py")
ANSWER_DEADLINE = 30.0  # seconds beyond a program's own timeout
STOP_DEADLINE = 15.0  # seconds
ANSWER_BOUND = 1 << 20  # bytes
INLINE_BOUND = 64 << 10  # bytes; more is read and decoded in a worker thread
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)  # that we were started with, whatever the daemon allows itself since


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom programs run as.

    Attributes:
        groups: its supplementary groups.
        control_groups: the directory that programs' control groups are made in; empty where none can be.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    control_groups: str


class Launcher:
    """Runs programs on this host; as many at once as its callers like.

    ``async with Launcher(settings.run) as launcher``. Where the launcher dies, runs in flight end in HarnessError,
    and the next one starts it again.
    """

    def __init__(self, settings: base.RunSettings) -> None:
        self._way: _Way = _Listening(settings.launcher) if settings.launcher else _Spawned(settings.user)

    async def __aenter__(self) -> Self:
        """Start it, or see that it answers.

        Raises:
            HarnessError: it cannot be started or does not answer; the message says what to do.
        """
        try:
            await self.hello()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._way.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._way.aclose()

    async def hello(self) -> Identity:
        """Whom programs run as; it also tells that the launcher is able to serve."""
        answer = await self._ask({"kind": "hello"}, [], 0)
        return Identity(answer["uid"], answer["gid"], tuple(answer["groups"]), answer["control_groups"])

    async def run(self, command: base.Command) -> base.Completed:
        """Run a program to its end; ``command.env`` is its whole environment, and its standard input is empty.

        At its timeout, at its end, and on cancellation, all processes that it started are killed (SIGKILL), and it
        returns when they are gone.

        Raises:
            HarnessError: the launcher is at fault, or cannot do what is asked, such as entering ``command.cwd``.
        """
        with _memory("stdout") as stdout, _memory("stderr") as stderr:
            request = _request(command)
            answer = await self._ask(request, [stdout, stderr], command.timeout)
            out, err = answer["written"]
            return _completed(
                answer,
                await _text(stdout, out, command.output_limit),
                await _text(stderr, err, command.output_limit),
            )

    async def run_logged(
        self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float, log: Path, limit: int
    ) -> base.Completed:
        """Run a program as :meth:`run` does, its standard output and error together in the file ``log``.

        The log can be read meanwhile. At the end it holds the first half and the last half of ``limit`` bytes, and says
        what was cut between them. ``stdout`` and ``stderr`` of what is returned are empty.
        """
        command = base.Command(tuple(argv), PurePosixPath(cwd), env=env, timeout=timeout, output_limit=limit)
        file = await anyio.to_thread.run_sync(lambda: os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640))
        try:
            answer = await self._ask(_request(command), [file], timeout)
            (written,) = answer["written"]
            if written > limit:
                await anyio.to_thread.run_sync(_straighten, file, log, written, limit)
        finally:
            os.close(file)
        return _completed(answer, "", "")

    async def disturb(self, size: int, cpus: Sequence[int]) -> None:
        """Write through ``size`` bytes on the CPUs (none named: on all), so that their caches hold nothing else."""
        await self._ask({"kind": "disturb", "size": size, "cpus": list(cpus)}, [], 0)

    async def _ask(self, request: Mapping[str, Any], files: list[int], seconds: float) -> dict[str, Any]:
        with await self._way.connect() as connection:
            try:
                with anyio.fail_after(seconds + ANSWER_DEADLINE):
                    with contextlib.suppress(BrokenPipeError):  # it may have said why before it hung up
                        await _send(connection, request, files)
                    answer = await _receive(connection)
            except anyio.get_cancelled_exc_class():
                await _hang_up(connection)
                raise
            except TimeoutError:
                raise errors.HarnessError("the launcher does not answer; is the host overloaded?") from None
        if "fault" in answer:
            raise errors.HarnessError(f"{request.get('argv', [request['kind']])[0]}: {answer['fault']}")
        return answer


# ---- ways to a launcher


class _Way(Protocol):
    async def connect(self) -> socket.socket: ...

    async def aclose(self) -> None: ...


class _Listening:
    """A launcher behind a socket, which systemd starts at the first connection."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        try:
            await self._connect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self, connection: socket.socket) -> None:
        try:
            with anyio.fail_after(ANSWER_DEADLINE):
                while True:
                    try:
                        connection.connect(str(self._path))
                    except BlockingIOError:  # its queue is full, and no event tells when it is not
                        await anyio.sleep(random.uniform(0.005, 0.02))  # noqa: S311  it is no secret
                    else:
                        return
        except OSError as error:
            raise errors.HarnessError(
                f"run.launcher: {self._path}: {error.strerror or 'it takes no connection'};"
                " start its socket unit: systemctl start aibenchd-launcher.socket"
            ) from error

    async def aclose(self) -> None:
        """It is systemd's."""


class _Spawned:
    """A launcher of our own, which ends with us."""

    def __init__(self, user: str) -> None:
        self._user = user
        self._process: anyio.abc.Process | None = None
        self._control: socket.socket | None = None
        self._connecting = anyio.Lock()

    async def connect(self) -> socket.socket:
        async with self._connecting:
            for _ in range(2):  # the launcher may have died since
                control = self._control or await self._start()
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                try:
                    with theirs:
                        await _hand_over(control, theirs)
                except OSError:
                    ours.close()
                    await self.aclose()
                else:
                    return ours
        raise errors.HarnessError("the launcher dies as soon as it is started; its messages are in the daemon's log")

    async def _start(self) -> socket.socket:
        _check_user(self._user)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        user = [f"user={self._user}"] if self._user else []
        with theirs:
            self._process = await anyio.open_process(
                [sys.executable, "-IS", str(PROGRAM), *user],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None,
                env={},
                start_new_session=True,  # a Ctrl-C is the daemon's, which ends it in order
            )
        with contextlib.suppress(ProcessLookupError):  # it has ended, which the hand-over will tell
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, OPEN_FILES)
        return self._control

    async def aclose(self) -> None:
        """Close our end, upon which it kills what it runs and ends."""
        if self._control:
            self._control.close()
            self._control = None
        if self._process:
            with anyio.move_on_after(STOP_DEADLINE) as waiting:
                await self._process.wait()
            if waiting.cancelled_caught:
                self._process.kill()
            await self._process.aclose()
            self._process = None


async def _hand_over(control: socket.socket, connection: socket.socket) -> None:
    """Give the launcher one end of a connection; waits where it has many to take before."""
    while True:
        try:
            socket.send_fds(control, [b"c"], [connection.fileno()])
        except BlockingIOError:
            await anyio.wait_writable(control)
        else:
            return


def _check_user(user: str) -> None:
    if user and os.geteuid():
        raise errors.HarnessError(
            f"run.user: only a daemon that is root can run programs as {user}; use run.launcher, or leave it empty"
        )
    try:
        pwd.getpwnam(user or "root")
    except KeyError:
        raise errors.HarnessError(f"run.user: user {user} is not known on this host; make it, or leave it empty") from None


# ---- one connection


def _request(command: base.Command) -> dict[str, Any]:
    return {
        "kind": "run",
        "argv": ["/bin/sh", "-c", *command.argv] if command.shell else list(command.argv),
        "cwd": str(command.cwd),
        "env": dict(command.env),
        "cpus": list(command.cpus),
        "timeout": command.timeout,
        "limit": command.output_limit,
    }


async def _send(connection: socket.socket, request: Mapping[str, Any], files: list[int]) -> None:
    text = json.dumps(request).encode()
    data = struct.pack("!I", len(text)) + text
    sent = socket.send_fds(connection, [data], files)  # a new socket takes the first bytes at once
    while sent < len(data):
        await anyio.wait_writable(connection)
        sent += connection.send(data[sent:])


async def _receive(connection: socket.socket) -> dict[str, Any]:
    """The answer; returns once nothing comes any more: nothing of the program is left then."""
    data = b""
    while len(data) < ANSWER_BOUND:
        try:
            part = connection.recv(1 << 16)
        except BlockingIOError:
            await anyio.wait_readable(connection)
            continue
        except ConnectionResetError:  # told once, where it hung up before it had read all; its answer comes after
            continue
        if not part:
            break
        data += part
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError:
        raise errors.HarnessError("the launcher died, or was killed, during a run; the next run starts it again") from None
    return answer


async def _hang_up(connection: socket.socket) -> None:
    """Have the program killed, and wait until it is gone."""
    with anyio.move_on_after(STOP_DEADLINE, shield=True), contextlib.suppress(OSError, errors.HarnessError):
        connection.shutdown(socket.SHUT_WR)
        await _receive(connection)


# ---- output


@contextlib.contextmanager
def _memory(name: str) -> Iterator[int]:
    """A file without a place on a disk: nothing is written to one while a program is measured."""
    file = os.memfd_create(name)
    try:
        yield file
    finally:
        os.close(file)


async def _text(file: int, written: int, limit: int) -> str:
    if written <= INLINE_BOUND:
        return _kept(file, written, limit).decode(errors="replace")
    return await anyio.to_thread.run_sync(lambda: _kept(file, written, limit).decode(errors="replace"))


def _kept(file: int, written: int, limit: int) -> bytes:
    """What a program wrote, as the launcher keeps it: the first half of ``limit`` as it is, the last half in a ring."""
    if written <= limit:
        return os.pread(file, limit, 0)
    half = limit // 2
    turn = half + (written - half) % (limit - half)
    note = f"\n[{written - limit} bytes cut here]\n".encode()
    return os.pread(file, half, 0) + note + os.pread(file, limit - turn, turn) + os.pread(file, turn - half, half)


def _straighten(file: int, log: Path, written: int, limit: int) -> None:
    """Put a log whose end lies in a ring in order."""
    ordered = log.with_name(log.name + ".ordered")
    ordered.write_bytes(_kept(file, written, limit))
    ordered.chmod(0o640)
    ordered.replace(log)


def _completed(answer: Mapping[str, Any], stdout: str, stderr: str) -> base.Completed:
    code = answer["code"]
    if answer["ending"] == "timed out":
        ending, code = base.Ending.TIMED_OUT, int(signal.SIGKILL)
    else:
        ending, code = (base.Ending.SIGNALLED, -code) if code < 0 else (base.Ending.EXITED, code)
    usage = {name: answer[name] for name in ("seconds", "cpu_seconds", "peak_bytes", "instructions")}
    return base.Completed(ending, code, stdout, stderr, **usage)
