"""Runs programs for the daemon: a stand-alone program of the standard library alone.

    python3 -IS launcher.py [user=NAME] [for=NAME] <SOCKET

Why not the daemon itself: ``ru_maxrss`` of a forked child begins at its parent's memory, so a program started by a
daemon of 300 MB can never be seen to take less; and a daemon that is not root cannot run programs as another user.

Standard input is a Unix socket. Where it listens (a systemd socket unit with ``StandardInput=socket``), root and the
user named by ``for`` may connect. Else it is one end of a pair whose other end the daemon holds, and each message on it
carries a connection. ``user`` is whom programs run as, where this process is root.

A connection is one request, and closing it kills what it started. The request is its length (4 bytes, big endian), then
a JSON object with its ``kind`` and arguments, and files by SCM_RIGHTS; the answer is a JSON object, and the connection's
end. ``{"fault": text}`` answers what could not be done.

Each request is served by a process of its own, the *supervisor*, which inherits every orphan of its program
(PR_SET_CHILD_SUBREAPER): when it has no child left, nothing of the program is. Where this process may make control groups
(version 2), each program has its own, and is killed, and its use of CPU and memory read, by it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import mmap
import os
import pwd
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

SERVER = 3  # the file that standard input is moved to
CONCURRENT = 256  # requests served at once; more wait in the socket
REQUEST_BOUND = 16 << 20  # bytes
REQUEST_DEADLINE = 10.0  # seconds
KILL_DEADLINE = 10.0  # seconds from SIGKILL to the last process's end
PIPE_SIZE = 1 << 20  # bytes a program may print before it waits for us
DRAIN_BOUND = 4 << 20  # bytes read from one pipe before clock and caller are looked at again
REST = 0.02  # seconds between two looks at the output of a program that prints little
PRIVATE_CACHE = 4 << 20  # bytes, at least the second level cache of one core
OOM_SCORE_ADJUSTMENT = "500"  # of 1000: where memory runs out a program dies before the daemon, whose -500 it would inherit
IGNORED = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]  # Python's, our starter's
OWN_MEMORY_MARGIN = 1 << 20  # bytes; a program's peak within it of ours may be ours

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
SYS_CLONE3 = 435  # on every architecture
CLONE_INTO_CGROUP = 0x200000000
_libc = ctypes.PyDLL(None, use_errno=True)  # the lock of the interpreter stays ours: a child begins with it
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_clone3, _perf_event_open = _libc["syscall"], _libc["syscall"]  # each with arguments of its own
_clone3.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]
_perf_event_open.argtypes = [ctypes.c_long, ctypes.c_char_p, *[ctypes.c_int] * 3, ctypes.c_ulong]
_clone3.restype = _perf_event_open.restype = ctypes.c_long


class Fault(Exception):  # noqa: N818  it is told, not raised at a caller
    """What the caller is told: the request cannot be served, and no program is to blame."""


class Identity:
    """Whom programs run as."""

    def __init__(self, name: str) -> None:
        self.uid, self.gid, self.groups = os.geteuid(), os.getegid(), os.getgroups()
        self._changes = bool(name)
        if name:
            entry = find_user(name)
            self.uid, self.gid = entry.pw_uid, entry.pw_gid
            self.groups = os.getgrouplist(name, entry.pw_gid)

    def take(self) -> None:
        """Become it, for good."""
        if self._changes:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)


class Wakeup:
    """A file that is readable once a child has ended."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def clear(self) -> None:
        """Have it unreadable until the next child ends; never blocks."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)


# ---- control groups


class Groups:
    """Our own subtree of control groups: a group ``launcher`` for us and our supervisors, beside it one per program."""

    def __init__(self, base: str) -> None:
        self.path = os.path.join(base, f"aibenchd-{os.getpid()}")
        os.mkdir(self.path)
        if not os.path.exists(os.path.join(self.path, "cgroup.kill")):
            os.rmdir(self.path)
            raise FileNotFoundError("cgroup.kill needs Linux 5.14")
        os.mkdir(os.path.join(self.path, "launcher"))
        _write(os.path.join(self.path, "launcher", "cgroup.procs"), "0")
        # A group that has processes of its own cannot hand controllers down, so this comes after we have left the base.
        for parent in (base, self.path):
            with contextlib.suppress(OSError):
                _write(os.path.join(parent, "cgroup.subtree_control"), "+memory")

    def make(self, supervisor: int) -> ControlGroup:
        """A new group for the program of a supervisor, by its process ID; OSError where it cannot be made."""
        return ControlGroup(self._of(supervisor))

    def sweep(self, supervisor: int) -> None:
        """Kill what a supervisor left that died before its program."""
        if os.path.isdir(self._of(supervisor)):
            _destroy(self._of(supervisor))

    def close(self) -> None:
        """Remove the subtree; it stays for the next launcher to sweep where the base takes no process."""
        with contextlib.suppress(OSError):
            _write(os.path.join(os.path.dirname(self.path), "cgroup.procs"), "0")
            _destroy(self.path)

    def _of(self, supervisor: int) -> str:
        return os.path.join(self.path, str(supervisor))


class NoGroups:
    """Where no control group can be made."""

    path = ""

    def make(self, _supervisor: int) -> ProcessTree:
        """What holds one program's processes instead: their descent."""
        return ProcessTree()

    def sweep(self, _supervisor: int) -> None:
        """The supervisor's orphans are ours now, and killed as such."""

    def close(self) -> None:
        """There is nothing to remove."""


class ControlGroup:
    """One program's processes, by their control group."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._must_join = False
        os.mkdir(path)

    def fork(self) -> int:
        """As os.fork(), with the child born into the group where that is allowed.

        To join it later may wait until every CPU has passed through the scheduler, 5 to 20 ms.
        """
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return clone_into(directory)
        except OSError:  # such as under systemd's RestrictNamespaces
            self._must_join = True
            return os.fork()
        finally:
            os.close(directory)

    def join(self) -> None:
        """In the child."""
        if self._must_join:
            _write(os.path.join(self._path, "cgroup.procs"), "0")

    def kill(self) -> None:
        """SIGKILL to all of it, what is being forked too; does not wait for their end."""
        _write(os.path.join(self._path, "cgroup.kill"), "1")

    def cpu_seconds(self) -> float:
        """User and system time of all that ever ran in it."""
        return int(_facts(os.path.join(self._path, "cpu.stat"))["usage_usec"]) / 1e6

    def peak_bytes(self, before: int) -> float:
        """All memory charged to it, page cache that it was first to fill included."""
        try:
            return float(_read(os.path.join(self._path, "memory.peak")))
        except FileNotFoundError:
            return peak_of_largest(before)

    def close(self) -> None:
        """Remove it; it stays while there is something in it."""
        with contextlib.suppress(OSError):  # what cannot be killed holds it, and has been told
            os.rmdir(self._path)


class ProcessTree:
    """One program's processes, as the descendants of this supervisor."""

    def fork(self) -> int:
        """As os.fork()."""
        return os.fork()

    def join(self) -> None:
        """In the child, which is a descendant already."""

    def kill(self) -> None:
        """They are killed as descendants."""

    def cpu_seconds(self) -> float:
        """User and system time of all that was waited for, since this supervisor began."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def peak_bytes(self, before: int) -> float:
        """As :func:`peak_of_largest`: of the largest of them, not of all together."""
        return peak_of_largest(before)

    def close(self) -> None:
        """There is nothing to remove."""


def peak_of_largest(before: int) -> float:
    """The most memory that one of the dead children had resident.

    NaN where it may have been ours before it was the program's; ``before`` is what ours was at most by then.
    """
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    return float(peak) if peak > before + OWN_MEMORY_MARGIN else float("nan")


def make_groups() -> Groups | NoGroups:
    """Control groups where we may make them, else none; what launchers left that were killed is swept."""
    try:
        base = _base_group()
        for name in os.listdir(base):
            _sweep_launcher(base, name)
        return Groups(base)
    except OSError:
        return NoGroups()


def _base_group() -> str:
    """The control group below which ours go: our own, or its parent where systemd has put us in a subgroup (DelegateSubgroup).

    Raises:
        FileNotFoundError: version 2 is not mounted.
    """
    own = _group_directory(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))
    parent = os.path.dirname(own)
    with contextlib.suppress(OSError):
        if os.getxattr(parent, "user.delegate") == b"1":
            return parent
    return own


def _group_directory(mountinfo: str, cgroup: str) -> str:
    """Where our group of the version 2 hierarchy lies: alone at /sys/fs/cgroup, or beside version 1 in /sys/fs/cgroup/unified."""
    mounts = [line.split() for line in mountinfo.splitlines() if " - cgroup2 " in line]
    paths = [line[3:] for line in cgroup.splitlines() if line.startswith("0::")]
    if not mounts or not paths:
        raise FileNotFoundError("no control groups of version 2")
    root, mountpoint = mounts[0][3], mounts[0][4]
    return os.path.normpath(mountpoint + "/" + paths[0].removeprefix(root.rstrip("/")))


def _sweep_launcher(base: str, name: str) -> None:
    """Remove the subtree of a launcher that was killed, and what still runs in it with nobody to supervise it."""
    number = name.removeprefix("aibenchd-")
    if not (name.startswith("aibenchd-") and number.isdigit()) or os.path.exists(f"/proc/{number}"):
        return
    path = os.path.join(base, name)
    with contextlib.suppress(OSError):
        if _facts(os.path.join(path, "launcher", "cgroup.events"))["populated"] == "0":
            _destroy(path)


def _destroy(path: str) -> None:
    """Kill what runs in a group, and remove it and its children."""
    _write(os.path.join(path, "cgroup.kill"), "1")
    deadline = time.monotonic() + KILL_DEADLINE
    while _facts(os.path.join(path, "cgroup.events"))["populated"] == "1" and time.monotonic() < deadline:
        time.sleep(0.001)
    for entry in os.scandir(path):
        if entry.is_dir():
            os.rmdir(entry.path)
    os.rmdir(path)


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.readall().decode(errors="surrogateescape")


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _facts(path: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in _read(path).splitlines())


# ---- processes


class CloneArguments(ctypes.Structure):
    """``struct clone_args`` of clone3(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


def clone_into(group: int) -> int:
    """Fork, with the child in the control group of that open directory.

    The interpreter is not told. The child has its only thread, and soon executes something else.
    """
    arguments = CloneArguments(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=group)
    pid: int = _clone3(SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return pid


class Counter:
    """Counts an event of the kernel's in all that this process starts, from when that executes something else.

    Args:
        kind, event: ``type`` and ``config`` of perf_event_open(2); by default, instructions that were retired.
    """

    HARDWARE, INSTRUCTIONS = 0, 1
    _CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}  # noqa: RUF012
    _SIZE = 112  # of struct perf_event_attr, fifth version
    _FLAGS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 12  # disabled, inherit, exclude_kernel, exclude_hv, enable_on_exec

    def __init__(self, kind: int = HARDWARE, event: int = INSTRUCTIONS) -> None:
        self._file = -1
        attributes = struct.pack("=IIQQQQQ", kind, self._SIZE, event, 0, 0, 0, self._FLAGS).ljust(self._SIZE, b"\0")
        call = self._CALLS.get(os.uname().machine)
        if call is not None:
            found = _perf_event_open(call, attributes, 0, -1, -1, 8)  # this process, every CPU, no group, FD_CLOEXEC
            self._file = max(found, -1)

    def total(self) -> float:
        """So far, of processes that have ended; NaN where the kernel does not count it, as on most virtual machines."""
        try:
            return float(struct.unpack("=Q", os.read(self._file, 8))[0])
        except (OSError, struct.error):
            return float("nan")


def prctl(option: int, value: int) -> None:
    """OSError where the kernel refuses."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def kill_descendants(spare: tuple[int, ...]) -> None:
    """SIGKILL to all processes below this one, but those of ``spare`` and below."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            # the command's name, in brackets, may hold anything
            parent = int(_read(f"/proc/{name}/stat").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in spare:
                waiting.append(child)
                with contextlib.suppress(OSError):
                    os.kill(child, signal.SIGKILL)


class Ends:
    """What is kept of a stream, in a file: the first half of ``limit`` bytes, and the last half in a ring behind it."""

    def __init__(self, file: int, limit: int) -> None:
        self.total = 0
        self._file, self._half, self._limit = file, limit // 2, limit

    def keep(self, data: bytes) -> None:
        """Write it all, over what is oldest in the ring where there is no room. Blocking."""
        while data:
            offset, room = self._place()
            written = os.pwrite(self._file, data[:room], offset)
            self.total += written
            data = data[written:]

    def _place(self) -> tuple[int, int]:
        """Where the next byte goes, and how many may follow from there on."""
        if self.total < self._half:
            return self.total, self._half - self.total
        offset = self._half + (self.total - self._half) % (self._limit - self._half)
        return offset, self._limit - offset


class Output:
    """One stream of a program: a pipe, and what is kept of it."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.open = True
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        with contextlib.suppress(OSError):  # the user's pipes may be at their bound; then a program waits for us sooner
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)

    def drain(self, bound: int) -> bool:
        """Keep what is there, about ``bound`` bytes at most; whether that was much."""
        start = self.ends.total
        while self.open and self.ends.total - start < bound:
            try:
                data = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                break
            self.open = bool(data)
            self.ends.keep(data)
        return self.ends.total - start > PIPE_SIZE // 4


class Program:
    """One program, from its start until nothing of it is left."""

    def __init__(self, group: ControlGroup | ProcessTree, outputs: list[Output], wakeup: Wakeup) -> None:
        self.status = -1
        self.started = self.ended = 0  # time.monotonic_ns()
        self._group, self._outputs, self._wakeup = group, outputs, wakeup
        self._instructions = Counter()
        self._pid = 0
        self._cpu_before = 0.0
        self._peak_before = 0

    def start(self, arrangement: Arrangement, argv: list[str], env: dict[str, str]) -> None:
        """Start it; returns once it is executed.

        Raises:
            Fault: it could not be arranged as asked. That it could not be executed is its own failure.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._pid = self._group.fork()
        if not self._pid:
            _become(self._group, arrangement, argv, env, writer)
        os.close(writer)
        for output in self._outputs:
            os.close(output.writer)
        with open(reader, "rb", buffering=0) as pipe:  # it ends as the program is executed
            report = pipe.readall().decode(errors="replace")
        if not report or report.startswith("!"):
            raise Fault(report[1:] or "its process died before it was executed")
        started, cpu, peak = report.split()
        self.started, self._cpu_before, self._peak_before = int(started), float(cpu), int(peak)

    def watch(self, caller: socket.socket, timeout: float) -> str:
        """Wait for its end, keeping its output meanwhile: ``ended``, ``timed out``, or ``cancelled`` where the caller hung up.

        Output is looked at only every REST seconds while there is little of it, so that a program that prints line
        by line does not wake us for each: it is being measured.
        """
        everything, urgent = select.poll(), select.poll()
        for file in (caller.fileno(), self._wakeup.reader):
            everything.register(file, select.POLLIN)
            urgent.register(file, select.POLLIN)
        for output in self._outputs:
            everything.register(output.reader, select.POLLIN)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            ready = urgent.poll(min(left, REST) * 1000) if self._keep_output(everything) else []
            ready = ready or everything.poll(min(left, 3600) * 1000)
            files = [file for file, _ in ready]
            if self._wakeup.reader in files and self._reap():
                return "ended"
            if caller.fileno() in files:
                return "cancelled"
        return "timed out"

    def finish(self) -> None:
        """Kill what is left of it, and wait until all is gone.

        Raises:
            Fault: something cannot be killed.
        """
        deadline = time.monotonic() + KILL_DEADLINE
        while not self._gone():
            self._group.kill()
            kill_descendants(spare=())  # what has left its group, too
            if time.monotonic() > deadline:
                raise Fault(f"what program {self._pid} started cannot be killed: it waits in the kernel")
            time.sleep(0.0005)
        for output in self._outputs:
            output.drain(PIPE_SIZE)

    def usage(self) -> dict[str, float]:
        """Once finished: ``seconds`` of wall time, ``cpu_seconds``, ``peak_bytes``, ``instructions``; NaN where not known."""
        return {
            "seconds": (self.ended - self.started) / 1e9,
            "cpu_seconds": max(0.0, self._group.cpu_seconds() - self._cpu_before),
            "peak_bytes": self._group.peak_bytes(self._peak_before),
            "instructions": self._instructions.total(),
        }

    def _keep_output(self, poll: select.poll) -> bool:
        """Whether there was little of it."""
        much = False
        for output in self._outputs:
            was_open = output.open
            much |= output.drain(DRAIN_BOUND)
            if was_open and not output.open:
                poll.unregister(output.reader)
        return not much

    def _reap(self) -> bool:
        """Bury the dead; whether the program itself is among them."""
        now = time.monotonic_ns()
        self._wakeup.clear()
        with contextlib.suppress(ChildProcessError):
            while self._bury(now):
                pass
        return self.status >= 0

    def _gone(self) -> bool:
        try:
            while self._bury(time.monotonic_ns()):
                pass
        except ChildProcessError:
            return True
        return False

    def _bury(self, now: int) -> int:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == self._pid:
            self.status, self.ended = status, now
        return pid


class Arrangement:
    """What surrounds a program: who it is, where and on which CPUs it runs, where its output goes."""

    def __init__(self, identity: Identity, cwd: str, cpus: frozenset[int], stdout: int, stderr: int) -> None:
        self._identity, self._cwd, self._cpus = identity, cwd, cpus
        self._stdout, self._stderr = stdout, stderr

    def take(self) -> None:
        """Arrange this process so.

        Raises:
            Fault: it cannot be.
        """
        os.setsid()
        os.umask(0o007)  # the daemon reads, and removes, what programs leave, by a group that both are in
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in IGNORED:  # a program begins with none ignored; what is handled is as it was once it is executed
            signal.signal(number, signal.SIG_DFL)
        _write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT)
        self._take_cpus()
        self._identity.take()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the identity: a change of it clears this
        try:
            os.chdir(self._cwd)
        except OSError as error:
            raise Fault(
                f"user {self._identity.uid} cannot enter {self._cwd}: {error.strerror};"
                " it needs search permission there and in all directories above"
            ) from error
        os.dup2(self._stdout, 1)
        os.dup2(self._stderr, 2)

    def _take_cpus(self) -> None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self._cpus)
        if missing := self._cpus - os.sched_getaffinity(0):
            raise Fault(f"CPUs {listed(missing)} cannot be used: this host (or our cpuset) has {listed(all_cpus())}; mend cpus")


def _become(
    group: ControlGroup | ProcessTree, arrangement: Arrangement, argv: list[str], env: dict[str, str], report: int
) -> NoReturn:
    """In the child: turn into the program."""
    try:
        group.join()
        arrangement.take()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        os.write(report, f"{time.monotonic_ns()} {time.process_time()} {peak}".encode())
        _execute(argv, env)
    except (Fault, OSError, ValueError, OverflowError) as error:
        os.write(report, f"!{error}".encode())
    finally:  # whatever happened: what we were forked from is not ours
        os._exit(126)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """What cannot be executed fails as in a shell: by itself, told on its standard error."""
    try:
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        os.write(2, f"{argv[0]}: {reason}\n".encode(errors="surrogateescape"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


# ---- serving


class Supervisor:
    """Serves one request, in a process of its own."""

    def __init__(self, connection: socket.socket, identity: Identity, groups: Groups | NoGroups, cpus: frozenset[int]) -> None:
        self._connection, self._identity, self._groups, self._cpus = connection, identity, groups, cpus
        self._files: list[int] = []

    def serve(self) -> None:
        """Take the request and answer it, a fault too; nobody may be there any more to hear it."""
        try:
            answer = self._answer(self._receive())
        except (Fault, OSError, ValueError, TypeError, LookupError) as error:
            answer = {"fault": str(error) or type(error).__name__}
        with contextlib.suppress(OSError):  # the caller may be gone
            self._connection.sendall(json.dumps(answer).encode())
            self._connection.shutdown(socket.SHUT_WR)  # the caller need not wait for our end

    def _receive(self) -> dict[str, Any]:
        self._connection.settimeout(REQUEST_DEADLINE)
        start, self._files = receive_files(self._connection, 1 << 16, 2)
        length, data = int.from_bytes(start[:4], "big"), bytearray(start[4:])
        if not start or length > REQUEST_BOUND:
            raise Fault(f"a request has 1 to {REQUEST_BOUND} bytes, not {length}")
        while len(data) < length:
            part = self._connection.recv(1 << 16)
            if not part:
                raise Fault("the request breaks off")
            data += part
        self._connection.settimeout(None)
        request: dict[str, Any] = json.loads(data)
        return request

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        kinds: dict[str, Callable[..., dict[str, Any]]] = {"hello": self.hello, "run": self.run, "disturb": self.disturb}
        return kinds[request.pop("kind")](**request)

    def hello(self) -> dict[str, Any]:
        """Whom programs run as, and where their control groups are; empty where there are none."""
        identity = self._identity
        return {"uid": identity.uid, "gid": identity.gid, "groups": identity.groups, "control_groups": self._groups.path}

    def run(self, argv: list[str], cwd: str, env: dict[str, str], cpus: list[int], timeout: float, limit: int) -> dict[str, Any]:
        """Run a program. Its standard output and error go to the two files sent along, or together to the one."""
        if limit < 1:
            raise Fault(f"output_limit must be 1 at least, not {limit}")
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        outputs = [Output(Ends(file, limit)) for file in self._files]
        chosen = frozenset(cpus) or self._cpus
        arrangement = Arrangement(self._identity, cwd, chosen, outputs[0].writer, outputs[-1].writer)
        with contextlib.closing(self._groups.make(os.getpid())) as group:
            program = Program(group, outputs, Wakeup())
            try:
                program.start(arrangement, argv, env)
                os.sched_setaffinity(0, self._cpus - chosen or self._cpus)
                ending = program.watch(self._connection, timeout)
            finally:
                program.finish()
            code = os.waitstatus_to_exitcode(program.status)
            return {"ending": ending, "code": code, "written": [output.ends.total for output in outputs], **program.usage()}

    def disturb(self, size: int, cpus: list[int]) -> dict[str, Any]:
        """Write through ``size`` bytes on one CPU, whose shared cache the others have too, and on each through its own."""
        block = bytes(1 << 20)
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            with contextlib.suppress(OSError):  # it only saves time
                memory.madvise(mmap.MADV_HUGEPAGE)
            for cpu in cpus or sorted(self._cpus):
                os.sched_setaffinity(0, {cpu})
                memory.seek(0)
                for _ in range(size // len(block)):
                    memory.write(block)
                size = min(size, PRIVATE_CACHE)
        return {}


class Server:
    """Makes a supervisor for each connection."""

    def __init__(self, server: socket.socket, friends: set[int], identity: Identity) -> None:
        self._server, self._friends, self._identity = server, friends, identity
        self._listens = bool(server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        self._groups = make_groups()
        self._cpus = all_cpus()
        self._wakeup = Wakeup()
        self._supervisors: set[int] = set()

    def serve(self) -> None:
        """Serve until the daemon closes its end; for ever where the socket listens."""
        files = [self._server.fileno(), self._wakeup.reader]
        is_open = True
        while is_open or self._supervisors:
            # with too many supervisors, or without a daemon, only their ends matter
            waits = not is_open or len(self._supervisors) >= CONCURRENT
            ready, _, _ = select.select(files[1:] if waits else files, [], [])
            if self._wakeup.reader in ready:
                self._bury()
            if self._server.fileno() in ready:
                is_open = self._take()
        self._groups.close()

    def _take(self) -> bool:
        """Take the next connection; False where none will come."""
        with contextlib.suppress(ConnectionError):
            connection = self._accept() if self._listens else self._receive()
            if not connection:
                return False
            with connection:
                self._supervise(connection)
        return True

    def _accept(self) -> socket.socket:
        connection, _ = self._server.accept()
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in self._friends:
            return connection
        _refuse(connection, f"user {uid} may not start programs here")
        raise ConnectionRefusedError

    def _receive(self) -> socket.socket | None:
        _, files = receive_files(self._server, 1, 1)
        return socket.socket(fileno=files[0]) if files else None

    def _supervise(self, connection: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _refuse(connection, f"no process can be made: {error.strerror}")
            return
        if pid:
            self._supervisors.add(pid)
            return
        self._server.close()
        status = 1
        try:
            Supervisor(connection, self._identity, self._groups, self._cpus).serve()
            status = 0
        finally:  # whatever happened: the loop that we were forked from is not ours
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)

    def _bury(self) -> None:
        """Bury the dead; where a supervisor died before its time, what it left dies too."""
        self._wakeup.clear()
        orphans = False
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = ended
                if pid in self._supervisors and status:
                    self._groups.sweep(pid)
                orphans |= status != 0 or pid not in self._supervisors
                self._supervisors.discard(pid)
        if orphans:
            kill_descendants(spare=tuple(self._supervisors))


def receive_files(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Up to ``size`` bytes and ``most`` files sent along; no program inherits them."""
    data, files, _, _ = socket.recv_fds(connection, size, most)
    for file in files:
        os.set_inheritable(file, False)
    return data, files


def _refuse(connection: socket.socket, why: str) -> None:
    with contextlib.suppress(OSError), connection:
        connection.sendall(json.dumps({"fault": why}).encode())


def all_cpus() -> frozenset[int]:
    """What we may use at most, whatever the daemon was pinned to."""
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, own)


def listed(cpus: frozenset[int]) -> str:
    """CPUs as the kernel lists them, such as ``0-3,8``."""
    ordered = sorted(cpus)
    firsts = [cpu for cpu in ordered if cpu - 1 not in cpus]
    lasts = [cpu for cpu in ordered if cpu + 1 not in cpus]
    return ",".join(f"{first}-{last}" if first < last else str(first) for first, last in zip(firsts, lasts, strict=True))


def find_user(name: str) -> pwd.struct_passwd:
    """Ends this process where the host has no such user."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        sys.exit(f"launcher: user {name} is not known on this host")


def main(arguments: list[str]) -> None:
    """Serve on the socket that is standard input, until the daemon closes its end; for ever where it listens.

    Args:
        arguments: ``user=NAME``, as whom programs run, and ``for=NAME``, who may ask beside root; without it who started this.
    """
    options = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := options.keys() - {"user", "for"}:
        sys.exit(f"launcher: {', '.join(sorted(unknown))}: expected user=NAME or for=NAME")
    identity = Identity(options.get("user", ""))
    friends = {0, find_user(options["for"]).pw_uid if "for" in options else os.geteuid()}
    os.dup2(0, SERVER, inheritable=False)
    os.closerange(SERVER + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what programs have as standard input
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NO_NEW_PRIVS, 1)  # else a set-user-ID program could not be killed
    Server(socket.socket(fileno=SERVER), friends, identity).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
