"""Works on a device for the daemon: what is kept, run, read and changed there. A program of the standard library alone.

Its source is sent to a bare ``python3 -IS`` on the device each time a session begins, so nothing of it is installed there.
Python 3.6 and Linux are enough; where the kernel lets it have a control group (version 2), it uses one.

A request is one line of JSON on standard input: ``{"id": number, "calls": [{"verb": …, arguments}, …]}``. Its calls are done
in order, up to one that fails. The answer is a line too: the result of the last call, with the request's ``id`` and, where
``sizes`` names some, so many bytes after the line. ``{"fault": text}`` answers what could not be done, ``{"refusal": text}``
what cannot be done whoever tries. Two requests are served at any time: ``{"ping": 1}`` is answered ``{"pong": 1}``, and
``{"cancel": id}`` has a program killed.

Where standard input ends, or brings nothing for ``silence`` seconds while a program runs, the program is killed with all
that it started, and we end. Our parent, the *guard*, does that for us where we are killed.
"""

# No future annotations, no walrus, no removeprefix: Python 3.6 is what many boards have.

import contextlib
import ctypes
import fcntl
import glob
import hashlib
import json
import mmap
import os
import pwd
import resource
import select
import shutil
import signal
import stat
import struct
import sys
import time

MYPY = False
if MYPY:  # typing alone takes milliseconds
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

KILL_DEADLINE = 10.0  # seconds from SIGKILL to the last process's end
TAKEOVER_DEADLINE = 5.0  # seconds that an earlier session is given to end
REPLACED = 75  # exit status of a session that a newer one in its directory has ended
PIPE_SIZE = 1 << 20  # bytes a program may print before it waits for us
DRAIN_BOUND = 4 << 20  # bytes read from one pipe before clock and caller are looked at again
REST = 0.02  # seconds between two looks at the output of a program that prints little
HASHED_AT_ONCE = 1 << 20  # bytes
PRIVATE_CACHE = 4 << 20  # bytes, at least the second level cache of one core
READ_BOUND = 64 << 10  # bytes of one file of /proc or /sys
OWN_MEMORY_MARGIN = 1 << 20  # bytes; a program's peak within it of ours may be ours
OOM_SCORE_ADJUSTMENT = "500"  # of 1000: where memory runs out a program dies before what it is run by
INCOMING = ".incoming"
GROUPS = "aibenchd-device-"  # how control groups of ours are named

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SYS_CLONE3 = 435  # on every architecture
CLONE_INTO_CGROUP = 0x200000000
_libc = ctypes.PyDLL(None, use_errno=True)  # the lock of the interpreter stays ours: a child begins with it
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]
_libc.syscall.restype = ctypes.c_long


class Fault(Exception):  # noqa: N818  it is told, not raised at a caller
    """What could not be done here and now."""


class Refusal(Exception):  # noqa: N818
    """What cannot be done at all."""


class Gone(BaseException):
    """The daemon is gone, or another session has taken our place, as ``status`` says, which we exit with."""

    def __init__(self, status: int = 0) -> None:
        super().__init__(status)
        self.status = status


class Caller:
    """The daemon at the other end.

    Attributes:
        heard: when it was last heard of, by our monotonic clock.
        cancelled: the request that it wants ended.
    """

    def __init__(self) -> None:
        self.reader, self._writer = os.dup(0), os.dup(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what programs have as standard input
        os.dup2(2, 1)  # nothing that strays there breaks the protocol
        os.set_blocking(self._writer, False)
        self.heard, self.cancelled, self.silence = time.monotonic(), 0, 3600.0
        self._data = b""
        self._requests = []  # type: list[dict[str, Any]]

    def next(self) -> "dict[str, Any]":
        """The next request, whenever it comes."""
        while not self._requests:
            self.receive()
        return self._requests.pop(0)

    def attend(self) -> None:
        """Take what is there, in the middle of what takes long."""
        while select.select([self.reader], [], [], 0)[0]:
            self.receive()

    def receive(self) -> None:
        """Take what comes next, blocking until something does; a ping is answered at once.

        Raises:
            Gone: nothing will come any more.
        """
        data = os.read(self.reader, 1 << 16)
        if not data:
            raise Gone
        self.heard = time.monotonic()
        lines = (self._data + data).split(b"\n")
        self._data = lines.pop()
        for line in lines:
            request = json.loads(line.decode())
            if "ping" in request:
                self.say({"pong": request["ping"]})
            elif "cancel" in request:
                self.cancelled = request["cancel"]
            else:
                self._requests.append(request)

    def say(self, answer: "dict[str, Any]", *payloads: bytes) -> None:
        """Send an answer, then the bytes that it announces. Blocking, up to ``silence`` seconds each time the channel is full.

        Raises:
            Gone: nobody takes it.
        """
        sizes = {"sizes": [len(payload) for payload in payloads]} if payloads else {}
        data = memoryview(b"".join([json.dumps(dict(answer, **sizes)).encode(), b"\n", *payloads]))
        while data:
            try:
                data = data[os.write(self._writer, data) :]
            except BlockingIOError:
                if not select.select([], [self._writer], [], self.silence)[1]:
                    raise Gone from None
            except OSError:
                raise Gone from None


# ---- processes


def prctl(option: int, value: int) -> None:
    """OSError where the kernel refuses."""
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def kill_descendants(of: int) -> None:
    """SIGKILL to all processes below one."""
    children = {}  # type: dict[int, list[int]]
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            # the command's name, in brackets, may hold anything
            parent = int(read(f"/proc/{name}/stat").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    waiting = [of]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            waiting.append(child)
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)


class Wakeup:
    """A file that is readable once a child has ended."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def clear(self) -> None:
        """Have it unreadable until the next child ends; never blocks."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)


class Output:
    """One stream of a program: a pipe, and what is kept of it, the first half of ``limit`` bytes and the last half."""

    def __init__(self, limit: int) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.reader, False)
        with contextlib.suppress(OSError):  # the user's pipes may be at their bound; then a program waits for us sooner
            fcntl.fcntl(self.writer, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_SIZE)
        self.is_open, self.total = True, 0
        self._first, self._last, self._limit = bytearray(), bytearray(), limit
        self._half = limit // 2

    def drain(self, bound: int) -> bool:
        """Keep what is there, about ``bound`` bytes at most; whether that was much."""
        start = self.total
        while self.is_open and self.total - start < bound:
            try:
                data = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                break
            self.is_open = bool(data)
            self._keep(data)
        return self.total - start > PIPE_SIZE // 4

    def kept(self) -> bytes:
        """All of it, else its two ends with a note between them of how many bytes were cut."""
        if self.total <= self._limit:
            return bytes(self._first + self._last)
        note = b"\n[%d bytes cut here]\n" % (self.total - self._limit)
        return bytes(self._first + note + self._last[-(self._limit - self._half) :])

    def close(self) -> None:
        """Read no more of it; what is kept stays."""
        os.close(self.reader)

    def _keep(self, data: bytes) -> None:
        self.total += len(data)
        room = self._half - len(self._first)
        self._first += data[:room]
        self._last += data[room:]
        if len(self._last) > 2 * self._limit:
            del self._last[: len(self._last) - self._limit]


class CloneArguments(ctypes.Structure):
    """``struct clone_args`` of clone3(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


class Group:
    """A control group of one program's own, where one can be made; ``path`` is empty where not."""

    def __init__(self) -> None:
        self.path, self._must_join = "", False
        with contextlib.suppress(OSError):
            for base in base_groups():
                path = os.path.join(base, f"{GROUPS}{os.getpid()}")
                with contextlib.suppress(OSError):
                    os.mkdir(path)
                    self.path = path
                    return

    def fork(self) -> int:
        """As os.fork(), with the child born into the group where that is allowed: to join it later takes 5 to 20 ms."""
        if not self.path:
            return os.fork()
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            arguments = CloneArguments(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=directory)
            pid = int(_libc.syscall(SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments)))
        finally:
            os.close(directory)
        if pid >= 0:
            return pid
        self._must_join = True
        return os.fork()

    def join(self) -> None:
        """In the child."""
        if self._must_join:
            write(os.path.join(self.path, "cgroup.procs"), "0")

    def kill(self) -> None:
        """SIGKILL to all of it, what is being forked too; does not wait for their end."""
        with contextlib.suppress(OSError):  # Linux before 5.14; they are killed as descendants too
            if self.path:
                write(os.path.join(self.path, "cgroup.kill"), "1")

    def cpu_seconds(self) -> float:
        """NaN where it is not known."""
        with contextlib.suppress(OSError, LookupError):
            facts = dict(line.split(" ", 1) for line in read(os.path.join(self.path, "cpu.stat")).splitlines())
            return int(facts["usage_usec"]) / 1e6
        return float("nan")

    def peak_bytes(self) -> float:
        """NaN where it is not known."""
        with contextlib.suppress(OSError):
            return float(read(os.path.join(self.path, "memory.peak")))
        return float("nan")

    def close(self) -> None:
        """Remove it; it stays while there is something in it."""
        with contextlib.suppress(OSError):  # what cannot be killed holds it, and has been told
            if self.path:
                os.rmdir(self.path)


def base_groups() -> "Iterator[str]":
    """Where groups of ours may go: the root of the hierarchy, whose controllers account for memory, and where we are."""
    mounts = [line.split() for line in read("/proc/self/mountinfo").splitlines() if " - cgroup2 " in line]
    own = [line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::")]
    if mounts and own:
        root, mountpoint = mounts[0][3].rstrip("/"), mounts[0][4]
        yield mountpoint
        if own[0].startswith(root):
            yield os.path.normpath(mountpoint + "/" + own[0][len(root) :])


class Counter:
    """Counts the instructions that all that this process starts retires outside the kernel."""

    _CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}  # noqa: RUF012
    _SIZE = 112  # of struct perf_event_attr, fifth version
    _FLAGS = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 12  # disabled, inherit, exclude_kernel, exclude_hv, enable_on_exec

    def __init__(self) -> None:
        call, self._file = self._CALLS.get(os.uname().machine), -1
        if call is not None:
            attributes = struct.pack("=IIQQQQQ", 0, self._SIZE, 1, 0, 0, 0, self._FLAGS).ljust(self._SIZE, b"\0")
            function = ctypes.PyDLL(None, use_errno=True).syscall  # another than _libc's, whose arguments are declared
            # this process, every CPU, no group, FD_CLOEXEC
            self._file = function(ctypes.c_long(call), attributes, *[ctypes.c_long(number) for number in (0, -1, -1, 8)])

    def total(self) -> float:
        """Of processes that have ended; NaN where the kernel does not count them, as on most virtual machines."""
        try:
            return float(struct.unpack("=Q", os.read(self._file, 8))[0])
        except (OSError, struct.error):
            return float("nan")

    def close(self) -> None:
        """Count no more."""
        if self._file >= 0:
            os.close(self._file)


class Program:
    """One program, from its start until nothing of it is left. We have no other children."""

    def __init__(self, wakeup: Wakeup, limit: int) -> None:
        self.outputs = [Output(limit), Output(limit)]
        self.status, self.seconds = -1, 0.0
        self._group, self._counter, self._wakeup = Group(), Counter(), wakeup
        self._pid, self._started, self._cpu_before, self._peak_before = 0, 0.0, 0.0, 0
        self._cpu, self._peak = 0.0, 0

    def start(self, argv: "list[str]", cwd: str, env: "dict[str, str]", cpus: "Iterable[int]") -> None:
        """Start it; returns once it is executed. That it could not be executed is its own failure."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._pid = self._group.fork()
        if not self._pid:
            self._become(argv, cwd, env, cpus, writer)
        os.close(writer)
        for output in self.outputs:
            os.close(output.writer)
        with open(reader, encoding="utf-8", errors="replace") as pipe:  # it ends as the program is executed
            report = pipe.read()
        if not report or report.startswith("!"):
            raise Fault(report[1:] or "its process died before it was executed")
        started, cpu, peak = report.split()
        self._started, self._cpu_before, self._peak_before = float(started), float(cpu), int(peak)

    def watch(self, caller: Caller, request: int, timeout: float) -> str:
        """Wait for its end, keeping its output meanwhile: ``ended``, ``timed out`` or ``cancelled``.

        Output is looked at only every REST seconds while there is little of it: what prints is being measured.
        """
        everything, urgent = select.poll(), select.poll()
        for file in (caller.reader, self._wakeup.reader):
            everything.register(file, select.POLLIN)
            urgent.register(file, select.POLLIN)
        for output in self.outputs:
            everything.register(output.reader, select.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if now > caller.heard + caller.silence:
                raise Gone
            if now > deadline:
                return "timed out"
            left = min(deadline, caller.heard + caller.silence) - now + 0.001
            ready = urgent.poll(min(left, REST) * 1000) if self._keep_output(everything) else []
            files = [file for file, _ in ready or everything.poll(min(left, 3600) * 1000)]
            if self._wakeup.reader in files and self._reap():
                return "ended"
            if caller.reader in files:
                caller.receive()
            if caller.cancelled == request:
                return "cancelled"

    def finish(self) -> None:
        """Kill what is left of it, and wait until all is gone."""
        deadline = time.monotonic() + KILL_DEADLINE
        while not self._gone():
            self._group.kill()
            kill_descendants(os.getpid())  # what has left its group, too
            if time.monotonic() > deadline:
                raise Fault(f"what program {self._pid} started cannot be killed: it waits in the kernel")
            time.sleep(0.0005)
        for output in self.outputs:
            output.drain(PIPE_SIZE)

    def usage(self) -> "dict[str, float]":
        """Once finished: ``seconds`` of wall time, ``cpu_seconds``, ``peak_bytes``, ``instructions``; NaN where not known."""
        cpu, peak = self._group.cpu_seconds(), self._group.peak_bytes()
        if peak != peak and self._peak > self._peak_before + OWN_MEMORY_MARGIN:
            peak = float(self._peak)
        return {
            "seconds": self.seconds,
            "cpu_seconds": max(0.0, (self._cpu if cpu != cpu else cpu) - self._cpu_before),
            "peak_bytes": peak,
            "instructions": self._counter.total(),
        }

    def close(self) -> None:
        """Give back what it was watched by; once it is finished, and ``usage`` was read."""
        for output in self.outputs:
            output.close()
        self._counter.close()
        self._group.close()

    def _keep_output(self, poll: "Any") -> bool:
        """Whether there was little of it."""
        much = False
        for output in self.outputs:
            was_open = output.is_open
            much = output.drain(DRAIN_BOUND) or much
            if was_open and not output.is_open:
                poll.unregister(output.reader)
        return not much

    def _reap(self) -> bool:
        """Bury the dead; whether the program itself is among them."""
        self._wakeup.clear()
        self._gone()
        return self.status >= 0

    def _gone(self) -> bool:
        """Bury the dead; whether none is left alive."""
        now = time.monotonic()
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if not pid:
                return False
            self._cpu += usage.ru_utime + usage.ru_stime
            self._peak = max(self._peak, usage.ru_maxrss << 10)
            if pid == self._pid:
                self.status, self.seconds = status, now - self._started

    def _become(self, argv: "list[str]", cwd: str, env: "dict[str, str]", cpus: "Iterable[int]", report: int) -> "NoReturn":
        """In the child: turn into the program."""
        try:
            self._group.join()
            self._arrange(cwd, frozenset(cpus))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            os.write(report, f"{time.monotonic()!r} {time.process_time()!r} {peak}".encode())
            execute(argv, env)
        except (Fault, OSError, ValueError, OverflowError) as error:
            os.write(report, (f"!{error}").encode())
        finally:  # whatever happened: what we were forked from is not ours
            os._exit(126)

    def _arrange(self, cwd: str, cpus: "frozenset[int]") -> None:
        os.setsid()
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Python ignores some, and whoever started us others: a program begins with none ignored, and none blocked.
        for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        write("/proc/self/oom_score_adj", OOM_SCORE_ADJUSTMENT)
        take_cpus(cpus)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            os.chdir(cwd)
        except OSError as error:
            raise Fault(f"{cwd} cannot be entered: {error.strerror}") from error
        os.dup2(self.outputs[0].writer, 1)
        os.dup2(self.outputs[1].writer, 2)


def take_cpus(cpus: "frozenset[int]") -> None:
    """Run on these alone from now on.

    Raises:
        Fault: not all of them can be had.
    """
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)
    missing = cpus - frozenset(os.sched_getaffinity(0))
    if missing:
        raise Fault(f"CPUs {listed(missing)} cannot be used: the device (or our cpuset) has {listed(all_cpus())}; mend cpus")


def execute(argv: "list[str]", env: "dict[str, str]") -> "NoReturn":
    """What cannot be executed fails as in a shell: by itself, told on its standard error."""
    try:
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        os.write(2, f"{argv[0]}: {reason}\n".encode(errors="surrogateescape"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def exit_code(status: int) -> int:
    """A status of wait(2) as an exit code, or a signal's number below zero."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


# ---- files


def read(path: str) -> str:
    """The first READ_BOUND bytes; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return file.read(READ_BOUND).decode("utf-8", "surrogateescape")


def write(path: str, text: str) -> None:
    """In place of what is there; OSError where it cannot be written."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def entries(root: str) -> "list[str]":
    """Paths below a directory, relative to it, sorted; links are not followed."""
    found = []
    for base, directories, files in os.walk(root):
        found += [os.path.relpath(os.path.join(base, name), root) for name in directories + files]
    return sorted(found)


def delete(path: str, attend: "Callable[[], None]") -> None:
    """A file, or a directory and all in it, whatever rights a program took from itself."""
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.chmod(path, 0o700)
    for base, directories, files in os.walk(path):
        attend()
        for name in files:
            os.unlink(os.path.join(base, name))
        for name in directories:
            below = os.path.join(base, name)
            if os.path.islink(below):
                os.unlink(below)
            else:
                os.chmod(below, 0o700)  # it is walked next
    shutil.rmtree(path)


def inside(root: str, path: str) -> str:
    """The real path of what lies below ``root``."""
    parent, name = os.path.realpath(os.path.dirname(path)), os.path.basename(path)
    if name in ("", ".", "..") or os.path.commonpath([root, parent]) != root:
        raise Refusal(f"{path}: not inside {root}")
    return os.path.join(parent, name)


class Digests:
    """Digests of files and trees, as the daemon computes them."""

    def __init__(self, attend: "Callable[[], None]") -> None:
        self._attend = attend

    def of(self, path: str, like: str) -> str:
        """In hexadecimal: MD5 where ``like`` is one, else SHA-256, as a tree's always is; empty for a link."""
        if os.path.islink(path):
            return ""
        return self._of_tree(path) if os.path.isdir(path) else self._of_file(path, "md5" if len(like) == 32 else "sha256")

    def _of_file(self, path: str, algorithm: str) -> str:
        total = hashlib.new(algorithm)
        with open(path, "rb", buffering=0) as file:
            data = file.read(HASHED_AT_ONCE)
            while data:
                total.update(data)
                self._attend()
                data = file.read(HASHED_AT_ONCE)
        return total.hexdigest()

    def _of_tree(self, root: str) -> str:
        total = hashlib.sha256()
        for name in entries(root):
            total.update(self._entry(os.path.join(root, name), name).encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def _entry(self, path: str, name: str) -> str:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return f"link {name}\0{os.readlink(path)}\n"
        if stat.S_ISDIR(mode):
            return f"directory {name}\n"
        return "{} {}\0{}\n".format("program" if mode & 0o111 else "file", name, self._of_file(path, "sha256"))


class Store:
    """What was pushed, as ``<digest>/<name>`` below ``root``, within ``limit`` bytes: the least recently used go first.

    A copy is hashed when it comes, and once more when a session first finds it there; from then on sizes, inodes and times
    are compared. Which was used last is counted, in their times of change: the device's clock may be anything.
    """

    def __init__(self, root: str, limit: int, attend: "Callable[[], None]") -> None:
        self._root, self._limit, self._attend = root, limit, attend
        self._digests = Digests(attend)
        self._known = {}  # type: dict[str, list[Any]]
        self._used = set()  # type: set[str]
        delete(os.path.join(root, INCOMING), attend)
        os.makedirs(os.path.join(root, INCOMING), mode=0o700)
        self._sizes = {name: self._size(name) for name in os.listdir(root) if name != INCOMING}

    def have(self, place: str, name: str, digest: str) -> "dict[str, Any]":
        """Where it is; and, where it is not there, where to put it: nothing is there."""
        target = os.path.join(self._root, place, name)
        if os.path.lexists(target) and target not in self._known and self._digests.of(target, digest) == digest:
            self._known[target] = signature(target)
        if os.path.lexists(target) and self._known.get(target) == signature(target):
            self._use(place)
            return {"path": target}
        incoming = os.path.join(self._root, INCOMING, name)
        delete(incoming, self._attend)
        return {"path": target, "incoming": incoming}

    def keep(self, place: str, name: str, digest: str) -> "dict[str, Any]":
        """Take what has come, if it is what it should be; else its digest is told."""
        incoming, target = (os.path.join(self._root, directory, name) for directory in (INCOMING, place))
        if not os.path.lexists(incoming):
            raise Fault(f"{incoming} is not there after it was sent: SFTP and commands see different directories")
        found = self._digests.of(incoming, digest)
        if found != digest:
            delete(incoming, self._attend)
            return {"found": found}
        settle(incoming)
        delete(target, self._attend)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        os.rename(incoming, target)
        self._known[target] = signature(target)
        self._sizes[place] = self._size(place)
        self._use(place)
        self._evict()
        return {}

    def _use(self, place: str) -> None:
        self._used.add(place)
        turn = 1 + max(int(os.stat(os.path.join(self._root, name)).st_mtime) for name in self._sizes)
        os.utime(os.path.join(self._root, place), (turn, turn))

    def _evict(self) -> None:
        """Never what this session has used: it may be in use."""
        total = sum(self._sizes.values())
        for place in sorted(set(self._sizes) - self._used, key=lambda name: os.stat(os.path.join(self._root, name)).st_mtime):
            if total <= self._limit:
                return
            delete(os.path.join(self._root, place), self._attend)
            total -= self._sizes.pop(place)

    def _size(self, place: str) -> int:
        root = os.path.join(self._root, place)
        return sum(os.lstat(os.path.join(root, name)).st_size for name in entries(root))


def signature(path: str) -> "list[Any]":
    """What a write to a file, or to any in a tree, would change: names, inodes, bytes, times in ns, modes."""
    found = [(path, os.lstat(path))] + [(name, os.lstat(os.path.join(path, name))) for name in entries(path)]
    return [(name, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_mode) for name, one in found]


def settle(path: str) -> None:
    """Nothing of it is to be written again."""
    for one in [path] + [os.path.join(path, name) for name in entries(path)]:
        mode = os.lstat(one).st_mode
        if stat.S_ISDIR(mode):
            os.chmod(one, 0o700)
        elif stat.S_ISREG(mode):
            os.chmod(one, 0o550 if mode & 0o111 else 0o440)


# ---- serving


class Server:
    """Does what is asked; the verbs are its public methods, and what they return is the answer."""

    def __init__(self, caller: Caller) -> None:
        self._caller, self._wakeup, self._request = caller, Wakeup(), 0
        self._cpus = all_cpus()
        self._directory, self._lock = "", -1
        self._store = None  # type: Store | None
        self._payloads = ()  # type: tuple[bytes, ...]

    def greet(self) -> None:
        """Say who we are, before anything is asked."""
        system = os.uname()
        self._caller.say(
            {
                "python": ".".join(map(str, sys.version_info[:3])),
                "user": user_name(),
                "boot": read("/proc/sys/kernel/random/boot_id").strip(),
                "kernel": system.release,
                "abi": system.machine,
                "cores": self._cores(),
                "cpus": sorted(self._cpus),
            }
        )

    def serve(self) -> "NoReturn":
        """Answer one request after the other, until Gone is raised."""
        while True:
            request = self._caller.next()
            self._request, self._payloads = request["id"], ()
            try:
                answer = {}  # type: dict[str, Any]
                for call in request["calls"]:
                    answer = getattr(self, call.pop("verb"))(**call) or {}
            except Refusal as error:
                answer = {"refusal": str(error)}
            except (Fault, OSError, ValueError, TypeError, LookupError) as error:
                answer = {"fault": str(error) or type(error).__name__}
            self._caller.say(dict(answer, id=self._request), *self._payloads)

    def open(self, directory: str, silence: float, store_size: int) -> "dict[str, Any]":
        """Have a directory to ourselves, with nothing left in ``work``; an earlier session that still has it is ended."""
        root = os.path.realpath(os.path.expanduser(directory))
        if root.split() != [root]:
            raise Fault(
                f"{root!r} has white space in it, which the commands of benchmarks would be cut at; name another directory"
            )
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._lock = take_over(os.path.join(root, "lock"))
        sweep_groups()
        self._directory, self._caller.silence = root, silence
        delete(self._work, self._caller.attend)
        os.makedirs(self._work, mode=0o700)
        programs = os.path.join(root, "programs")
        os.makedirs(programs, mode=0o700, exist_ok=True)
        self._store = Store(programs, store_size, self._caller.attend)
        return {"directory": root}

    def look(self, directory: str, cpus: "list[int]") -> "dict[str, Any]":
        """Bytes that are free in a directory, or where it would be made; a fault where programs could not work there."""
        path = os.path.realpath(os.path.expanduser(directory))
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            raise Fault(f"{path} is no directory and cannot be written to; name another directory")
        if not os.access(path, os.W_OK | os.X_OK):
            raise Fault(f"{path} cannot be written to by {user_name()}; name another directory, or give it that user")
        missing = frozenset(cpus) - self._cpus
        if missing:
            raise Fault(f"CPUs {listed(missing)} cannot be used: the device (or our cpuset) has {listed(self._cpus)}; mend cpus")
        found = os.statvfs(path)
        if not found.f_blocks:
            try_to_keep(path)
        return {"free": found.f_bavail * found.f_frsize, "place": path}

    def make(self, name: str) -> None:
        """An empty directory."""
        path = os.path.join(self._work, name)
        delete(path, self._caller.attend)
        os.mkdir(path, 0o700)

    def remove(self, path: str) -> None:
        """A file or directory below ``work``, where it is there.

        Raises:
            Refusal: it lies elsewhere.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            delete(inside(self._work, path), self._caller.attend)

    def have(self, **push: str) -> "dict[str, Any]":
        """As :meth:`Store.have`; after :meth:`open`."""
        assert self._store  # noqa: S101
        return self._store.have(**push)

    def keep(self, **push: str) -> "dict[str, Any]":
        """As :meth:`Store.keep`; after :meth:`open`."""
        assert self._store  # noqa: S101
        return self._store.keep(**push)

    def find(self, path: str) -> "dict[str, Any]":
        """A file that a program wrote: where it really is, and its size."""
        real = inside(self._directory, os.path.realpath(path))
        try:
            found = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            raise Refusal(f"{path}: the program has not written it") from None
        if not stat.S_ISREG(found.st_mode):
            raise Refusal(f"{path}: no plain file")
        os.chmod(real, found.st_mode | 0o400)
        return {"path": real, "size": found.st_size}

    def run(
        self, argv: "list[str]", cwd: str, env: "dict[str, str]", cpus: "list[int]", timeout: float, limit: int
    ) -> "dict[str, Any]":
        """Run a program; its standard output and error come after the answer."""
        if limit < 1:
            raise Fault(f"output_limit must be 1 at least, not {limit}")
        chosen = frozenset(cpus) or self._cpus
        program = Program(self._wakeup, limit)
        try:
            try:
                program.start(argv, cwd, env, chosen)
                os.sched_setaffinity(0, self._cpus - chosen or self._cpus)
                ending = program.watch(self._caller, self._request, timeout)
            finally:
                program.finish()
            self._payloads = tuple(output.kept() for output in program.outputs)
            return dict(program.usage(), ending=ending, code=exit_code(program.status))
        finally:
            program.close()

    def disturb(self, size: int, cpus: "list[int]") -> None:
        """Write through ``size`` bytes on one CPU, whose shared cache the others have too, and on each through its own."""
        block = bytes(1 << 20)
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            for cpu in cpus or sorted(self._cpus):
                take_cpus(frozenset([cpu]))
                memory.seek(0)
                for _ in range(size // len(block)):
                    memory.write(block)
                self._caller.attend()
                size = min(size, PRIVATE_CACHE)
        os.sched_setaffinity(0, self._cpus)

    def read(self, patterns: "list[str]") -> "dict[str, Any]":
        """The texts of files of /proc and /sys by their paths; what cannot be read is left out."""
        texts = {}
        for path in (path for pattern in patterns for path in glob.glob(pattern)):
            with contextlib.suppress(OSError):
                texts[path] = read(path)
        return {"texts": texts}

    def closed(self, paths: "list[str]") -> "dict[str, Any]":
        """Those of these files that we may not write."""
        return {"paths": [path for path in paths if not os.access(path, os.W_OK)]}

    def write(self, writes: "list[list[str]]") -> None:
        """Write texts to files of /sys, in order; of a file that is written twice, only the second time must succeed."""
        failed = {}  # type: dict[str, str]
        for path, _ in writes:
            if not os.path.normpath(path).startswith("/sys/"):
                raise Refusal(f"{path} is not below /sys")
        for path, text in writes:
            failed.pop(path, None)
            try:
                write(path, text)
            except OSError as error:
                failed[path] = f"{path} cannot be set to {text}: {error.strerror}"
        if failed:
            raise Fault("; ".join(failed.values()))

    def _cores(self) -> str:
        found = set()
        for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/topology"):
            with contextlib.suppress(OSError):
                found.add((read(path + "/physical_package_id"), read(path + "/core_id")))
        return f"{len(found) or len(self._cpus)} ({os.cpu_count()} threads)"

    @property
    def _work(self) -> str:
        return os.path.join(self._directory, "work")


def user_name() -> str:
    """Whom we run as; a number where it has no name."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def try_to_keep(path: str) -> None:
    """See whether a directory of a file system without a size takes files: some do, /proc and /sys do not.

    Raises:
        Fault: it does not.
    """
    probe = os.path.join(path, f".aibenchd-{os.getpid()}")
    try:
        os.mkdir(probe, 0o700)
        os.rmdir(probe)
    except OSError as error:
        raise Fault(f"{path} cannot be written to: nothing can be kept there; name another directory") from error


def all_cpus() -> "frozenset[int]":
    """Those that we could run on, also where our parent has kept us from some."""
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, own)


def listed(cpus: "frozenset[int]") -> str:
    """CPUs as the kernel lists them, such as ``0-3,8``."""
    ordered = sorted(cpus)
    firsts = [cpu for cpu in ordered if cpu - 1 not in cpus]
    lasts = [cpu for cpu in ordered if cpu + 1 not in cpus]
    return ",".join(f"{first}-{last}" if first < last else str(first) for first, last in zip(firsts, lasts))  # noqa: B905


def take_over(path: str) -> int:
    """Lock a file for as long as we live. Whoever has it is ended: the newer session is the one that is wanted."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for way in (None, signal.SIGUSR1, signal.SIGKILL):  # the last also where it was stopped
        holder = os.pread(file, 32, 0).decode()
        if way and holder.isdigit():
            if way == signal.SIGKILL:
                kill_descendants(int(holder))
            with contextlib.suppress(OSError):
                os.kill(int(holder), way)
        if locked(file, TAKEOVER_DEADLINE if way else 0.0):
            os.truncate(file, 0)
            os.pwrite(file, b"%d" % os.getpid(), 0)
            return file
    raise Fault(f"{path}: process {holder} works in this directory and cannot be ended; end it, or name another directory")


def locked(file: int, within: float) -> bool:
    """Have an exclusive lock on an open file; whether it was free within so many seconds. Blocking."""
    deadline = time.monotonic() + within
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def sweep_groups() -> None:
    """Remove the control groups of those who were killed, and what runs in them with nobody to supervise it."""
    with contextlib.suppress(OSError):
        for path in (path for base in base_groups() for path in glob.glob(os.path.join(base, GROUPS + "*"))):
            number = path.rpartition("-")[2]
            if number.isdigit() and not os.path.exists("/proc/" + number):
                with contextlib.suppress(OSError):
                    write(os.path.join(path, "cgroup.kill"), "1")
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def guard(supervisor: int) -> "NoReturn":
    """Wait for the supervisor's end, then kill what it left; the channel is its own."""
    null = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1):
        os.dup2(null, file)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(supervisor, signal.SIGTERM))
    ended, status = 0, 0
    while ended != supervisor:
        ended, status = os.waitpid(-1, 0)
    deadline = time.monotonic() + KILL_DEADLINE
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            while os.waitpid(-1, os.WNOHANG)[0]:  # raises where none is left: most often, and then /proc is not searched
                pass
            kill_descendants(os.getpid())
            time.sleep(0.001)
    os._exit(min(abs(exit_code(status)), 255))


def leave(number: int, _: "Any") -> "NoReturn":
    """For SIGTERM, and for SIGUSR1 by a newer session: raises Gone wherever we are, once."""
    for one in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)
    raise Gone(REPLACED if number == signal.SIGUSR1 else 0)


def main() -> None:
    """Be the guard in this process, and in a child of it the supervisor that answers on standard input and output."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getpid()
    supervisor = os.fork()
    if supervisor:
        guard(supervisor)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, leave)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # standard input ends then, too
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    try:
        server = Server(Caller())
        server.greet()
        server.serve()
    except Gone as gone:
        sys.exit(gone.status)


if __name__ == "__main__":
    main()
